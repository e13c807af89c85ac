//! Errors between this machine and an agent.

use std::io;
use std::path::Path;
use std::time::Duration;

use hop_proto::identity::Fingerprint;
use hop_proto::v1::ErrorReason;

use crate::config;
use crate::path_error::PathError;

/// A failure of the connection, or a refusal of the agent.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say what the fields are")]
pub enum Error {
    #[error(transparent)]
    Io(#[from] PathError),
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error("{router} at {address} cannot be reached")]
    Unreachable { router: String, address: String, source: io::Error },
    #[error("{router} at {address} cannot be reached; its agent was enrolled --until-reboot")]
    AgentGone { router: String, address: String, source: io::Error },
    #[error("{router} at {address} did not answer within {}", humantime::format_duration(*.after))]
    NoAnswer { router: String, address: String, after: Duration },
    #[error("{router} at {address} has another key than the enrolled one ({pinned})")]
    WrongKey { router: String, address: String, pinned: Fingerprint },
    #[error("{router} does not know this controller's key {own}")]
    NotAuthorized { router: String, own: Fingerprint },
    #[error("what answers at {address} is not hopd")]
    NotAnAgent { address: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("the agent of {router} and this hop are of incompatible releases")]
    Incompatible { router: String },
    #[error("{router} refused: {message}")]
    Refused { router: String, reason: ErrorReason, message: String },
    #[error("the connection to {router} was lost; the program's outcome is unknown")]
    Lost { router: String, source: Option<Box<dyn std::error::Error + Send + Sync>> },
    #[error("{router} was rebooted while the program ran; the program's outcome is unknown")]
    Rebooted { router: String },
    #[error("the agent of {router} was restarted, which killed the program")]
    AgentRestarted { router: String },
    #[error("{router} broke the protocol: {what}")]
    Protocol { router: String, what: &'static str },
    #[error("HOP_KEEP_CONNECTION={value}: {why}")]
    InvalidKeepConnection { value: String, why: String },
    #[error("this is not the control socket of {router}")]
    OtherPlace { router: String },
}

impl Error {
    /// Puts a path and a verb to an error of the kernel: `.map_err(Error::io("read", &path))`.
    pub fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io(PathError { action, path: path.to_owned(), source })
    }

    /// True if nothing but the way to the agent is wrong, so that it may be right again in a moment.
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::AgentGone { .. }
                | Self::NoAnswer { .. }
                | Self::NotAnAgent { .. }
                | Self::Lost { .. }
                | Self::Refused { reason: ErrorReason::TooManyConnections, .. }
        )
    }

    /// True if the router would have the capacity without the jobs that run there now.
    pub fn is_lack_of_capacity(&self) -> bool {
        use ErrorReason::{NoInodes, NoMemory, NoPromise, NoSpace, TooManyJobs};
        matches!(self, Self::Refused { reason: NoSpace | NoMemory | NoPromise | NoInodes | TooManyJobs, .. })
    }
}
