//! The inventory: the routers that this controller knows, a TOML file each.
//!
//! **Invariants:** an entry is written whole or not at all, and it holds the key that the router must prove.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use hop_proto::identity::Fingerprint;
use serde::{Deserialize, Serialize};

use super::Error;
use super::enrolment::EnrolmentRecord;
use super::home::{Home, make_private};

/// A router that a controller can talk to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Router {
    /// The name that the user gave it.
    pub name: String,
    /// How it is reached.
    pub entry: Entry,
}

/// An entry of the inventory: one router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// `host:port`, as seen from here; or from the router itself, if the connection rides in ssh.
    pub address: String,
    /// Fingerprint of the agent's key.
    #[serde(with = "text")]
    pub fingerprint: Fingerprint,
    /// Go's name for its machine: what `hop build` builds for.
    pub goarch: String,
    /// How it was enrolled over ssh; nothing for one whose key was brought here by other means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrolment: Option<EnrolmentRecord>,
    /// The process that is the router, if it is a virtual one.
    #[serde(rename = "virtual", default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessId>,
}

impl Entry {
    /// The keys that its agent may prove: one, or while that is exchanged, the old one and the new one.
    pub fn pinned(&self) -> Vec<Fingerprint> {
        let next = self.enrolment.as_ref().and_then(|enrolment| enrolment.next_fingerprint);
        std::iter::once(self.fingerprint).chain(next).collect()
    }
}

/// A process, told apart from a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its number.
    pub pid: i32,
    /// When it started, in clock ticks since the boot (field 22 of /proc/PID/stat).
    pub started: u64,
}

/// The routers in one home.
pub struct Inventory {
    directory: PathBuf,
}

impl Inventory {
    /// The inventory of `home`.
    pub fn new(home: &Home) -> Self {
        Self { directory: home.routers() }
    }

    /// All routers, by name.
    ///
    /// # Errors
    /// A file cannot be read, or holds something else.
    pub fn list(&self) -> Result<Vec<Router>, Error> {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io("read", &self.directory)(error)),
        };
        let mut routers = Vec::new();
        for entry in entries {
            let path = entry.map_err(Error::io("read", &self.directory))?.path();
            if path.extension().is_some_and(|extension| extension == "toml")
                && let Some(name) = path.file_stem().and_then(|stem| stem.to_str())
                && let Some(entry) = read(&path)?
            {
                routers.push(Router { name: name.to_owned(), entry });
            }
        }
        routers.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(routers)
    }

    /// The router with this name.
    ///
    /// # Errors
    /// [`Error::UnknownRouter`], or its file cannot be read.
    pub fn get(&self, name: &str) -> Result<Router, Error> {
        match is_name(name).then(|| read(&self.path(name))).transpose()?.flatten() {
            Some(entry) => Ok(Router { name: name.to_owned(), entry }),
            None => Err(Error::UnknownRouter { name: name.to_owned(), known: names(&self.list()?) }),
        }
    }

    /// The router with this name, or nothing.
    ///
    /// # Errors
    /// The name is none, or the file cannot be read.
    pub fn find(&self, name: &str) -> Result<Option<Router>, Error> {
        Self::check_name(name)?;
        Ok(read(&self.path(name))?.map(|entry| Router { name: name.to_owned(), entry }))
    }

    /// The router that is meant when none is named: the only one, or `None` if there is none.
    ///
    /// # Errors
    /// [`Error::AmbiguousRouter`].
    pub fn only(&self) -> Result<Option<Router>, Error> {
        let mut routers = self.list()?;
        match routers.len() {
            0 | 1 => Ok(routers.pop()),
            _ => Err(Error::AmbiguousRouter { known: names(&routers) }),
        }
    }

    /// Writes a router, instead of one with the same name.
    ///
    /// # Errors
    /// The name is none, or the file cannot be written.
    pub fn put(&self, router: &Router) -> Result<(), Error> {
        Self::check_name(&router.name)?;
        make_private(&self.directory)?;
        let path = self.path(&router.name);
        let text = toml::to_string(&router.entry)
            .map_err(|source| Error::Malformed { path: path.clone(), source: source.into() })?;
        tempfile::NamedTempFile::new_in(&self.directory)
            .and_then(|mut file| file.write_all(text.as_bytes()).map(|()| file))
            .and_then(|file| file.persist(&path).map_err(|error| error.error))
            .map(|_| ())
            .map_err(Error::io("write", &path))
    }

    /// Makes sure that a name is one.
    ///
    /// # Errors
    /// [`Error::InvalidName`].
    pub fn check_name(name: &str) -> Result<(), Error> {
        if is_name(name) {
            return Ok(());
        }
        Err(Error::InvalidName(name.to_owned()))
    }

    /// Forgets a router. Nothing happens if it is not there.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", &path)(error)),
            _ => Ok(()),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.toml"))
    }
}

