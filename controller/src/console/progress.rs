//! Progress on a terminal, and on a terminal only: one line on standard error that is gone before the program speaks.

use std::borrow::Cow;
use std::pin::pin;
use std::time::Duration;

use hop_formats::size::Size;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

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
    pub fn show(&self, what: impl Into<Cow<'static, str>>) {
        // Cut to the width of the terminal: a line that is wrapped cannot be taken away.
        self.bar.set_style(style("hop: {wide_msg}"));
        self.bar.set_message(what);
        self.bar.tick();
    }

    /// Waits for `work`, and shows `what` if it takes long.
    pub async fn during<T>(&self, what: impl Into<Cow<'static, str>>, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = tokio::time::sleep(SHOW_DELAY) => self.show(what),
        }
        let done = work.await;
        self.clear();
        done
    }

    /// Shows how far the upload is.
    pub fn sending(&self, sent: u64, total: u64) {
        if self.started.elapsed() < SHOW_DELAY {
            return;
        }
        self.bar.set_length(total);
        self.bar.set_style(style("hop: sending {sent} of {all} {wide_bar} {rate}/s"));
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

/// The style for a template, with Hop's own way to print a number of bytes.
fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    // Writing to a string cannot fail.
    let key = |size: fn(&ProgressState) -> u64| {
        move |state: &ProgressState, text: &mut dyn std::fmt::Write| {
            let _ = write!(text, "{}", Size(size(state)));
        }
    };
    style
        .with_key("sent", key(ProgressState::pos))
        .with_key("all", key(|state| state.len().unwrap_or_default()))
        .with_key("rate", key(|state| state.per_sec() as u64))
}
