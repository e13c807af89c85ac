//! The log line of a job at its end: who requested it, from where, what ran as which user, and the result.

use std::fmt;
use std::net::SocketAddr;

use hop_proto::identity::Fingerprint;
use tokio::time::Instant;

use crate::job::error::Error;
use crate::job::outcome::Outcome;
use crate::job::spec::Spec;
use crate::process::user;
use crate::store::blob::Digest;

/// The controller at the other end of a connection.
#[derive(Clone, Debug)]
pub struct Controller {
    /// Its key.
    pub key: Fingerprint,
    /// Its name in the list of authorized keys.
    pub name: Option<String>,
    /// Its address.
    pub address: SocketAddr,
}

#[cfg(test)]
impl Controller {
    /// A controller for tests that do not depend on it.
    pub fn of_test() -> Self {
        Self { key: Fingerprint::of(b""), name: None, address: ([127, 0, 0, 1], 1).into() }
    }
}

/// The part of the line that is known when the job begins.
pub struct JobLog {
    controller: Controller,
    program: String,
    digest: Digest,
    uid: u32,
    admitted: Instant,
}

impl JobLog {
    /// The log of a job that was just admitted.
    pub fn new(controller: Controller, spec: &Spec) -> Self {
        Self {
            controller,
            program: spec.name.to_string_lossy().into_owned(),
            digest: spec.program.digest,
            uid: spec.user.as_ref().map_or_else(user::own_uid, |user| user.uid),
            admitted: Instant::now(),
        }
    }

    /// Logs how the job ended.
    pub fn ended(&self, job: &str, last: &Result<Outcome, Error>) {
        match last {
            Ok(outcome) => tracing::info!(%job, %outcome, peer = %self, "job ended"),
            Err(error) => tracing::warn!(%job, %error, peer = %self, "job failed"),
        }
    }
}

impl fmt::Display for JobLog {
    /// A program's name may contain anything, so it comes last.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Controller { key, name, address } = &self.controller;
        let milliseconds = self.admitted.elapsed().as_millis();
        write!(f, "{address} controller={} key={key} user={}", name.as_deref().unwrap_or("-"), self.uid)?;
        f.write_str(" sha256=")?;
        self.digest.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, " duration_ms={milliseconds} program={}", self.program)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::logging::lines_of_test;

    use super::*;

    #[test]
    fn job_line_names_origin_and_result() {
        let (lines, _logging) = lines_of_test();
        let controller = Controller { name: Some("me@desk".into()), ..Controller::of_test() };
        let key = controller.key;
        let spec = Spec { name: "probe user=0\n".into(), ..Spec::of_test(b"content") };
        let log = JobLog::new(controller, &spec);
        log.ended("a1", &Ok(Outcome::NotExecuted("no ELF".into())));
        log.ended("a2", &Err(Error::Gone));
        let uid = user::own_uid();
        let digest: String = spec.program.digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let origin =
            format!("peer=127.0.0.1:1 controller=me@desk key={key} user={uid} sha256={digest} duration_ms=");
        let lines = lines.lock().unwrap();
        let ends = [
            "INFO job ended job=a1 outcome=not executed: no ELF ",
            "WARN job failed job=a2 error=the controller is gone ",
        ];
        for (line, end) in lines.iter().zip(ends) {
            assert!(
                line.contains(&format!("{end}{origin}")) && line.ends_with(" program=probe user=0?\n"),
                "{line}"
            );
        }
        assert_eq!(lines.len(), 2);
    }
}
