//! The agent's replies, and how a session handles them.

use std::time::Duration;

use bytes::Bytes;
use hop_formats::size::Size;
use hop_proto::limits::MAX_STDIN_WINDOW_BYTES;
use hop_proto::v1::{Accepted, JobSpec, MissingBlob, RunResponse, Started, run_response};

use super::artifacts::Failure;
use super::{Error, Session, SessionEnd, Stage, stdin_error, terminal_error};
use crate::console::say;
use crate::console::terminal::Terminal;
use crate::transfer::encode;

impl Session<'_> {
    /// Handles a message of the agent. Returns the end of the session, if the message ends it.
    pub(super) fn handle_reply(&mut self, reply: RunResponse) -> Result<Option<SessionEnd>, Error> {
        let message = reply.message.ok_or_else(|| self.broken("a message that this hop does not know"))?;
        match (self.stage, message) {
            (Stage::Asked, run_response::Message::Accepted(accepted)) => self.accepted(accepted)?,
            (Stage::Asked, _) => return Err(self.broken("a job that starts before it is accepted")),
            (_, run_response::Message::Accepted(_)) => return Err(self.broken("a second acceptance")),
            (Stage::Encoding | Stage::Sending, _) => {
                return Err(self.broken("an answer before the program was complete"));
            }
            // After a reconnect, the program may have started long ago.
            (_, run_response::Message::Started(_) | run_response::Message::Output(_)) if self.detaches => {
                self.on_uploaded();
                return Ok(Some(SessionEnd::Left { runs_on: false }));
            }
            (_, run_response::Message::Started(started)) => self.started(started)?,
            (_, run_response::Message::Output(mut output)) => {
                output.data = self.decompressed(output.data, output.uncompressed_size)?;
                self.outputs.take(output).map_err(|what| self.broken(what))?;
            }
            (_, run_response::Message::OutputFile(mut piece)) => {
                if !self.files.are_wanted() && self.first.is_some() {
                    return Err(self.broken("an output file that nobody asked for"));
                }
                if !self.files.are_wanted() {
                    // The `hop` that requested them may still fetch them.
                    self.discard_on_exit = false;
                    let router = self.client.router().to_owned();
                    return Err(Error::NoPlace { job: self.job.clone(), router });
                }
                piece.data = self.decompressed(piece.data, piece.uncompressed_size)?;
                self.files.take(piece).map_err(|failure| match failure {
                    Failure::Agent(what) => self.broken(what),
                    Failure::Here(error) => error,
                })?;
            }
            (_, run_response::Message::StdinAck(ack)) => {
                self.input.acknowledged(ack.offset, ack.closed).map_err(|what| self.broken(what))?;
            }
            (_, run_response::Message::SignalAck(ack)) => {
                self.signals.acknowledged(ack.number).map_err(|what| self.broken(what))?;
            }
            (_, run_response::Message::Outcome(outcome)) => return Ok(Some(SessionEnd::Outcome(outcome))),
        }
        Ok(None)
    }

    /// The program runs.
    pub(super) fn started(&mut self, started: Started) -> Result<(), Error> {
        if self.stage == Stage::Started {
            return Err(self.broken("a program that starts twice"));
        }
        if !(1..=MAX_STDIN_WINDOW_BYTES).contains(&started.stdin_window) {
            return Err(self.broken("a window for standard input that is not between 1 byte and 1 MiB"));
        }
        if started.terminal && !self.wants_terminal && self.first.is_some() {
            return Err(self.broken("a terminal that nobody asked for"));
        }
        self.on_uploaded();
        self.stage = Stage::Started;
        self.interrupts.set_stop_notice(Some(self.stop_notice()));
        if started.terminal && self.wants_terminal {
            self.take_terminal()?;
        }
        self.input.open(started.stdin_window).map_err(stdin_error)
    }

    /// What becomes of the program while Ctrl-Z has stopped this `hop`.
    fn stop_notice(&self) -> String {
        let until = match (self.keeps_end || self.client.is_kept(), self.reconnect_timeout) {
            (true, _) => String::new(),
            (false, _) if self.first.is_none() => {
                "; the agent kills it unless this hop goes on within the job's --reconnect-timeout".to_owned()
            }
            (false, Duration::ZERO) => {
                "; the agent kills it unless this hop goes on within seconds".to_owned()
            }
            (false, timeout) => {
                let timeout = humantime::format_duration(timeout);
                format!("; the agent kills it unless this hop goes on within {timeout} (--reconnect-timeout)")
            }
        };
        format!("hop: stopped; the program runs on{until}: fg or bg")
    }

    /// The program has a terminal, so from now on every key is its own.
    pub(super) fn take_terminal(&mut self) -> Result<(), Error> {
        if self.terminal.is_none() {
            self.terminal = Terminal::take().map_err(terminal_error)?;
        }
        self.window = self.terminal.is_some().then(Terminal::size);
        Ok(())
    }

    pub(super) fn accepted(&mut self, accepted: Accepted) -> Result<(), Error> {
        let Accepted { job_id, missing_blobs: needs, stdin_offset, stdout_offset, stderr_offset, signals } =
            accepted;
        let offsets = [stdout_offset, stderr_offset];
        if job_id != self.job {
            return Err(self.broken("another job than the one that was asked for"));
        }
        if !self.is_accepted {
            // Of a job that this hop asks for, nobody has acknowledged anything; of another one, no stream is longer.
            let most = if self.first.is_some() { 0 } else { i64::MAX as u64 };
            if offsets.iter().chain([&stdin_offset]).any(|offset| *offset > most) {
                return Err(self.broken("a stream that begins where it cannot"));
            }
            self.outputs.start_at(offsets);
        } else {
            let gap = self.outputs.skip_to(offsets).filter(|gap| *gap == 0 || self.has_log);
            match gap.ok_or_else(|| self.broken("output does not continue where it ended"))? {
                0 => {}
                gap => self.progress.aside(|| {
                    say!("hop: the router dropped {} of output meanwhile (--log-size)", Size(gap));
                }),
            }
            self.outputs.resend_acks();
            self.files.resend_acks();
        }
        self.input.continue_at(stdin_offset).map_err(|what| self.broken(what))?;
        self.signals.continue_at(signals).map_err(|what| self.broken(what))?;
        self.is_accepted = true;
        self.backoff = None;
        self.start_sent = false;
        if needs.is_empty() {
            self.is_sent();
            return Ok(());
        }
        let Some((spec, uploads)) = &mut self.first else {
            // The hop that has the program may come back to it.
            self.discard_on_exit = false;
            let router = self.client.router().to_owned();
            return Err(Error::Incomplete { job: self.job.clone(), router });
        };
        if !needs.iter().all(|need| is_offered(spec, need)) || !uploads.begin(&needs) {
            return Err(self.broken("a blob that nobody offered is needed"));
        }
        self.stage = Stage::Encoding;
        self.upload_complete = false;
        self.progress.show("compressing");
        Ok(())
    }

    /// A blob is packed, or a further piece of it sent.
    pub(super) fn send_on(&mut self) {
        let Some((_, uploads)) = &mut self.first else { return };
        match uploads.next() {
            None => self.is_sent(),
            Some(next) if !next.is_encoded() => self.stage = Stage::Encoding,
            Some(next) => {
                self.stage = Stage::Sending;
                let (sent, total) = next.progress();
                self.progress.sending(sent, total);
            }
        }
    }

    /// The agent has the program, or will.
    pub(super) fn is_sent(&mut self) {
        self.upload_complete = true;
        self.stage = Stage::Sent;
        self.progress.clear();
    }

    /// The agent has the program, for it speaks of what came of it.
    pub(super) fn on_uploaded(&mut self) {
        let Some((_, uploads)) = &mut self.first else { return };
        uploads.on_uploaded();
        if let Some(since) = self.verbose_since.take() {
            let (sent, after) = (uploads.describe(), since.elapsed().as_secs_f64());
            self.progress.aside(|| {
                sent.iter().for_each(|sent| say!("hop: {sent}"));
                say!("hop: started after {after:.2} s");
            });
        }
    }

    /// The decompressed `data`, or `data` itself if it is not compressed.
    pub(super) fn decompressed(&self, data: Bytes, uncompressed_size: u32) -> Result<Bytes, Error> {
        if uncompressed_size != 0 && !self.client.can_pack() {
            return Err(self.broken("packed output that nobody asked for"));
        }
        encode::decompress(data, uncompressed_size).map_err(|what| self.broken(what))
    }
}

/// True for a blob of the job, to be sent as it is or against a base that was offered for it. What else was sent from here,
/// to other routers, is nothing that this one may ask for.
fn is_offered(spec: &JobSpec, need: &MissingBlob) -> bool {
    let program = spec.program.iter().map(|blob| (blob, &spec.bases));
    let archives = spec.inputs.iter().flat_map(|tree| tree.archive.iter().map(|blob| (blob, &tree.bases)));
    program.chain(archives).any(|(blob, bases)| {
        blob.sha256 == need.sha256 && (need.base.is_empty() || bases.contains(&need.base))
    })
}