fn read(path: &Path) -> Result<Option<Entry>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => toml::from_str(&text)
            .map(Some)
            .map_err(|source| Error::Malformed { path: path.to_owned(), source: source.into() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

pub(crate) fn is_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c))
}

fn names(routers: &[Router]) -> String {
    match routers {
        [] => "none".to_owned(),
        routers => routers.iter().map(|router| router.name.as_str()).collect::<Vec<_>>().join(", "),
    }
}

/// A fingerprint as its text.
mod text {
    use hop_proto::identity::Fingerprint;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(fingerprint: &Fingerprint, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(fingerprint)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Fingerprint, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A fingerprint that need not be there, as its text.
pub(crate) mod optional_text {
    use hop_proto::identity::Fingerprint;
    use serde::{Deserializer, Serializer};

    pub fn serialize<S: Serializer>(
        fingerprint: &Option<Fingerprint>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match fingerprint {
            Some(fingerprint) => super::text::serialize(fingerprint, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Fingerprint>, D::Error> {
        super::text::deserialize(deserializer).map(Some)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn router(name: &str) -> Router {
        Router {
            name: name.to_owned(),
            entry: Entry {
                address: "127.0.0.1:4670".into(),
                fingerprint: format!("SHA256:{}", "ab".repeat(32)).parse().unwrap(),
                goarch: "mips".into(),
                enrolment: None,
                process: Some(ProcessId { pid: 7, started: 1234 }),
            },
        }
    }

    fn inventory() -> (tempfile::TempDir, Inventory) {
        let dir = tempfile::tempdir().unwrap();
        let inventory = Inventory { directory: dir.path().join("routers") };
        (dir, inventory)
    }

    #[test]
    fn inventory_round_trips_entries() {
        let (_dir, inventory) = inventory();
        assert_eq!(inventory.only().unwrap(), None);
        inventory.put(&router("desk")).unwrap();
        assert_eq!(inventory.only().unwrap(), Some(router("desk")));
        inventory.put(&router("attic")).unwrap();
        assert_eq!(inventory.list().unwrap(), [router("attic"), router("desk")]);
        assert!(matches!(inventory.only(), Err(Error::AmbiguousRouter { known }) if known == "attic, desk"));
        inventory.remove("desk").unwrap();
        inventory.remove("desk").unwrap();
        assert!(matches!(inventory.get("desk"), Err(Error::UnknownRouter { .. })));
    }

    #[test]
    fn unsafe_router_names_are_refused() {
        let (_dir, inventory) = inventory();
        for name in ["", "../desk", "a/b", ".hidden", "a b", "-r"] {
            assert!(inventory.put(&router(name)).is_err(), "{name:?}");
            assert!(matches!(inventory.get(name), Err(Error::UnknownRouter { .. })), "{name:?}");
        }
    }

    #[test]
    fn malformed_inventory_file_is_named() {
        let (_dir, inventory) = inventory();
        inventory.put(&router("desk")).unwrap();
        fs::write(inventory.path("desk"), "address = 7").unwrap();
        let error = inventory.get("desk").unwrap_err();
        assert!(error.to_string().contains("desk.toml"), "{error}");
    }
}
