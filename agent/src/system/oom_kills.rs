//! Which processes the kernel has killed because memory ran out.

use std::fs;

/// What is read of the kernel's log: of a killing, it writes some 4 kB.
const KERNEL_LOG_BYTES: usize = 16 * 1024;

/// Whether the kernel's log, as far as it goes back, has it that this process was killed because memory ran out.
pub fn log_has_kill(process: u32) -> bool {
    tells_of_killing(&kernel_log(), process)
}

/// The end of what the kernel has logged; nothing if this process may not read it (syslog(2)).
fn kernel_log() -> Vec<u8> {
    const READ_ALL: libc::c_int = 3;
    let mut log = vec![0; KERNEL_LOG_BYTES];
    // SAFETY: the kernel writes at most so many bytes to where they are.
    let length = unsafe { libc::klogctl(READ_ALL, log.as_mut_ptr().cast(), log.len() as libc::c_int) };
    log.truncate(usize::try_from(length).unwrap_or(0));
    log
}

/// "Killed process 42 (name)", in whatever words before it (mm/oom_kill.c, Linux 2.6 to 6).
fn tells_of_killing(log: &[u8], process: u32) -> bool {
    let killed = format!("Killed process {process} ");
    log.windows(killed.len()).any(|words| words == killed.as_bytes())
}

/// Processes that the kernel has killed because memory ran out since the boot (/proc/vmstat, Linux 4.13, if it counts events).
pub fn killed_by_kernel() -> Option<u64> {
    count_of_killed(&fs::read_to_string("/proc/vmstat").ok()?)
}

fn count_of_killed(vmstat: &str) -> Option<u64> {
    vmstat.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_without_kill_count_are_known() {
        assert_eq!(count_of_killed("nr_free_pages 1\noom_kill 3\nswpin 0\n"), Some(3));
        assert_eq!(count_of_killed("nr_free_pages 1\n"), None);
    }

    #[test]
    fn kernel_log_names_killed_process() {
        let log = b"<3>[   12.5] Out of memory: Kill process 42 (eat) score 900 or sacrifice child\n\
            <3>[   12.6] Killed process 42 (eat) total-vm:9kB, anon-rss:5kB, file-rss:0kB\n";
        assert!(tells_of_killing(log, 42));
        assert!(!tells_of_killing(log, 4) && !tells_of_killing(b"", 42));
    }
}
