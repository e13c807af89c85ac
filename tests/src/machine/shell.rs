//! One login to a machine, for all that a test does there, and for the tests behind it.
//!
//! A dropbear of 2022 closes a channel that is opened at the moment in which the program of another channel ends
//! (github.com/openwrt/openwrt/issues/11208). So tests that run at the same time share none, and a test waits for the end of
//! what it started before the next one begins.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hop::virtual_router::machine::Machine;

use crate::process::wait;
use crate::{Ran, Running};

/// A login, which ends with this.
pub struct Shell {
    machine: Machine,
    control_path: PathBuf,
}

impl Shell {
    /// Logs in; `control_path` is a name for its socket.
    pub fn open(machine: &Machine, control_path: PathBuf) -> Self {
        let shell = Self { machine: machine.clone(), control_path };
        let mut ssh = shell.ssh("yes");
        // It goes into the background, with its streams.
        ssh.arg("true").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(wait(&mut ssh.spawn().unwrap()).success(), "root can log in");
        shell
    }

    /// Whether it is still there: a machine that was reset has closed it.
    pub(crate) fn is_open(&self) -> bool {
        let mut ssh = self.ssh("no");
        ssh.args(["-O", "check"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        ssh.status().unwrap().success()
    }

    /// Runs a script there, as root.
    pub fn run(&self, script: &str) -> Ran {
        self.start(script).wait()
    }

    /// Runs a script there that must succeed, and gives what it printed.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        let ran = self.run(script);
        assert_eq!(ran.code, 0, "{script}: {}", ran.stderr());
        ran.stdout().to_owned()
    }

    /// Whether a test of the router's shell holds. A login that broke tells nothing, and is not taken for a no.
    pub fn holds(&self, test: &str) -> bool {
        let ran = self.run(test);
        match ran.code {
            0 => true,
            1 => false,
            code => panic!("{test}: {code}: {}", ran.stderr()),
        }
    }

    /// Starts a script there.
    pub fn start(&self, script: &str) -> Running {
        Running::start(self.ssh("no").arg(script))
    }

    /// Writes a file there.
    pub fn put(&self, path: &Path, content: &[u8]) {
        let ran = self.start(&format!("cat >{}", word(path))).write(content).wait();
        assert_eq!(ran.code, 0, "{}", ran.stderr());
    }

    fn ssh(&self, control_master: &str) -> Command {
        let mut command = self.machine.ssh().unwrap();
        command.args(["-o", "BatchMode=yes", "-o", "ControlPersist=yes"]);
        command.args(["-o", &format!("ControlMaster={control_master}")]);
        command.args(["-o", &format!("ControlPath={}", self.control_path.display())]);
        command
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // If its other end is gone, it is gone as well.
        let mut ssh = self.ssh("no");
        ssh.args(["-O", "exit"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let _ = ssh.status();
        let _ = fs::remove_file(&self.control_path);
    }
}

/// A path as a word for a shell that needs no quotes.
pub(crate) fn word(path: &Path) -> &str {
    path.to_str().unwrap()
}
