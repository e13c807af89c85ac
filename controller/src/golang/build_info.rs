//! Which Go built a program, as the program itself says.

/// The magic bytes of the information (cmd/go, debug/buildinfo).
const MAGIC: &[u8] = b"\xff Go buildinf:";

/// Where its flags are, and where the strings begin.
const FLAGS: usize = 15;
const STRINGS: usize = 32;

/// Set if the strings are there themselves, and not addresses of them: since Go 1.18.
const INLINE: u8 = 2;

/// The version of Go: "go1.26.8". `None` for a program that Go did not build, or not since 1.18.
pub fn go_version(program: &[u8]) -> Option<String> {
    let at = program.windows(MAGIC.len()).position(|window| window == MAGIC)?;
    let information = &program[at..];
    if information.get(FLAGS)? & INLINE == 0 {
        return None;
    }
    // The length is a varint, and no version is longer than one byte of it tells.
    let (length, strings) = information.get(STRINGS..)?.split_first()?;
    let version = strings.get(..usize::from(*length))?;
    String::from_utf8(version.to_vec()).ok().filter(|version| !version.is_empty() && *length < 0x80)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_version_is_read() {
        let mut program = vec![7; 100];
        program.extend_from_slice(MAGIC);
        program.extend_from_slice(&[4, INLINE]);
        program.resize(100 + STRINGS, 0);
        program.extend_from_slice(b"\x08go1.26.8\x05other");
        assert_eq!(go_version(&program).as_deref(), Some("go1.26.8"));
        program[100 + FLAGS] = 0;
        assert_eq!(go_version(&program), None);
        assert_eq!(go_version(b"#!/bin/sh\n"), None);
        assert_eq!(go_version(MAGIC), None);
    }
}
