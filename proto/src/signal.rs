//! The names under which signals travel (RFC 4254, section 6.9). Numbers do not travel: MIPS has its own (signal(7)),
//! where SIGUSR1 is 16 and not 10.

/// Signals that a controller may send to a job, and that the agent finds in its own numbering.
///
/// SIGKILL is among them for the controller that has asked nicely; SIGSTOP is not: a stopped program would hold its
/// memory on the router for ever.
pub const SENDABLE: [&str; 10] =
    ["HUP", "INT", "QUIT", "ABRT", "KILL", "USR1", "USR2", "PIPE", "TERM", "WINCH"];
