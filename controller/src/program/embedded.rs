//! The agents that this `hop` carries, packed with zstd by the build script.

use std::io;

use super::Error;

const MIPS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hopd-mips.zst"));
const MIPSLE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hopd-mipsel.zst"));

/// The kinds of router that there is an agent for, by Go's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Arch {
    /// Big endian.
    Mips,
    /// Little endian.
    #[value(alias("mipsel"))]
    Mipsle,
}

impl Arch {
    /// GOARCH.
    pub fn goarch(self) -> &'static str {
        match self {
            Self::Mips => "mips",
            Self::Mipsle => "mipsle",
        }
    }

    /// The usual name of the architecture, as in QEMU's programs.
    pub fn machine(self) -> &'static str {
        match self {
            Self::Mips => "mips",
            Self::Mipsle => "mipsel",
        }
    }

    /// The agent's executable.
    ///
    /// # Errors
    /// [`Error::NoAgents`] in a development build without them.
    pub fn agent(self) -> Result<Vec<u8>, Error> {
        let packed = match self {
            Self::Mips => MIPS,
            Self::Mipsle => MIPSLE,
        };
        if packed.is_empty() {
            return Err(Error::NoAgents);
        }
        zstd::decode_all(packed).map_err(|error: io::Error| Error::Malformed {
            path: format!("the packed agent for {}", self.goarch()).into(),
            source: error.into(),
        })
    }
}
