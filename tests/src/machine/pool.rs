//! Whole virtual routers that the tests of one process share, one test at a time, with a login to each: a boot takes longer than
//! many tests, and a login half a second of a router's CPU.
//!
//! **Invariants:** a machine has one lease at a time; no more than [`MAX_MACHINES`] run, and those that nobody uses are shut down
//! before another one is booted for which there would be no place; a machine on which a test failed is not used again.

use std::fs;
use std::sync::{Mutex, MutexGuard};
use std::thread;

use super::{Machine, Shell};
use crate::fixture::dist;

/// Machines that run at a time, those included that nobody uses. An idle one costs a few percent of a CPU for its kernel's ticks.
/// A test uses one, so this is at least as many as tests that run at a time; whatever is more are kept for the next test.
const MAX_MACHINES: usize = 6;

/// A machine that nobody else has meanwhile. An agent to start is in `/tmp/hopd`.
pub(crate) struct PooledMachine(Option<Booted>);

/// A machine, and a login to it. The login is dropped first.
struct Booted {
    shell: Shell,
    machine: Machine,
}

/// The machines that nobody uses, the one that was used last behind the others; and how many are used.
struct Pool {
    idle: Vec<Booted>,
    used: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool { idle: Vec::new(), used: 0 });

fn pool() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap()
}

impl PooledMachine {
    /// Takes a machine of this profile, or boots one.
    pub(crate) fn take(profile: &str) -> Self {
        let (found, surplus) = pool().take(profile);
        // Shutting down takes a moment, in which others need the pool.
        drop(surplus);
        // If the boot fails, this gives the place back.
        let mut pooled = Self(found);
        match &mut pooled.0 {
            Some(Booted { shell, machine }) if !shell.is_open() => *shell = machine.log_in(),
            Some(_) => {}
            None => pooled.0 = Some(Booted::boot(profile)),
        }
        pooled
    }

    /// Pulls the plug of the machine and puts it in again, logs in, and puts an agent to start on it.
    pub(crate) fn reset(&mut self) {
        let Booted { shell, machine } = self.0.as_mut().unwrap();
        machine.machine().reset().unwrap();
        *shell = machine.log_in();
        install_agent(machine, shell);
    }

    pub(crate) fn machine(&self) -> &Machine {
        &self.0.as_ref().unwrap().machine
    }

    /// The login to it.
    pub(crate) fn shell(&self) -> &Shell {
        &self.0.as_ref().unwrap().shell
    }
}

impl Booted {
    fn boot(profile: &str) -> Self {
        let machine = Machine::boot_with_disk(profile);
        let shell = machine.log_in();
        install_agent(&machine, &shell);
        Self { shell, machine }
    }
}

impl Pool {
    /// An idle machine of this profile, if there is one; and those that are in the way of a new one.
    fn take(&mut self, profile: &str) -> (Option<Booted>, Vec<Booted>) {
        self.used += 1;
        if let Some(index) = self.idle.iter().rposition(|idle| idle.machine.machine().profile() == profile) {
            return (Some(self.idle.remove(index)), Vec::new());
        }
        let surplus = (self.used + self.idle.len()).saturating_sub(MAX_MACHINES).min(self.idle.len());
        (None, self.idle.drain(..surplus).collect())
    }
}

fn install_agent(machine: &Machine, shell: &Shell) {
    let agent = if machine.goarch() == "mips" { "hopd-mips" } else { "hopd-mipsel" };
    shell.put("/tmp/hopd".as_ref(), &fs::read(dist(agent)).unwrap());
    shell.sh("chmod 755 /tmp/hopd");
}

impl Drop for PooledMachine {
    fn drop(&mut self) {
        let booted = self.0.take();
        let mut pool = pool();
        pool.used -= 1;
        // Nobody knows what a test that failed has left of a machine.
        if !thread::panicking() {
            pool.idle.extend(booted);
        }
    }
}
