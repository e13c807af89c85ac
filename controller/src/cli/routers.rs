//! `hop router` and `hop key`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use hop_proto::identity::Fingerprint;
use hop_proto::limits::DEFAULT_PORT;

use crate::client::connection::DEFAULT_TIMEOUT;
use crate::client::mux;

/// `hop key`.
#[derive(Args, Debug)]
pub struct Key {
    /// What to do with it, if not to show it.
    #[command(subcommand)]
    pub command: Option<KeyCommand>,
}

/// What can be done with this controller's key.
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub enum KeyCommand {
    /// Make a new key, and exchange it for the old one on all routers. If it is cut off, or a router is away, do it again
    Rotate {
        /// Leave this router out: `hop router add` lets the new key in there later
        #[arg(long, value_name = "ROUTER")]
        skip: Vec<String>,
    },
}

/// `hop router`.
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub enum Router {
    /// Enrol a router over ssh: put an agent on it and exchange keys; again, without further words, after its reboot
    Add(Box<Add>),
    /// List the routers that are enrolled
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what a router is and what its agent can do, as `hop info` does
    Info {
        /// Which one
        name: Option<String>,
        /// Give up if the router has not answered in this time
        #[arg(long, value_name = "DURATION", default_value_t = DEFAULT_TIMEOUT.into())]
        connect_timeout: humantime::Duration,
        /// Leave the connection open for the commands that come next, as `hop info` does
        #[arg(long, value_name = "DURATION", value_parser = mux::duration)]
        keep_connection: Option<Duration>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Look at a router by ssh and by its agent, and say what is wrong (exit code 1) and what to do
    Check {
        /// Which one
        name: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Replace a router's agent by that of this hop; its jobs end, its key stays
    Upgrade {
        /// Which one
        name: Option<String>,
    },
    /// Take the agent off a router, so that nothing of Hop is left there, and forget the router
    Remove {
        /// Which one
        name: String,
        /// Also if other controllers use the agent
        #[arg(long)]
        all: bool,
        /// Only forget it here; the router is not asked
        #[arg(long, conflicts_with = "all")]
        forget: bool,
    },
    /// Close the connection to a router that --keep-connection has left; commands that use it may end first
    Disconnect {
        /// Which one
        name: Option<String>,
    },
    /// Let another controller use a router
    Authorize {
        /// Which router
        name: String,
        /// What `hop key` shows there
        fingerprint: Fingerprint,
        /// Whose it is, for people
        comment: Option<String>,
    },
    /// Take a controller off the list of those that may use a router; its connections and jobs there end at once
    Revoke {
        /// Which router
        name: String,
        /// Whose key: a fingerprint, or the name behind it on the router's list
        key: String,
        /// Also if it is this controller's own key, or the only one
        #[arg(long)]
        force: bool,
    },
    /// Give a router's agent another key; what runs there goes on. If it is cut off, do it again
    Rekey {
        /// Which router
        name: String,
    },
}

/// `hop router add`.
#[derive(Args, Debug)]
#[command(after_help = ADD_AFTER_HELP)]
pub struct Add {
    /// What to call it
    pub name: String,
    /// [user@]host[:port], or a Host of ~/.ssh/config (default: as it was enrolled before)
    #[arg(value_name = "DESTINATION")]
    pub destination: Option<String>,
    /// Where this machine reaches the agent, if not at ssh's host
    #[arg(long, value_name = "HOST:PORT")]
    pub agent_address: Option<String>,
    /// Let connections ride in ssh; the agent listens on the router's loopback only
    #[arg(long)]
    pub via_ssh: bool,
    /// The port on which the agent listens
    #[arg(long, default_value_t = DEFAULT_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    /// Let the agent listen on this network interface of the router, or on `any` (default: the one by which ssh comes there),
    /// and on its loopback
    #[arg(long, value_name = "INTERFACE", conflicts_with = "via_ssh", value_parser = interface)]
    pub listen_interface: Option<String>,
    /// Keep everything in RAM: nothing is written to flash, and a reboot ends it
    #[arg(long)]
    pub until_reboot: bool,
    /// Put the agent on flash, from where it comes back after a reboot
    #[arg(long, conflicts_with = "until_reboot")]
    pub install: bool,
    /// Keep programs in this directory of a stick or a card too, so that they need not be sent again after a reboot; they
    /// are copied into RAM to run
    #[arg(long, value_name = "DIRECTORY", value_parser = cache_dir)]
    pub cache_dir: Option<String>,
    /// An option for ssh, as ssh's own -o
    #[arg(short = 'o', value_name = "SSH_OPTION")]
    pub options: Vec<String>,
    /// A key for ssh, as ssh's own -i
    #[arg(short = 'i', value_name = "KEY")]
    pub identity: Option<PathBuf>,
    /// Without ssh: the key of an agent that knows this controller already, reached at --agent-address
    #[arg(long, requires = "agent_address", conflicts_with_all = ["destination", "cache_dir", "via_ssh", "listen_interface", "until_reboot", "install", "options", "identity"])]
    pub fingerprint: Option<Fingerprint>,
}

const ADD_AFTER_HELP: &str = "\
Without --install and --until-reboot the agent is installed if flash has room for it. ssh is the system's: its \
configuration, agent, jump hosts and passwords work as usual.";

/// Reads the name of a network interface: what Linux allows (dev_valid_name) and a script takes as a word.
fn interface(text: &str) -> Result<String, String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
    if (1..16).contains(&text.len()) && text.chars().all(is_name) && !text.starts_with(['-', '.']) {
        return Ok(text.to_owned());
    }
    Err("it has at most 15 letters, digits and -_.@".to_owned())
}

/// Reads a directory of a router that its shells and its configuration can name.
fn cache_dir(text: &str) -> Result<String, String> {
    let path = text.trim_end_matches('/');
    if path.len() < 2 || !path.starts_with('/') || path.contains(|c: char| c.is_control() || c == '\'') {
        return Err("it must be an absolute path on the router, without a quote".to_owned());
    }
    Ok(path.to_owned())
}
