//! The exit codes of `hop`.

use hop_proto::signal;

/// The exit codes of `hop`, in addition to the program's own. The numbers follow docker, timeout(1) and the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitCode {
    /// 0 to 255: the program's own.
    Program(u8),
    /// 128 + n: signal n ended the program, in the numbering of this machine.
    Signal(u8),
    /// 124: the program ran longer than `--timeout`, or was silent longer than `--idle-timeout`.
    TimedOut,
    /// 125: Hop failed; standard error says why.
    HopFailed,
    /// 126: the program could not be executed.
    NotExecutable,
}

impl From<ExitCode> for i32 {
    fn from(code: ExitCode) -> Self {
        match code {
            ExitCode::Program(code) => code.into(),
            ExitCode::Signal(number) => 128 + i32::from(number),
            ExitCode::TimedOut => 124,
            ExitCode::HopFailed => 125,
            ExitCode::NotExecutable => 126,
        }
    }
}

impl ExitCode {
    /// 128 + n is for this machine's n, as `kill -l` counts. For a signal that this machine does not know, 128 is the code.
    pub fn of_signal(name: &str) -> Self {
        Self::Signal(signal::number(name).and_then(|number| u8::try_from(number).ok()).unwrap_or(0))
    }
}
