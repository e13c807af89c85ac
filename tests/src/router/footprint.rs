//! What a process holds of its router: memory, open files, child processes.

/// What a process holds at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// Memory that is nobody else's, in kB: RssAnon of proc_pid_status(5). What it maps of its own file is not in it.
    pub memory: u64,
    /// The most that it ever had in RAM, in kB, its own file included: VmHWM.
    pub peak: u64,
    /// Open file descriptors.
    pub descriptors: usize,
    /// Its child processes, those included that have ended and that it has not looked after.
    pub children: usize,
}

impl Footprint {
    /// That of the process with this number, where `sh` runs a script and gives what it prints.
    pub(crate) fn of(sh: impl Fn(&str) -> String, pid: &str) -> Self {
        let status = sh(&format!("cat /proc/{pid}/status"));
        let kilobytes = |name: &str| field(&status, name).split(' ').next().unwrap().parse().unwrap();
        let descriptors = sh(&format!("ls /proc/{pid}/fd")).lines().count();
        // One that ends while it is looked at has no status any more.
        let all = sh("cat /proc/[0-9]*/status 2>/dev/null; true");
        let children =
            all.lines().filter(|line| line.strip_prefix("PPid:").map(str::trim) == Some(pid)).count();
        Self { memory: kilobytes("RssAnon"), peak: kilobytes("VmHWM"), descriptors, children }
    }
}

/// The value of a field in the status of a process.
fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let mut values = status.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    values.next().unwrap_or_else(|| panic!("{status} has {name}")).trim()
}
