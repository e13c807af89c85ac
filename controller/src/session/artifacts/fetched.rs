//! The result of each requested artifact.

use std::fmt;
use std::path::PathBuf;

use hop_proto::limits::{MAX_OUTPUT_DEPTH, MAX_OUTPUT_FILES_BYTES, MAX_OUTPUT_PATH_BYTES};
use hop_proto::output_path;
use hop_proto::v1::{FileInfo, FileProblem};
use serde::{Serialize, Serializer};

/// Why a file was not fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Problem {
    /// There was none.
    NotThere,
    /// It was no regular file.
    NotAFile,
    /// It was too long.
    TooLarge,
    /// There were too many.
    TooMany,
    /// It was too many directories deep, or its path too long.
    TooDeep,
    /// The agent may not read it.
    Unreadable,
    /// It was not as it had been.
    Changed,
    /// It was another user's.
    NotOwn,
    /// Its name begins with a dot, and was not asked for.
    Hidden,
    /// A problem that only a newer agent knows.
    Other,
    /// There is another file here, which was not named.
    Exists,
    /// The job has it, and no `--artifact` of this `hop` names it.
    NotWanted,
}

impl Problem {
    /// `None` for no problem; one that this `hop` does not know is the most general one.
    pub(super) fn of(problem: i32, info: Option<&FileInfo>) -> Option<Self> {
        let is_too_deep = info.is_some_and(|FileInfo { path, .. }| {
            output_path::names(path).len() > MAX_OUTPUT_DEPTH || path.len() > MAX_OUTPUT_PATH_BYTES
        });
        Some(match FileProblem::try_from(problem) {
            Ok(FileProblem::Unspecified) => return None,
            Ok(FileProblem::NotThere) => Self::NotThere,
            Ok(FileProblem::NotAFile) => Self::NotAFile,
            Ok(FileProblem::TooLarge) => Self::TooLarge,
            Ok(FileProblem::TooMany) if is_too_deep => Self::TooDeep,
            Ok(FileProblem::TooMany) => Self::TooMany,
            Ok(FileProblem::Unreadable) => Self::Unreadable,
            Ok(FileProblem::Changed) => Self::Changed,
            Ok(FileProblem::NotOwn) => Self::NotOwn,
            Ok(FileProblem::Hidden) => Self::Hidden,
            Err(_) => Self::Other,
        })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotThere => f.write_str("there is no such file"),
            Self::NotAFile => f.write_str("it is not a regular file of the program's directory"),
            Self::TooLarge => {
                write!(f, "with it, the files would be longer than {} MiB", MAX_OUTPUT_FILES_BYTES >> 20)
            }
            Self::TooMany => f.write_str("there are too many files"),
            Self::TooDeep => write!(
                f,
                "it is more than {MAX_OUTPUT_DEPTH} directories deep, or its path is longer than {MAX_OUTPUT_PATH_BYTES} bytes"
            ),
            Self::Unreadable => f.write_str("the router cannot read it"),
            Self::Changed => f.write_str("it changed after the program had ended"),
            Self::NotOwn => f.write_str("it does not belong to the program's user"),
            Self::Hidden => f.write_str("its name begins with a dot, and --artifact does not name it"),
            Self::Other => f.write_str("the router says why, in words that this hop does not know"),
            Self::Exists => f.write_str("there is another file here; --artifact-overwrite replaces it"),
            Self::NotWanted => f.write_str("no --artifact names it"),
        }
    }
}

/// The result of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fetched {
    /// Its path below the program's directory, or the request.
    #[serde(serialize_with = "as_text")]
    pub path: Vec<u8>,
    /// Where it is.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "path_as_text")]
    pub file: Option<PathBuf>,
    /// Its length.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Why it was not fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// It is the core; true if the kernel wrote less of it than it would have.
    #[serde(rename = "truncated", skip_serializing_if = "Option::is_none")]
    pub core: Option<bool>,
}

fn as_text<S: Serializer>(path: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&String::from_utf8_lossy(path))
}

fn path_as_text<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    let text = path.as_ref().map(|path| path.to_string_lossy());
    serializer.serialize_str(&text.unwrap_or_default())
}
