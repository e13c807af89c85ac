//! The CA certificates of this machine, in one file.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::Error;

/// Where distributions keep them (crypto/x509, root_linux.go).
const PLACES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The file that `named`, the value of SSL_CERT_FILE, names, else the first that there is.
///
/// # Errors
/// [`Error::NoCertificates`].
pub fn find(named: Option<OsString>) -> Result<PathBuf, Error> {
    let searched: Vec<PathBuf> = match named.filter(|named| !named.is_empty()) {
        Some(named) => vec![named.into()],
        None => PLACES.iter().map(|place| Path::new(place).to_owned()).collect(),
    };
    let found = searched.iter().find(|place| place.is_file()).cloned();
    found.ok_or(Error::NoCertificates { searched })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn named_certificates_come_first() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(find(Some(file.path().into())).unwrap(), file.path());
        let error = find(Some("/no/such/file".into())).unwrap_err().to_string();
        assert!(error.ends_with("no file of CA certificates in /no/such/file"), "{error}");
    }
}
