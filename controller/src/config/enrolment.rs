//! How a router was enrolled, as the inventory keeps it: all that it takes to enrol it again without a question.

use std::ffi::OsString;
use std::path::PathBuf;

use hop_proto::identity::Fingerprint;
use serde::{Deserialize, Serialize};

/// How a router was enrolled: all that it takes to do it again without a question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolmentRecord {
    /// How long the agent stays.
    pub persistence: Persistence,
    /// Where an installed one is, as far as that was noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<PathBuf>,
    /// The port on which it listens.
    pub port: u16,
    /// True if the connection rides in an ssh channel.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub via_ssh: bool,
    /// Where this machine reaches it, if not at ssh's host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_address: Option<String>,
    /// The directory of its persistent store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_dir: Option<String>,
    /// The network interface on which it listens, or `any`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen_interface: Option<String>,
    /// The key that its agent is about to have, while that is exchanged: both are accepted.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "super::inventory::optional_text")]
    pub next_fingerprint: Option<Fingerprint>,
    /// What the user asked for where hop chooses otherwise; entries of earlier versions do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<Asked>,
    /// The login.
    pub ssh: Destination,
}

/// What the user asked for, where [`EnrolmentRecord`] has what came of it: an enrolment that is repeated asks for this.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// How long the agent was to stay; `None`: as long as it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistence: Option<Persistence>,
    /// The connection was to ride in an ssh channel.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub via_ssh: bool,
    /// The network interface on which it was to listen; `None`: the one by which ssh reached the router.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen_interface: Option<String>,
}

/// How long an agent stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Persistence {
    /// Everything is in RAM: nothing is written to flash, and a reboot ends it.
    UntilReboot,
    /// On flash or a disk: comes back after a reboot, and is started again when it dies.
    Install,
}

/// Where to log in, in ssh's own words. The inventory keeps it, so that a router can be enrolled again without a question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Destination {
    /// `[user@]host`, or the name of a `Host` in the user's configuration.
    pub host: String,
    /// `-p`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// `-i`, absolute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<PathBuf>,
    /// `-o`, each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// A destination that ssh's users do not write like that.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not [user@]host[:port]")]
pub struct MalformedDestination(pub String);

impl Destination {
    /// Reads `[user@]host[:port]`; an IPv6 address with a port is in brackets.
    ///
    /// # Errors
    /// [`MalformedDestination`].
    pub fn parse(text: &str) -> Result<Self, MalformedDestination> {
        let malformed = || MalformedDestination(text.to_owned());
        let (user, place) = match text.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, text),
        };
        let (host, port) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, rest)) => (host, Some(rest.strip_prefix(':').ok_or_else(malformed)?)),
            // More than one colon is an IPv6 address without a port.
            None if place.matches(':').count() == 1 => {
                place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port)))
            }
            None => (place, None),
        };
        let port = port.map(str::parse).transpose().map_err(|_| malformed())?;
        // A host that begins with a dash would be an option to ssh.
        if host.is_empty()
            || user == Some("")
            || host.starts_with('-')
            || text.starts_with('-')
            || port == Some(0)
        {
            return Err(malformed());
        }
        let host = user.map_or_else(|| host.to_owned(), |user| format!("{user}@{host}"));
        Ok(Self { host, port, identity: None, options: Vec::new() })
    }

    /// The options of an ssh command line that logs in there.
    pub fn arguments(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = Vec::new();
        if let Some(port) = self.port {
            words.extend(["-p".into(), port.to_string().into()]);
        }
        if let Some(identity) = &self.identity {
            words.extend(["-i".into(), identity.into()]);
        }
        words.extend(self.options.iter().flat_map(|option| ["-o".into(), option.into()]));
        words
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn destinations_parse_as_in_ssh() {
        for (text, host, port) in [
            ("desk", "desk", None),
            ("root@192.168.1.1", "root@192.168.1.1", None),
            ("root@127.0.0.1:2222", "root@127.0.0.1", Some(2222)),
            ("root@[fe80::1%eth0]:22", "root@fe80::1%eth0", Some(22)),
            ("[::1]", "::1", None),
            ("root@fd00::1", "root@fd00::1", None),
        ] {
            let destination = Destination::parse(text).unwrap();
            assert_eq!((destination.host.as_str(), destination.port), (host, port), "{text}");
        }
        for wrong in [
            "",
            "@host",
            "root@",
            "host:",
            "host:ssh",
            "host:0",
            "host:70000",
            "-oProxyCommand=x",
            "root@-x",
            "[::1]22",
        ] {
            assert!(Destination::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
