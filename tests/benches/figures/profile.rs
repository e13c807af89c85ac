//! Where a row's instructions go, by symbol: exact, since every block is counted, and not sampled.
//!
//! Addresses of user space are taken for the agent's where it has code, so the programs that are run for a profile are
//! linked to be elsewhere.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

use hop_tests::Shell;

use crate::counter::{Blocks, INSTRUCTION};

/// How many symbols are printed.
const LINES: usize = 40;

/// How long the last function may be: no symbol follows it.
const LAST: u64 = 0x1000;

/// Where the kernel begins: KSEG0.
const KERNEL: u64 = 0x8000_0000;

/// Code, by address.
struct Symbols(Vec<(u64, String)>);

impl Symbols {
    /// Those that `nm` prints, and the kernel: an address, a kind, a name.
    fn parse(text: &str) -> Self {
        let mut symbols: Vec<_> = text.lines().filter_map(symbol).collect();
        symbols.sort();
        Self(symbols)
    }

    fn at(&self, address: u64) -> Option<&str> {
        let index = self.0.partition_point(|(start, _)| *start <= address).checked_sub(1)?;
        Some(&self.0[index].1)
    }
}

fn symbol(line: &str) -> Option<(u64, String)> {
    let (address, rest) = line.split_once(' ')?;
    let (kind, name) = rest.split_once(' ')?;
    // The kernel says addresses as 32 bits, QEMU as a sign-extended 64.
    let address = u64::from_str_radix(address, 16).ok()? & 0xffff_ffff;
    "tTwW".contains(kind).then(|| (address, name.split(&['\t', '\r']).next().unwrap().to_owned()))
}

/// Prints the most expensive symbols, and the most expensive crates.
pub fn print(executed: &Blocks, agent: &Path, shell: &Shell) {
    let nm = Command::new("nm").arg("--demangle").arg(agent).output().expect("nm is installed");
    let ours = Symbols::parse(&String::from_utf8_lossy(&nm.stdout));
    assert!(!ours.0.is_empty(), "{} has symbols: it must not be stripped", agent.display());
    let end = ours.0.last().unwrap().0;
    let kernel = Symbols::parse(&shell.sh("cat /proc/kallsyms"));
    let (mut symbols, mut groups) = (HashMap::<String, u64>::new(), HashMap::<String, u64>::new());
    for (address, count) in executed.by_address() {
        let address = address & 0xffff_ffff;
        let (group, name) = if address >= KERNEL {
            ("the kernel".to_owned(), format!("kernel: {}", kernel.at(address).unwrap_or("?")))
        } else {
            match ours.at(address).filter(|_| address <= end + LAST) {
                Some(name) => (group(name), name.to_owned()),
                None => ("other programs".to_owned(), format!("other programs at {:x}", address >> 16 << 16)),
            }
        };
        *symbols.entry(name).or_default() += count;
        *groups.entry(group).or_default() += count;
    }
    let all = executed.instructions();
    println!("{:.4} s of router CPU, {all} instructions", all as f64 * INSTRUCTION);
    for table in [groups, symbols] {
        println!();
        let mut lines: Vec<_> = table.into_iter().collect();
        lines.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        for (name, count) in lines.into_iter().take(LINES) {
            println!(
                "{:5.1} % {:8.4} s  {name}",
                100.0 * count as f64 / all as f64,
                count as f64 * INSTRUCTION
            );
        }
    }
}

/// The crate of a symbol, or C.
fn group(name: &str) -> String {
    let path = name.trim_start_matches(['<', '&', '*', '(']).trim_start_matches("mut ");
    match path.split_once("::") {
        Some((first, _)) => first.split(['<', ' ', '[']).next().unwrap_or(first).to_owned(),
        None => "C, or the compiler's".to_owned(),
    }
}
