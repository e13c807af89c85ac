//! What goes wrong when a router is enrolled, looked after or let go: one variant a thing to say, with what to do about it.

use std::io;
use std::path::PathBuf;

use super::survey::Unsuitable;
use crate::ssh::{self, Said};

/// A failure of enrolment. Whatever it is, what was put on the router is gone again unless the text says otherwise.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say what the fields are")]
pub enum Error {
    #[error(transparent)]
    Ssh(#[from] ssh::Error),
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
    #[error("{cause}; and the old agent could not be put back on {host}")]
    NotRestored {
        cause: Box<crate::error::Error>,
        host: String,
        #[source]
        why: Box<Error>,
    },
    #[error("another enrolment of {host} is under way, or was cut off a moment ago")]
    UnderWay { host: String },
    #[error("cannot make a place for the ssh login")]
    NoPlace(#[source] io::Error),
}

impl Error {
    /// A word for machines, stable across versions; `docs/specification.md` lists them.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Ssh(_) | Self::NoPlace(_) => "ssh",
            Self::Unsuitable { .. } | Self::UnknownInit { .. } => "unsuitable",
            Self::NoFlash { .. } | Self::NothingPersistent { .. } | Self::NoOverlay { .. } => "no_flash",
            Self::StoreInRam { .. } | Self::StoreInFlash { .. } => "usage",
            Self::OtherWay { .. } | Self::OtherStore { .. } | Self::UnderWay { .. } => "enrolled_already",
            Self::Damaged { .. } => "damaged",
            Self::NotExecuted { .. } | Self::SelfTest { .. } => "self_test",
            Self::Step { .. } | Self::NotListening { .. } => "enrolment",
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
            Self::Ssh(ssh::Error::Malformed(_)) => "an IPv6 address with a port is written [ADDRESS]:PORT",
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
                Unsuitable::NotMips(_)
                | Unsuitable::NoO32
                | Unsuitable::OldKernel(_)
                | Unsuitable::NotInRam(_) => return None,
            },
            Self::NoFlash { .. } => "--until-reboot keeps everything in RAM",
            Self::NothingPersistent { .. } => {
                "enable JFFS2 or plug in a USB stick with ext4, because FAT and NTFS cannot keep a key private; or --until-reboot, which keeps everything in RAM"
            }
            Self::NoOverlay { .. } => {
                "has it just been flashed, or is it in failsafe mode? Reboot it; or --until-reboot, which keeps everything in RAM"
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
            Self::NotListening { .. } => "is the port taken? --port chooses another",
            Self::NoLogin { .. } => "`hop router add NAME [user@]host` enrols it over ssh",
            Self::NoAgent { .. } => "`hop router add NAME` brings it back",
            Self::NotUndone { .. } => {
                "it removes that by itself within a minute; if it reboots before that, `hop router add` and then `hop router remove` take it off"
            }
            Self::NotRestored { .. } => {
                "`hop router check` says what is there now; `hop router upgrade`, or `add` if it is gone, tries again"
            }
            Self::Step { .. } => return None,
        };
        Some(hint.to_owned())
    }
}
