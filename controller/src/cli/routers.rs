//! `hop router` and `hop key`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use hop_proto::identity::Fingerprint;

use crate::client::connection::DEFAULT_TIMEOUT;
use crate::client::mux;

/// `hop key`.
#[derive(Args, Debug)]
pub struct Key {
    /// What to do with the key; without it, show its fingerprint.
    #[command(subcommand)]
    pub command: Option<KeyCommand>,
}

/// Commands for this controller's key.
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub enum KeyCommand {
    /// Replace the key by a new one on all routers. If it is interrupted, or a router is offline, run it again
    Rotate {
        /// Skip this router: `hop router add` authorizes the new key there later
        #[arg(long, value_name = "ROUTER")]
        skip: Vec<String>,
    },
}

/// `hop router`.
#[derive(Debug, Subcommand)]
#[command(
    disable_help_subcommand = true,
    after_help = "NAME may also be given as -r NAME, as with other commands."
)]
pub enum Router {
    /// Enrol a router over ssh: install an agent and exchange keys. After a reboot, NAME alone enrols it again
    Add(Box<Add>),
    /// List the routers that are enrolled
    #[command(visible_alias = "ls")]
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a router the default for commands that name none; -r and HOP_ROUTER override it
    Use {
        /// The router's name; without it, print the default
        name: Option<String>,
        /// Have no default
        #[arg(long, conflicts_with = "name")]
        unset: bool,
    },
    /// Show a router's hardware, memory and agent capabilities, as `hop info` does
    Info {
        /// The router's name (default: HOP_ROUTER, else that of `hop router use`, else the only one)
        name: Option<String>,
        /// Time limit for connecting to the router
        #[arg(long, value_name = "DURATION", default_value_t = DEFAULT_TIMEOUT.into())]
        connect_timeout: humantime::Duration,
        /// Keep the connection open in the background, as `hop info` does
        #[arg(long, value_name = "DURATION", value_parser = mux::duration)]
        keep_connection: Option<Duration>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Diagnose a router over ssh and through its agent; exit code 1 if something is wrong
    Check {
        /// The router's name (default: HOP_ROUTER, else that of `hop router use`, else the only one)
        name: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Replace a router's agent by this hop's version; kills its jobs, keeps its key
    Upgrade {
        /// The router's name (default: HOP_ROUTER, else that of `hop router use`, else the only one)
        name: Option<String>,
    },
    /// Give a router another name here; nothing changes on the router
    Rename {
        /// The router's name
        name: String,
        /// Its new name
        new_name: String,
    },
    /// Uninstall the agent, remove all of Hop's files from the router, and forget the router
    #[command(visible_alias = "rm")]
    Remove {
        /// The router's name
        name: String,
        /// Uninstall the agent even if other controllers use it
        #[arg(long)]
        all: bool,
        /// Only forget it here, without connecting to the router
        #[arg(long, conflicts_with = "all")]
        forget: bool,
    },
    /// Close the connection that --keep-connection left open, once the commands that use it have finished
    Disconnect {
        /// The router's name (default: HOP_ROUTER, else that of `hop router use`, else the only one)
        name: Option<String>,
    },
    /// Let another controller use a router
    Authorize {
        /// The router's name
        name: String,
        /// The fingerprint that `hop key` prints there
        fingerprint: Fingerprint,
        /// A comment for the router's list of keys, such as the owner's name
        comment: Option<String>,
    },
    /// Revoke a controller's key on a router; the agent kills its connections and jobs at once
    Revoke {
        /// The router's name
        name: String,
        /// The key: a fingerprint, or its comment on the router's list
        key: String,
        /// Revoke it even if it is this controller's own key, or the only one
        #[arg(long)]
        force: bool,
    },
    /// Replace the agent's key by a new one; jobs keep running. If it is interrupted, run it again
    Rekey {
        /// The router's name
        name: String,
    },
}

/// `hop router add`.
#[derive(Args, Debug)]
#[command(after_help = ADD_AFTER_HELP)]
pub struct Add {
    /// The router's name in the inventory
    pub name: String,
    /// [user@]host[:port], or a Host of ~/.ssh/config (default: that of the last enrolment, with its options, which those given
    /// now replace one by one)
    #[arg(value_name = "DESTINATION")]
    pub destination: Option<String>,
    /// The agent's address as seen from here (default: ssh's host, and --port)
    #[arg(long, value_name = "HOST:PORT")]
    pub agent_address: Option<String>,
    /// Tunnel connections through ssh; the agent listens on the router's loopback only
    #[arg(long)]
    pub via_ssh: bool,
    /// The port on which the agent listens (default: 4670)
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// The router's network interface on which the agent listens, besides the loopback, or `any` (default: the one that ssh's
    /// connection uses)
    #[arg(long, value_name = "INTERFACE", conflicts_with = "via_ssh", value_parser = interface)]
    pub listen_interface: Option<String>,
    /// Keep everything in RAM: write nothing to flash; a reboot removes the agent
    #[arg(long)]
    pub until_reboot: bool,
    /// Install the agent on flash, so that it starts again after a reboot
    #[arg(long, conflicts_with = "until_reboot")]
    pub install: bool,
    /// Also cache programs in this directory of a USB stick or an SD card, so that they need not be uploaded again after a
    /// reboot; the agent copies them into RAM to run them
    #[arg(long, value_name = "DIRECTORY", value_parser = cache_dir)]
    pub cache_dir: Option<String>,
    /// An option for ssh, as ssh's own -o
    #[arg(short = 'o', value_name = "SSH_OPTION")]
    pub options: Vec<String>,
    /// A key for ssh, as ssh's own -i
    #[arg(short = 'i', value_name = "KEY")]
    pub identity: Option<PathBuf>,
    /// Without ssh: the key of an agent that already authorizes this controller, at --agent-address
    #[arg(long, requires = "agent_address", conflicts_with_all = ["destination", "cache_dir", "via_ssh", "listen_interface", "until_reboot", "install", "options", "identity"])]
    pub fingerprint: Option<Fingerprint>,
}

const ADD_AFTER_HELP: &str = "\
Without --install and --until-reboot, hop installs the agent if flash has enough space. hop runs the system's ssh: your \
configuration, ssh-agent, jump hosts and passwords work as usual.";

/// Rewrites `hop router COMMAND -r NAME` to `hop router COMMAND NAME`: a name may be said in both ways, as with every other
/// command. `hop router list` and `hop router use` have no router to work on.
pub fn name_first(mut words: Vec<OsString>) -> Vec<OsString> {
    let is_router = words.get(1).is_some_and(|word| word == "router");
    let is_without = words.get(2).is_none_or(|word| word == "list" || word == "ls" || word == "use");
    if !is_router || is_without {
        return words;
    }
    let Some(at) = words.iter().skip(3).position(|word| {
        word == "-r" || word == "--router" || word.to_str().is_some_and(|word| word.starts_with("--router="))
    }) else {
        return words;
    };
    let option = words.remove(3 + at);
    let name = match option.to_str().and_then(|option| option.split_once('=')) {
        Some((_, name)) => Some(name.into()),
        None => (words.len() > 3 + at).then(|| words.remove(3 + at)),
    };
    // Without a name, clap says what is missing.
    words.insert(3, name.unwrap_or(option));
    words
}

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
