//! What goes wrong when a router is enrolled, looked after or let go: one variant a thing to say, with what to do about it.

use std::io;
use std::path::PathBuf;

use hop_proto::identity::Fingerprint;

use super::survey::{Flavour, Unsuitable};
use crate::client::ssh::{self, Said};
use crate::config::enrolment::MalformedDestination;

/// A failure of enrolment. Whatever it is, what was put on the router is gone again unless the text says otherwise.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say what the fields are")]
pub enum Error {
    #[error(transparent)]
    Ssh(#[from] ssh::Error),
    #[error(transparent)]
    Destination(MalformedDestination),
    #[error("{host} cannot be a router of Hop: {why}")]
    Unsuitable { host: String, why: Unsuitable },
    #[error(
        "{host} has no room for an agent that survives a reboot: {needed} bytes are needed on {place}, and {free} are free"
    )]
    NoFlash { host: String, place: PathBuf, needed: u64, free: u64 },
    #[error(
        "nothing on {host} survives a reboot and has owners: there is no JFFS, and neither /opt nor a disk below /tmp/mnt with ext4 or the like"
    )]
    NothingPersistent { host: String },
    #[error(
        "nothing on {host} survives a reboot: its flash is not mounted, and what is written to / is in RAM"
    )]
    NoOverlay { host: String },
    #[error("nothing on {host} that survives a reboot can be written to: {} is mounted read-only", .place.display())]
    ReadOnly { host: String, place: PathBuf },
    #[error("nothing is mounted at {} on {host}", .place.display())]
    NotMounted { host: String, place: PathBuf },
    #[error("others than root can write to {} on {host}, and what is started at boot would be there", .place.display())]
    OpenToOthers { host: String, place: PathBuf },
    #[error("the agent is installed on {host}, and cannot be removed while what it is on is away: {why}")]
    Away { host: String, why: Box<Error> },
    #[error("{} on {host} is not root's alone: whoever made it could become root there by Hop, so it was not touched", .path.display())]
    Foreign { host: String, path: PathBuf },
    #[error(
        "{host} has an init system that Hop does not know ({init}), so an agent cannot be started at boot"
    )]
    UnknownInit { host: String, init: String },
    #[error("{host} has an agent already, at {}", .path.display())]
    OtherWay { host: String, path: PathBuf },
    #[error("the store {store} would not survive a reboot of {host}: what is mounted at {} is RAM", .place.display())]
    StoreInRam { host: String, store: String, place: PathBuf },
    #[error(
        "the store {store} would fill the flash of {host}: nothing else is mounted there than {}", .place.display()
    )]
    StoreInFlash { host: String, store: String, place: PathBuf },
    #[error("{host} has an agent already, which does not keep its programs in {store}")]
    OtherStore { host: String, store: String },
    #[error("the agent arrived damaged: its digest is {found}, and not {expected}")]
    Damaged { expected: String, found: String },
    #[error("the agent does not run on {host}")]
    NotExecuted { host: String, source: Said },
    #[error("the agent's self-test failed on {host}: {}", .failed.join("; "))]
    SelfTest { host: String, failed: Vec<String> },
    #[error("{step} failed on {host}")]
    Step { step: &'static str, host: String, source: Said },
    #[error("the agent was started on {host} and does not listen")]
    NotListening { host: String, source: Said },
    #[error("{name} was not enrolled over ssh, so there is no login by which to reach it")]
    NoLogin { name: String },
    #[error("there is no agent on {host} any more")]
    NoAgent { host: String },
    #[error("{cause}; and what had been put on {host} could not be removed")]
    NotUndone {
        #[source]
        cause: Box<crate::error::Error>,
        host: String,
    },
    #[error("{cause}; and the old agent is not known to be back on {host}")]
    NotRestored { cause: Box<crate::error::Error>, host: String, source: Said },
    #[error("{host} has no network interface named {interface}")]
    NoInterface { host: String, interface: String },
    #[error("it cannot be found out by which network interface ssh reaches {host}")]
    UnknownInterface { host: String, source: Said },
    #[error("no key on the router's list is or is called {key}; there are: {known}")]
    UnknownKey { key: String, known: String },
    #[error("several keys on the router's list are called {key}")]
    AmbiguousKey { key: String },
    #[error("this is the key of this controller, which could not use {name} any more")]
    OwnKey { name: String },
    #[error("this is the only key on the list of {name}, which nobody could use any more")]
    OnlyKey { name: String },
    #[error("the agent of {name} has another key than the one that was enrolled: {found}")]
    OtherKey { name: String, found: Fingerprint },
    #[error("another enrolment of {host} is under way, or was cut off a moment ago")]
    UnderWay { host: String },
    #[error("cannot make a place for the ssh login")]
    NoPlace(#[source] io::Error),
}

impl Error {
    /// A word for machines, stable across versions; `docs/specification.md` lists them.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Ssh(_) | Self::Destination(_) | Self::NoPlace(_) => "ssh",
            Self::Unsuitable { .. } | Self::UnknownInit { .. } => "unsuitable",
            Self::NoFlash { .. }
            | Self::NothingPersistent { .. }
            | Self::NoOverlay { .. }
            | Self::ReadOnly { .. }
            | Self::NotMounted { .. }
            | Self::OpenToOthers { .. }
            | Self::Away { .. } => "no_flash",
            Self::Foreign { .. } => "untrusted_path",
            Self::StoreInRam { .. } | Self::StoreInFlash { .. } => "usage",
            Self::OtherWay { .. } | Self::OtherStore { .. } | Self::UnderWay { .. } => "enrolled_already",
            Self::Damaged { .. } => "damaged",
            Self::NotExecuted { .. } | Self::SelfTest { .. } => "self_test",
            Self::Step { .. } | Self::NotListening { .. } => "enrolment",
            Self::UnknownKey { .. }
            | Self::AmbiguousKey { .. }
            | Self::NoInterface { .. }
            | Self::UnknownInterface { .. }
            | Self::OwnKey { .. }
            | Self::OnlyKey { .. } => "usage",
            Self::OtherKey { .. } => "wrong_key",
            Self::NoLogin { .. } => "no_login",
            Self::NoAgent { .. } => "no_agent",
            Self::NotUndone { cause, .. } | Self::NotRestored { cause, .. } => cause.reason(),
        }
    }

    /// What to do about it, if there is something.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Ssh(ssh::Error::Run(_)) => "install the OpenSSH client",
            Self::Ssh(ssh::Error::Failed { host, .. }) => {
                return Some(format!("does `ssh {host}` log in, with the same -i, -o and port?"));
            }
            Self::Destination(_) => "an IPv6 address with a port is written [ADDRESS]:PORT",
            Self::Ssh(ssh::Error::TooMuch { .. }) => {
                "does its login print something endless, or is it no router of yours?"
            }
            Self::NoPlace(_) => "is /tmp full?",
            Self::Unsuitable { why, .. } => match why {
                Unsuitable::NotRoot => "log in as root@HOST",
                Unsuitable::NoExec => "on the router: mount -o remount,exec /tmp",
                Unsuitable::NoRoom { .. } | Unsuitable::NoMemory { .. } => {
                    "free some memory: end a service or a package's daemon, or reboot it"
                }
                Unsuitable::OldKernel { flavour: Flavour::DdWrt, .. } => {
                    "install a K3.X build of DD-WRT for this model: those with K2.6 in their name run no agent and no Go"
                }
                Unsuitable::OldKernel { .. } => "install a newer firmware",
                Unsuitable::NoPromise { .. } => crate::error::LET_IT_PROMISE_MORE,
                Unsuitable::NotMips(_) | Unsuitable::NoO32 | Unsuitable::NotInRam(_) => return None,
            },
            Self::NoFlash { .. } => "--until-reboot keeps everything in RAM",
            Self::NothingPersistent { .. } => {
                "enable JFFS2 or plug in a USB stick with ext4, because FAT and NTFS cannot keep a key private; or --until-reboot, which keeps everything in RAM"
            }
            Self::NoOverlay { .. } => {
                "has it just been flashed, or is it in failsafe mode? Reboot it; or --until-reboot, which keeps everything in RAM"
            }
            Self::ReadOnly { .. } => {
                "is it in failsafe mode, or did a fault of its flash make it read-only (`dmesg` says)? Reboot it; or --until-reboot, which keeps everything in RAM"
            }
            Self::NotMounted { .. } => "plug the disk in, and wait until it is mounted",
            Self::OpenToOthers { place, .. } => {
                return Some(format!(
                    "on the router: chown 0:0 {0}; chmod go-w {0}; or --until-reboot, which keeps everything in RAM",
                    place.display()
                ));
            }
            Self::Away { .. } => {
                "reboot it, or plug its disk in, and try again; if the agent is gone for good, `hop router remove --forget NAME`"
            }
            Self::Foreign { path, .. } => {
                return Some(format!(
                    "on the router: `ls -ldn {0}` and of what is above says whose it is; `rm -r {0}` if nobody wants it, or chown 0:0 and chmod go-w if it is Hop's",
                    path.display()
                ));
            }
            Self::UnknownInit { .. } => "--until-reboot needs none",
            Self::StoreInRam { .. } | Self::StoreInFlash { .. } => {
                "is the medium there? A stick is mounted some seconds after the boot"
            }
            Self::OtherStore { .. } => {
                "`hop router remove` takes it off first; or leave out --store to share it"
            }
            Self::OtherWay { .. } => {
                "`hop router remove` takes it off first; or leave out --install and --until-reboot to share it"
            }
            Self::UnderWay { .. } => "wait a minute: one that was cut off is undone by then",
            Self::Damaged { .. } => "try again; if it happens twice, the router's memory is bad",
            Self::NotExecuted { .. } => {
                "the kernel refuses what it should run: please report it with the output of `hop router check`"
            }
            Self::SelfTest { .. } => {
                "this kernel breaks what programs need; please report it with the router's model and firmware"
            }
            // As musl and glibc say it, and listening.sh.
            Self::NotListening { source, .. } if source.0.contains("in use") => "--port chooses another one",
            Self::NotListening { source, .. } if source.0.starts_with("it listens on port") => {
                "--port says on which port it listens"
            }
            Self::NotListening { .. } => return None,
            Self::NoInterface { .. } => "`ls /sys/class/net` there lists them",
            Self::UnknownInterface { .. } => {
                "--listen-interface names the one on which the agent is to listen: br-lan, or any"
            }
            Self::UnknownKey { .. } => "KEY is a fingerprint, or the name behind it on the list",
            Self::AmbiguousKey { .. } => "name it by its fingerprint, which `hop key` shows there",
            Self::OwnKey { .. } | Self::OnlyKey { .. } => {
                "--force takes it off all the same; `hop router add` lets this controller in again by its login"
            }
            Self::OtherKey { .. } => "`hop router add` enrols it again, by its login",
            Self::NoLogin { .. } => "`hop router add NAME [user@]host` enrols it over ssh",
            Self::NoAgent { .. } => "`hop router add NAME` brings it back",
            Self::NotUndone { .. } => {
                "it removes that by itself within a minute; if it reboots before that, `hop router add` and then `hop router remove` take it off"
            }
            Self::NotRestored { .. } => {
                "if the connection broke, the router puts it back by itself within two minutes; `hop router check` says what is there then, and `hop router upgrade`, or `add` if it is gone, tries again"
            }
            Self::Step { .. } => return None,
        };
        Some(hint.to_owned())
    }
}
