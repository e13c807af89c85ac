//! The memory that a Linux system has available for programs, from /proc/meminfo and /proc/sys/vm (proc(5)).
//!
//! Both sides use it: the agent before it admits a job, and the controller before it installs an agent on a router.

/// File with the total, free and committed memory.
pub const MEMINFO: &str = "/proc/meminfo";
/// File with the kernel's lowest watermark.
pub const MIN_FREE_KBYTES: &str = "/proc/sys/vm/min_free_kbytes";
/// File with the kernel's overcommit mode; 2: it commits no more memory than it has.
pub const OVERCOMMIT_MEMORY: &str = "/proc/sys/vm/overcommit_memory";

/// The memory of a system at one moment, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// All memory that the kernel manages.
    pub total: u64,
    /// Memory that programs can allocate before the kernel kills one of them.
    ///
    /// This is the kernel's own estimate, MemAvailable (si_mem_available, mm/page_alloc.c), with two differences. It
    /// also works before Linux 3.14, and it counts down to the kernel's lowest watermark, `vm.min_free_kbytes`, where
    /// MemAvailable stops at the highest, which is half as much again. The kernel gives the memory between the two to
    /// programs as well, and only begins to drop its caches there; a caller that keeps a reserve of its own counts this
    /// memory as part of it. The difference matters: OpenWrt sets the watermark to 8 or 16 MiB, and then 4 or 8 MiB lie
    /// between the two.
    pub available: u64,
    /// The rest of the kernel's commit limit, CommitLimit less Committed_AS, if the kernel enforces that limit
    /// (`vm.overcommit_memory` is 2). DD-WRT enables this when it mounts a disk. An allocation or a fork beyond the
    /// limit fails with ENOMEM, however much memory is free.
    pub promisable: Option<u64>,
}

/// The kernel's settings of its memory, which stay as they are until somebody changes them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The kernel's lowest watermark, in bytes.
    pub lowest: u64,
    /// The kernel commits no more memory than it has.
    pub is_strict: bool,
}

impl Settings {
    /// Parses the contents of [`MIN_FREE_KBYTES`] and [`OVERCOMMIT_MEMORY`]. The first counts as 0 if it is missing; a
    /// value of the second other than 2 means that there is no commit limit.
    pub fn parse(min_free_kbytes: &str, overcommit_memory: &str) -> Self {
        Self { lowest: bytes(min_free_kbytes), is_strict: overcommit_memory.trim() == "2" }
    }
}

impl Memory {
    /// Parses the contents of [`MEMINFO`], [`MIN_FREE_KBYTES`] and [`OVERCOMMIT_MEMORY`]. A missing field of the first
    /// counts as 0; for the others see [`Settings::parse`].
    pub fn parse(meminfo: &str, min_free_kbytes: &str, overcommit_memory: &str) -> Self {
        let Settings { lowest, is_strict } = Settings::parse(min_free_kbytes, overcommit_memory);
        let field = |name: &str| {
            meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map_or(0, bytes)
        };
        // As in the kernel's estimate, half of a cache stays in use, but no more of it than the middle watermark.
        let middle = lowest.saturating_add(lowest / 4);
        let droppable = |cache: u64| cache - middle.min(cache / 2);
        // The kernel cannot drop files in tmpfs and ramfs, and has them on neither of these lists.
        let files = field("Active(file)").saturating_add(field("Inactive(file)"));
        let all = field("MemFree")
            .saturating_add(droppable(files))
            .saturating_add(droppable(field("SReclaimable")));
        Self {
            total: field("MemTotal"),
            available: all.saturating_sub(lowest),
            promisable: is_strict.then(|| field("CommitLimit").saturating_sub(field("Committed_AS"))),
        }
    }

    /// Memory that a program can allocate by both bounds: the smaller one of the two.
    pub fn least(&self) -> u64 {
        self.promisable.map_or(self.available, |promisable| promisable.min(self.available))
    }
}

/// Parses the number of kibibytes at the beginning of a text, and returns it in bytes.
fn bytes(text: &str) -> u64 {
    let kibibytes = text.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
    kibibytes.unwrap_or(0).saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = "MemTotal:          60000 kB\nMemFree:           30000 kB\nBuffers:            1000 kB\n\
        Cached:            20000 kB\nActive(file):       1000 kB\nInactive(file):     3000 kB\nUnevictable:       12000 kB\n\
        Shmem:              5000 kB\nSReclaimable:       1000 kB\nCommitLimit:       46000 kB\nCommitted_AS:      6000 kB\n";

    #[test]
    fn watermark_and_half_caches_are_unavailable() {
        let memory = Memory::parse(MEMINFO, "8192\n", "0\n");
        assert_eq!((memory.total, memory.promisable), (60_000 * 1024, None));
        // Half of each cache is available.
        assert_eq!(memory.available, (30_000 + 2_000 + 500 - 8_192) * 1024);
        // Where the watermarks are low, all of it except them.
        assert_eq!(Memory::parse(MEMINFO, "80", "").available, (30_000 + 3_900 + 900 - 80) * 1024);
        // Free memory alone is never increased.
        assert_eq!(Memory::parse("MemFree: 30000 kB\n", "8192", "0").available, (30_000 - 8_192) * 1024);
        assert_eq!(Memory::parse("MemFree: 100 kB\n", "8192", "0").available, 0);
    }

    #[test]
    fn strict_overcommit_bounds_available_memory() {
        let strict = Memory::parse(MEMINFO, "4096", "2\n");
        assert_eq!(strict.promisable, Some(40_000 * 1024));
        assert_eq!(strict.least(), strict.available);
        let committed = MEMINFO.replace("Committed_AS:      6000", "Committed_AS:     45000");
        assert_eq!(Memory::parse(&committed, "4096", "2").least(), 1_000 * 1024);
        let over = MEMINFO.replace("Committed_AS:      6000", "Committed_AS:     47000");
        assert_eq!(Memory::parse(&over, "4096", "2").promisable, Some(0));
        assert_eq!(Memory::parse(&over, "4096", "1").promisable, None);
    }

    #[test]
    fn huge_figures_do_not_overflow() {
        let text = format!(
            "MemTotal: {0} kB\nMemFree: {0} kB\nActive(file): {0} kB\nSReclaimable: {0} kB\n",
            u64::MAX
        );
        let memory = Memory::parse(&text, "0", "0");
        assert_eq!((memory.total, memory.available), (u64::MAX, u64::MAX));
        assert_eq!(Memory::parse(&text, &u64::MAX.to_string(), "2").least(), 0);
    }
}
