//! The plot: the router's CPU time of each way. Rows differ by a hundred times, so each has a scale of its own.

use std::fmt::Write;

use crate::figures::{Figure, value};
use crate::rows::{ROWS, Unit, Way};

/// Pixels.
const WIDTH: f64 = 760.0;
const LABELS: f64 = 250.0;
const NUMBERS: f64 = 90.0;
const BAR: f64 = 13.0;
const GAP: f64 = 16.0;
const TOP: f64 = 56.0;

/// Ways, their names in the legend, and the class that gives a colour.
const WAYS: [(Way, &str, &str); 4] = [
    (Way::Raw, "raw TCP, not run", "raw"),
    (Way::Ssh, "ssh", "ssh"),
    (Way::Scp, "scp -O, then ssh", "scp"),
    (Way::Hop, "hop run", "hop"),
];

/// Colours that can be told apart by people who see no red or green (Okabe and Ito), on light and on dark.
const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#24292f}.title{font-weight:600}.value{font-size:11px}\
.raw{fill:#8c959f}.ssh{fill:#56b4e9}.scp{fill:#0072b2}.hop{fill:#e69f00}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.scp{fill:#3d9bdc}.ssh{fill:#9fd4f5}}";

/// The plot as SVG.
pub fn of(figures: &[Figure]) -> String {
    let at = |row: &str, way| value(figures, row, way, Unit::Cpu).filter(|value| *value >= 0.0);
    let rows = ROWS.iter().filter(|row| at(row.name, Way::Hop).is_some() && row.ways.len() > 1);
    let (mut body, mut y) = (String::new(), TOP);
    for row in rows {
        let ways: Vec<_> = WAYS.iter().filter_map(|way| Some((way, at(row.name, way.0)?))).collect();
        let most = ways.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
        let middle = y + ways.len() as f64 * BAR / 2.0 + 4.0;
        label(&mut body, LABELS - 10.0, middle, "end", row.what);
        for ((_, _, class), value) in ways {
            let length = (value / most * (WIDTH - LABELS - NUMBERS)).max(1.0);
            let height = BAR - 2.0;
            writeln!(
                body,
                r#"<rect class="{class}" x="{LABELS}" y="{y}" width="{length:.1}" height="{height}" rx="1"/>"#
            )
            .unwrap();
            let (x, baseline) = (LABELS + length + 5.0, y + height - 1.5);
            let number = Unit::Cpu.show(value);
            writeln!(body, r#"<text class="value" x="{x:.1}" y="{baseline}">{number} s</text>"#).unwrap();
            y += BAR;
        }
        y += GAP;
    }
    let mut legend = String::new();
    let mut x = LABELS;
    for (_, name, class) in WAYS {
        writeln!(legend, r#"<rect class="{class}" x="{x}" y="32" width="11" height="11" rx="1"/>"#).unwrap();
        label(&mut legend, x + 16.0, 42.0, "start", name);
        x += 30.0 + 7.2 * name.len() as f64;
    }
    let title = "CPU seconds of a 500 MIPS router, each row to a scale of its own: less is better";
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{y}\" viewBox=\"0 0 {WIDTH} {y}\" \
         role=\"img\" aria-label=\"{title}\">\n<style>{STYLE}</style>\n\
         <text class=\"title\" x=\"10\" y=\"18\">{title}</text>\n{legend}{body}</svg>\n"
    )
}

fn label(to: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    // A long one is broken in two at the comma or the middle.
    assert!(!text.contains(['<', '&']), "{text} needs no escapes");
    let lines: Vec<&str> = match text.len() {
        0..36 => vec![text],
        length => {
            let middle = text[..length * 3 / 5].rfind(' ').unwrap_or(length);
            vec![&text[..middle], text[middle..].trim_start()]
        }
    };
    let first = y - 7.5 * (lines.len() - 1) as f64;
    for (number, line) in lines.iter().enumerate() {
        let y = first + 15.0 * number as f64;
        writeln!(to, r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{line}</text>"#).unwrap();
    }
}
