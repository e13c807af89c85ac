//! The course of a session: call after call until the job has ended, and in each of them what arrives and what is sent.

use std::io::Write;

use hop_proto::v1::{Attach, JobSpec, Reason, run_request};

use super::call::Call;
use super::outcome::Outcome;
use super::run_queue::Turn;
use super::upload::Uploads;
use super::{Ask, End, Error, Session, Stage, stdin_error, terminal_error};
use crate::client;
use crate::client::reconnect::Comeback;
use crate::console::say;
use crate::console::terminal::Terminal;

impl Session<'_> {
    pub(super) async fn see_through(mut self) -> Result<Outcome, Error> {
        let (end, call) = loop {
            let mut call = self.call();
            let error = match self.carry(&mut call).await {
                Ok(end) => break (Ok(end), Some(call)),
                Err(error) => error,
            };
            if self.was_never_asked(&error) {
                self.asks = Ask::Run;
                continue;
            }
            match error {
                Error::Client(broke) if broke.may_pass() && !self.linger.is_zero() => {
                    if let Err(error) = self.come_back(broke).await {
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
    pub(super) fn call(&mut self) -> Call {
        self.stage = Stage::Asked;
        let message = match (self.asks, &self.first) {
            (Ask::Run, Some((spec, _))) => run_request::Message::Spec(spec.clone()),
            _ => {
                let [stdout, stderr] =
                    self.outputs.received().map(|offset| self.is_accepted.then_some(offset));
                let job_id = self.job.clone();
                run_request::Message::Attach(Attach {
                    job_id,
                    stdout_offset: stdout,
                    stderr_offset: stderr,
                    files: self.files.position(),
                    pack_outputs: self.link.can_pack(),
                })
            }
        };
        Call::start(self.link.connection().client(), message)
    }

    /// True if the agent answers that it has never heard of a job which the last connection may have taken along. Asking
    /// for it once more runs it once.
    pub(super) fn was_never_asked(&self, error: &Error) -> bool {
        matches!(error, Error::Client(client::Error::Refused { reason: Reason::NoSuchJob, .. }))
            && matches!(self.asks, Ask::Attach)
            && !self.is_accepted
            && self.first.is_some()
    }

    /// What an error means for a job that the agent once had.
    pub(super) fn meaning(&self, error: Error) -> Error {
        match error {
            Error::Client(refused @ client::Error::Refused { reason: Reason::NoSuchJob, .. })
                if self.is_accepted =>
            {
                let router = self.link.router().to_owned();
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
    pub(super) async fn carry(&mut self, call: &mut Call) -> Result<End, Error> {
        loop {
            let wants_room = self.has_message();
            tokio::select! {
                // Output first: it came before the signal.
                biased;
                reply = call.replies.next() => match reply {
                    Ok(Some(reply)) => {
                        if let Some(end) = self.hear(reply)? {
                            return Ok(end);
                        }
                    }
                    Ok(None) => {
                        let router = self.link.router().to_owned();
                        return Err(client::Error::Lost { router, source: None }.into());
                    }
                    Err(status) => return Err(self.link.connection().explain(*status).await.into()),
                },
                name = self.interrupts.next() => self.interrupted(name)?,
                () = resized(&mut self.terminal) => self.window = Some(Terminal::size()),
                room = call.requests.room(), if wants_room => {
                    if let Some(message) = self.next_message() {
                        room.send(message);
                    }
                }
                () = packed(&mut self.first), if self.stage == Stage::Packing => self.send_on(),
                come = come(&mut self.turn), if self.stage == Stage::Sent => come?,
                changed = self.outputs.changed() => changed?,
                read = self.input.more() => read.map_err(stdin_error)?,
            }
        }
    }

    /// Takes a signal that `hop` got while it has a connection.
    ///
    /// # Errors
    /// It ends `hop`.
    pub(super) fn interrupted(&mut self, name: &'static str) -> Result<(), Error> {
        // A program that has left its files has ended, and no signal is for it any more.
        if self.may_run() && !self.files.have_begun() && self.signals.take(name, true) {
            return Ok(());
        }
        Err(Error::Interrupted { signal: name })
    }

    /// False while there is no program that a signal could be for.
    pub(super) fn may_run(&self) -> bool {
        self.is_accepted && self.is_whole && !self.leaves
    }

    /// Has a new connection after a break whose reason is `broke`.
    pub(super) async fn come_back(&mut self, broke: client::Error) -> Result<(), Error> {
        let mut comeback = match self.comeback.take() {
            Some(mut comeback) => {
                comeback.broke_again(broke);
                comeback
            }
            None => {
                let (router, within) = (self.link.router(), humantime::format_duration(self.linger));
                let is_raw = self.terminal.is_some();
                self.progress.aside(|| {
                    if is_raw {
                        // To the first column, which a raw terminal does not go to by itself. If nobody reads, nobody misses it.
                        let _ = std::io::stderr().write_all(b"\r\n");
                    }
                    say!("hop: the connection to {router} broke; coming back to the job for up to {within}");
                });
                Comeback::new(broke, self.linger)
            }
        };
        if let Some(terminal) = &self.terminal {
            terminal.suspend().map_err(terminal_error)?;
        }
        let may_run = self.may_run();
        {
            let restored = self.link.restore(&mut comeback);
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
        self.comeback = Some(comeback);
        self.asks = Ask::Attach;
        Ok(())
    }
}

async fn packed(first: &mut Option<(JobSpec, Uploads<'_>)>) {
    match first.as_mut().and_then(|(_, uploads)| uploads.next()) {
        Some(upload) => upload.packed().await,
        None => std::future::pending().await,
    }
}

async fn come(turn: &mut Option<&mut Turn>) -> Result<(), Error> {
    match turn {
        Some(turn) if !turn.has_come() => turn.come().await,
        _ => std::future::pending().await,
    }
}

async fn resized(terminal: &mut Option<Terminal>) {
    match terminal {
        Some(terminal) => terminal.resized().await,
        None => std::future::pending().await,
    }
}
