//! `hop virtual`.

use std::ffi::OsString;

use clap::{Args, Subcommand};

use crate::program::embedded::Arch;

/// `hop virtual`.
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub enum Virtual {
    /// Start a virtual router, if it does not run already
    Up(VirtualUp),
    /// End a virtual router, or all of them; what was written to its flash is gone
    Down {
        /// Which one
        name: Option<String>,
    },
    /// List the virtual routers
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Log in to a virtual router, or run a command there, with ssh
    Ssh {
        /// Which one
        name: String,
        /// What to run instead of a shell; the exit code is ssh's
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// Print what the serial console of a virtual router said
    Console {
        /// Which one
        name: String,
        /// Go on with what it says next, until it is ended
        #[arg(short, long)]
        follow: bool,
    },
    /// Reboot a virtual router, and wait until it is back, with its agent if that is installed
    Reboot {
        /// Which one
        name: String,
        /// Press the reset button, instead of typing `reboot` there
        #[arg(long)]
        hard: bool,
    },
}

/// `hop virtual up`.
#[derive(Args, Debug)]
pub struct VirtualUp {
    /// Only the agent, under qemu-user, for this machine
    #[arg(long, default_value = "mips", conflicts_with = "profile")]
    pub arch: Arch,
    /// A whole router, as this profile describes it: archer-a6, dir-505, f7d7302, fritzbox-7362sl, rut955, or one of
    /// your own in profiles/NAME.toml of the configuration directory
    #[arg(long)]
    pub profile: Option<String>,
    /// What to call it (default: as the profile is called)
    #[arg(long, requires = "profile")]
    pub name: Option<String>,
    /// Do not enrol it; print how to log in
    #[arg(long, requires = "profile")]
    pub bare: bool,
    /// Let its clock count instructions, 500 million a second, so that measurements repeat on a busy machine
    #[arg(long, requires = "profile")]
    pub counted_clock: bool,
}
