//! The terminal, the standard streams and the signals of `hop` itself.

pub mod escapes;
pub mod exit_code;
pub mod printable;
pub mod progress;
pub mod signals;
pub mod stdio;
pub mod style;
pub mod terminal;
pub mod wrap;

/// Prints a line on standard error, see [`printable::say`].
macro_rules! say {
    ($($text:tt)*) => { $crate::console::printable::say(format_args!($($text)*)) };
}
pub(crate) use say;

/// Prints a line on standard error if that is a terminal, see [`printable::note`].
macro_rules! note {
    ($($text:tt)*) => { $crate::console::printable::note(format_args!($($text)*)) };
}
pub(crate) use note;
