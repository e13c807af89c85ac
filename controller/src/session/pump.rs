//! The course of a session: one call after another until the job has finished, and in each the messages in both directions.

use std::io::{IsTerminal, Write};

use hop_proto::v1::{Attach, ErrorReason, JobSpec, run_request};

use super::call::JobStream;
use super::outcome::Outcome;
use super::run_queue::RunSlot;
use super::upload::Uploads;
use super::{CallKind, Error, Session, SessionEnd, Stage, stdin_error, terminal_error};
use crate::client;
use crate::client::reconnect::Backoff;
use crate::console::escapes::{Escape, HELP};
use crate::console::say;
use crate::console::terminal::Terminal;

impl Session<'_> {
    pub(super) async fn run_to_end(mut self) -> Result<Outcome, Error> {
        let (end, call) = loop {
            let mut call = self.call();
            let error = match self.pump(&mut call).await {
                Ok(end) => break (Ok(end), Some(call)),
                Err(error) => error,
            };
            if self.was_never_accepted(&error) {
                self.next_call = CallKind::Run;
                continue;
            }
            match error {
                Error::Client(broke) if broke.may_pass() && !self.reconnect_timeout.is_zero() => {
                    if let Err(error) = self.reconnect(broke).await {
                        break (Err(error), None);
                    }
                }
                error => break (Err(error), Some(call)),
            }
        };
        let end = end.map_err(|error| self.meaning(error));
        self.finish(end, call).await
    }

    /// Begins a call on the connection that there is.
    pub(super) fn call(&mut self) -> JobStream {
        self.stage = Stage::Asked;
        let message = match (self.next_call, &self.first) {
            (CallKind::Run, Some((spec, _))) => run_request::Message::Spec(spec.clone()),
            _ => {
                let [stdout, stderr] =
                    self.outputs.received().map(|offset| self.is_accepted.then_some(offset));
                let job_id = self.job.clone();
                run_request::Message::Attach(Attach {
                    job_id,
                    stdout_offset: stdout,
                    stderr_offset: stderr,
                    files: self.files.position(),
                    accept_compressed_output: self.client.can_pack(),
                })
            }
        };
        JobStream::start(self.client.connection().client(), message)
    }

    /// True if the agent answers that it has never heard of a job which the last connection may have taken along. Asking
    /// for it once more runs it once.
    pub(super) fn was_never_accepted(&self, error: &Error) -> bool {
        matches!(error, Error::Client(client::Error::Refused { reason: ErrorReason::NoSuchJob, .. }))
            && matches!(self.next_call, CallKind::Attach)
            && !self.is_accepted
            && self.first.is_some()
    }

    /// What an error means for a job that the agent once had.
    pub(super) fn meaning(&self, error: Error) -> Error {
        match error {
            Error::Client(client::Error::Refused { reason: ErrorReason::NoSuchJob, .. })
                if self.is_accepted && self.interrupts.longest_stop() > self.reconnect_timeout =>
            {
                let router = self.client.router().to_owned();
                Error::StoppedTooLong { router, stopped: self.interrupts.longest_stop() }
            }
            Error::Client(refused @ client::Error::Refused { reason: ErrorReason::NoSuchJob, .. })
                if self.is_accepted =>
            {
                let router = self.client.router().to_owned();
                client::Error::Lost { router, source: Some(refused.into()) }.into()
            }
            // What has left its files has not been ended by that.
            Error::Client(client::Error::Rebooted { router }) if self.files.have_begun() => {
                Error::RebootedAfter { router }
            }
            Error::Client(client::Error::AgentRestarted { router }) if self.files.have_begun() => {
                Error::AgentRestartedAfter { router }
            }
            error => error,
        }
    }

    /// Carries the streams and the signals, until the job has ended, or the call.
    pub(super) async fn pump(&mut self, call: &mut JobStream) -> Result<SessionEnd, Error> {
        loop {
            let wants_room = self.has_message();
            tokio::select! {
                // Output first: it came before the signal.
                biased;
                reply = call.replies.next() => match reply {
                    Ok(Some(reply)) => {
                        if let Some(end) = self.handle_reply(reply)? {
                            return Ok(end);
                        }
                    }
                    Ok(None) => {
                        let router = self.client.router().to_owned();
                        return Err(client::Error::Lost { router, source: None }.into());
                    }
                    Err(status) => return Err(self.client.connection().explain(*status).await.into()),
                },
                name = self.interrupts.next() => self.interrupted(name)?,
                () = resized(&mut self.terminal) => self.window = Some(Terminal::size()),
                permit = call.requests.reserve(), if wants_room => {
                    if let Some(message) = self.next_message() {
                        permit.send(message);
                    }
                }
                () = encoded(&mut self.first), if self.stage == Stage::Encoding => self.send_on(),
                acquired = acquired(&mut self.slot), if self.stage == Stage::Sent => acquired?,
                changed = self.outputs.changed() => changed?,
                read = self.input.more() => if let Some(escape) = read.map_err(stdin_error)?
                    && let Some(end) = self.escape(escape)
                {
                    return Ok(end);
                },
            }
        }
    }

    /// Does what the user asks of `hop`. Returns the end of the session, if that is its end.
    fn escape(&mut self, escape: Escape) -> Option<SessionEnd> {
        let job = &self.job;
        match escape {
            Escape::Help => HELP.iter().for_each(|line| self.notice(line)),
            Escape::Detach if !self.client.can_run_on() => {
                self.notice("hop: this router's agent cannot let the program run on; `hop router upgrade` installs one that can");
            }
            Escape::Detach => {
                self.notice(&format!(
                    "hop: left job {job}, which runs on; `hop attach {job}` comes back to it"
                ));
                return Some(SessionEnd::Left { runs_on: true });
            }
            Escape::Leave => {
                let what =
                    if self.keeps_end { "which runs on" } else { "which is killed unless a hop comes back" };
                self.notice(&format!("hop: left job {job}, {what}: hop attach {job}"));
                return Some(SessionEnd::Left { runs_on: false });
            }
        }
        None
    }

    /// Takes a signal that `hop` got while it has a connection.
    ///
    /// # Errors
    /// It ends `hop`.
    pub(super) fn interrupted(&mut self, name: &'static str) -> Result<(), Error> {
        // A program that has left its files has ended, and no signal is for it any more.
        let is_for_program = self.may_run() && !self.files.have_begun() && !self.keeps_signals;
        if is_for_program && self.signals.take(name, true) {
            if self.signals.kills_next() && std::io::stderr().is_terminal() {
                self.notice("hop: the next Ctrl-C kills the program");
            }
            return Ok(());
        }
        if self.keeps_signals {
            let job = &self.job;
            self.notice(&format!("hop: left job {job}; `hop attach {job}` comes back to it"));
        }
        Err(Error::Interrupted { signal: name })
    }

    /// Prints a line on standard error, also while the terminal is the program's.
    fn notice(&self, text: &str) {
        self.progress.aside(|| {
            if self.terminal.is_none() {
                return say!("{text}");
            }
            // To the first column, which a raw terminal does not go to by itself. If nobody reads, nobody misses it.
            let _ = std::io::stderr().write_all(b"\r\n");
            say!("{text}");
            let _ = std::io::stderr().write_all(b"\r");
        });
    }

    /// False while there is no program that a signal could be for.
    pub(super) fn may_run(&self) -> bool {
        self.is_accepted && self.upload_complete && !self.detaches
    }

    /// Has a new connection after a break whose reason is `broke`.
    pub(super) async fn reconnect(&mut self, broke: client::Error) -> Result<(), Error> {
        let mut backoff = match self.backoff.take() {
            Some(mut backoff) => {
                backoff.record_failure(broke);
                backoff
            }
            None => {
                let (router, within) =
                    (self.client.router(), humantime::format_duration(self.reconnect_timeout));
                self.notice(&format!(
                    "hop: the connection to {router} broke; reconnecting for up to {within}"
                ));
                Backoff::new(broke, self.reconnect_timeout)
            }
        };
        if let Some(terminal) = &self.terminal {
            terminal.suspend().map_err(terminal_error)?;
        }
        let may_run = self.may_run();
        {
            let restored = self.client.restore(&mut backoff);
            tokio::pin!(restored);
            loop {
                tokio::select! {
                    restored = &mut restored => break restored?,
                    name = self.interrupts.next() => {
                        if !may_run || !self.signals.take(name, false) {
                            return Err(Error::Interrupted { signal: name });
                        }
                    }
                    changed = self.outputs.changed() => changed?,
                }
            }
        }
        if let Some(terminal) = &self.terminal {
            terminal.resume().map_err(terminal_error)?;
        }
        self.backoff = Some(backoff);
        self.next_call = CallKind::Attach;
        Ok(())
    }
}

async fn encoded(first: &mut Option<(JobSpec, Uploads<'_>)>) {
    match first.as_mut().and_then(|(_, uploads)| uploads.next()) {
        Some(upload) => upload.encoded().await,
        None => std::future::pending().await,
    }
}

async fn acquired(slot: &mut Option<&mut RunSlot>) -> Result<(), Error> {
    match slot {
        Some(slot) if !slot.is_acquired() => slot.acquire().await,
        _ => std::future::pending().await,
    }
}

async fn resized(terminal: &mut Option<Terminal>) {
    match terminal {
        Some(terminal) => terminal.resized().await,
        None => std::future::pending().await,
    }
}
