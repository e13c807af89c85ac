//! The faults that can happen to a job.

use std::fmt;
use std::thread;
use std::time::Duration;

use hop_tests::{FaultProxy, Hop, Options, Ran, Running, Target, VirtualRouter};
use rustix::process::Signal;

use super::phase::Phase;

/// How long a temporary cut of the proxy lasts.
const CUT: Duration = Duration::from_secs(5);

/// The size of the agent's tmpfs that a fault fills: one program fits.
const TMPFS: &str = "size=6m";

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Nothing arrives for five seconds.
    CableCut,
    /// Nothing arrives any more.
    CableCutForGood,
    /// The connection is reset, by a firewall that was loaded again.
    ConnectionReset,
    /// The agent is killed, and started again.
    AgentKilled,
    /// The agent gets SIGTERM, and is started again.
    AgentTerminated,
    /// `hop` is killed.
    ControllerKilled,
    /// The router has no power for a moment.
    PowerPulled,
    /// The agent's file system is full.
    TmpfsFull,
    /// Another program eats all memory.
    MemoryFull,
    /// The clock is set back to 1970.
    ClockJumps,
    /// Another controller tries to have the job.
    SecondController,
}

/// How a job may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// As if nothing had happened.
    Whole,
    /// Hop fails, and says this among other things.
    Fails(&'static str),
    /// With the exit code of the program, and this on standard error: Hop has lost a file.
    Loses(&'static str),
    /// One or the other, depending on what was sent already.
    Either(&'static str),
    /// `hop` was killed, and reports nothing.
    Killed,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::CableCut,
        Self::CableCutForGood,
        Self::ConnectionReset,
        Self::AgentKilled,
        Self::AgentTerminated,
        Self::ControllerKilled,
        Self::PowerPulled,
        Self::TmpfsFull,
        Self::MemoryFull,
        Self::ClockJumps,
        Self::SecondController,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::CableCut => "cable_cut_for_5_s",
            Self::CableCutForGood => "cable_cut_for_good",
            Self::ConnectionReset => "connection_reset",
            Self::AgentKilled => "agent_killed",
            Self::AgentTerminated => "agent_terminated",
            Self::ControllerKilled => "controller_killed",
            Self::PowerPulled => "power_pulled",
            Self::TmpfsFull => "tmpfs_full",
            Self::MemoryFull => "memory_full",
            Self::ClockJumps => "clock_jumps_to_1970",
            Self::SecondController => "second_controller",
        }
    }

    /// The router on which it happens.
    pub fn router(self, target: Target) -> VirtualRouter {
        let tmpfs = (self == Self::TmpfsFull).then_some(TMPFS);
        VirtualRouter::start_with(target, &Options { tmpfs, ..Options::default() })
    }

    /// How long `hop` tries to reconnect: long enough for a temporary fault, and short for a permanent one.
    pub fn linger(self) -> &'static str {
        match self {
            Self::CableCutForGood | Self::ControllerKilled => "2s",
            _ => "1m",
        }
    }

    /// How long `hop` waits for an answer.
    pub fn connect_timeout(self) -> &'static str {
        if self == Self::CableCutForGood { "2s" } else { "1m" }
    }

    /// Injects the fault. When this returns, a temporary fault is over, and the proxy is mended.
    pub fn happen(self, router: &mut VirtualRouter, proxy: &FaultProxy, running: &Running) {
        match self {
            Self::CableCut => {
                proxy.cut();
                thread::sleep(CUT);
            }
            Self::CableCutForGood => return proxy.cut(),
            Self::ConnectionReset => return proxy.reset(),
            Self::AgentKilled | Self::AgentTerminated => {
                let signal = if self == Self::AgentKilled { Signal::KILL } else { Signal::TERM };
                router.signal_agent(signal);
                router.restart_agent();
            }
            Self::ControllerKilled => running.signal(Signal::KILL),
            Self::PowerPulled => router.power_cycle(),
            Self::TmpfsFull => {
                let fill = router.ram().join("fill");
                // `cat` fails when the file system is full, which is its purpose.
                router.shell().run(&format!("cat /dev/zero >{}", fill.display()));
            }
            Self::MemoryFull => {
                let ran = router.exec("eat-memory").run();
                assert_eq!(ran.code, 137, "{}", ran.stderr());
                assert!(ran.stderr().contains("running out of memory"), "{}", ran.stderr());
            }
            Self::ClockJumps => {
                router.shell().sh("date +%s >/tmp/now && date -s '1970-01-01 00:00:10'");
            }
            Self::SecondController => interfere(router),
        }
        proxy.mend();
    }

    /// Repairs what a user would have to repair.
    pub fn mend(self, router: &VirtualRouter) {
        match self {
            Self::TmpfsFull => {
                drop(router.shell().sh(&format!("rm {}", router.ram().join("fill").display())))
            }
            Self::ClockJumps => drop(router.shell().sh("date -s @$(cat /tmp/now); rm /tmp/now")),
            _ => {}
        }
    }

    /// How the job must end.
    pub fn end(self, phase: Phase) -> End {
        let connects = phase == Phase::Handshake;
        match self {
            Self::CableCut | Self::MemoryFull | Self::ClockJumps | Self::SecondController => End::Whole,
            Self::CableCutForGood if connects => End::Fails("did not answer within 2s"),
            Self::CableCutForGood => End::Fails("was lost"),
            // One that is closed in its handshake is tried again for 1.5 s, in which the agent may be back.
            Self::AgentKilled | Self::AgentTerminated | Self::PowerPulled if connects => {
                End::Either("cannot be reached")
            }
            Self::ConnectionReset => End::Whole,
            Self::AgentKilled if phase == Phase::Fetch => {
                End::Fails("was restarted before hop had fetched all artifacts")
            }
            Self::AgentKilled => End::Fails("was restarted"),
            Self::AgentTerminated => match phase {
                Phase::Upload | Phase::Start => End::Fails("the agent is stopping"),
                Phase::Fetch => End::Loses("the program exited with 7, and some of its artifacts were lost"),
                _ => End::Fails("hopd was stopped on the router and killed the program"),
            },
            Self::ControllerKilled => End::Killed,
            Self::PowerPulled => End::Fails("was rebooted"),
            Self::TmpfsFull => match phase {
                Phase::Handshake | Phase::Upload => End::Fails("the program needs "),
                Phase::Start => End::Either("the program needs "),
                _ => End::Whole,
            },
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl End {
    /// Whether it ended so; `is_whole` says that the output is.
    pub fn is(self, ran: &Ran, own_exit_code: i32, is_whole: bool) -> bool {
        let fails = |text: &str| ran.code == 125 && ran.stderr().contains(text);
        let is_as_ever = ran.code == own_exit_code && is_whole;
        match self {
            Self::Whole => is_as_ever,
            Self::Fails(text) => fails(text),
            Self::Loses(text) => ran.code == own_exit_code && ran.stderr().contains(text),
            Self::Either(text) => is_as_ever || fails(text),
            Self::Killed => ran.code == -9,
        }
    }
}

/// Another controller, which may use the router as well, tries to take every job.
fn interfere(router: &VirtualRouter) {
    let home = router.path("other");
    let identity = hop::config::home::Home::at(&home).identity().unwrap();
    let own = router.home().identity().unwrap();
    router.write_authorized(&format!("{}\n{}\n", own.fingerprint(), identity.fingerprint()));
    router.enrol_for(&hop::config::home::Home::at(&home));
    let hop = || Hop::at(&home);
    let ran = hop().args(["ps", "-r", "router", "--json"]).run();
    assert_eq!(ran.code, 0, "{}", ran.stderr());
    let jobs: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    for job in jobs.as_array().unwrap() {
        for word in ["kill", "attach"] {
            hop()
                .args([word, "-r", "router", job["job"].as_str().unwrap()])
                .run()
                .assert_fails(125, "is another controller's");
        }
    }
}
