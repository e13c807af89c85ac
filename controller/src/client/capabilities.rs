//! The capabilities of an agent, by the names that `docs/protocol.md` lists. `hop` never compares versions.

use hop_proto::v1::GetInfoResponse;

/// Jobs outlive a connection, and a controller can attach to them.
pub const ATTACH: &str = "attach";

/// The kernel of the router executes programs and their children by itself.
pub const NATIVE: &str = "native";

/// Output is compressed for a controller that asks for it.
pub const PACK: &str = "compress_output";

/// Input files can be put into the job's directory itself, and next to it.
pub const INPUT_PLACES: &str = "input_places";

/// The output of a detached job is kept as a log, which can be followed; the list of jobs has their outcomes; a controller
/// can let a job run on that was not detached.
pub const LOG: &str = "log";

/// Signals are counted and acknowledged.
pub const SIGNALS: &str = "signals";

/// The names that an agent has told.
#[derive(Clone, Debug, Default)]
pub struct Capabilities(Vec<String>);

impl Capabilities {
    /// Whether the agent has this capability.
    pub fn has(&self, capability: &str) -> bool {
        self.0.iter().any(|known| known == capability)
    }
}

impl From<Vec<String>> for Capabilities {
    fn from(names: Vec<String>) -> Self {
        Self(names)
    }
}

impl From<&GetInfoResponse> for Capabilities {
    fn from(info: &GetInfoResponse) -> Self {
        Self(info.capabilities.clone())
    }
}
