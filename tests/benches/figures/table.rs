//! The tables, for a terminal and for Markdown: the same text serves both.

use crate::figures::{Figure, value};
use crate::rows::{Goal, ROWS, Row, Unit, Way};

/// The ways, from left to right.
const COLUMNS: [Way; 4] = [Way::Raw, Way::Ssh, Way::Scp, Way::Hop];

/// All tables: one a unit.
pub fn all(figures: &[Figure]) -> String {
    let units = [Unit::Cpu, Unit::Bytes, Unit::Delay, Unit::Memory, Unit::Wall];
    units.iter().filter_map(|unit| of(figures, *unit)).collect::<Vec<_>>().join("\n")
}

/// The table of one unit, if there is something in it.
pub fn of(figures: &[Figure], unit: Unit) -> Option<String> {
    let rows: Vec<_> = ROWS.iter().filter_map(|row| line(figures, row, unit)).collect();
    if rows.is_empty() {
        return None;
    }
    let heads = [unit.name(), "raw TCP", "ssh", "scp + ssh", "hop", "hop needs", "target", "met"];
    let mut table = vec![heads.map(str::to_owned).to_vec()];
    table.extend(rows);
    Some(align(&table))
}

fn line(figures: &[Figure], row: &Row, unit: Unit) -> Option<Vec<String>> {
    let at = |way| value(figures, row.name, way, unit);
    if COLUMNS.iter().all(|way| at(*way).is_none()) {
        return None;
    }
    let mut cells = vec![row.what.to_owned()];
    cells.extend(COLUMNS.map(|way| at(way).map(|value| unit.show(value)).unwrap_or_default()));
    let hop = at(Way::Hop);
    let today = at(Way::Scp).or(at(Way::Ssh));
    let part = hop.zip(today).map(|(hop, today)| part(hop, today));
    cells.push(part.unwrap_or_default());
    let target = row.goals.iter().find(|(of, _)| *of == unit).map(|(_, target)| *target);
    cells.push(target.map(|target| target.show(unit)).unwrap_or_default());
    let met = target.zip(hop).and_then(|(target, hop)| target.is_met(hop, at));
    cells.push(met.map(|met| if met { "yes" } else { "no" }.to_owned()).unwrap_or_default());
    Some(cells)
}

/// Hop's part of what something takes today.
pub fn part(hop: f64, today: f64) -> String {
    if hop <= today { format!("1/{:.1}", today / hop) } else { format!("{:.1} times", hop / today) }
}

impl Goal {
    fn show(self, unit: Unit) -> String {
        match self {
            Self::AtMost(most) if unit == Unit::Bytes => format!("≤ {}", unit.show(most)),
            Self::AtMost(most) => format!("≤ {most}"),
            Self::PartOf(way, part) => format!("≤ 1/{:.1} of {}", 1.0 / part, way.name()),
        }
    }

    fn is_met(self, hop: f64, at: impl Fn(Way) -> Option<f64>) -> Option<bool> {
        match self {
            Self::AtMost(most) => Some(hop <= most),
            Self::PartOf(way, part) => at(way).map(|other| hop <= other * part),
        }
    }
}

/// A Markdown table whose columns are as wide as what is in them.
pub fn align(rows: &[Vec<String>]) -> String {
    let widths: Vec<_> =
        (0..rows[0].len()).map(|column| rows.iter().map(|row| row[column].chars().count()).max()).collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column].unwrap_or(0);
            text += &if column == 0 { format!("| {cell:width$} ") } else { format!("| {cell:>width$} ") };
        }
        text += "|\n";
        if number == 0 {
            for (column, width) in widths.iter().enumerate() {
                let width = width.unwrap_or(0);
                text += &if column == 0 {
                    format!("| {} ", "-".repeat(width))
                } else {
                    format!("| {}: ", "-".repeat(width - 1))
                };
            }
            text += "|\n";
        }
    }
    text
}
