//! Files of this machine that go to a router with a program.

mod certificates;
mod error;
mod request;
mod time_zone;

use std::ffi::{OsStr, OsString};
use std::path::Path;

pub use self::error::Error;
pub use self::request::Input;
use crate::transfer::inputs::{Files, InputArchive, MARK};

/// The directory next to the program's own for what the router lacks.
const SHARE: &str = "share";

/// The variable with a time zone (tzset(3)).
pub const TZ: &str = "TZ";

/// The variables by which Go finds a zone by its name (pkg.go.dev/time#LoadLocation), and Go and OpenSSL find certificates.
const ZONEINFO: &str = "ZONEINFO";
const SSL_CERT_FILE: &str = "SSL_CERT_FILE";

/// What a router may lack and this machine has: files next to the program's own, and the variables that lead to them.
#[derive(Debug, Default)]
pub struct Share {
    files: Files,
    env: Vec<(OsString, OsString)>,
}

impl Share {
    /// Adds the file of the zone that `tz`, the value of TZ, names, if this machine has it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn add_zone(&mut self, tz: &OsStr) -> Result<(), Error> {
        if let Some((name, content)) = time_zone::find(tz, time_zone::variable)? {
            let place = Path::new("zoneinfo").join(name);
            let mut value = OsString::from(":");
            value.push(there(&place));
            self.env.push((TZ.into(), value));
            self.env.push((ZONEINFO.into(), there(Path::new("zoneinfo"))));
            self.files.add_content(&place, content);
        }
        Ok(())
    }

    /// Adds this machine's CA certificates.
    ///
    /// # Errors
    /// [`Error::NoCertificates`], [`Error::Io`].
    pub fn add_certificates(&mut self) -> Result<(), Error> {
        let place = Path::new("certificates.pem");
        self.files.add(place, &certificates::find(std::env::var_os(SSL_CERT_FILE))?)?;
        self.env.push((SSL_CERT_FILE.into(), there(place)));
        Ok(())
    }

    /// The archive of the files, if there are any. Adds the variables that lead to them to `env`.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn pack(self, env: &mut Vec<(OsString, OsString)>) -> Result<Option<InputArchive>, Error> {
        if self.files.is_empty() {
            return Ok(None);
        }
        env.extend(self.env);
        let archive = self.files.pack(SHARE.to_owned(), SHARE)?;
        Ok(Some(InputArchive { is_aside: true, ..archive }))
    }
}

/// The path of a shared file on the router.
fn there(path: &Path) -> OsString {
    Path::new(MARK).join("..").join(SHARE).join(path).into_os_string()
}
