//! Everything that can go wrong in the controller: one variant a thing to say, its exit code, and what to do about it.
//!
//! What must stay true: every failure has a `reason` that a machine can tell apart (in the status file), one line for
//! people, and a hint wherever there is something to do.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hop_proto::identity::Fingerprint;
use hop_proto::v1::ErrorReason;

use crate::{elf, enrolment};

/// A failure of Hop itself, or a program that cannot be executed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say what the fields are")]
pub enum Error {
    #[error("{0}")]
    Usage(String),

    #[error("cannot {action} {}", .path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot write {}: {} is a symbolic link", .file.display(), .link.display())]
    LinkInTheWay { file: PathBuf, link: PathBuf },
    #[error("{} cannot be read", .path.display())]
    Malformed { path: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("{0}")]
    Identity(#[source] hop_proto::identity::Error),

    #[error("there is no `go` in PATH")]
    NoGo(#[source] io::Error),
    #[error("{version} builds programs that crash on these routers")]
    BrokenGo { version: String },
    #[error("{version} needs Linux {needs}, and {router} has {kernel}")]
    OldKernel { version: String, needs: &'static str, router: String, kernel: String },
    #[error("-{flag}: {why}")]
    CannotBuild { flag: &'static str, why: &'static str },
    #[error(
        "the program was not built: parts of it are in C, and there is no C compiler for the router: {packages}"
    )]
    NeedsC { packages: String },
    #[error("the program was not built: {why}")]
    NotBuilt { why: String },
    #[error("{package} is not a main package, so there is nothing to run")]
    NotMain { package: String },

    #[error("what {version} builds does not run on {router}, which has {kernel}: a probe {how}")]
    Probe { version: String, router: String, kernel: String, how: String, file: PathBuf },

    #[error("there is no router named {name}; enrolled: {known}")]
    UnknownRouter { name: String, known: String },
    #[error("several routers are enrolled, and none is named: {known}")]
    AmbiguousRouter { known: String },
    #[error("{router} at {address} cannot be reached")]
    Unreachable { router: String, address: String, source: io::Error },
    #[error("{router} at {address} cannot be reached; its agent was enrolled until the router's next reboot")]
    AgentGone { router: String, address: String, source: io::Error },
    #[error("{router} at {address} did not answer within {}", humantime::format_duration(*.after))]
    NoAnswer { router: String, address: String, after: Duration },
    #[error("{router} at {address} has another key than the one that was enrolled ({pinned})")]
    WrongKey { router: String, address: String, pinned: Fingerprint },
    #[error("{router} does not know this controller's key {own}")]
    NotAuthorized { router: String, own: Fingerprint },
    #[error("what answers at {address} is not hopd")]
    NotAnAgent { address: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("the agent of {router} cannot run jobs: it is older or newer than this hop")]
    Incompatible { router: String },

    #[error("the agent of {router} does not know {what}")]
    Lacks { router: String, what: &'static str },

    #[error("arguments and environment take {bytes} bytes, and 2,097,152 are the most that can be passed on")]
    TooManyArguments { bytes: usize },
    #[error(
        "the program has {needed} bytes of memory that it may write to from its start on, and the kernel of {router} \
         promises {available} bytes more, because its vm.overcommit_memory is 2"
    )]
    NotPromised { router: String, needed: u64, available: u64 },
    #[error("{router} refused: {message}")]
    Refused { router: String, reason: ErrorReason, message: String },
    #[error("the connection to {router} was lost; how the program ended is not known")]
    Lost { router: String, source: Option<Box<dyn std::error::Error + Send + Sync>> },
    #[error("{router} was rebooted while the program ran; how it ended is not known")]
    Rebooted { router: String },
    #[error("the agent of {router} was started anew while the program ran, which was ended by that")]
    AgentRestarted { router: String },
    #[error(
        "{router} was rebooted before all output files of the program were here; how it ended is not known"
    )]
    RebootedAfter { router: String },
    #[error(
        "the agent of {router} was started anew before all output files of the program were here; how it ended is not known"
    )]
    AgentRestartedAfter { router: String },
    #[error("{router} broke the protocol: {what}")]
    Protocol { router: String, what: &'static str },

    #[error("there is no job {job} on {router}")]
    NoSuchJob { job: String, router: String },
    #[error("{job} may be several jobs on {router}: {known}")]
    AmbiguousJob { job: String, router: String, known: String },
    #[error("the job {job} on {router} is another controller's")]
    NotYours { job: String, router: String },
    #[error(
        "the job {job} on {router} does not have its whole program, which the hop that sends it must complete"
    )]
    Incomplete { job: String, router: String },

    #[error("the job {job} on {router} has output files, and no --output says where they go")]
    NoPlace { job: String, router: String },

    #[error("the tests of {} would bring more files than a router has memory for; the largest: {}", .directory.display(), named(.largest))]
    TooManyFiles { directory: PathBuf, largest: Vec<(PathBuf, u64)> },

    #[error("{router} has no memory for the files of the test: they take {bytes} bytes there, and {available} are to spare; the largest: {}", named(.largest))]
    InputsTooLarge { router: String, bytes: u64, available: u64, largest: Vec<(PathBuf, u64)> },

    #[error("a worker of Go's fuzzer takes 100 MiB, and {router} has {} MiB of memory", .memory >> 20)]
    NoFuzzing { router: String, memory: u64 },

    #[error("{} cannot run on {router}: {why}", .program.display())]
    NotRunnable { program: PathBuf, router: String, why: NotRunnable },

    #[error("this hop carries no agents")]
    NoAgents,
    #[error("there is no {name} in PATH, under which virtual routers run")]
    NoQemu { name: String },
    #[error("{name} did not start: {why}")]
    VirtualRouter { name: String, why: String },
    #[error("{name} did not come back: {why}")]
    NotBack { name: String, why: String },
    #[error("there is no {name} in PATH")]
    NoProgram { name: String, package: &'static str },
    #[error("there is no {}", .path.display())]
    NoArtifact { path: PathBuf },
    #[error("there is no profile named {name}; there are: {known}")]
    UnknownProfile { name: String, known: String, own: PathBuf },
    #[error("there is no virtual router named {name} with a profile; there are: {known}")]
    UnknownMachine { name: String, known: String },
    #[error("the monitor of QEMU at {} does not work: {why}", .path.display())]
    Monitor { path: PathBuf, why: String },

    #[error(transparent)]
    Enrolment(#[from] enrolment::Error),

    #[error("the exchange of keys is not finished: not on {routers}; {state}")]
    Unfinished { routers: String, state: String },

    #[error("interrupted by SIG{signal}")]
    Interrupted { signal: &'static str },
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

/// What to do where vm.overcommit_memory is 2 and too little can be promised. DD-WRT sets it with each mount of a disk, unless
/// a variable of that name says otherwise.
pub const LET_IT_PROMISE_MORE: &str = "on DD-WRT: nvram set vm.overcommit_memory=0; nvram commit; echo 0 \
    >/proc/sys/vm/overcommit_memory (elsewhere: sysctl -w vm.overcommit_memory=0)";

/// Files with their sizes, for a person.
fn named(files: &[(PathBuf, u64)]) -> String {
    let name = |(path, bytes): &(PathBuf, u64)| format!("{} ({} kB)", path.display(), bytes / 1000);
    files.iter().map(name).collect::<Vec<_>>().join(", ")
}

impl Error {
    /// Puts a path and a verb to an error of the kernel: `.map_err(Error::io("read", &path))`.
    pub fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    /// A word for machines, stable across versions; `docs/specification.md` lists them.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Usage(_) | Self::TooManyArguments { .. } | Self::NoPlace { .. } => "usage",
            Self::Io { .. } | Self::LinkInTheWay { .. } | Self::Malformed { .. } | Self::Identity(_) => {
                "local_io"
            }
            Self::NoGo(_) => "no_go",
            Self::BrokenGo { .. } => "broken_go",
            Self::OldKernel { .. } => "old_kernel",
            Self::Probe { .. } => "broken_go",
            Self::CannotBuild { .. } => "usage",
            Self::NeedsC { .. } | Self::NotBuilt { .. } | Self::NotMain { .. } => "not_built",
            Self::NotPromised { .. } => "no_promise",
            Self::UnknownRouter { .. } | Self::AmbiguousRouter { .. } => "unknown_router",
            Self::Unreachable { .. } => "unreachable",
            Self::AgentGone { .. } => "agent_gone",
            Self::NoAnswer { .. } => "no_answer",
            Self::WrongKey { .. } => "wrong_key",
            Self::NotAuthorized { .. } => "not_authorized",
            Self::NotAnAgent { .. } => "not_an_agent",
            Self::Incompatible { .. } | Self::Lacks { .. } => "incompatible",
            Self::Refused { reason, .. } => match reason {
                ErrorReason::NoSpace => "no_space",
                ErrorReason::NoMemory => "no_memory",
                ErrorReason::NoPromise => "no_promise",
                ErrorReason::TooManyJobs => "too_many_jobs",
                ErrorReason::TooManyConnections => "too_many_connections",
                ErrorReason::NoSuchUser => "no_such_user",
                ErrorReason::NoCore => "no_core",
                ErrorReason::NoInodes => "no_inodes",
                ErrorReason::OutputLost => "output_lost",
                ErrorReason::NotExecutable => "noexec",
                ErrorReason::DigestMismatch => "digest_mismatch",
                ErrorReason::Protocol => "protocol",
                ErrorReason::Io => "router_io",
                ErrorReason::Stopping => "agent_stopping",
                ErrorReason::NotStarted => "not_started",
                ErrorReason::NotAuthorized => "not_authorized",
                ErrorReason::NoSuchJob => "no_such_job",
                ErrorReason::NotYours => "not_yours",
                ErrorReason::TakenOver => "taken_over",
                ErrorReason::JobExists => "job_exists",
                ErrorReason::UploadStalled => "upload_stalled",
                ErrorReason::NoRandom => "no_random",
                ErrorReason::Cancelled => "cancelled",
                ErrorReason::Unspecified => "refused",
            },
            Self::Lost { .. } => "lost",
            Self::Rebooted { .. } | Self::RebootedAfter { .. } => "router_rebooted",
            Self::AgentRestarted { .. } | Self::AgentRestartedAfter { .. } => "agent_restarted",
            Self::Protocol { .. } => "protocol",
            Self::NoSuchJob { .. } | Self::AmbiguousJob { .. } => "no_such_job",
            Self::NotYours { .. } => "not_yours",
            Self::Incomplete { .. } => "incomplete",
            Self::TooManyFiles { .. } | Self::InputsTooLarge { .. } => "too_many_files",
            Self::NoFuzzing { .. } => "no_memory",
            Self::NotRunnable { .. } => "not_runnable",
            Self::NoAgents | Self::NoQemu { .. } | Self::VirtualRouter { .. } => "virtual_router",
            Self::Enrolment(error) => error.reason(),
            Self::NotBack { .. }
            | Self::NoProgram { .. }
            | Self::NoArtifact { .. }
            | Self::Monitor { .. } => "virtual_router",
            Self::UnknownProfile { .. } => "usage",
            Self::UnknownMachine { .. } => "unknown_router",
            Self::Unfinished { .. } => "unfinished",
            Self::Interrupted { .. } => "interrupted",
        }
    }

    /// True if nothing but the way to the agent is wrong, so that it may be right again in a moment.
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::AgentGone { .. }
                | Self::NoAnswer { .. }
                | Self::NotAnAgent { .. }
                | Self::Lost { .. }
                | Self::Refused { reason: ErrorReason::TooManyConnections, .. }
        )
    }

    /// True if there would be room on the router without what runs there now.
    pub fn is_for_want_of_room(&self) -> bool {
        use ErrorReason::{NoInodes, NoMemory, NoPromise, NoSpace, TooManyJobs};
        matches!(self, Self::Refused { reason: NoSpace | NoMemory | NoPromise | NoInodes | TooManyJobs, .. })
    }

    /// What to do about it, if there is something.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Enrolment(error) => return error.hint(),
            Self::LinkInTheWay { .. } => {
                "names that come from a router lead through no link; a directory that you name yourself may: PATH:DIR"
            }
            Self::NoGo(_) => "install Go (1.25, or 1.26.5 and later) and try again",
            Self::BrokenGo { .. } => {
                "Go 1.26.0 to 1.26.4 must not be used for MIPS (golang.org/issue/77730, 81603): take 1.26.5 or later, \
                 or 1.25"
            }
            Self::Probe { file, .. } => {
                return Some(format!(
                    "another Go may: GOTOOLCHAIN names one; this is remembered in {}",
                    file.display()
                ));
            }
            Self::OldKernel { .. } => "Go 1.23 runs there: GOTOOLCHAIN=go1.23.12, if go.mod allows it",
            Self::NeedsC { .. } => {
                "--cc names one: --cc 'zig cc -target mips-linux-musleabi' (mipsel- for little endian; zig is in PyPI's ziglang)"
            }
            Self::NotMain { .. } => "name a directory with `package main` in it",
            Self::UnknownRouter { .. } => {
                "`hop router add NAME root@HOST` enrols one, `hop virtual up` starts a virtual one"
            }
            Self::AmbiguousRouter { .. } => "name one with -r, or in HOP_ROUTER",
            Self::Unreachable { router, .. } => {
                return Some(format!(
                    "is the router on, is hopd running there, is the port right? `hop router check {router}` looks"
                ));
            }
            Self::AgentGone { router, .. } => {
                return Some(format!("if it was rebooted, `hop router add {router}` brings the agent back"));
            }
            Self::NoAnswer { .. } => "--connect-timeout waits longer",
            Self::WrongKey { .. } => {
                "nothing was sent. If the agent was installed anew, `hop router add` enrols it again; if not, somebody else \
                 answers there"
            }
            Self::NotAuthorized { .. } => {
                "a controller that it knows can say: hop router authorize ROUTER FINGERPRINT"
            }
            Self::NotAnAgent { .. } => "is the port right? hopd listens on 4670 unless told otherwise",
            Self::Incompatible { .. } => "use the hop and the hopd of one release",
            Self::Lacks { what: "--core", .. } => {
                "an agent of this release does where programs run by themselves, which is not so under qemu-user"
            }
            Self::Lacks { .. } => "`hop router upgrade` puts the agent of this hop there",
            Self::Refused { reason: ErrorReason::NoSpace, .. } => {
                "a smaller program fits: -ldflags '-s -w' is set already, -tags may leave parts out; or free some of /tmp"
            }
            Self::Refused { reason: ErrorReason::NoMemory, .. } => {
                "end something on the router, or make the program smaller"
            }
            Self::Refused { reason: ErrorReason::NoInodes, .. } => {
                "remove files on the router, of which there are too many in that file system, or end what makes them"
            }
            Self::NotPromised { .. } | Self::Refused { reason: ErrorReason::NoPromise, .. } => {
                LET_IT_PROMISE_MORE
            }
            Self::Refused { reason: ErrorReason::TooManyJobs, .. } => "wait until one of them has ended",
            Self::Refused { reason: ErrorReason::TooManyConnections, .. } => {
                "wait until one of them has gone; a connection that broke is noticed within 40 s"
            }
            Self::Refused { reason: ErrorReason::NotExecutable, .. } => {
                "start hopd with --dir on another file system"
            }
            Self::Refused { reason: ErrorReason::DigestMismatch, .. } => {
                "the file changed while it was sent: run it again"
            }
            Self::Refused { reason: ErrorReason::TakenOver, .. } => {
                "the program goes on, and `hop attach` somewhere else carries its streams now"
            }
            Self::NoSuchJob { .. } | Self::Refused { reason: ErrorReason::NoSuchJob, .. } => {
                "`hop ps` lists the jobs; one that has ended is kept for a time only"
            }
            Self::AmbiguousJob { .. } => "write more of its id, which `hop ps` shows",
            Self::NotYours { .. } | Self::Refused { reason: ErrorReason::NotYours, .. } => {
                "only the controller that started a job can attach to it and end it"
            }
            Self::Incomplete { .. } => "`hop kill` ends it",
            Self::NoPlace { .. } => "they are still there: `hop attach --output .:DIR` puts them into DIR",
            Self::NoFuzzing { .. } => {
                "fuzz here or on a larger router; without -fuzz, the corpus is run as tests there, too"
            }
            Self::TooManyFiles { .. } | Self::InputsTooLarge { .. } => {
                "what .gitignore names stays here, and so does a directory with a go.mod of its own"
            }
            Self::Lost { .. } => {
                "the router ends the program when its time to --linger is over, unless it was started with --detach; \
                 `hop ps` shows whether it still runs"
            }
            Self::AgentRestarted { .. } => "run it again",
            Self::NotRunnable { why: NotRunnable::HardFloat, .. } => {
                "build it with GOMIPS=softfloat; `hop build` does"
            }
            Self::NotRunnable { why: NotRunnable::Dynamic(_), .. } => {
                "build it with CGO_ENABLED=0; `hop build` does"
            }
            Self::NotRunnable { why: NotRunnable::OtherMachine { .. }, .. } => {
                "`hop build` builds for this router"
            }
            Self::Unfinished { .. } => "run it again to finish it; --skip leaves a router out",
            Self::NoAgents => "build hop with `cargo xtask build`",
            Self::NoQemu { .. } => "install the package qemu-user-static",
            Self::NoProgram { package, .. } => return Some(format!("install the package {package}")),
            Self::NoArtifact { .. } => "run `cargo xtask virtual-routers` in a checkout of Hop",
            Self::UnknownProfile { own, .. } => {
                return Some(format!("one of your own is a file NAME.toml in {}", own.display()));
            }
            Self::UnknownMachine { .. } => "`hop virtual up --profile PROFILE` starts one",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}
