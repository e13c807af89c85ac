//! Whether figures are still those that are checked in.

use std::process::ExitCode;

use crate::figures::{Figure, value};
use crate::publish::Published;
use crate::rows::Unit;

/// How far a figure may move from what is checked in, either way: a gain is to be written down as well.
const TOLERANCE: f64 = 0.05;

/// What is not worth a word, however large a part it is.
fn negligible(unit: Unit) -> f64 {
    match unit {
        // What the kernel's ticks and one retransmitted packet make.
        Unit::Cpu => 0.001,
        // The length of a name and of a number in a message.
        Unit::Bytes => 256.0,
        Unit::Delay | Unit::Memory | Unit::Wall => 0.0,
    }
}

/// Compares, says so, and fails if one has moved or is not known.
pub fn compare(figures: &[Figure], published: &Published) -> ExitCode {
    let mut moved = Vec::new();
    for figure in figures {
        let known = value(&published.figures, &figure.row, figure.way, figure.unit);
        let is_same = known.is_some_and(|known| {
            (figure.value - known).abs() <= (known * TOLERANCE).max(negligible(figure.unit))
        });
        let known = known.map_or("nothing".to_owned(), |known| figure.unit.show(known));
        println!(
            "{:16} {:>12} {}, checked in {known}: {}",
            figure.row,
            figure.unit.show(figure.value),
            figure.unit.name(),
            if is_same { "the same" } else { "MOVED" }
        );
        if !is_same && !moved.contains(&&*figure.row) {
            moved.push(&*figure.row);
        }
    }
    if moved.is_empty() {
        return ExitCode::SUCCESS;
    }
    let rows = moved.join(" ");
    eprintln!("error: what a router pays has moved by more than {:.0} %: {rows}", TOLERANCE * 100.0);
    eprintln!("hint: `cargo xtask bench profile {rows}` shows where it goes");
    eprintln!(
        "hint: if it is meant to be so, `cargo xtask bench --write {rows}` writes it into docs/benchmarks"
    );
    ExitCode::FAILURE
}
