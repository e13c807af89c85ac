//! What tests drive: a real agent, a real `hop`, Go programs of one behaviour.
//!
//! - [`Target`]: where the agent runs: on this machine, or on a whole virtual router.
//! - [`VirtualRouter`]: an agent of a test's own, on a target, and a home in which it is enrolled.
//! - [`Footprint`]: what its agent holds while it serves.
//! - [`FaultProxy`]: a TCP proxy between `hop` and a router, which can be cut and reset.
//! - [`Machine`], [`Shell`]: a whole virtual router, and a login to it.
//! - [`Hop`], [`Running`], [`Ran`]: `hop`, as a user calls it.
//! - [`Terminal`]: a terminal, and somebody who sits in front of it.
//! - [`fixture`], [`build_go`], [`dist`]: programs.
//! - [`Process`]: a process that a test watches.
//!
//! **Invariants:** a test has its own home, its own agent, its own keys and a free port; it waits for events and
//! never for time; it ends only what it started; and what it waits for is bounded by [`TIMEOUT`].

#![allow(clippy::unwrap_used, reason = "a harness that cannot go on panics, and says where")]

mod controller;
mod fixture;
mod machine;
mod process;
mod router;

use std::path::Path;
use std::time::Duration;

use hop::config::home::Home;
use hop::virtual_router::profile::Profile;

pub use controller::terminal::{Terminal, set_nonblocking};
pub use controller::{Hop, Ran, Running};
pub use fixture::{ELSEWHERE, build_go, dist, fixture, fixture_elsewhere, left, length_on_the_wire, root};
pub use machine::{Machine, Shell};
pub use process::{Process, wait_for_exit, wait_until, with_default_signals};
pub use router::fault_proxy::FaultProxy;
pub use router::footprint::Footprint;
pub use router::state::Watched;
pub use router::{Options, VirtualRouter};

/// Longest wait for anything. Only a failing test waits this long; but Go, whose cache is empty, may need minutes for its standard
/// library while other tests run.
pub const TIMEOUT: Duration = Duration::from_secs(240);

/// Where the agent runs, and what its programs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The agent built for this machine, with programs for it.
    Host,
    /// The same, and each `hop` leaves its connection for those that come next.
    Kept,
    /// The agent for a virtual router, on it.
    Machine {
        /// What is booted.
        profile: &'static str,
        /// GOARCH of its programs.
        goarch: &'static str,
    },
}

impl Target {
    /// A virtual D-Link DIR-505: OpenWrt, big endian, 64 MB.
    pub const DIR_505: Self = Self::Machine { profile: "dir-505", goarch: "mips" };
    /// A virtual Teltonika RUT955: RutOS, big endian, 128 MB.
    pub const RUT955: Self = Self::Machine { profile: "rut955", goarch: "mips" };
    /// A virtual TP-Link Archer A6: OpenWrt with apk and cgroups, big endian, 128 MB.
    pub const ARCHER_A6: Self = Self::Machine { profile: "archer-a6", goarch: "mips" };
    /// A virtual Belkin F7D7302: DD-WRT with kernel 3.10, little endian, 64 MB.
    pub const F7D7302: Self = Self::Machine { profile: "f7d7302", goarch: "mipsle" };
    /// A virtual FRITZ!Box 7362 SL: an older OpenWrt with cgroups, big endian, 128 MB.
    pub const FRITZBOX_7362SL: Self = Self::Machine { profile: "fritzbox-7362sl", goarch: "mips" };

    /// What tests are named by.
    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "loopback",
            Self::Kept => "kept",
            Self::Machine { profile, .. } => profile,
        }
    }

    /// GOARCH of its programs.
    pub fn goarch(self) -> &'static str {
        match self {
            Self::Host | Self::Kept if cfg!(target_arch = "aarch64") => "arm64",
            Self::Host | Self::Kept => "amd64",
            Self::Machine { goarch, .. } => goarch,
        }
    }

    /// True if the agent is a process of this machine.
    pub fn is_here(self) -> bool {
        matches!(self, Self::Host | Self::Kept)
    }

    /// Whether its kernel gives each job a cgroup; of this machine's nothing is known.
    pub fn has_cgroups(self) -> Option<bool> {
        match self {
            Self::Host | Self::Kept => None,
            // A profile that Hop knows by itself is in no home.
            Self::Machine { profile, .. } => {
                Some(Profile::load(&Home::at(Path::new("/")), profile).unwrap().cgroups)
            }
        }
    }
}
