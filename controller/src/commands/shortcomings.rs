//! What a router lacks that programs notice, and Hop cannot bring along: the right time, and a name server.

use std::fs;
use std::io::IsTerminal;
use std::time::{Duration, UNIX_EPOCH};

use hop_proto::v1::GetInfoResponse;

use crate::config::home::{Home, make_private};
use crate::console::say;

/// A clock before this, the beginning of 2025, has not been set since the router booted: this hop is younger.
const OLDEST_CLOCK: u64 = 1_735_689_600;

/// The date by a router's clock, if that cannot be right.
pub fn wrong_date(info: &GetInfoResponse) -> Option<String> {
    // An agent that does not tell says 0.
    (1..OLDEST_CLOCK).contains(&info.clock_s).then(|| date(info.clock_s))
}

/// A date by a router's clock, in RFC 3339; empty if there is none.
pub fn date(clock_s: u64) -> String {
    let time = UNIX_EPOCH.checked_add(Duration::from_secs(clock_s));
    // Beyond the year 9999, there is no such text.
    let time = time.filter(|_| (1..253_402_300_800).contains(&clock_s));
    time.map_or(String::new(), |time| humantime::format_rfc3339_seconds(time).to_string())
}

/// Says it once while the router is up, to somebody at a terminal; with -v each time.
pub fn tell(home: &Home, router: &str, info: &GetInfoResponse, verbose: bool) {
    let mut lines = Vec::new();
    if let Some(date) = wrong_date(info) {
        let now = UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
        lines.push(format!(
            "hop: the clock of {router} says {date}, so no TLS certificate is valid there yet"
        ));
        lines.push(format!("hint: on the router: date -s @{now}, or let ntpd set it"));
    }
    if info.lacks_resolver {
        lines.push(format!(
            "hop: {router} has no name server in /etc/resolv.conf, so programs find no host by its name"
        ));
        lines.push("hint: on the router: echo nameserver ADDRESS >/etc/resolv.conf".to_owned());
    }
    if lines.is_empty() || !verbose && (!std::io::stderr().is_terminal() || !is_news(home, router, info)) {
        return;
    }
    lines.iter().for_each(|line| say!("{line}"));
}

/// True for the first time since the router booted.
fn is_news(home: &Home, router: &str, info: &GetInfoResponse) -> bool {
    let file = home.cache().join("said").join(router);
    let state = format!("{} {}", info.boot_id, info.lacks_resolver);
    if fs::read_to_string(&file).is_ok_and(|said| said == state) {
        return false;
    }
    // If this fails, the next run says it again.
    let _ = make_private(&home.cache().join("said")).map(|()| fs::write(&file, state));
    true
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn info(clock_s: u64, boot_id: &str) -> GetInfoResponse {
        GetInfoResponse { clock_s, boot_id: boot_id.to_owned(), ..GetInfoResponse::default() }
    }

    #[test]
    fn clock_before_2025_is_wrong() {
        assert_eq!(wrong_date(&info(86_400, "")).unwrap(), "1970-01-02T00:00:00Z");
        assert_eq!((wrong_date(&info(0, "")), wrong_date(&info(OLDEST_CLOCK, ""))), (None, None));
        assert_eq!((date(0), date(u64::MAX)), (String::new(), String::new()));
    }

    #[test]
    fn shortcomings_are_news_once_a_boot() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::at(directory.path());
        let is_news = |router, boot| is_news(&home, router, &info(1, boot));
        assert!(is_news("desk", "one") && !is_news("desk", "one"));
        assert!(is_news("attic", "one") && is_news("desk", "two") && !is_news("attic", "one"));
    }
}
