//! Why a program cannot run on a router.

use std::io;
use std::path::PathBuf;

use hop_formats::elf;

/// A failure of a program before it is sent.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say what the fields are")]
pub enum Error {
    #[error("{} cannot run on {router}: {why}", .program.display())]
    NotRunnable { program: PathBuf, router: String, why: NotRunnable },
    #[error("{path} has control characters in its name, which others would see on their terminals")]
    ControlCharacters { path: String },
    #[error(
        "the program needs {needed} bytes of writable memory at its start, and the kernel of {router} commits only \
         {available} more, because its vm.overcommit_memory is 2"
    )]
    NotPromised { router: String, needed: u64, available: u64 },
    #[error("this hop carries no agents")]
    NoAgents,
    #[error("{} cannot be read", .path.display())]
    Malformed { path: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
}

/// Why a file is not a program for this router.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say what the fields are")]
pub enum NotRunnable {
    #[error("{0}")]
    Unreadable(#[from] io::Error),
    #[error("{0}")]
    NotAProgram(#[from] elf::Error),
    #[error("it is for {program}, and the router is {router}")]
    OtherMachine { program: elf::Target, router: elf::Target },
    #[error("it uses an FPU, and the router has none")]
    HardFloat,
    #[error("it is dynamically linked and wants {0}, which the router does not have")]
    Dynamic(String),
}
