//! The kernel's records of the processes that its OOM killer has killed.
//!
//! **Invariants:** where the kernel's log can be read, a process that somebody's signal killed does not count as an OOM
//! kill.

use std::fs;

/// Bytes to read of the kernel's log: it writes some 4 kB for each OOM kill.
const KERNEL_LOG_BYTES: usize = 16 * 1024;

/// The kernel's records of OOM kills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Killings {
    /// OOM kills of any process since boot, if the kernel counts them.
    count: Option<u64>,
    /// How often its log names this process as killed; `None` if the log cannot be read.
    named: Option<usize>,
}

impl Killings {
    /// Reads the current records, and those of this process in the log.
    pub fn read(process: u32) -> Self {
        let log = kernel_log();
        Self { count: killed_by_kernel(), named: log.map(|log| times_killed(&log, process)) }
    }

    /// True if the kernel killed the process between these records and `now`. A higher count proves that only where the
    /// log cannot be read: the kernel may have killed another process, and somebody's signal this one.
    pub fn is_victim(&self, now: &Self) -> bool {
        let has_counted = now.count.zip(self.count).map(|(now, before)| now > before);
        match (now.named, has_counted) {
            (_, Some(false)) => false,
            // The log may name an earlier process with this PID.
            (Some(times), _) => times > self.named.unwrap_or(0),
            (None, has_counted) => has_counted.unwrap_or(false),
        }
    }
}

/// The end of the kernel's log; `None` if this process may not read it, or if it is empty (syslog(2)).
fn kernel_log() -> Option<Vec<u8>> {
    const READ_ALL: libc::c_int = 3;
    let mut log = vec![0; KERNEL_LOG_BYTES];
    // SAFETY: the kernel writes at most as many bytes as the buffer has.
    let length = unsafe { libc::klogctl(READ_ALL, log.as_mut_ptr().cast(), log.len() as libc::c_int) };
    log.truncate(usize::try_from(length).ok().filter(|length| *length > 0)?);
    Some(log)
}

/// How often a log contains "Killed process 42 (name)", with any text before it (mm/oom_kill.c, Linux 2.6 to 6).
fn times_killed(log: &[u8], process: u32) -> usize {
    let killed = format!("Killed process {process} ");
    log.windows(killed.len()).filter(|words| *words == killed.as_bytes()).count()
}

/// Number of OOM kills since boot (/proc/vmstat, Linux 4.13, if it counts events).
fn killed_by_kernel() -> Option<u64> {
    count_of_killed(&fs::read_to_string("/proc/vmstat").ok()?)
}

fn count_of_killed(vmstat: &str) -> Option<u64> {
    vmstat.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_without_kill_count_is_detected() {
        assert_eq!(count_of_killed("nr_free_pages 1\noom_kill 3\nswpin 0\n"), Some(3));
        assert_eq!(count_of_killed("nr_free_pages 1\n"), None);
    }

    #[test]
    fn kernel_log_names_killed_process() {
        let log = b"<3>[   12.5] Out of memory: Kill process 42 (eat) score 900 or sacrifice child\n\
            <3>[   12.6] Killed process 42 (eat) total-vm:9kB, anon-rss:5kB, file-rss:0kB\n";
        assert_eq!([42, 4].map(|process| times_killed(log, process)), [1, 0]);
        assert_eq!(times_killed(b"", 42), 0);
    }

    #[test]
    fn kills_of_other_processes_are_ignored() {
        let killings = |count, named| Killings { count, named };
        let before = killings(Some(3), Some(0));
        assert!(before.is_victim(&killings(Some(4), Some(1))));
        // The kernel killed another process, and a signal this one.
        assert!(!before.is_victim(&killings(Some(4), Some(0))));
        assert!(!before.is_victim(&killings(Some(3), Some(0))));
        // The log names an earlier process with this PID.
        assert!(!killings(Some(3), Some(1)).is_victim(&killings(Some(3), Some(1))));
        // A kernel that does not count.
        assert!(killings(None, Some(1)).is_victim(&killings(None, Some(2))));
        assert!(!killings(None, Some(1)).is_victim(&killings(None, Some(1))));
        // A log that may not be read: only the count is available.
        assert!(killings(Some(3), None).is_victim(&killings(Some(4), None)));
        assert!(!killings(Some(3), None).is_victim(&killings(Some(3), None)));
        assert!(!killings(None, None).is_victim(&killings(None, None)));
    }
}
