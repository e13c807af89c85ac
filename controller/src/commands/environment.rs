//! The variables that `--env` gives to a program.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::Error;

/// The variable by which an agent finds what jobs have left running; it takes none from a controller.
const JOB_DIRECTORY: &str = "HOP_JOB_DIR";

/// `NAME=VALUE`, or `NAME` for the value that it has here, as docker reads it; a name that is not set here is not set
/// there either.
pub fn environment(variables: &[OsString]) -> Result<Vec<(OsString, OsString)>, Error> {
    let mut env = Vec::new();
    for variable in variables {
        let bytes = variable.as_bytes();
        let equals = bytes.iter().position(|byte| *byte == b'=');
        let name = OsStr::from_bytes(&bytes[..equals.unwrap_or(bytes.len())]);
        if name.is_empty() {
            return Err(Error::Usage(format!("--env {} has no name", variable.to_string_lossy())));
        }
        if name == JOB_DIRECTORY {
            return Err(Error::Usage(format!("--env {JOB_DIRECTORY}: the agent sets this variable itself")));
        }
        match equals {
            Some(at) => env.push((name.to_owned(), OsStr::from_bytes(&bytes[at + 1..]).to_owned())),
            None => env.extend(std::env::var_os(name).map(|value| (name.to_owned(), value))),
        }
    }
    Ok(env)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split('|').map(OsString::from).collect()
    }

    #[test]
    fn variables_parse_as_in_docker() {
        let env = environment(&words("A=1|B=|C=x=y")).unwrap();
        let expected = [("A", "1"), ("B", ""), ("C", "x=y")].map(|(name, value)| (name.into(), value.into()));
        assert_eq!(env, expected);
        assert_eq!(
            environment(&words("PATH")).unwrap(),
            [("PATH".into(), std::env::var_os("PATH").unwrap())]
        );
        assert_eq!(environment(&words("HOP_NO_SUCH_VARIABLE")).unwrap(), []);
        for refused in ["=1", "HOP_JOB_DIR=/", "HOP_JOB_DIR"] {
            assert!(environment(&words(refused)).is_err(), "{refused}");
        }
    }
}
