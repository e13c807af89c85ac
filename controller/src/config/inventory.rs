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
    /// The process that is the router, if it is an agent under qemu-user.
    #[serde(rename = "virtual", default, skip_serializing_if = "Option::is_none")]
    pub process: Option<EmulatedAgent>,
}

impl Entry {
    /// The keys that its agent may prove: one, or while that is exchanged, the old one and the new one.
    pub fn pinned(&self) -> Vec<Fingerprint> {
        let next = self.enrolment.as_ref().and_then(|enrolment| enrolment.next_fingerprint);
        std::iter::once(self.fingerprint).chain(next).collect()
    }
}

/// An agent under qemu-user on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmulatedAgent {
    /// Its process.
    #[serde(flatten)]
    pub id: ProcessId,
    /// Its programs have a root file system of their own. If not, they have the user's rights and files. Entries of earlier
    /// versions, which had no sandbox, do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<bool>,
}

/// A process, told apart from a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its number.
    pub pid: i32,
    /// When it started, in clock ticks since the boot (field 22 of /proc/PID/stat).
    pub started: u64,
}

/// The routers in one home, and which of them is the default.
pub struct Inventory {
    directory: PathBuf,
    default: PathBuf,
    /// Where the logins of whole virtual routers have their keys.
    virtual_routers: PathBuf,
}

impl Inventory {
    /// The inventory of `home`.
    pub fn new(home: &Home) -> Self {
        Self {
            directory: home.routers(),
            default: home.default_router(),
            virtual_routers: home.virtual_routers(),
        }
    }

    /// All routers, by name.
    ///
    /// # Errors
    /// A file cannot be read, or holds something else.
    pub fn list(&self) -> Result<Vec<Router>, Error> {
        let (routers, broken) = self.readable()?;
        broken.into_iter().next().map_or(Ok(routers), Err)
    }

    /// The routers whose files can be read, by name, and why the others cannot.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn readable(&self) -> Result<(Vec<Router>, Vec<Error>), Error> {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), Vec::new())),
            Err(error) => return Err(Error::io("read", &self.directory)(error)),
        };
        let (mut routers, mut broken) = (Vec::new(), Vec::new());
        for entry in entries {
            let path = entry.map_err(Error::io("read", &self.directory))?.path();
            if path.extension().is_some_and(|extension| extension == "toml")
                && let Some(name) = path.file_stem().and_then(|stem| stem.to_str())
            {
                match read(&path) {
                    Ok(Some(entry)) => routers.push(Router { name: name.to_owned(), entry }),
                    // Somebody has just removed it.
                    Ok(None) => {}
                    Err(error) => broken.push(error),
                }
            }
        }
        routers.sort_by(|one, other| one.name.cmp(&other.name));
        Ok((routers, broken))
    }

    /// The router with this name.
    ///
    /// # Errors
    /// [`Error::UnknownRouter`], or its file cannot be read.
    pub fn get(&self, name: &str) -> Result<Router, Error> {
        match is_name(name).then(|| read(&self.path(name))).transpose()?.flatten() {
            Some(entry) => Ok(Router { name: name.to_owned(), entry }),
            None => Err(Error::UnknownRouter { name: name.to_owned(), known: names(&self.readable()?.0) }),
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

    /// The router for a command that names none: the default, the only real one, or the only virtual one.
    ///
    /// # Errors
    /// [`Error::NoRouter`] if none is enrolled, [`Error::AmbiguousRouter`] if several are and none is the default,
    /// [`Error::StaleDefault`] if the default is not enrolled any more.
    pub fn implied(&self) -> Result<Router, Error> {
        if let Some(name) = self.default_name()? {
            return self.find(&name)?.ok_or(Error::StaleDefault(name));
        }
        let (mut virtual_ones, mut real): (Vec<_>, Vec<_>) =
            self.list()?.into_iter().partition(|router| self.is_virtual(&router.entry));
        match (real.len(), virtual_ones.len()) {
            (1, _) => Ok(real.remove(0)),
            (0, 1) => Ok(virtual_ones.remove(0)),
            (0, 0) => Err(Error::NoRouter),
            _ => Err(Error::AmbiguousRouter { known: names(&self.list()?) }),
        }
    }

    /// True if Hop started the router on this machine.
    pub fn is_virtual(&self, entry: &Entry) -> bool {
        let key = entry.enrolment.as_ref().and_then(|enrolment| enrolment.ssh.identity.as_ref());
        entry.process.is_some() || key.is_some_and(|key| key.starts_with(&self.virtual_routers))
    }

    /// The name of the default router, if the user chose one.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn default_name(&self) -> Result<Option<String>, Error> {
        match fs::read_to_string(&self.default) {
            Ok(name) => Ok(Some(name.trim_end().to_owned()).filter(|name| !name.is_empty())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", &self.default)(error)),
        }
    }

    /// Makes an enrolled router the default.
    ///
    /// # Errors
    /// [`Error::UnknownRouter`], or the file cannot be written.
    pub fn set_default(&self, name: &str) -> Result<(), Error> {
        let Router { name, .. } = self.get(name)?;
        self.write(&self.default, &format!("{name}\n"))
    }

    /// Forgets the default. Nothing happens if there is none.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn unset_default(&self) -> Result<(), Error> {
        remove_file(&self.default)
    }

    /// Writes a router, instead of one with the same name.
    ///
    /// # Errors
    /// The name is none, or the file cannot be written.
    pub fn put(&self, router: &Router) -> Result<(), Error> {
        Self::check_name(&router.name)?;
        let path = self.path(&router.name);
        let text = toml::to_string(&router.entry)
            .map_err(|source| Error::Malformed { path: path.clone(), source: source.into() })?;
        self.write(&path, &text)
    }

    /// Replaces a file, whole or not at all.
    fn write(&self, path: &Path, text: &str) -> Result<(), Error> {
        make_private(&self.directory)?;
        tempfile::NamedTempFile::new_in(&self.directory)
            .and_then(|mut file| file.write_all(text.as_bytes()).map(|()| file))
            .and_then(|file| file.persist(path).map_err(|error| error.error))
            .map(|_| ())
            .map_err(Error::io("write", path))
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

    /// Gives an enrolled router another name, which stays the default if the old one was.
    ///
    /// # Errors
    /// [`Error::NameTaken`] or [`Error::InvalidName`], or a file cannot be written.
    pub fn rename(&self, router: Router, new_name: &str) -> Result<(), Error> {
        if router.name == new_name {
            return Ok(());
        }
        if self.find(new_name)?.is_some() {
            return Err(Error::NameTaken(new_name.to_owned()));
        }
        let is_default = self.default_name()?.as_ref() == Some(&router.name);
        self.put(&Router { name: new_name.to_owned(), entry: router.entry })?;
        if is_default {
            self.set_default(new_name)?;
        }
        remove_file(&self.path(&router.name))
    }

    /// Forgets a router, and that it is the default. Nothing happens if it is not there.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        if self.default_name()?.as_deref() == Some(name) {
            self.unset_default()?;
        }
        remove_file(&self.path(name))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.toml"))
    }
}

