//! What is checked in: the figures as JSON, the tables in the docs, the plot.
//!
//! **Invariants:** tables and plot are made from the JSON alone, so all three agree; and what this machine has an
//! influence on, the time by its clock, is of one machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use hop_tests::root;
use serde_json::{Value, json};

use crate::fan_out::FanOut;
use crate::figures::{self, Figure};
use crate::rows::{Unit, Way};
use crate::{plot, table};

/// What is between these in a Markdown file is written here.
const BEGIN: &str = "<!-- written by `cargo xtask bench --write` -->\n";
const END: &str = "<!-- end of what is written -->\n";

/// What was written last.
pub struct Published {
    pub figures: Vec<Figure>,
    fan_out: Option<FanOut>,
    on: Value,
}

impl Published {
    /// Reads it; nothing, if nothing was ever written.
    pub fn read() -> Self {
        let text = fs::read_to_string(directory().join("figures.json")).unwrap_or_default();
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        Self {
            figures: figures::from_json(&value["figures"]),
            fan_out: FanOut::from_json(&value["fan_out"]),
            on: value["on"].clone(),
        }
    }
}

/// Writes figures over those that are there, and all that is made of them.
pub fn write(
    figures: Vec<Figure>,
    fan_out: Option<FanOut>,
    agent: &Path,
    is_whole: bool,
) -> Result<(), String> {
    let old = Published::read();
    let mut on = machine(agent);
    if !is_whole && !old.figures.is_empty() && old.on["machine"] != on["machine"] {
        // The clock of the router counts instructions, whatever machine emulates it.
        if fan_out.is_some() || figures.iter().any(|figure| figure.unit == Unit::Wall) {
            return Err(format!(
                "the other rows were measured on another machine, {}, and this is {}: write all, without naming rows",
                old.on["machine"], on["machine"]
            ));
        }
        on["machine"] = old.on["machine"].clone();
    }
    let old_figures = if is_whole { Vec::new() } else { old.figures };
    let figures = figures::merge(old_figures, figures);
    let fan_out = fan_out.or(old.fan_out);
    let content = json!({
        "on": on,
        "figures": figures::to_json(&figures),
        "fan_out": fan_out.as_ref().map(FanOut::to_json),
    });
    let place = directory();
    put(&place.join("figures.json"), &(serde_json::to_string_pretty(&content).unwrap() + "\n"));
    put(&place.join("router-cpu.svg"), &plot::of(&figures));
    let said = said(&on);
    let many = fan_out.map(|fan_out| format!("\n{}", fan_out.table())).unwrap_or_default();
    replace(&place.join("README.md"), &format!("{}{many}\n{said}\n", table::all(&figures)))?;
    let picture = "![CPU of a router, Hop and ssh side by side](docs/benchmarks/router-cpu.svg)";
    replace(&root().join("README.md"), &format!("{picture}\n\n{}", summary(&figures)))
}

/// The figures that the README names.
fn summary(figures: &[Figure]) -> String {
    let cpu = |row, way| {
        let value = figures::value(figures, row, way, Unit::Cpu);
        value.map_or_else(|| "unmeasured".to_owned(), |value| format!("{} s", Unit::Cpu.show(value)))
    };
    format!(
        "The first run of a small Go program takes {} of a router's CPU; with scp and ssh it takes {}. Running it again takes {}, and \
         after a change of one string {}.\n",
        cpu("first", Way::Hop),
        cpu("first", Way::Scp),
        cpu("again", Way::Hop),
        cpu("edit", Way::Hop)
    )
}

fn directory() -> PathBuf {
    root().join("docs/benchmarks")
}

fn put(path: &Path, content: &str) {
    fs::write(path, content).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    eprintln!("wrote {}", path.strip_prefix(root()).unwrap().display());
}

/// Replaces what is between the marks.
fn replace(path: &Path, content: &str) -> Result<(), String> {
    let old = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let parts = old.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) = parts.ok_or(format!("{} has no place for the table", path.display()))?;
    put(path, &format!("{before}{BEGIN}\n{content}\n{END}{after}"));
    Ok(())
}

/// What it was measured on: `machine` is what figures depend on, beside Hop itself.
fn machine(agent: &Path) -> Value {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu =
        cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name));
    let first_line = |words: &[&str]| {
        let said = Command::new(words[0]).args(&words[1..]).output().map(|output| output.stdout);
        String::from_utf8_lossy(&said.unwrap_or_default()).lines().next().unwrap_or("unknown").to_owned()
    };
    json!({
        "machine": {
            "cpu": cpu.unwrap_or("unknown"),
            "cores": std::thread::available_parallelism().map_or(1, |cores| cores.get()),
            "qemu": first_line(&["qemu-system-mips", "--version"]),
            "go": first_line(&["go", "env", "GOVERSION"]),
        },
        "router": "virtual D-Link DIR-505: MIPS 24Kc, big endian, 64 MB, 500 million instructions a second",
        "agent_bytes": fs::metadata(agent).map_or(0, |metadata| metadata.len()),
    })
}

fn said(on: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("unknown").to_owned();
    let machine = &on["machine"];
    format!(
        "Measured on {} with {} cores, {}, {}; an agent of {} bytes. The router: a {}.",
        text(&machine["cpu"]),
        machine["cores"],
        text(&machine["qemu"]),
        text(&machine["go"]),
        on["agent_bytes"],
        text(&on["router"]),
    )
}
