//! Progress on a terminal, and on a terminal only: one line on standard error that is gone before the program speaks.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A job that is quicker than this shows nothing: a line that flashes is noise.
const SHOW_DELAY: Duration = Duration::from_millis(300);

/// The line. It hides itself where standard error is no terminal.
pub struct Progress {
    bar: ProgressBar,
    started: std::time::Instant,
}

impl Default for Progress {
    fn default() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
        Self { bar, started: std::time::Instant::now() }
    }
}

impl Progress {
    /// Shows nothing: the terminal belongs to another program.
    pub fn none() -> Self {
        Self { bar: ProgressBar::hidden(), started: std::time::Instant::now() }
    }

    /// Shows the current step at once, because it may take long.
    pub fn show(&self, what: &'static str) {
        self.bar.set_style(
            ProgressStyle::with_template("hop: {msg}").unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        self.bar.set_message(what);
        self.bar.tick();
    }

    /// Shows how far the upload is.
    pub fn sending(&self, sent: u64, total: u64) {
        if self.started.elapsed() < SHOW_DELAY {
            return;
        }
        self.bar.set_length(total);
        let style = "hop: sending {bytes} of {total_bytes} {wide_bar} {bytes_per_sec}";
        self.bar
            .set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
        self.bar.set_position(sent);
    }

    /// Does what writes on standard error, while the line is out of the way.
    pub fn aside(&self, write: impl FnOnce()) {
        self.bar.suspend(write);
    }

    /// Takes the line away.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
