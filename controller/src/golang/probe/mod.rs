//! Tests once whether programs of a version of Go run on a kernel, by a program that does what Go's runtime needs.
//!
//! **Invariants:** a verdict is remembered for the kernel and the Go that it was found with, and for no other; and
//! what could not be found out is not remembered.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use hop_proto::v1::GetInfoResponse;

use crate::config::home::{Home, make_private};
use crate::console::printable::printable;
use crate::console::progress::Progress;
use crate::golang::Error;
use crate::golang::build::{self, Build};
use crate::program::Program;
use crate::session::Job;
use crate::session::outcome::{Ending, Outcome};
use hop_formats::elf::Target;

/// The source of the probe program.
const SOURCE: &str = include_str!("probe.go");

/// Time limit of the probe: it takes a second, unless the router is busy.
const TIMEOUT: Duration = Duration::from_secs(120);

/// The verdict on a kernel that runs this Go's programs.
const WORKS: &str = "works";

/// A question to a router: do this Go's programs run there?
#[derive(Debug)]
pub struct Probe {
    file: PathBuf,
    router: String,
    version: String,
    kernel: String,
}

impl Probe {
    /// The question for programs of this version of Go.
    pub fn new(home: &Home, router: &str, info: &GetInfoResponse, target: Target, version: &str) -> Self {
        let goarch = build::goarch(target).unwrap_or("other");
        // The verdict of one router does not hold for another, even if both report the same kernel.
        let name = format!("{router} {goarch} {} {version}", info.kernel).replace(['/', '\0'], "_");
        Self {
            file: home.cache().join("probes").join(name),
            router: router.to_owned(),
            version: version.to_owned(),
            kernel: printable(&info.kernel).into_owned(),
        }
    }

    /// True if the cached verdict is that this Go's programs run there, false if there is no cached verdict.
    ///
    /// # Errors
    /// [`Error::Probe`] if they do not run there.
    pub fn is_answered(&self) -> Result<bool, Error> {
        match fs::read_to_string(&self.file) {
            Ok(verdict) if verdict == WORKS => Ok(true),
            Ok(verdict) => Err(self.fails(&verdict)),
            Err(_) => Ok(false),
        }
    }

    /// Builds the probe program, if the Go on this machine is the version that the question is about.
    ///
    /// # Errors
    /// There is no Go, or it did not build the probe: see [`Build::run`].
    pub async fn program(&self, target: Target, progress: &Progress) -> Result<Option<Program>, Error> {
        if build::version(target).await? != self.version {
            return Ok(None);
        }
        let (directory, output) = build::temporary_output()?;
        let source = directory.path().join("probe.go");
        fs::write(&source, SOURCE).map_err(Error::io("write", &source))?;
        let packages = [source.into_os_string()];
        let goarch = build::goarch(target).unwrap_or_default();
        let build =
            Build { flags: &[], packages: &packages, goarch, symbols: false, vcs_stamp: false, cc: None };
        build.run(Some(&output), progress).await?;
        Ok(Some(Program::load(&output, "probe".as_ref(), &self.router, target)?))
    }

    /// The job that runs the probe program.
    pub fn job(&self, nice: u8) -> Job {
        Job { timeout: Some(TIMEOUT), nice, ..Job::default() }
    }

    /// Derives the verdict from the outcome of the probe program, and caches it.
    ///
    /// # Errors
    /// [`Error::Probe`] if this Go's programs do not run there.
    pub fn answer(&self, outcome: &Outcome) -> Result<(), Error> {
        let verdict = match &outcome.ending {
            Ending::Exited(0) => WORKS.to_owned(),
            Ending::Exited(code) => format!("exits with {code}"),
            Ending::Signaled { name, .. } => format!("is killed by SIG{name}"),
            Ending::TimedOut => format!("does not end within {} s", TIMEOUT.as_secs()),
            Ending::NotExecuted { why } => format!("cannot be executed: {why}"),
            // Caused by the router or by hop: the next probe may end differently.
            Ending::OutOfMemory { .. }
            | Ending::Exhausted(_)
            | Ending::Idle
            | Ending::AgentStopped
            | Ending::Abandoned
            | Ending::Detached => return Ok(()),
        };
        // Without a cached verdict, the next run probes again.
        let _ = self.remember(&verdict);
        if verdict == WORKS { Ok(()) } else { Err(self.fails(&verdict)) }
    }

    fn remember(&self, verdict: &str) -> Result<(), Error> {
        let directory = self.file.parent().unwrap_or(&self.file);
        make_private(directory)?;
        let mut file = tempfile::NamedTempFile::new_in(directory).map_err(Error::io("write", &self.file))?;
        file.write_all(verdict.as_bytes()).map_err(Error::io("write", &self.file))?;
        file.persist(&self.file).map_err(|error| Error::io("write", &self.file)(error.error))?;
        Ok(())
    }

    fn fails(&self, verdict: &str) -> Error {
        let Self { file, router, version, kernel } = self;
        Error::Probe {
            version: version.clone(),
            router: router.clone(),
            kernel: kernel.clone(),
            how: verdict.to_owned(),
            file: file.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn outcome(ending: Ending) -> Outcome {
        Outcome { ending, ..Outcome::detached(String::new()) }
    }

    #[test]
    fn probe_result_is_cached_per_go() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        let target = Target { class: 1, data: 2, machine: 8 };
        let probe_of = |router: &str, kernel: &str, version: &str| {
            let info = GetInfoResponse { kernel: kernel.into(), ..GetInfoResponse::default() };
            Probe::new(&home, router, &info, target, version)
        };
        let probe = |kernel: &str, version: &str| probe_of("desk", kernel, version);
        let [good, bad] = [probe("Linux 6.6.52", "go1.26.8"), probe("Linux 3.10.14", "go1.26.8")];
        assert!(!good.is_answered().unwrap());
        good.answer(&outcome(Ending::Exited(0))).unwrap();
        assert!(good.is_answered().unwrap() && !bad.is_answered().unwrap());
        let error = bad.answer(&outcome(Ending::Exited(2))).unwrap_err();
        assert!(error.to_string().ends_with("exits with 2"), "{error}");
        assert!(bad.is_answered().is_err());
        assert!(!probe_of("attic", "Linux 3.10.14", "go1.26.8").is_answered().unwrap());
        let other = probe("Linux 3.10.14", "go1.25.1");
        let memory = Ending::OutOfMemory { available: 0, limit: 1, held: 1, of_promises: false };
        other.answer(&outcome(memory)).unwrap();
        assert!(!other.is_answered().unwrap(), "nothing was found out");
    }
}
