//! An agent with its symbols: what its bytes are, by crate and by file of C.

use std::collections::BTreeMap;

use anyhow::Result;
use object::elf::FileHeader32;
use object::read::elf::ElfFile;
use object::{Endianness, Object, ObjectSymbol, SymbolKind};

type Elf<'a> = ElfFile<'a, FileHeader32<Endianness>>;

/// Bytes of code and constants by where they come from, the largest first. Constants without a name are in none of them.
pub fn origins(content: &[u8]) -> Result<Vec<(String, u64)>> {
    let elf = Elf::parse(content)?;
    let (mut file, mut by_address) = ("", BTreeMap::new());
    for symbol in elf.symbols() {
        let name = symbol.name().unwrap_or_default();
        match symbol.kind() {
            SymbolKind::File => file = name,
            // The same bytes may have several names.
            SymbolKind::Text | SymbolKind::Data if symbol.size() > 0 && !is_zeroed(&elf, &symbol) => {
                by_address.insert(symbol.address(), (origin(name, file), symbol.size()));
            }
            _ => {}
        }
    }
    let mut sums = BTreeMap::new();
    for (origin, size) in by_address.into_values() {
        *sums.entry(origin).or_insert(0) += size;
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
    Ok(sums)
}

/// True for variables that begin as zero, which are not in the file.
fn is_zeroed<'a>(elf: &Elf<'a>, symbol: &impl ObjectSymbol<'a>) -> bool {
    let section = symbol.section_index().and_then(|index| elf.section_by_index(index).ok());
    section.is_none_or(|section| {
        use object::{ObjectSection, SectionKind};
        matches!(section.kind(), SectionKind::UninitializedData | SectionKind::UninitializedTls)
    })
}

/// The crate in which a symbol's path begins, which for a generic is where it is written; or the file of C.
fn origin(name: &str, file: &str) -> String {
    name.strip_prefix("_R").and_then(first_crate).map_or_else(|| format!("C: {file}"), str::to_owned)
}

/// The first crate in a mangled name: `C`, perhaps `s…_` to tell it from others of its name, and the name with its length in
/// front (RFC 2603, "crate root").
fn first_crate(mangled: &str) -> Option<&str> {
    mangled.match_indices('C').find_map(|(at, _)| {
        let mut rest = &mangled[at + 1..];
        if let Some(disambiguated) = rest.strip_prefix('s') {
            rest = disambiguated.split_once('_')?.1;
        }
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let length: usize = rest[..digits].parse().ok()?;
        // A name that begins with a digit or `_` has a `_` before it; none of a crate does.
        rest.get(digits..digits + length)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbol_belongs_to_the_crate_that_its_path_begins_in() {
        for (name, expected) in [
            ("_RNvMNtNtCs7tohCzHYUAl_2h25proto4peerNtB2_3Dyn20convert_poll_message", "h2"),
            (
                "_RINvNtCsZkUrSZQQnX_4core3ptr13drop_in_placeNtNtNtCsluOfMSb3yiL_4http6header3map9HeaderMapE",
                "core",
            ),
            ("_RNvC5tokio4main", "tokio"),
            ("fe_mul_impl", "C: curve25519.c"),
        ] {
            assert_eq!(origin(name, "curve25519.c"), expected, "{name}");
        }
    }
}
