//! The moments in the life of a job at which something happens to it.

use std::fmt;
use std::io::Write;

use hop_tests::{Cable, Hop, Running, VirtualRouter, fixture};

/// Numbers that the program prints before and after the moment.
const BEFORE: u32 = 20;
const ALL: u32 = 60;

/// Bytes of a TLS handshake after which it is not complete, and of a program's upload.
const SOME_OF_HANDSHAKE: u64 = 200;
const SOME_OF_UPLOAD: u64 = 500_000;

/// A moment in the life of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The first bytes of TLS are sent.
    Handshake,
    /// A part of the program is sent.
    Upload,
    /// The last bytes of the program are on their way.
    Start,
    /// The program has written something, and will write more.
    Output,
    /// The program has read something, and will read more.
    Stdin,
    /// The program has written everything, and will end in a second.
    Outcome,
}

impl Phase {
    /// All of them, in the order in which they come.
    pub const ALL: [Self; 6] =
        [Self::Handshake, Self::Upload, Self::Start, Self::Output, Self::Stdin, Self::Outcome];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Upload => "upload",
            Self::Start => "start",
            Self::Output => "output",
            Self::Stdin => "stdin",
            Self::Outcome => "outcome",
        }
    }

    /// What the program writes if nothing happens to it.
    pub fn whole_output(self) -> String {
        match self {
            Self::Stdin => {
                let answers: String = (0..ALL).map(|i| format!("you said {i}\n")).collect();
                format!("ready\n{answers}end of input\n")
            }
            Self::Outcome => numbers(BEFORE),
            _ => numbers(ALL),
        }
    }

    /// How it then ends.
    pub fn own_exit_code(self) -> i32 {
        if self == Self::Stdin { 0 } else { 7 }
    }

    /// Starts a program by this `hop exec`, and waits until the moment has come. Gives what was read of its output.
    pub fn reach(self, hop: Hop, router: &VirtualRouter, cable: &Cable) -> (Running, String) {
        let program = fixture(router.stage(), self.program());
        let length = std::fs::metadata(&program).unwrap().len();
        match self {
            Self::Handshake => cable.cut_after(SOME_OF_HANDSHAKE),
            Self::Upload => cable.cut_after(SOME_OF_UPLOAD),
            // What is sent beside the program is more than nothing, so its last bytes are held back.
            Self::Start => cable.cut_after(length),
            _ => {}
        }
        let count = if self == Self::Outcome { BEFORE } else { ALL }.to_string();
        let wait = if self == Self::Outcome { "1" } else { "0" };
        let mut running = hop.arg(program).args([&count, wait]).start();
        let mut read = String::new();
        match self {
            Self::Handshake | Self::Upload | Self::Start => cable.wait_until_cut(),
            Self::Output | Self::Outcome => {
                for _ in 0..BEFORE {
                    read.push_str(&running.line());
                }
            }
            Self::Stdin => {
                read.push_str(&running.line());
                for i in 0..BEFORE {
                    say(&mut running, i);
                    read.push_str(&running.line());
                }
            }
        }
        (running, read)
    }

    /// Does what is left to do for a program that lives on.
    pub fn go_on(self, running: &mut Running) {
        if self == Self::Stdin {
            (BEFORE..ALL).for_each(|i| say(running, i));
        }
    }

    fn program(self) -> &'static str {
        if self == Self::Stdin { "dialogue" } else { "counter" }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn numbers(count: u32) -> String {
    (0..count).map(|i| format!("{i}\n")).collect()
}

/// Writes a line to its standard input, which it need not want any more.
fn say(running: &mut Running, number: u32) {
    let _ = running.stdin.as_mut().unwrap().write_all(format!("{number}\n").as_bytes());
}
