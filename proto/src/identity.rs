//! The identity of one side: an Ed25519 key, known to the other side by its fingerprint.
//!
//! The key is a file with PKCS#8 (RFC 5958) in DER; `openssl pkey -inform DER` reads it. **Invariants:** a key file
//! is readable by its owner alone, it is never half written, and an existing one is never replaced.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use ring::digest;
use ring::rand::SystemRandom;
use ring::signature::{ED25519_PUBLIC_KEY_LEN, Ed25519KeyPair, KeyPair};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;

/// Errors of a key file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read the key {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// The file cannot be written.
    #[error("cannot write the key {}", .0.display())]
    Write(PathBuf, #[source] io::Error),
    /// The file has other content.
    #[error("{} is not an Ed25519 key in PKCS#8 DER", .0.display())]
    Malformed(PathBuf),
    /// The system provides no random numbers.
    #[error("the system gives no random numbers")]
    NoRandom,
}

/// An Ed25519 key pair, ready to sign TLS handshakes.
#[derive(Clone)]
pub struct Identity {
    certified: Arc<CertifiedKey>,
    fingerprint: Fingerprint,
}

impl Identity {
    /// The key in `path`. If the file does not exist, creates a key and writes it there.
    ///
    /// # Errors
    /// The key cannot be read or created.
    pub fn load_or_create(path: &Path) -> Result<Self, Error> {
        match Self::load(path) {
            Err(Error::Read(_, error)) if error.kind() == io::ErrorKind::NotFound => Self::create(path),
            loaded => loaded,
        }
    }

    /// The key in `path`, which must exist.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Malformed`].
    pub fn load(path: &Path) -> Result<Self, Error> {
        let der = fs::read(path).map_err(|error| Error::Read(path.to_owned(), error))?;
        Self::from_pkcs8(&der).ok_or_else(|| Error::Malformed(path.to_owned()))
    }

    fn create(path: &Path) -> Result<Self, Error> {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| Error::NoRandom)?;
        match write_new(path, document.as_ref()) {
            Ok(()) => {}
            // Another process was faster: its key is the key.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Self::load_or_create(path),
            Err(error) => return Err(Error::Write(path.to_owned(), error)),
        }
        Self::from_pkcs8(document.as_ref()).ok_or_else(|| Error::Malformed(path.to_owned()))
    }

    fn from_pkcs8(der: &[u8]) -> Option<Self> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok()?;
        let spki = subject_public_key_info(pair.public_key().as_ref());
        let signing_key = rustls::crypto::ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(der)).ok()?;
        let fingerprint = Fingerprint::of(&spki);
        // With raw public keys (RFC 7250) the "certificate" is the SubjectPublicKeyInfo itself.
        let certified = CertifiedKey::new(vec![CertificateDer::from(spki)], signing_key);
        Some(Self { certified: Arc::new(certified), fingerprint })
    }

    /// The name by which the other side knows this identity.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        self.certified.clone()
    }
}

/// Without the key itself.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.fingerprint)
    }
}

/// Writes a private file that appears whole or not at all: created under another name, then linked into place, which
/// fails if the name is taken (link(2)).
fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.new", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()))
        .and_then(|()| fs::hard_link(&temporary, path));
    // The caller needs the result of `written`; a temporary file that cannot be removed was not created.
    let _ = fs::remove_file(&temporary);
    written
}

/// The bytes before every key in the DER of a SubjectPublicKeyInfo with an Ed25519 key (RFC 8410, section 4).
const BEFORE_KEY: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

fn subject_public_key_info(public_key: &[u8]) -> Vec<u8> {
    [&BEFORE_KEY, public_key].concat()
}

/// The Ed25519 key in a SubjectPublicKeyInfo in DER, if there is one.
pub(crate) fn public_key(spki: &[u8]) -> Option<&[u8; ED25519_PUBLIC_KEY_LEN]> {
    spki.strip_prefix(&BEFORE_KEY)?.try_into().ok()
}

/// SHA-256 of a SubjectPublicKeyInfo, which is pinned, compared and displayed: `SHA256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of a SubjectPublicKeyInfo in DER.
    pub fn of(spki: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, spki).as_ref());
        Self(bytes)
    }

    /// The fingerprint with these bytes, as a message contains it.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes, as a message contains them.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SHA256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The text is not `SHA256:` and 64 hexadecimal digits.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint is SHA256: and 64 hexadecimal digits")]
pub struct MalformedFingerprint;

impl FromStr for Fingerprint {
    type Err = MalformedFingerprint;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix("SHA256:").ok_or(MalformedFingerprint)?.as_bytes();
        if digits.len() != 64 {
            return Err(MalformedFingerprint);
        }
        // Not by data-encoding, whose code for every base would make an agent 28 kB larger.
        let value = |digit: u8| char::from(digit).to_digit(16).ok_or(MalformedFingerprint);
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = (value(pair[0])? << 4 | value(pair[1])?) as u8;
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn new_key_is_saved_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let made = Identity::load_or_create(&path).unwrap();
        let loaded = Identity::load_or_create(&path).unwrap();
        assert_eq!(made.fingerprint(), loaded.fingerprint());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn invalid_key_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(&path, "not a key").unwrap();
        assert!(matches!(Identity::load_or_create(&path), Err(Error::Malformed(_))));
        assert_eq!(fs::read(&path).unwrap(), b"not a key");
    }

    #[test]
    fn fingerprint_round_trips_through_text() {
        let fingerprint = Fingerprint::of(b"some key");
        assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
        for wrong in [
            "",
            "SHA256:",
            "sha256:00",
            &fingerprint.to_string()[..70],
            &format!("SHA256:{}", "g".repeat(64)),
        ] {
            assert_eq!(wrong.parse::<Fingerprint>(), Err(MalformedFingerprint), "{wrong:?}");
        }
    }
}
