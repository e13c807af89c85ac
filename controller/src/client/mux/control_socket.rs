//! The control socket of a connection master, and the lock that the master holds.
//!
//! **Invariants:** two routers, two keys, or two ways to one router never share a socket; a socket in a directory that others can
//! write to is not used.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use hop_proto::identity::Fingerprint;
use ring::digest::{SHA256, digest};
use rustix::process::geteuid;
use tokio::net::UnixStream;

use crate::client::Error;
use crate::config::inventory::Router;

/// Bytes of the digest in a name: enough that no two are the same, and a socket's path has 107 bytes at most (unix(7)).
const DIGEST_BYTES: usize = 16;

/// The socket of one master, by its path.
#[derive(Debug, PartialEq, Eq)]
pub struct ControlSocket {
    directory: PathBuf,
    name: String,
}

impl ControlSocket {
    /// The socket of the master for a router and the controller with this key.
    pub fn of(directory: &Path, router: &Router, own: Fingerprint) -> Self {
        let entry = &router.entry;
        let mut words = vec![
            own.to_string().into_bytes(),
            router.name.clone().into_bytes(),
            entry.fingerprint.to_string().into_bytes(),
            entry.address.clone().into_bytes(),
        ];
        if let Some(enrolment) = entry.enrolment.as_ref().filter(|enrolment| enrolment.via_ssh) {
            words.push(enrolment.ssh.host.clone().into_bytes());
            words.extend(enrolment.ssh.arguments().iter().map(|word| word.as_bytes().to_vec()));
        }
        // None of them has a zero byte in it.
        let digest = digest(&SHA256, &words.join(&0));
        let name = HEXLOWER.encode(&digest.as_ref()[..DIGEST_BYTES]);
        Self { directory: directory.to_owned(), name }
    }

    /// The directory of all places.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The path on which the master listens.
    pub fn socket(&self) -> PathBuf {
        self.directory.join(&self.name)
    }

    /// The lock that the master holds while it runs. The file stays: a new file of this name could be locked as well.
    pub fn lock(&self) -> PathBuf {
        self.directory.join(format!("{}.lock", self.name))
    }

    /// Makes sure that nobody else can put anything into the directory.
    ///
    /// # Errors
    /// It is not there, or is another user's, or open to others.
    pub fn check_directory(&self) -> Result<(), Error> {
        let refused = |why: &str| io::Error::new(io::ErrorKind::PermissionDenied, why);
        fs::symlink_metadata(&self.directory)
            .and_then(|metadata| match metadata.mode() {
                _ if !metadata.is_dir() => Err(refused("it is no directory")),
                _ if metadata.uid() != geteuid().as_raw() => Err(refused("it is another user's")),
                mode if mode & 0o077 != 0 => Err(refused("others may look into it (mode 0700 is needed)")),
                _ => Ok(()),
            })
            .map_err(Error::io("use", &self.directory))
    }

    /// Connects to the master, if one runs for this user.
    pub async fn connect(&self) -> Option<UnixStream> {
        self.check_directory().ok()?;
        let stream = UnixStream::connect(self.socket()).await.ok()?;
        is_ours(&stream).then_some(stream)
    }

    /// True if no master runs, not even one that is about to exit.
    ///
    /// # Errors
    /// Nobody can know.
    pub fn is_unlocked(&self) -> io::Result<bool> {
        let lock = match File::open(self.lock()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            lock => lock?,
        };
        match lock.try_lock_shared() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// True if the process at the other end runs as this user.
pub fn is_ours(stream: &UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == geteuid().as_raw())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::config::enrolment::Destination;
    use crate::config::enrolment::{EnrolmentRecord, Persistence};
    use crate::config::inventory::Entry;

    fn fingerprint(digits: &str) -> Fingerprint {
        format!("SHA256:{}", digits.repeat(32)).parse().unwrap()
    }

    fn router(address: &str, digits: &str) -> Router {
        let entry = Entry {
            address: address.into(),
            fingerprint: fingerprint(digits),
            goarch: "mips".into(),
            enrolment: None,
            process: None,
        };
        Router { name: "desk".into(), entry }
    }

    fn via_ssh(host: &str, options: &[&str]) -> Router {
        let mut router = router("127.0.0.1:4670", "ab");
        let ssh = Destination {
            options: options.iter().map(|&option| option.into()).collect(),
            ..Destination::parse(host).unwrap()
        };
        let enrolment = EnrolmentRecord {
            persistence: Persistence::Install,
            program: None,
            port: 4670,
            via_ssh: true,
            agent_address: None,
            cache_dir: None,
            listen_interface: None,
            next_fingerprint: None,
            asked: None,
            ssh,
        };
        router.entry.enrolment = Some(enrolment);
        router
    }

    #[test]
    fn control_sockets_do_not_collide() {
        let directory = Path::new("/run/user/1000/hop");
        let (own, other) = (fingerprint("01"), fingerprint("02"));
        let socket = |router: &Router, own| ControlSocket::of(directory, router, own);
        let mut renamed = router("desk:4670", "ab");
        renamed.name = "attic".into();
        let sockets = [
            socket(&router("desk:4670", "ab"), own),
            socket(&router("desk:4670", "ab"), other),
            socket(&router("desk:4670", "cd"), own),
            socket(&router("desk:4671", "ab"), own),
            socket(&renamed, own),
            socket(&router("127.0.0.1:4670", "ab"), own),
            socket(&via_ssh("desk", &[]), own),
            socket(&via_ssh("attic", &[]), own),
            socket(&via_ssh("desk", &["Port=2222"]), own),
        ];
        for (number, socket) in sockets.iter().enumerate() {
            assert!(!sockets[..number].contains(socket), "{number}");
        }
        assert_eq!(sockets[0], socket(&router("desk:4670", "ab"), own));
        let longest = sockets[0].lock();
        assert!(longest.as_os_str().len() < 64, "{}", longest.display());
    }

    #[tokio::test]
    async fn directory_open_to_others_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("run");
        let socket = ControlSocket::of(&directory, &router("desk:4670", "ab"), fingerprint("01"));
        assert!(socket.check_directory().is_err(), "it is not there");
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).unwrap();
        socket.check_directory().unwrap();
        let _listener = tokio::net::UnixListener::bind(socket.socket()).unwrap();
        assert!(socket.connect().await.is_some());
        for mode in [0o710, 0o701, 0o750, 0o777] {
            fs::set_permissions(&directory, fs::Permissions::from_mode(mode)).unwrap();
            assert!(socket.connect().await.is_none(), "{mode:o}");
        }
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).unwrap();
        let link = home.path().join("link");
        symlink(&directory, &link).unwrap();
        let elsewhere = ControlSocket { directory: link, ..socket };
        assert!(elsewhere.check_directory().is_err(), "a link is somebody's word for where it leads");
    }

    #[tokio::test]
    async fn stale_socket_has_no_master() {
        let home = tempfile::tempdir().unwrap();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let socket = ControlSocket::of(home.path(), &router("desk:4670", "ab"), fingerprint("01"));
        assert!(socket.connect().await.is_none());
        drop(std::os::unix::net::UnixListener::bind(socket.socket()).unwrap());
        assert!(socket.socket().exists() && socket.connect().await.is_none());
        assert!(socket.is_unlocked().unwrap());
        let lock = File::create(socket.lock()).unwrap();
        assert!(socket.is_unlocked().unwrap());
        lock.lock().unwrap();
        assert!(!socket.is_unlocked().unwrap());
    }
}
