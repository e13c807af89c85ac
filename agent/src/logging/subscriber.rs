//! Formats each event as a line, in the format of tracing-subscriber's `fmt` without its spans, which this agent has
//! none of. That crate has a registry of spans and the formatting of floating-point numbers, and takes 3 % of the agent.
//!
//! **Invariants:** a line has no control character, and so is one line: a program's name may contain any byte but a slash.

use std::fmt::{Debug, Write as _};
use std::time::Instant;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use super::Sink;

/// The most detailed level that is logged.
const MAX_LEVEL: Level = Level::INFO;

/// Writes events to a sink.
pub struct LineSubscriber {
    sink: Sink,
    started: Instant,
}

impl LineSubscriber {
    /// Counts the seconds of its lines from now.
    pub fn new(sink: Sink) -> Self {
        Self { sink, started: Instant::now() }
    }
}

impl Subscriber for LineSubscriber {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= MAX_LEVEL
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::from_level(MAX_LEVEL))
    }

    fn event(&self, event: &Event<'_>) {
        let level = *event.metadata().level();
        let mut line = Line(String::new());
        // The system log adds a time and a severity to each line.
        if !matches!(self.sink, Sink::System) {
            let time = self.started.elapsed();
            // Writing to a string does not fail.
            let _ = write!(line.0, "{:4}.{:09}s {level:>5}", time.as_secs(), time.subsec_nanos());
        }
        event.record(&mut line);
        self.sink.event(level, &line.0.replace(|c: char| c.is_ascii_control(), "?"));
    }

    // All spans share one id, because lines do not name them.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// A line, to which fields are appended. The message comes first, and has no name.
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {}={value:?}", name.trim_start_matches("r#")),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.record_debug(field, &format_args!("{value}")),
            _ => self.record_debug(field, &value),
        }
    }

    /// Nobody logs such a number, and to print all its digits takes 12 kB of code.
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.record_i64(field, value as i64);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io;

    use crate::logging::lines_of_test;

    #[test]
    fn each_event_is_one_line() {
        let (lines, logging) = lines_of_test();
        let program = "a\nb";
        tracing::info!(job = %"x1", pid = 7_u32, %program, "job started");
        tracing::warn!(error = %io::Error::from_raw_os_error(2), "cannot tidy {}", 3);
        tracing::info!(text = program, r#type = ?Some(1.5), load = 2.5);
        tracing::debug!("nobody reads this");
        tracing::info_span!("a span").in_scope(|| tracing::error!("inside"));
        drop(logging);
        let lines = lines.lock().unwrap();
        let expected = [
            "s  INFO job started job=x1 pid=7 program=a?b\n",
            "s  WARN cannot tidy 3 error=No such file or directory (os error 2)\n",
            "s  INFO text=\"a\\nb\" type=Some(1.5) load=2\n",
            "s ERROR inside\n",
        ];
        for (line, expected) in lines.iter().zip(expected) {
            let (time, event) = line.split_at(line.find('s').unwrap());
            assert!(time.trim().parse::<f64>().is_ok_and(|seconds| seconds < 60.0), "{line}");
            assert_eq!(event, expected);
        }
        assert_eq!(lines.len(), expected.len());
    }
}
