//! The end of a session: write the output that has arrived, close the call, and check the outcome.

use std::time::Duration;

use super::call::JobStream;
use super::outcome::Outcome;
use super::{Error, Session, SessionEnd, job};
use crate::client;

/// How long the output's reader may take for the rest, at most two windows, after the user has interrupted.
const OUTPUT_TIMEOUT: Duration = Duration::from_secs(5);

impl Session<'_> {
    /// Writes the rest of the output, and closes the call.
    pub(super) async fn finish(
        self,
        end: Result<SessionEnd, Error>,
        call: Option<JobStream>,
    ) -> Result<Outcome, Error> {
        let Self {
            client,
            job,
            discard_on_exit,
            keeps_end,
            is_accepted,
            first,
            signals,
            mut input,
            outputs,
            files,
            interrupts,
            ..
        } = self;
        let consumed = match &end {
            Ok(SessionEnd::Outcome(outcome)) => outcome.stdin_bytes,
            _ => None,
        };
        input.give_back(consumed).await;
        interrupts.set_stop_notice(None);
        // After a rejected attach there is no job to discard.
        let is_own = first.is_some();
        let is_ours = is_accepted || is_own;
        let mut call = call;
        if let Some(call) = call.as_mut().filter(|_| end.is_err() && discard_on_exit && is_ours) {
            call.discard().await;
        }
        let received = outputs.received();
        // Writes the output that has arrived, even if no more will.
        let written = tokio::select! {
            written = outputs.finish() => written,
            // The reader of our output does not read, and the user interrupts.
            signal = interrupts.next() => Err(Error::Interrupted { signal }),
            // Or has interrupted: the signal went to a program that had already exited.
            signal = asked_to_end(signals.last()) => Err(Error::Interrupted { signal }),
        };
        match (call, &end) {
            (None, _) => {}
            (Some(call), Ok(SessionEnd::Left { runs_on })) => call.end(*runs_on).await,
            (Some(mut call), end) => {
                // Once artifacts are fetched, nobody else can have them. If the output could not be written here, another
                // `hop` can still fetch it.
                let is_kept = keeps_end && !files.have_begun();
                if end.is_ok() && !is_kept && (written.is_ok() || discard_on_exit) {
                    call.discard().await;
                }
                call.end(false).await;
            }
        }
        let router = client.router().to_owned();
        client.close().await;
        written?;
        let outcome = match end? {
            SessionEnd::Outcome(outcome) => outcome,
            SessionEnd::Left { .. } => return Ok(Outcome::detached(job)),
        };
        if received != [outcome.stdout_bytes, outcome.stderr_bytes] {
            return Err(client::Error::Protocol { router, what: "output is missing" }.into());
        }
        let Some(outcome) = job::read_outcome(job, outcome) else {
            return Err(client::Error::Protocol { router, what: "an outcome that says nothing" }.into());
        };
        if outcome.files_lost.is_some() && is_own && !files.are_wanted() {
            return Err(client::Error::Protocol {
                router,
                what: "output files are lost that nobody asked for",
            }
            .into());
        }
        let files = match outcome.files_lost {
            None => files.finish().map_err(|what| client::Error::Protocol { router, what })?,
            Some(_) => files.give_up(),
        };
        Ok(Outcome { files, ..outcome })
    }
}

/// Waits as long as the rest of the output may take after `signal`; for ever, if there was none.
async fn asked_to_end(signal: Option<&'static str>) -> &'static str {
    match signal {
        Some(signal) => {
            tokio::time::sleep(OUTPUT_TIMEOUT).await;
            signal
        }
        None => std::future::pending().await,
    }
}
