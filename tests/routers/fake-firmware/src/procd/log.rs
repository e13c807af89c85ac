//! logd and logread: a ring of lines, bounded in bytes, fed by /dev/log and by the output of services.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::console::{fail, print};
use crate::procd::ubus;

/// `logd -S 64`.
const CAPACITY: usize = 64 << 10;
/// Longer lines are cut, as logd cuts them.
const LINE: usize = 1024;

/// facility daemon, severity info.
pub const DAEMON_INFO: u32 = 30;
/// facility daemon, severity err.
pub const DAEMON_ERROR: u32 = 27;

/// The ring of the latest lines.
#[derive(Default)]
pub struct Ring {
    lines: VecDeque<String>,
    bytes: usize,
}

impl Ring {
    /// Adds a line, and returns it as `logread` prints it.
    pub fn add(&mut self, priority: u32, text: &str) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let mut line = format!("{} {}: {text}", date(now), name(priority));
        let mut end = line.len().min(LINE);
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        line.truncate(end);
        line.push('\n');
        self.bytes += line.len();
        self.lines.push_back(line.clone());
        while self.bytes > CAPACITY {
            self.bytes -= self.lines.pop_front().map_or(self.bytes, |line| line.len());
        }
        line
    }

    /// Adds a datagram of /dev/log: `<PRIORITY>Mon dd hh:mm:ss TAG: TEXT`. Like logd, it removes the first 16 bytes if the last of
    /// them is a space.
    pub fn add_datagram(&mut self, datagram: &str) -> String {
        let (priority, text) = split_priority(datagram.trim_end_matches(['\n', '\0']));
        self.add(priority, text.get(16..).filter(|_| text.as_bytes()[15] == b' ').unwrap_or(text))
    }

    /// All lines.
    pub fn text(&self) -> String {
        self.lines.iter().map(String::as_str).collect()
    }
}

fn split_priority(datagram: &str) -> (u32, &str) {
    let split = datagram.strip_prefix('<').and_then(|rest| rest.split_once('>'));
    match split.and_then(|(number, text)| Some((number.parse().ok()?, text))) {
        Some(split) => split,
        None => (13, datagram),
    }
}

fn name(priority: u32) -> String {
    const FACILITIES: [&str; 12] = [
        "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
    ];
    const SEVERITIES: [&str; 8] = ["emerg", "alert", "crit", "err", "warn", "notice", "info", "debug"];
    let facility = FACILITIES.get(priority as usize >> 3).copied().unwrap_or("local");
    format!("{facility}.{}", SEVERITIES[priority as usize & 7])
}

/// `Thu Jan  1 00:00:12 1970`
fn date(seconds: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [(&str, u64); 12] = [
        ("Jan", 31),
        ("Feb", 28),
        ("Mar", 31),
        ("Apr", 30),
        ("May", 31),
        ("Jun", 30),
        ("Jul", 31),
        ("Aug", 31),
        ("Sep", 30),
        ("Oct", 31),
        ("Nov", 30),
        ("Dec", 31),
    ];
    let days = seconds / 86400;
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let (mut year, mut day) = (1970, days);
    while day >= 365 + u64::from(leap(year)) {
        day -= 365 + u64::from(leap(year));
        year += 1;
    }
    let mut month = 0;
    while day >= MONTHS[month].1 + u64::from(month == 1 && leap(year)) {
        day -= MONTHS[month].1 + u64::from(month == 1 && leap(year));
        month += 1;
    }
    let time = seconds % 86400;
    format!(
        "{} {} {:2} {:02}:{:02}:{:02} {year}",
        DAYS[(days % 7) as usize],
        MONTHS[month].0,
        day + 1,
        time / 3600,
        time / 60 % 60,
        time % 60
    )
}

/// `logread [-f] [-e REGEXP]`
pub fn main(arguments: &[String]) -> ExitCode {
    let follow = arguments.iter().any(|word| word == "-f");
    let pattern = arguments.iter().position(|word| word == "-e").and_then(|index| arguments.get(index + 1));
    if let Some(pattern) = pattern {
        return filtered(follow, pattern);
    }
    let Ok(stream) = ubus::request("log", if follow { "follow" } else { "read" }, "{}") else {
        return fail("Failed to find log object: Not found");
    };
    for line in BufReader::new(stream).lines().skip(1) {
        let Ok(line) = line else { break };
        print(&format!("{line}\n"));
    }
    ExitCode::SUCCESS
}

/// Filters by a regular expression, with grep.
fn filtered(follow: bool, pattern: &str) -> ExitCode {
    let reader = Command::new("/sbin/logread").args(follow.then_some("-f")).stdout(Stdio::piped()).spawn();
    let Some(output) = reader.ok().and_then(|mut child| child.stdout.take()) else {
        return fail("logread: cannot start");
    };
    match Command::new("grep").args(["-E", "-e", pattern]).stdin(output).status() {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("logread: grep: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_have_logreads_format() {
        assert_eq!(date(12), "Thu Jan  1 00:00:12 1970");
        assert_eq!(date(951_782_400), "Tue Feb 29 00:00:00 2000");
        assert_eq!(date(1_709_251_199), "Thu Feb 29 23:59:59 2024");
    }

    #[test]
    fn the_ring_is_bounded() {
        let mut ring = Ring::default();
        for _ in 0..1000 {
            ring.add(DAEMON_INFO, &"ä".repeat(2000));
        }
        assert!(ring.text().len() <= CAPACITY);
    }

    #[test]
    fn dates_of_datagrams_are_removed() {
        let mut ring = Ring::default();
        let line = ring.add_datagram("<13>Jan  1 00:00:12 root: hello\n");
        assert!(line.ends_with(" user.notice: root: hello\n"), "{line}");
        assert!(ring.add_datagram("<x").ends_with(" user.notice: <x\n"));
    }
}
