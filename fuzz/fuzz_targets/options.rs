//! The agent's command line: each line of the input is an argument.
#![no_main]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use hopd::cli::options::{Command, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let words = bytes.split(|byte| *byte == b'\n').map(|word| OsStr::from_bytes(word).to_owned());
    if let Ok(Command::Supervise(supervision)) = parse(words) {
        // The arguments that a supervisor passes on start an agent, and not a supervisor again.
        let words: Vec<OsString> = [supervision.program].into_iter().chain(supervision.args).collect();
        match parse(words.clone()) {
            Ok(Command::Serve(options)) => {
                assert_eq!((options.log, options.pid_file), (supervision.log, None))
            }
            other => panic!("{words:?} are {other:?}"),
        }
    }
});
