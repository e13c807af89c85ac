//! A finished program: its bytes, its name on the router, and whether it can run there.

pub mod embedded;
mod error;

pub use self::error::{Error, NotRunnable};

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use bytes::Bytes;
use hop_formats::elf::{self, FloatAbi, Target};
use hop_formats::segments;
use hop_proto::limits::MAX_NAME_BYTES;
use hop_proto::{program_name, v1};

use crate::console::printable::printable;
use crate::transfer::blob::{Blob, Kind};

/// A file that `hop` has checked and that can run on its router.
#[derive(Debug)]
pub struct Program {
    /// The uploaded blob, under its name on the router.
    pub blob: Blob,
    /// The program with its symbols, for a debugger.
    pub whole: Bytes,
}

impl Program {
    /// Reads `path` for `router`, whose programs are for `target`; `name` is what it will be called there.
    ///
    /// # Errors
    /// [`Error::NotRunnable`] with the reason; [`Error::ControlCharacters`] for a name that no program may have.
    pub fn load(path: &Path, name: &OsStr, router: &str, target: Target) -> Result<Self, Error> {
        let refuse = |why| Error::NotRunnable { program: path.to_owned(), router: router.to_owned(), why };
        let content = fs::read(path).map_err(|error| refuse(error.into()))?;
        check(&content, target).map_err(refuse)?;
        let name = router_name(name);
        if !program_name::is_valid(&name) {
            let path = printable(&path.to_string_lossy()).into_owned();
            return Err(Error::ControlCharacters { path });
        }
        let blob = Blob::new(Kind::Program, name, content);
        Ok(Self { whole: blob.content.clone(), blob })
    }

    /// Whether a router with strict overcommit promises what the program may write to from its start on. What a Go program
    /// asks for then, the agent counts with.
    ///
    /// # Errors
    /// [`Error::NotPromised`] with the figures.
    pub fn check_promised(&self, router: &str, memory: &v1::Memory) -> Result<(), Error> {
        let available = memory.available.saturating_sub(memory.reserve);
        match elf::read(&self.whole) {
            Ok(elf::Executable { writable_bytes: needed, .. })
                if memory.bound_by_promises && needed > available =>
            {
                Err(Error::NotPromised { router: router.to_owned(), needed, available })
            }
            _ => Ok(()),
        }
    }

    /// The program alone goes to the router, and what a debugger wants to know stays here.
    pub fn without_symbols(self) -> Self {
        match segments::alone(&self.whole) {
            Some(content) => Self { blob: Blob::new(Kind::Program, self.blob.name, content), ..self },
            None => self,
        }
    }
}

fn check(content: &[u8], router: Target) -> Result<(), NotRunnable> {
    let program = elf::read(content)?;
    if program.target != router {
        return Err(NotRunnable::OtherMachine { program: program.target, router });
    }
    // A router runs musl, or an old uClibc; what was linked here would not find its libraries there. A developer's own
    // machine (hopd on x86) has what its programs want.
    if is_mips(router) {
        if program.float == FloatAbi::Hard {
            return Err(NotRunnable::HardFloat);
        }
        if let Some(interpreter) = program.interpreter {
            return Err(NotRunnable::Dynamic(interpreter));
        }
    }
    Ok(())
}

/// True for the routers that Hop is made for.
pub fn is_mips(target: Target) -> bool {
    target.machine == object::elf::EM_MIPS.0
}

/// The target that the agent reported for its programs.
pub fn target_of(info: &v1::GetInfoResponse) -> Option<Target> {
    let target = info.target.as_ref()?;
    Some(Target {
        class: target.elf_class.try_into().ok()?,
        data: target.elf_data.try_into().ok()?,
        machine: target.elf_machine.try_into().ok()?,
    })
}

/// A file name of at most [`MAX_NAME_BYTES`] bytes of text.
fn router_name(name: &OsStr) -> String {
    let mut name: String = name.to_string_lossy().replace(['/', '\0'], "_");
    while name.len() > MAX_NAME_BYTES {
        name.pop();
    }
    if matches!(name.as_str(), "" | "." | "..") { "program".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ROUTER: Target = Target { class: 1, data: 2, machine: 8 };

    #[test]
    fn program_for_other_machine_is_refused() {
        let this = fs::read(std::env::current_exe().unwrap()).unwrap();
        let why = check(&this, ROUTER).unwrap_err();
        assert!(why.to_string().ends_with("and the router is MIPS, 32 bits, big endian"), "{why}");
        assert!(check(&this, elf::read(&this).unwrap().target).is_ok());
    }

    #[test]
    fn zeroed_data_counts_as_committed() {
        let content = fs::read(std::env::current_exe().unwrap()).unwrap();
        let needed = elf::read(&content).unwrap().writable_bytes;
        assert!(needed > 0);
        let blob = Blob::new(Kind::Program, "x".into(), content);
        let program = Program { whole: blob.content.clone(), blob };
        let memory = |available, bound_by_promises| v1::Memory {
            total: 1 << 40,
            available,
            reserve: 10,
            bound_by_promises,
        };
        assert!(program.check_promised("desk", &memory(needed + 10, true)).is_ok());
        assert!(program.check_promised("desk", &memory(needed, false)).is_ok());
        let error = program.check_promised("desk", &memory(needed + 9, true)).unwrap_err();
        assert!(matches!(error, Error::NotPromised { available, .. } if available == needed - 1));
    }

    #[test]
    fn program_name_is_sanitized() {
        assert_eq!(router_name(OsStr::new("hello")), "hello");
        assert_eq!(router_name(OsStr::new("..")), "program");
        assert_eq!(router_name(OsStr::new(&"ü".repeat(40))), "ü".repeat(32));
    }
}
