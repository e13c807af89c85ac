//! The moments in the life of a job at which something happens to it.

use std::fmt;
use std::io::Write;

use hop_tests::{FaultProxy, Hop, Running, VirtualRouter, fixture, left, length_on_the_wire};

/// Numbers that the program prints before and after the moment.
const BEFORE: u32 = 20;
const ALL: u32 = 60;

/// Bytes of a TLS handshake after which it is not complete, and of a program's upload.
const SOME_OF_HANDSHAKE: u64 = 200;
const SOME_OF_UPLOAD: u64 = 500_000;

/// Length of the output file, and bytes from the router after which not all of it is here.
const FILE: usize = 1_500_000;
const SOME_OF_FETCH: u64 = 700_000;

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
    /// The program has ended, and a part of the file that it left is here.
    Fetch,
}

impl Phase {
    /// All of them, in the order in which they come.
    pub const ALL: [Self; 7] =
        [Self::Handshake, Self::Upload, Self::Start, Self::Output, Self::Stdin, Self::Outcome, Self::Fetch];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Upload => "upload",
            Self::Start => "start",
            Self::Output => "output",
            Self::Stdin => "stdin",
            Self::Outcome => "outcome",
            Self::Fetch => "fetch",
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
            Self::Fetch => "left\n".to_owned(),
            _ => numbers(ALL),
        }
    }

    /// How it then ends.
    pub fn own_exit_code(self) -> i32 {
        if self == Self::Stdin { 0 } else { 7 }
    }

    /// Starts a program by this `hop exec`, and waits until the moment has come. Gives what was read of its output.
    pub fn reach(self, hop: Hop, router: &VirtualRouter, proxy: &FaultProxy) -> (Running, String) {
        let program = fixture(router.target(), self.program());
        let length = length_on_the_wire(&program);
        match self {
            Self::Handshake => proxy.cut_after(SOME_OF_HANDSHAKE),
            Self::Upload => proxy.cut_after(SOME_OF_UPLOAD),
            // What is sent beside the program is more than nothing, so its last bytes are held back.
            Self::Start => proxy.cut_after(length),
            Self::Fetch => proxy.cut_after_received(SOME_OF_FETCH),
            _ => {}
        }
        let (options, words) = match self {
            Self::Fetch => {
                let output = format!("file:{}", place(router).display());
                (vec!["--artifact".to_owned(), output], vec![format!("file=file={FILE}")])
            }
            Self::Outcome => (Vec::new(), vec![BEFORE.to_string(), "1".to_owned()]),
            _ => (Vec::new(), vec![ALL.to_string(), "0".to_owned()]),
        };
        let mut running = hop.args(&options).arg(program).args(&words).start();
        let mut read = String::new();
        match self {
            Self::Handshake | Self::Upload | Self::Start | Self::Fetch => proxy.wait_until_cut(),
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
        match self {
            Self::Stdin => "dialogue",
            Self::Fetch => "leave",
            _ => "counter",
        }
    }

    /// Whether there is everything that the program left. What there is, is whole.
    pub fn is_fetched(self, router: &VirtualRouter) -> bool {
        if self != Self::Fetch {
            return true;
        }
        match std::fs::read(place(router)) {
            Ok(file) => {
                assert!(file == left(FILE), "it is what the program left");
                true
            }
            Err(_) => false,
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where the file goes.
fn place(router: &VirtualRouter) -> std::path::PathBuf {
    router.path("file")
}

fn numbers(count: u32) -> String {
    (0..count).map(|i| format!("{i}\n")).collect()
}

/// Writes a line to its standard input, which it need not want any more.
fn say(running: &mut Running, number: u32) {
    let _ = running.stdin.as_mut().unwrap().write_all(format!("{number}\n").as_bytes());
}
