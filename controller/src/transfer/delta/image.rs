//! The memory image of a MIPS program, and Go's tables of functions in it.
//!
//! **Invariants:** a file that says something else of itself than it is leads to `None` or to a wrong guess, never
//! further; and nothing is read more often than once.

use std::ops::Range;

use hop_formats::relocation::{ORIGINS, Origin};
use object::elf::{EM_MIPS, FileHeader32, PF_X, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endian, Endianness};

/// What Go's table of functions begins with since Go 1.20 (internal/abi/symtab.go), and then, as bytes: nothing twice, the
/// size of an instruction, and that of an address.
const MAGIC: u32 = 0xffff_fff1;
const MAGIC_END: [u8; 4] = [0, 0, 4, 4];

/// Words of `runtime.pcHeader` (runtime/symtab.go): how many functions there are; and how far from the header the names are, what
/// belongs to each instruction, and the functions.
const FUNCTIONS_COUNT: usize = 2;
const NAMES_OFFSET: usize = 5;
const TABLES_OFFSET: usize = 8;
const FUNCTIONS_OFFSET: usize = 9;

/// Words of `runtime.moduledata` (runtime/symtab.go): where the header is, where the names are, and so on.
const HEADER: usize = 0;
const NAMES: usize = 1;
const TEXT: usize = 22;
const TYPES: usize = 37;
const DATA: usize = 40;

/// The word of a function (`_func` in runtime/runtime2.go) that says where its name is.
const NAME: usize = 1;

/// Bytes of a function, without its offsets.
const FUNCTION_BYTES: usize = 44;

const WORD: usize = 4;

/// A MIPS program.
pub struct Image<'a> {
    file: &'a [u8],
    endianness: Endianness,
    segments: Vec<Segment>,
}

/// A part of a file that is loaded.
struct Segment {
    in_file: Range<usize>,
    address: u32,
    in_memory: u32,
    is_code: bool,
}

/// Where in its file a Go program has its tables.
pub struct GoTables<'a> {
    /// Where each function begins and where it is described, in pairs.
    pub index: Range<usize>,
    /// The functions, in their order.
    pub functions: Vec<Function<'a>>,
    /// Addresses, in the order of [`Origin`].
    pub origins: [u32; ORIGINS],
}

/// A function of a Go program.
pub struct Function<'a> {
    /// Where in the file it is described: behind the index, and behind the function before it.
    pub at: usize,
    /// Its name.
    pub name: &'a [u8],
}

impl<'a> Image<'a> {
    /// Reads a file; `None` if it is no MIPS program of 32 bits.
    pub fn read(file: &'a [u8]) -> Option<Self> {
        let header = FileHeader32::<Endianness>::parse(file).ok()?;
        let endianness = header.endian().ok()?;
        if header.e_machine(endianness) != EM_MIPS {
            return None;
        }
        let mut segments = Vec::new();
        for segment in header.program_headers(endianness, file).ok()? {
            let (offset, size) =
                (segment.p_offset(endianness) as usize, segment.p_filesz(endianness) as usize);
            let in_file = offset..offset.checked_add(size)?;
            file.get(in_file.clone())?;
            if segment.p_type(endianness) == PT_LOAD {
                let is_code = segment.p_flags(endianness).0 & PF_X.0 != 0;
                let (address, in_memory) = (segment.p_vaddr(endianness), segment.p_memsz(endianness));
                segments.push(Segment { in_file, address, in_memory, is_code });
            }
        }
        Some(Self { file, endianness, segments })
    }

    /// Its byte order.
    pub fn endianness(&self) -> Endianness {
        self.endianness
    }

    /// Parts of the file that hold instructions.
    pub fn code(&self) -> impl Iterator<Item = Range<usize>> {
        self.segments.iter().filter(|segment| segment.is_code).map(|segment| segment.in_file.clone())
    }

    /// Whether something is at an address.
    pub fn has(&self, address: u32) -> bool {
        self.segments.iter().any(|segment| address.wrapping_sub(segment.address) < segment.in_memory)
    }

    /// Its tables, if Go has made it, in a version that has them as 1.20 to 1.26 do.
    pub fn go(&self) -> Option<GoTables<'a>> {
        let header =
            self.find(|at| self.word(at) == Some(MAGIC) && self.file[at + WORD..].starts_with(&MAGIC_END))?;
        let field = |index: usize| self.word(header + index * WORD);
        let count = field(FUNCTIONS_COUNT)? as usize;
        let table = header.checked_add(field(FUNCTIONS_OFFSET)? as usize)?;
        let address = self.address(header)?;
        let from_header = |index| Some(address.wrapping_add(field(index)?));
        let names_address = from_header(NAMES_OFFSET)?;
        let module = self.find(|at| {
            self.word(at + HEADER * WORD) == Some(address)
                && self.word(at + NAMES * WORD) == Some(names_address)
        })?;
        let module = |index: usize| self.word(module + index * WORD);
        let mut origins = [0; ORIGINS];
        origins[Origin::Text as usize] = module(TEXT)?;
        origins[Origin::Types as usize] = module(TYPES)?;
        origins[Origin::Names as usize] = names_address;
        origins[Origin::Tables as usize] = from_header(TABLES_OFFSET)?;
        origins[Origin::Data as usize] = module(DATA)?;
        origins[Origin::Functions as usize] = from_header(FUNCTIONS_OFFSET)?;
        // A pair for each function, and where the last one ends.
        let pair = |index: usize| table.checked_add(index.checked_mul(2 * WORD)?);
        let index = table..pair(count)?.checked_add(WORD)?;
        self.file.get(index.clone())?;
        let names = header.checked_add(field(NAMES_OFFSET)? as usize)?;
        // No two names are in the same place, so all of them are no longer than the file.
        let mut unread = self.file.len();
        let functions = (0..count).map(|function| {
            let at = table.checked_add(self.word(pair(function)? + WORD)? as usize)?;
            let name = self.file.get(names.checked_add(self.word(at + NAME * WORD)? as usize)?..)?;
            let length = name.iter().take(unread).position(|byte| *byte == 0)?;
            unread -= length;
            Some(Function { at, name: &name[..length] })
        });
        let functions: Vec<_> = functions.collect::<Option<_>>()?;
        let in_order = functions.windows(2).all(|pair| pair[0].at + FUNCTION_BYTES <= pair[1].at)
            && functions.first().is_none_or(|first| first.at >= index.end);
        in_order.then_some(GoTables { index, functions, origins })
    }

    /// The first place of what is loaded, at a multiple of four, of which that is true.
    fn find(&self, mut is_it: impl FnMut(usize) -> bool) -> Option<usize> {
        let places = self.segments.iter().filter(|segment| !segment.is_code);
        places.flat_map(|segment| segment.in_file.clone().step_by(WORD)).find(|at| is_it(*at))
    }

    fn word(&self, at: usize) -> Option<u32> {
        let bytes = self.file.get(at..)?.first_chunk()?;
        Some(self.endianness.read_u32(*bytes))
    }

    fn address(&self, at: usize) -> Option<u32> {
        let segment = self.segments.iter().find(|segment| segment.in_file.contains(&at))?;
        Some(segment.address.wrapping_add((at - segment.in_file.start) as u32))
    }
}
