//! The file of a time zone (tzfile(5)): from this machine's time zone database, or from the one that comes with Go.
//!
//! **Invariants:** what is found begins as such a file does, and its name leads nowhere else.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::Error;

/// Where systems keep the database (time, zoneinfo_unix.go).
const DATABASES: [&str; 4] =
    ["/usr/share/zoneinfo", "/usr/share/lib/zoneinfo", "/usr/lib/locale/TZ", "/etc/zoneinfo"];

/// Go's own database, below GOROOT.
const ARCHIVE: &str = "lib/time/zoneinfo.zip";

/// First bytes of a zone's file.
const MAGIC: &[u8] = b"TZif";

/// Bytes of the longest file of a zone; the largest there is has 4 kB.
const MAX_ZONE_BYTES: u64 = 64 * 1024;

/// Bytes of the longest archive; Go's has 400 kB.
const MAX_ARCHIVE_BYTES: u64 = 16 << 20;

/// The value of a variable of this machine.
pub fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The zone that a value of TZ names, and its file; `None` if it is described there by itself (`CET-1CEST`), or this machine
/// does not know it.
///
/// # Errors
/// [`Error::Io`].
pub fn find(
    tz: &OsStr,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Option<(PathBuf, Vec<u8>)>, Error> {
    let path = Path::new(OsStr::from_bytes(tz.as_bytes().strip_prefix(b":").unwrap_or(tz.as_bytes())));
    let name: PathBuf = path.components().filter(|part| *part != Component::RootDir).collect();
    // Every libc, and Go, has this one.
    let is_known = name.as_os_str().is_empty() || name == Path::new("UTC");
    if is_known || name.components().any(|part| !matches!(part, Component::Normal(_))) {
        return Ok(None);
    }
    if path.is_absolute() {
        return Ok(read(path)?.map(|content| (name, content)));
    }
    let databases = variable("TZDIR").map(PathBuf::from).into_iter();
    for database in databases.chain(DATABASES.iter().map(PathBuf::from)) {
        if let Some(content) = read(&database.join(&name))? {
            return Ok(Some((name, content)));
        }
    }
    let Some(goroot) = variable("GOROOT").map(PathBuf::from).or_else(|| goroot(&variable("PATH")?)) else {
        return Ok(None);
    };
    let mut archive = Vec::new();
    if let Ok(file) = File::open(goroot.join(ARCHIVE)) {
        let path = goroot.join(ARCHIVE);
        file.take(MAX_ARCHIVE_BYTES).read_to_end(&mut archive).map_err(Error::io("read", &path))?;
    }
    let content = extract(&archive, name.as_os_str().as_bytes()).filter(|content| is_zone(content));
    Ok(content.map(|content| (name, content.to_vec())))
}

/// The directory of the first `go` in PATH.
fn goroot(path: &OsStr) -> Option<PathBuf> {
    let go = std::env::split_paths(path).find_map(|directory| fs::canonicalize(directory.join("go")).ok())?;
    Some(go.parent()?.parent()?.to_owned())
}

/// Reads a file; `None` if there is none, or if it is not that of a zone.
fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    // A device or a pipe is no zone, and may never end.
    if !fs::metadata(path).is_ok_and(|metadata| metadata.is_file()) {
        return Ok(None);
    }
    let mut content = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_ZONE_BYTES).read_to_end(&mut content));
    match read {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        read => read.map(|_| is_zone(&content).then_some(content)).map_err(Error::io("read", path)),
    }
}

fn is_zone(content: &[u8]) -> bool {
    content.starts_with(MAGIC)
}

/// The content of a file in a ZIP archive without compression, as Go's is (APPNOTE.TXT 4.3).
fn extract<'a>(archive: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    const END_BYTES: usize = 22;
    const ENTRY_BYTES: usize = 46;
    const HEADER_BYTES: usize = 30;
    let short = |at: usize| Some(u16::from_le_bytes(*archive.get(at..)?.first_chunk()?) as usize);
    let long = |at: usize| Some(u32::from_le_bytes(*archive.get(at..)?.first_chunk()?) as usize);
    // Without a comment, the end of the directory is that of the archive.
    let end = archive.len().checked_sub(END_BYTES)?;
    let mut at = long(end + 16)?;
    for _ in 0..short(end + 10)? {
        let (size, header) = (long(at + 20)?, long(at + 42)?);
        let (name_bytes, more) = (short(at + 28)?, short(at + 30)? + short(at + 32)?);
        let entry = at + ENTRY_BYTES;
        if archive.get(entry..entry + name_bytes)? == name {
            let is_stored = short(at + 10)? == 0;
            let content = header + HEADER_BYTES + short(header + 26)? + short(header + 28)?;
            return archive.get(content..content.checked_add(size)?).filter(|_| is_stored);
        }
        at = entry + name_bytes + more;
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const BERLIN: &[u8] = b"TZif2 of Berlin";

    /// A ZIP archive of one stored file, with the fields that are read.
    fn archive(name: &str, content: &[u8]) -> Vec<u8> {
        let size = (content.len() as u32).to_le_bytes();
        let name_size = (name.len() as u16).to_le_bytes();
        let mut local = [0; 30];
        local[26..28].copy_from_slice(&name_size);
        let mut entry = [0; 46];
        entry[20..24].copy_from_slice(&size);
        entry[28..30].copy_from_slice(&name_size);
        let before = [&local[..], name.as_bytes(), content].concat();
        let mut end = [0; 22];
        end[10] = 1;
        end[16..20].copy_from_slice(&(before.len() as u32).to_le_bytes());
        [&before[..], &entry, name.as_bytes(), &end].concat()
    }

    #[test]
    fn zones_are_found_by_name_or_path() {
        let database = tempfile::tempdir().unwrap();
        fs::create_dir(database.path().join("Test")).unwrap();
        fs::write(database.path().join("Test/Berlin"), BERLIN).unwrap();
        fs::write(database.path().join("Test/other"), "no zone").unwrap();
        let variable = |name: &str| (name == "TZDIR").then(|| database.path().into());
        let found = |tz: &str| find(tz.as_ref(), variable).unwrap();
        let berlin = Some(("Test/Berlin".into(), BERLIN.to_vec()));
        assert_eq!((found("Test/Berlin"), found(":Test/Berlin")), (berlin.clone(), berlin));
        let path = database.path().join("Test/Berlin");
        let name = path.strip_prefix("/").unwrap().to_owned();
        assert_eq!(found(path.to_str().unwrap()), Some((name, BERLIN.to_vec())));
        for none in
            ["", ":", "UTC", "CET-1CEST,M3.5.0,M10.5.0/3", "../etc/passwd", "Test/other", "Test", "/dev/zero"]
        {
            assert_eq!(found(none), None, "{none}");
        }
    }

    #[test]
    fn zones_come_from_gos_archive() {
        let goroot = tempfile::tempdir().unwrap();
        fs::create_dir_all(goroot.path().join("lib/time")).unwrap();
        let whole = archive("Test/Berlin", BERLIN);
        fs::write(goroot.path().join(ARCHIVE), &whole).unwrap();
        let variable = |name: &str| (name == "GOROOT").then(|| goroot.path().into());
        let found = |tz: &str| find(tz.as_ref(), variable).unwrap();
        assert_eq!(found("Test/Berlin"), Some(("Test/Berlin".into(), BERLIN.to_vec())));
        assert_eq!(found("Test/Paris"), None);
        // A damaged archive has no zone, and does no harm.
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] = 0xff;
            extract(&damaged, b"Test/Berlin");
            extract(&whole[..at], b"Test/Berlin");
        }
    }
}