fn remove_file(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
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
                process: Some(EmulatedAgent { id: ProcessId { pid: 7, started: 1234 }, sandbox: Some(true) }),
            },
        }
    }

    /// A router that stands on somebody's desk.
    fn real(name: &str) -> Router {
        let router = router(name);
        Router { entry: Entry { process: None, ..router.entry }, ..router }
    }

    fn inventory() -> (tempfile::TempDir, Inventory) {
        let dir = tempfile::tempdir().unwrap();
        let inventory = Inventory::new(&Home::at(dir.path()));
        (dir, inventory)
    }

    #[test]
    fn virtual_routers_leave_real_one_implied() {
        let (_dir, inventory) = inventory();
        inventory.put(&router("virtual-mips")).unwrap();
        assert_eq!(inventory.implied().unwrap().name, "virtual-mips");
        inventory.put(&router("virtual-mipsle")).unwrap();
        assert!(matches!(inventory.implied(), Err(Error::AmbiguousRouter { .. })));
        inventory.put(&real("desk")).unwrap();
        assert_eq!(inventory.implied().unwrap().name, "desk");
        inventory.put(&real("attic")).unwrap();
        assert!(matches!(inventory.implied(), Err(Error::AmbiguousRouter { .. })));
    }

    #[test]
    fn default_router_lasts_until_removed() {
        let (_dir, inventory) = inventory();
        assert!(matches!(inventory.set_default("desk"), Err(Error::UnknownRouter { .. })));
        for name in ["desk", "attic"] {
            inventory.put(&real(name)).unwrap();
        }
        inventory.set_default("desk").unwrap();
        assert_eq!(inventory.implied().unwrap().name, "desk");
        inventory.remove("desk").unwrap();
        assert_eq!(inventory.default_name().unwrap(), None);
        assert_eq!(inventory.implied().unwrap().name, "attic");
        // Removed by hand.
        inventory.set_default("attic").unwrap();
        fs::remove_file(inventory.path("attic")).unwrap();
        inventory.put(&real("desk")).unwrap();
        assert!(matches!(inventory.implied(), Err(Error::StaleDefault(name)) if name == "attic"));
    }

    #[test]
    fn inventory_round_trips_entries() {
        let (_dir, inventory) = inventory();
        assert!(matches!(inventory.implied(), Err(Error::NoRouter)));
        inventory.put(&router("desk")).unwrap();
        assert_eq!(inventory.implied().unwrap(), router("desk"));
        inventory.put(&router("attic")).unwrap();
        assert_eq!(inventory.list().unwrap(), [router("attic"), router("desk")]);
        assert!(
            matches!(inventory.implied(), Err(Error::AmbiguousRouter { known }) if known == "attic, desk")
        );
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
        for error in [inventory.get("desk").unwrap_err(), inventory.implied().unwrap_err()] {
            assert!(error.to_string().contains("desk.toml"), "{error}");
        }
        let earlier = format!(
            "address = 'h:1'\nfingerprint = 'SHA256:{}'\ngoarch = 'mips'\n[virtual]\npid = 7\nstarted = 8\n",
            "ab".repeat(32)
        );
        fs::write(inventory.path("earlier"), earlier).unwrap();
        assert_eq!(inventory.get("earlier").unwrap().entry.process.unwrap().sandbox, None);
        inventory.remove("earlier").unwrap();
        // It costs that router only.
        inventory.put(&router("attic")).unwrap();
        assert_eq!(inventory.get("attic").unwrap(), router("attic"));
        let (routers, broken) = inventory.readable().unwrap();
        assert_eq!((routers, broken.len()), (vec![router("attic")], 1));
        assert!(
            matches!(inventory.get("cellar"), Err(Error::UnknownRouter { known, .. }) if known == "attic")
        );
    }
}
