//! Figures: what was measured, by row, way and unit; how they are kept as JSON.

use serde_json::{Value, json};

use crate::rows::{ROWS, Row, Sample, Unit, Way};

/// One figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    pub row: String,
    pub way: Way,
    pub unit: Unit,
    /// The median; of delays, the least.
    pub value: f64,
    pub least: f64,
    pub most: f64,
    pub runs: usize,
}

const WAYS: [(Way, &str); 4] =
    [(Way::Raw, "raw TCP"), (Way::Ssh, "ssh"), (Way::Scp, "scp + ssh"), (Way::Hop, "hop")];

const UNITS: [(Unit, &str); 5] = [
    (Unit::Cpu, "router CPU seconds"),
    (Unit::Bytes, "bytes on the wire"),
    (Unit::Delay, "milliseconds"),
    (Unit::Memory, "KiB"),
    (Unit::Wall, "seconds on this machine's clock"),
];

impl Way {
    /// What it is called in tables and in the JSON.
    pub fn name(self) -> &'static str {
        WAYS.iter().find(|(way, _)| *way == self).unwrap().1
    }
}

impl Unit {
    /// What it is called in tables and in the JSON.
    pub fn name(self) -> &'static str {
        UNITS.iter().find(|(unit, _)| *unit == self).unwrap().1
    }

    /// A figure of this unit, as precise as it repeats.
    pub fn show(self, value: f64) -> String {
        match self {
            Self::Cpu if value.abs() < 0.1 => format!("{value:.4}"),
            Self::Cpu => format!("{value:.3}"),
            Self::Delay | Self::Wall => format!("{value:.1}"),
            Self::Bytes => thousands(value),
            Self::Memory => format!("{value:.0}"),
        }
    }
}

fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let grouped = digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap());
    grouped.collect::<Vec<_>>().join(",")
}

/// The figures in the samples of one row and way.
pub fn of(row: &Row, way: Way, samples: &[Sample]) -> Vec<Figure> {
    let figure = |&(unit, _): &(Unit, f64)| {
        let is_it = |&&(other, _): &&(Unit, f64)| other == unit;
        let mut values: Vec<f64> =
            samples.iter().map(|sample| sample.iter().find(is_it).unwrap().1).collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (values[0], values[values.len() - 1]);
        // This machine can only add to a delay: the best run says most of the router.
        let value = if unit == Unit::Delay { least } else { values[values.len() / 2] };
        Figure { row: row.name.to_owned(), way, unit, value, least, most, runs: values.len() }
    };
    samples[0].iter().map(figure).collect()
}

/// The value of one of them.
pub fn value(figures: &[Figure], row: &str, way: Way, unit: Unit) -> Option<f64> {
    let mut found = figures.iter().filter(|f| f.row == row && f.way == way && f.unit == unit);
    found.next().map(|figure| figure.value)
}

/// Those of `old` of which there is no newer one, and all newer ones, in the order of the rows.
pub fn merge(old: Vec<Figure>, new: Vec<Figure>) -> Vec<Figure> {
    let is_renewed = |figure: &Figure| new.iter().any(|n| n.row == figure.row && n.way == figure.way);
    let mut all: Vec<_> = old.into_iter().filter(|figure| !is_renewed(figure)).collect();
    all.extend(new);
    // A row that is no more has no place.
    all.retain(|figure| ROWS.iter().any(|row| row.name == figure.row));
    all.sort_by_key(|figure| {
        let row = ROWS.iter().position(|row| row.name == figure.row);
        let way = WAYS.iter().position(|(way, _)| *way == figure.way);
        let unit = UNITS.iter().position(|(unit, _)| *unit == figure.unit);
        (row, way, unit)
    });
    all
}

/// As JSON.
pub fn to_json(figures: &[Figure]) -> Value {
    let figure = |f: &Figure| {
        json!({
            "row": f.row, "way": f.way.name(), "unit": f.unit.name(),
            "value": f.value, "least": f.least, "most": f.most, "runs": f.runs,
        })
    };
    figures.iter().map(figure).collect()
}

/// From JSON. What is not known is left out: it was written by another version.
pub fn from_json(value: &Value) -> Vec<Figure> {
    let figure = |value: &Value| {
        let way = WAYS.iter().find(|(_, name)| value["way"] == *name)?.0;
        let unit = UNITS.iter().find(|(_, name)| value["unit"] == *name)?.0;
        let number = |name: &str| value[name].as_f64();
        Some(Figure {
            row: value["row"].as_str()?.to_owned(),
            way,
            unit,
            value: number("value")?,
            least: number("least")?,
            most: number("most")?,
            runs: usize::try_from(value["runs"].as_u64()?).ok()?,
        })
    };
    value.as_array().into_iter().flatten().filter_map(figure).collect()
}
