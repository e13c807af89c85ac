//! Facts about the agent for enrolment: its key's fingerprint, its executable's digest, and a network interface.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use ring::digest::{Context, SHA256};

use crate::access::key_file;
use crate::logging;
use crate::transport::listener;

/// Prints the fingerprint of the key in `path`, which is created if it does not exist.
pub fn fingerprint(path: &Path) -> ExitCode {
    match key_file::load_or_create(path) {
        Ok(identity) => line(identity.fingerprint()),
        Err(error) => logging::fatal(&error),
    }
}

/// Prints the network interface through which the router reaches an address.
pub fn interface_to(address: &str) -> ExitCode {
    match listener::interface_to(address) {
        Ok(interface) => line(interface),
        Err(error) => logging::fatal(&error),
    }
}

/// Prints the SHA-256 of this executable, as sha256sum does.
pub fn digest() -> ExitCode {
    match digest_of(Path::new("/proc/self/exe")) {
        Ok(digest) => line(digest),
        Err(error) => logging::fatal(&error),
    }
}

fn digest_of(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut context = Context::new(&SHA256);
    let mut buffer = [0; 16 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => context.update(&buffer[..count]),
        }
    }
    let digest = context.finish();
    Ok(digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn line(text: impl Display) -> ExitCode {
    // Not by `println!`, which aborts the agent if nobody reads its output.
    match writeln!(io::stdout(), "{text}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs;

    #[test]
    fn digest_matches_sha256sum() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("abc");
        fs::write(&path, "abc").unwrap();
        // FIPS 180-4's own example.
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest_of(&path).unwrap(), expected);
    }
}
