//! `hop key`: shows this controller's key, and replaces it with a new one on all routers.
//!
//! The rotation uses the same connections as every command: each router proves its pinned key, and the TLS handshake
//! proves to it which key the new one replaces. So no ssh login asks for a password, and routers that were enrolled
//! without ssh take part. First every router authorizes the new key next to the old one; then the new key becomes this
//! controller's; then every router removes the old one.
//!
//! **Invariants:** at every moment all routers authorize the key that this controller has, so a rotation may be
//! interrupted anywhere; running it again continues from the files that it finds. `key.next` is the new key, which not
//! all routers authorize yet; `key.previous` is the old key, which some routers may still authorize.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use hop_proto::identity::Identity;
use hop_proto::v1::{AddNextKeyRequest, RetirePreviousKeyRequest};

use super::Error;
use super::print;
use crate::cli::{self, KeyCommand};
use crate::client::capabilities::Capabilities;
use crate::client::connection::{Connection, DEFAULT_TIMEOUT};
use crate::config;
use crate::config::file_lock;
use crate::config::home::Home;
use crate::config::inventory::{Inventory, Router};
use crate::console::exit_code::ExitCode;
use crate::console::say;
use crate::virtual_router;

/// The capability of an agent that replaces keys.
const ROTATE: &str = "rotate";

/// Shows the key, or replaces it.
pub async fn run(home: &Home, options: cli::Key) -> Result<ExitCode, Error> {
    match options.command {
        None => print(&home.identity()?.fingerprint().to_string())?,
        Some(KeyCommand::Rotate { skip }) => return Rotation::new(home, &skip)?.run().await,
    }
    Ok(ExitCode::Program(0))
}

/// A rotation of this controller's key.
struct Rotation<'a> {
    home: &'a Home,
    /// The routers that take part.
    routers: Vec<Router>,
    /// Held until the rotation ends: two at once would make two next keys.
    _lock: fs::File,
}

impl<'a> Rotation<'a> {
    fn new(home: &'a Home, skip: &[String]) -> Result<Self, Error> {
        let inventory = Inventory::new(home);
        for name in skip {
            inventory.get(name)?;
        }
        // The agents of qemu-user that do not run get the key of this controller when they are started.
        let takes_part = |router: &Router| {
            let is_off = router.entry.process.is_some() && !virtual_router::is_running(router);
            !is_off && !skip.contains(&router.name)
        };
        let routers = inventory.list()?.into_iter().filter(takes_part).collect();
        home.identity()?;
        let path = home.key().with_extension("lock");
        let lock = file_lock::take(&path).map_err(Error::io("lock", &path))?;
        let lock = lock.ok_or_else(|| Error::Usage("another `hop key rotate` is under way".to_owned()))?;
        Ok(Self { home, routers, _lock: lock })
    }

    async fn run(&self) -> Result<ExitCode, Error> {
        let [next, previous] = ["next", "previous"].map(|part| self.home.key().with_extension(part));
        // One that was cut off later than where its next key became the key goes on there.
        if next.exists() || !previous.exists() {
            self.introduce(&next).await?;
            self.switch(next, &previous)?;
        }
        self.retire(previous).await
    }

    /// Every router lets the next key in.
    async fn introduce(&self, next: &Path) -> Result<(), Error> {
        let own = self.home.identity()?;
        let next = Identity::load_or_create(next).map_err(config::Error::Identity)?;
        let mut failed = Vec::new();
        for router in &self.routers {
            match self.add_next(router, &own, &next).await {
                Ok(()) => say!("hop: {}: lets {} in as well", router.name, next.fingerprint()),
                Err(error) => {
                    say!("hop: {}: {error}", router.name);
                    failed.push(router.name.as_str());
                }
            }
        }
        self.unfinished(&failed, "the old key is still this controller's")
    }

    async fn add_next(&self, router: &Router, own: &Identity, next: &Identity) -> Result<(), Error> {
        let (mut connection, info) = Connection::open(router, own, DEFAULT_TIMEOUT).await?;
        if !Capabilities::from(&info).has(ROTATE) {
            return Err(Error::Lacks { router: router.name.clone(), what: "`hop key rotate`" });
        }
        let sha256 = next.fingerprint().as_bytes().to_vec();
        if let Err(status) = connection.client().add_next_key(AddNextKeyRequest { sha256 }).await {
            return Err(connection.explain(status).await.into());
        }
        connection.close().await;
        // It is believed when the new key was let in, and not before.
        let (connection, _) = Connection::open(router, next, DEFAULT_TIMEOUT).await?;
        connection.close().await;
        Ok(())
    }

    /// The next key becomes this controller's. There is a key at every moment: the old one is first given its second name, and
    /// then the new one takes its place in one step.
    fn switch(&self, next: PathBuf, previous: &Path) -> Result<(), Error> {
        let key = self.home.key();
        match fs::hard_link(&key, previous) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Error::io("create", previous)(error));
            }
            _ => {}
        }
        fs::rename(&next, &key).map_err(Error::io("replace", &key))
    }

    /// Every router takes the old key off its list.
    async fn retire(&self, previous: PathBuf) -> Result<ExitCode, Error> {
        let own = self.home.identity()?;
        let old = Identity::load(&previous).map_err(config::Error::Identity)?.fingerprint();
        let mut failed = Vec::new();
        for router in &self.routers {
            match self.retire_previous(router, &own).await {
                Ok(()) => say!("hop: {}: has taken {old} off", router.name),
                Err(error) => {
                    say!("hop: {}: {error}", router.name);
                    failed.push(router.name.as_str());
                }
            }
        }
        self.unfinished(&failed, "the new key is this controller's, and the old one is still let in there")?;
        fs::remove_file(&previous).map_err(Error::io("remove", &previous))?;
        print(&own.fingerprint().to_string())?;
        Ok(ExitCode::Program(0))
    }

    async fn retire_previous(&self, router: &Router, own: &Identity) -> Result<(), Error> {
        let (mut connection, _) = Connection::open(router, own, DEFAULT_TIMEOUT).await?;
        if let Err(status) = connection.client().retire_previous_key(RetirePreviousKeyRequest {}).await {
            return Err(connection.explain(status).await.into());
        }
        connection.close().await;
        Ok(())
    }

    fn unfinished(&self, failed: &[&str], state: &str) -> Result<(), Error> {
        if failed.is_empty() {
            return Ok(());
        }
        Err(Error::Unfinished { routers: failed.join(", "), state: state.to_owned() })
    }
}
