//! `hop virtual`.

use std::ffi::OsString;

use clap::{Args, Subcommand};

use crate::program::embedded::Arch;

/// `hop virtual`.
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub enum Virtual {
    /// Start a virtual router, unless it is running
    Up(VirtualUp),
    /// Stop a virtual router, and erase its flash
    Down {
        /// Its name (default: the only one)
        name: Option<String>,
        /// Stop all virtual routers
        #[arg(long, conflicts_with = "name")]
        all: bool,
    },
    /// List the virtual routers
    #[command(visible_alias = "ls")]
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Log in to a virtual router with ssh, or run a command there
    Ssh {
        /// Its name
        name: String,
        /// The command to run instead of a shell; the exit code is ssh's
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// Print the log of a virtual router's serial console
    Console {
        /// Its name
        name: String,
        /// Print new lines as they come, until the virtual router stops
        #[arg(short, long)]
        follow: bool,
    },
    /// Reboot a virtual router, and wait until it has booted and an installed agent answers
    Reboot {
        /// Its name
        name: String,
        /// Reset the machine, instead of running `reboot`
        #[arg(long)]
        hard: bool,
    },
}

/// `hop virtual up`.
#[derive(Args, Debug)]
pub struct VirtualUp {
    /// Start only the agent, under qemu-user, for this architecture; its programs see nothing of this machine but its network
    #[arg(long, default_value = "mips", conflicts_with = "profile")]
    pub arch: Arch,
    /// Let its programs use this machine's files and processes, with your rights
    #[arg(long, conflicts_with = "profile")]
    pub no_sandbox: bool,
    /// Start a whole router with this profile: archer-a6, dir-505, f7d7302, fritzbox-7362sl, rut955, or your own in
    /// profiles/NAME.toml of the configuration directory
    #[arg(long)]
    pub profile: Option<String>,
    /// Its name (default: the profile's)
    #[arg(long, requires = "profile")]
    pub name: Option<String>,
    /// Do not enrol it; print how to log in and how to enrol it
    #[arg(long, requires = "profile")]
    pub bare: bool,
    /// Make its clock count instructions, 500 million a second, so that measurements repeat on a busy machine
    #[arg(long, requires = "profile")]
    pub counted_clock: bool,
}
