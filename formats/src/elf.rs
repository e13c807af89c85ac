//! Properties of an executable file: its machine, its float ABI, and what it needs from the system.
//!
//! Read from the file alone (elf(5); the MIPS ABI flags of the "MIPS O32 ABI - FR0 and FR1 interlinking" document), so
//! that the controller refuses a program that cannot run before it uploads a byte of it.

use std::fmt;

use object::elf;
use object::read::elf::{ElfFile, FileHeader, ProgramHeader};
use object::{Endian, FileKind, Object};

/// The segment that holds the MIPS ABI flags, and where in it the fields are.
const PT_MIPS_ABIFLAGS: elf::ProgramType = elf::ProgramType(0x7000_0003);
const ABIFLAGS_ISA_LEVEL: usize = 2;
const ABIFLAGS_ISA_REVISION: usize = 3;
const ABIFLAGS_FLOAT: usize = 7;

/// The identity of an executable: class, byte order and machine, as ELF numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// EI_CLASS: 1 is 32 bits, 2 is 64 bits.
    pub class: u8,
    /// EI_DATA: 1 is little endian, 2 is big endian.
    pub data: u8,
    /// e_machine.
    pub machine: u16,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = if self.class == elf::ELFCLASS64.0 { 64 } else { 32 };
        let order = if self.data == elf::ELFDATA2MSB.0 { "big" } else { "little" };
        match elf::Machine(self.machine) {
            elf::EM_MIPS => write!(f, "MIPS"),
            elf::EM_X86_64 => write!(f, "x86-64"),
            elf::EM_386 => write!(f, "x86"),
            elf::EM_ARM => write!(f, "ARM"),
            elf::EM_AARCH64 => write!(f, "AArch64"),
            other => write!(f, "machine {}", other.0),
        }?;
        write!(f, ", {bits} bits, {order} endian")
    }
}

/// How a MIPS program computes with floating-point numbers (Tag_GNU_MIPS_ABI_FP).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FloatAbi {
    /// Uses no floating point, or does not say.
    Any,
    /// Uses integer instructions.
    Soft,
    /// Uses an FPU, which these routers do not have.
    Hard,
}

/// The properties that an executable file states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executable {
    /// The machine on which it runs.
    pub target: Target,
    /// MIPS only; `Any` elsewhere.
    pub float: FloatAbi,
    /// MIPS only: level and revision of the instruction set, 32 and 2 for MIPS32r2.
    pub isa: Option<(u8, u8)>,
    /// The dynamic linker that it requests.
    pub interpreter: Option<String>,
    /// Bytes of memory that it may write to from its start on, including its zeroed data: a kernel with strict
    /// overcommit must commit these.
    pub writable_bytes: u64,
    /// It has a dynamic section (a position-independent executable may have one without an interpreter).
    pub is_dynamic: bool,
}

/// Why a file is not a readable executable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The file is empty.
    #[error("the file is empty")]
    Empty,
    /// It begins like another type of file.
    #[error("it is not an ELF file")]
    NotElf,
    /// It begins like an archive, as Go writes for a package that is not a program.
    #[error("it is an archive, not a program")]
    Archive,
    /// A library or an object file.
    #[error("it is an ELF file, but not an executable")]
    NotExecutable,
    /// It ends before the end that its own headers announce.
    #[error("the file is truncated or damaged")]
    Damaged,
}

/// Reads the properties of `file`.
///
/// # Errors
/// The file is not an executable: see [`Error`].
pub fn read(file: &[u8]) -> Result<Executable, Error> {
    if file.is_empty() {
        return Err(Error::Empty);
    }
    if file.starts_with(b"!<arch>\n") {
        return Err(Error::Archive);
    }
    match FileKind::parse(file) {
        Ok(FileKind::Elf32) => read_class::<elf::FileHeader32<object::Endianness>>(file),
        Ok(FileKind::Elf64) => read_class::<elf::FileHeader64<object::Endianness>>(file),
        _ if file.starts_with(&elf::ELFMAG) => Err(Error::Damaged),
        _ => Err(Error::NotElf),
    }
}

fn read_class<Header: FileHeader<Endian = object::Endianness>>(file: &[u8]) -> Result<Executable, Error> {
    let parsed = ElfFile::<Header>::parse(file).map_err(|_| Error::Damaged)?;
    let (header, endian) = (parsed.elf_header(), parsed.endian());
    if !matches!(header.e_type(endian), elf::ET_EXEC | elf::ET_DYN) {
        return Err(Error::NotExecutable);
    }
    if parsed.elf_program_headers().is_empty() || parsed.entry() == 0 {
        return Err(Error::NotExecutable);
    }
    let mut executable = Executable {
        target: Target {
            class: if header.is_class_64() { elf::ELFCLASS64.0 } else { elf::ELFCLASS32.0 },
            data: if endian.is_big_endian() { elf::ELFDATA2MSB.0 } else { elf::ELFDATA2LSB.0 },
            machine: header.e_machine(endian).0,
        },
        float: FloatAbi::Any,
        isa: None,
        interpreter: None,
        writable_bytes: 0,
        is_dynamic: false,
    };
    for segment in parsed.elf_program_headers() {
        let content = segment.data(endian, file).map_err(|()| Error::Damaged)?;
        match segment.p_type(endian) {
            elf::PT_INTERP => {
                let text = content.strip_suffix(b"\0").unwrap_or(content);
                executable.interpreter = Some(String::from_utf8_lossy(text).into_owned());
            }
            elf::PT_DYNAMIC => executable.is_dynamic = true,
            elf::PT_LOAD if segment.p_flags(endian).0 & elf::PF_W.0 != 0 => {
                let bytes: u64 = segment.p_memsz(endian).into();
                executable.writable_bytes = executable.writable_bytes.saturating_add(bytes);
            }
            PT_MIPS_ABIFLAGS if header.e_machine(endian) == elf::EM_MIPS => {
                let field = |offset: usize| content.get(offset).copied().ok_or(Error::Damaged);
                executable.isa = Some((field(ABIFLAGS_ISA_LEVEL)?, field(ABIFLAGS_ISA_REVISION)?));
                executable.float = match field(ABIFLAGS_FLOAT)? {
                    0 => FloatAbi::Any,
                    3 => FloatAbi::Soft,
                    _ => FloatAbi::Hard,
                };
            }
            _ => {}
        }
    }
    Ok(executable)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn this_program() -> Vec<u8> {
        std::fs::read(std::env::current_exe().unwrap()).unwrap()
    }

    #[test]
    fn real_program_is_recognised() {
        let executable = read(&this_program()).unwrap();
        assert_eq!(executable.target.class, if cfg!(target_pointer_width = "64") { 2 } else { 1 });
        assert!(executable.interpreter.is_some_and(|interpreter| interpreter.contains("ld-")));
        assert_eq!(executable.float, FloatAbi::Any);
    }

    #[test]
    fn non_programs_are_named() {
        assert_eq!(read(b""), Err(Error::Empty));
        assert_eq!(read(b"#!/bin/sh\necho hello\n"), Err(Error::NotElf));
        assert_eq!(read(b"!<arch>\n__.PKGDEF"), Err(Error::Archive));
        assert_eq!(read(b"\x7fELF"), Err(Error::Damaged));
    }

    #[test]
    fn truncated_program_is_damaged() {
        let program = this_program();
        for length in [5, 16, 52, 64, 100, 1000, program.len() / 2, program.len() - 1] {
            assert_eq!(read(&program[..length]), Err(Error::Damaged), "cut at {length}");
        }
    }
}
