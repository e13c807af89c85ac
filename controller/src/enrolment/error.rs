//! Errors of enrolling, maintaining and removing a router: one variant for each message and hint.

use std::io;
use std::path::{Path, PathBuf};

use hop_formats::size::Size;
use hop_proto::identity::Fingerprint;

use super::suitability::Unsupported;
use crate::client;
use crate::client::ssh::{self, RemoteMessage};
use crate::config;
use crate::config::enrolment::MalformedDestination;
use crate::path_error::PathError;
use crate::program;

/// A failure of enrolment. `hop` has removed its files from the router again unless the text says otherwise.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say what the fields are")]
pub enum Error {
    #[error(transparent)]
    Io(#[from] PathError),
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error(transparent)]
    Client(#[from] client::Error),
    #[error(transparent)]
    Program(#[from] program::Error),
    #[error(transparent)]
    Ssh(#[from] ssh::Error),
    #[error(transparent)]
    Destination(MalformedDestination),
    #[error("the login shell of {host} does not run `sh`")]
    NoShell { host: String, source: RemoteMessage },
    #[error("{host} cannot be a router of Hop: {why}")]
    Unsupported { host: String, why: Unsupported },
    #[error(
        "{host} has no space for an agent that survives a reboot: it needs {} on {}, and {} are free",
        Size(*.needed),
        .place.display(),
        Size(*.free)
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
    Away { name: String, host: String, why: Box<Error> },
    #[error("{} on {host} is not root's alone: another user could become root there through it, so hop did not touch it", .path.display())]
    Foreign { host: String, path: PathBuf },
    #[error(
        "{host} has an init system that Hop does not know ({init}), so an agent cannot be started at boot"
    )]
    UnknownInit { host: String, init: String },
    #[error("{host} has an agent already, at {}", .path.display())]
    OtherWay { name: String, host: String, path: PathBuf },
    #[error("the cache directory {cache_dir} would not survive a reboot of {host}: what is mounted at {} is RAM", .place.display())]
    CacheDirInRam { host: String, cache_dir: String, place: PathBuf },
    #[error(
        "the cache directory {cache_dir} would fill the flash of {host}: nothing else is mounted there than {}", .place.display()
    )]
    CacheDirInFlash { host: String, cache_dir: String, place: PathBuf },
    #[error("{host} has an agent already, which does not keep its programs in {cache_dir}")]
    OtherCacheDir { name: String, host: String, cache_dir: String },
    #[error("the agent arrived damaged: its digest is {found}, and not {expected}")]
    Damaged { expected: String, found: String },
    #[error("the agent does not run on {host}")]
    NotExecuted { host: String, source: RemoteMessage },
    #[error("the agent's self-test failed on {host}: {}", .failed.join("; "))]
    SelfTest { host: String, failed: Vec<String> },
    #[error("{step} failed on {host}")]
    Step { step: &'static str, host: String, source: RemoteMessage },
    #[error("the agent was started on {host} and does not listen")]
    NotListening { host: String, source: RemoteMessage },
    #[error("{cause}; so {name} was not removed")]
    NotRemoved {
        #[source]
        cause: Box<Error>,
        name: String,
    },
    #[error("{name} was not enrolled over ssh, so there is no login by which to reach it")]
    NoLogin { name: String },
    #[error("there is no agent on {host} any more")]
    NoAgent { name: String, host: String },
    #[error("{cause}; and what had been put on {host} could not be removed")]
    NotUndone {
        #[source]
        cause: Box<Error>,
        name: String,
        host: String,
    },
    #[error("{cause}; and the old agent is not known to be back on {host}")]
    NotRestored { cause: Box<Error>, name: String, host: String, source: RemoteMessage },
    #[error("{host} has no network interface named {interface}")]
    NoInterface { host: String, interface: String },
    #[error("it cannot be found out by which network interface ssh reaches {host}")]
    UnknownInterface { host: String, source: RemoteMessage },
    #[error("no key on the router's list is or is called {key}; there are: {known}")]
    UnknownKey { key: String, known: String },
    #[error("several keys on the router's list are called {key}")]
    AmbiguousKey { key: String },
    #[error("this is the key of this controller, which could not use {name} any more")]
    OwnKey { name: String },
    #[error("this is the only key on the list of {name}, which nobody could use any more")]
    OnlyKey { name: String },
    #[error("the agent of {name} has another key than the enrolled one: {found}")]
    OtherKey { name: String, found: Fingerprint },
    #[error("another enrolment of {host} is under way, or was cut off a moment ago")]
    UnderWay { host: String },
    #[error("interrupted by SIG{signal}")]
    Interrupted { signal: &'static str },
    #[error("cannot make a place for the ssh login")]
    NoPlace(#[source] io::Error),
}

impl Error {
    /// Puts a path and a verb to an error of the kernel: `.map_err(Error::io("read", &path))`.
    pub fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io(PathError { action, path: path.to_owned(), source })
    }
}
