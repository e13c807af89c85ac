//! The sizes of an agent's symbols, by crate and by C file.

use std::collections::BTreeMap;

use anyhow::Result;
use object::elf::FileHeader32;
use object::read::elf::ElfFile;
use object::{Endianness, Object, ObjectSymbol, SymbolKind};

type Elf<'a> = ElfFile<'a, FileHeader32<Endianness>>;

/// Bytes of code and constants by origin, the largest first. Constants without a symbol are not counted.
pub fn origins(content: &[u8]) -> Result<Vec<(String, u64)>> {
    let elf = Elf::parse(content)?;
    let (mut file, mut by_address) = ("", BTreeMap::new());
    for symbol in elf.symbols() {
        let name = symbol.name().unwrap_or_default();
        match symbol.kind() {
            SymbolKind::File => file = name,
            // Several symbols may have one address.
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

/// True for zeroed variables, which take no space in the file.
fn is_zeroed<'a>(elf: &Elf<'a>, symbol: &impl ObjectSymbol<'a>) -> bool {
    let section = symbol.section_index().and_then(|index| elf.section_by_index(index).ok());
    section.is_none_or(|section| {
        use object::{ObjectSection, SectionKind};
        matches!(section.kind(), SectionKind::UninitializedData | SectionKind::UninitializedTls)
    })
}

/// The crate in which a symbol's path begins, for a generic the one that defines it; or the C file.
fn origin(name: &str, file: &str) -> String {
    name.strip_prefix("_R").and_then(first_crate).map_or_else(|| format!("C: {file}"), str::to_owned)
}

/// The first crate in a mangled name: `C`, an optional disambiguator `s…_`, and the name after its length (RFC 2603, "crate
/// root").
fn first_crate(mangled: &str) -> Option<&str> {
    mangled.match_indices('C').find_map(|(at, _)| {
        let mut rest = &mangled[at + 1..];
        if let Some(disambiguated) = rest.strip_prefix('s') {
            rest = disambiguated.split_once('_')?.1;
        }
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let length: usize = rest[..digits].parse().ok()?;
        // Before a name that begins with a digit or `_` comes a `_`; a crate's name never does.
        rest.get(digits..digits + length)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_belong_to_their_first_crate() {
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
