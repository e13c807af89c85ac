//! A root of its own for an agent under qemu-user and its programs: namespaces and a small root file system, by bubblewrap
//! (bwrap(1)).
//!
//! **Invariants:** programs inside can write to nothing of this machine but the agent's own files, and see no files of it but
//! the agent, QEMU, /etc/resolv.conf and /sys, which has the network's devices; they see no processes but their own. The
//! network is this machine's.

use std::fs;
use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, Command};

use hop_formats::elf;
use rustix::io::{FdFlags, fcntl_setfd};
use serde::Deserialize;

use super::Error;
use super::process;

/// Where files of this machine are inside.
pub(super) const QEMU: &str = "/usr/bin/qemu";
pub(super) const AGENT: &str = "/usr/sbin/hopd";
pub(super) const STATE: &str = "/etc/hop";

/// What a dynamically linked QEMU needs.
const LIBRARIES: [&str; 4] = ["/lib", "/lib64", "/usr/lib", "/usr/lib64"];

/// Bytes of the longest report of bubblewrap's: the numbers of a process and some namespaces.
const MAX_REPORT_BYTES: u64 = 4096;

/// A process in the sandbox that was not started yet.
pub(super) struct Sandbox {
    /// bubblewrap; the words of the command to run inside follow.
    pub(super) command: Command,
    report: PipeReader,
    reporter: PipeWriter,
}

impl Sandbox {
    /// A sandbox with the host name `name` for `agent` under `qemu`; the directory `state` is the agent's to write to.
    ///
    /// # Errors
    /// [`Error::NoSandbox`] if there is no bubblewrap.
    pub(super) fn new(name: &str, qemu: &Path, agent: &Path, state: &Path) -> Result<Self, Error> {
        let bwrap = process::in_path("bwrap")
            .ok_or_else(|| Error::NoSandbox { why: "there is no bwrap in PATH".to_owned() })?;
        let pipe = || -> io::Result<_> {
            let (report, reporter) = io::pipe()?;
            // bubblewrap inherits it, and closes it before it starts the command.
            fcntl_setfd(&reporter, FdFlags::empty())?;
            Ok((report, reporter))
        };
        let (report, reporter) = pipe().map_err(Error::io("create", Path::new("a pipe")))?;
        let mut command = Command::new(bwrap);
        command.arg("--info-fd").arg(reporter.as_raw_fd().to_string());
        // Where user namespaces are forbidden, root needs none for the others.
        command.args(["--unshare-user-try", "--unshare-pid", "--unshare-ipc", "--unshare-uts"]);
        command.args(["--hostname", name, "--uid", "0", "--gid", "0"]);
        // bubblewrap leaves root its capabilities, with which it could undo the mounts; and on the user's terminal a program
        // could type (TIOCSTI, CVE-2017-5226).
        command.args(["--cap-drop", "ALL", "--new-session"]);
        // Everything inside exits with the agent.
        command.arg("--as-pid-1");
        command.args(["--proc", "/proc", "--dev", "/dev", "--dir", "/root", "--tmpfs", "/tmp"]);
        command.arg("--ro-bind").arg(qemu).arg(QEMU);
        command.arg("--ro-bind").arg(agent).arg(AGENT);
        command.arg("--bind").arg(state).arg(STATE);
        for path in ["/etc/resolv.conf", "/sys"] {
            command.args(["--ro-bind-try", path, path]);
        }
        if !is_static(qemu)? {
            for libraries in LIBRARIES {
                command.args(["--ro-bind-try", libraries, libraries]);
            }
        }
        command.args(["--chdir", "/", "--"]);
        Ok(Self { command, report, reporter })
    }

    /// Starts it. Returns bubblewrap's process, and the number of the command's own on this machine; `None` if bubblewrap
    /// did not start the command, and has written why on standard error.
    pub(super) fn spawn(mut self) -> io::Result<(Child, Option<u32>)> {
        #[derive(Deserialize)]
        struct Report {
            #[serde(rename = "child-pid")]
            child: u32,
        }
        let child = self.command.spawn()?;
        drop(self.reporter);
        let mut report = String::new();
        // If this fails, there is no number, and the caller kills bubblewrap.
        let _ = self.report.take(MAX_REPORT_BYTES).read_to_string(&mut report);
        Ok((child, serde_json::from_str(&report).ok().map(|Report { child }| child)))
    }
}

/// True if QEMU needs no libraries.
fn is_static(qemu: &Path) -> Result<bool, Error> {
    let content = fs::read(qemu).map_err(Error::io("read", qemu))?;
    Ok(elf::read(&content).is_ok_and(|program| program.interpreter.is_none()))
}
