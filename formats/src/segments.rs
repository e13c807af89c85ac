//! The segments of an ELF file: the part that the kernel loads, or wrote. After them follow data that only debuggers
//! read.

use object::elf::{FileHeader32, FileHeader64};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, FileKind};

/// The end of the last segment in a file that begins with `start`, which has all its program headers; `None` if it has
/// no segments.
pub fn end(start: &[u8]) -> Option<u64> {
    match FileKind::parse(start).ok()? {
        FileKind::Elf32 => end_in::<FileHeader32<Endianness>>(start),
        FileKind::Elf64 => end_in::<FileHeader64<Endianness>>(start),
        _ => None,
    }
}

fn end_in<Header: FileHeader<Endian = Endianness>>(start: &[u8]) -> Option<u64> {
    let header = Header::parse(start).ok()?;
    let endian = header.endian().ok()?;
    let segments = header.program_headers(endian, start).ok()?;
    segments
        .iter()
        .map(|segment| {
            let (offset, size): (u64, u64) =
                (segment.p_offset(endian).into(), segment.p_filesz(endian).into());
            offset.saturating_add(size)
        })
        .max()
}

/// The program without its symbols and everything else after its segments; its image in memory is the same to the last
/// byte. `None` if there is nothing to remove.
pub fn alone(program: &[u8]) -> Option<Vec<u8>> {
    let end = usize::try_from(end(program)?).ok().filter(|end| *end < program.len())?;
    let mut alone = program.get(..end)?.to_vec();
    // Without sections: e_shoff, and e_shnum and e_shstrndx (elf(5)).
    let fields: [std::ops::Range<usize>; 2] = match FileKind::parse(program).ok()? {
        FileKind::Elf32 => [0x20..0x24, 0x30..0x34],
        _ => [0x28..0x30, 0x3c..0x40],
    };
    for field in fields {
        alone.get_mut(field)?.fill(0);
    }
    Some(alone)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::elf;

    #[test]
    fn stripped_program_loads_the_same() {
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let alone = alone(&program).unwrap();
        assert!(alone.len() < program.len());
        assert_eq!(elf::read(&alone).unwrap(), elf::read(&program).unwrap());
        assert_eq!(end(&alone), Some(alone.len() as u64));
        assert_eq!(super::alone(&alone), None);
    }

    #[test]
    fn non_elf_has_no_segments() {
        for nothing in [&b""[..], b"#!/bin/sh\n", b"\x7fELF"] {
            assert_eq!((end(nothing), alone(nothing)), (None, None));
        }
    }
}
