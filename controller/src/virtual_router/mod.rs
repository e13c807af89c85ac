//! Virtual routers, which run on this machine under QEMU.
//!
//! Two kinds. [`user`]: the agent alone, under qemu-user in a [`sandbox`], ready in a second. [`machine`]: a whole router, with a
//! kernel, a flash, dropbear and the habits of its firmware; a [`profile`] describes it, [`image`] makes its files, and
//! [`monitor`] does what a user would do by hand, such as pressing its reset button.
//!
//! **Invariants:** starting one twice is starting it once, and hop kills only processes that it has started.

mod console;
mod error;
pub mod image;
pub mod machine;
pub mod monitor;
mod process;
pub mod profile;
mod qemu;
mod sandbox;
pub mod user;

pub use self::error::Error;

use std::fs::File;

pub use user::{down, is_running, isolation, name, unknown, up};

use crate::config::home::{Home, make_private};

/// How a request for a virtual router ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Up {
    /// It was started.
    Started,
    /// It ran already.
    Running,
}

/// What keeps the programs of an agent under qemu-user from this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// A root file system and processes of their own. The network is this machine's.
    Sandbox,
    /// Nothing: they have the user's rights and files.
    None,
}

/// One `hop` at a time starts or ends virtual routers. The lock is on a directory that is never removed.
fn lock(home: &Home) -> Result<File, Error> {
    let directory = home.virtual_routers();
    make_private(&directory)?;
    let file = File::open(&directory).map_err(Error::io("open", &directory))?;
    file.lock().map_err(Error::io("lock", &directory))?;
    Ok(file)
}
