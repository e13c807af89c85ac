//! Measures the costs of Hop and of its alternatives (ssh, scp, raw TCP) on a whole virtual router whose clock counts
//! instructions, and the cost on this machine of sending one program to many routers. `cargo xtask bench` runs it, and
//! docs/benchmarks explains the tables.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench that cannot go on panics, and says where")]

mod bench_router;
mod check;
mod counter;
mod fan_out;
mod figures;
mod measure;
mod module;
mod plot;
mod profile;
mod publish;
#[path = "../../routers/qemu-insn-counter/src/record.rs"]
mod record;
mod rows;
mod source;
mod ssh_servers;
mod table;

use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::process::ExitCode;

use bench_router::{BenchRouter, Builds};
use figures::Figure;
use hop_tests::{dist, root};
use rows::{ROWS, Row, Way};

/// Default number of runs of each measurement: counted figures differ by a thousandth.
const RUNS: usize = 3;

/// The options of the command line.
struct Options {
    rows: Vec<String>,
    runs: usize,
    hop: PathBuf,
    agent: PathBuf,
    mode: Mode,
    /// Leaves out what Hop is compared with.
    hop_only: bool,
}

#[derive(PartialEq)]
enum Mode {
    /// Prints what was measured.
    Print,
    /// Writes it into the docs as well.
    Write,
    /// Compares Hop's with what is in the docs.
    Check,
    /// Prints where Hop's instructions go.
    Profile,
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("error: {why}");
            return ExitCode::FAILURE;
        }
    };
    let rows: Vec<&Row> = ROWS.iter().filter(|row| options.wants(row)).collect();
    let fan_out = options.wants_fan_out().then(fan_out::measure);
    let (mut figures, mut failed) = (Vec::new(), Vec::new());
    if !rows.is_empty() {
        let mut bench = boot(&options);
        if options.mode == Mode::Profile {
            profile_rows(&mut bench, &rows, &options);
            return ExitCode::SUCCESS;
        }
        (figures, failed) = measure(bench, &rows, &options);
    }
    if options.mode == Mode::Check && failed.is_empty() {
        return check::compare(&figures, &publish::Published::read());
    }
    println!("\n{}", table::all(&figures));
    if let Some(fan_out) = &fan_out {
        println!("{}", fan_out.table());
    }
    if options.mode == Mode::Write {
        let is_whole = options.rows.is_empty();
        if let Err(why) = publish::write(figures, fan_out, &options.agent, is_whole) {
            eprintln!("error: {why}");
            return ExitCode::FAILURE;
        }
    }
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("error: not measured: {}", failed.join("; "));
    ExitCode::FAILURE
}

fn boot(options: &Options) -> BenchRouter {
    let plugin = root().join("target/release/libqemu_insn_counter.so");
    BenchRouter::boot(Builds { hop: options.hop.clone(), agent: options.agent.clone() }, &plugin)
}

/// Measures, and names what could not be measured.
fn measure(bench: BenchRouter, rows: &[&Row], options: &Options) -> (Vec<Figure>, Vec<String>) {
    let (mut bench, mut figures, mut failed) = (Some(bench), Vec::new(), Vec::new());
    for row in rows {
        for way in row.ways.iter().filter(|way| !options.hop_only || **way == Way::Hop) {
            let name = format!("{}, {}", row.name, way.name());
            let mut measure = || {
                let bench = bench.get_or_insert_with(|| boot(options));
                (row.measure)(bench, *way, options.runs)
            };
            let mut samples = panic::catch_unwind(AssertUnwindSafe(&mut measure));
            if samples.is_err() {
                // QEMU with a counted clock sometimes stalls under much output. Twice in a row is no accident.
                eprintln!("{name}: once more, on a router that is booted again");
                bench = None;
                samples = panic::catch_unwind(AssertUnwindSafe(|| {
                    let bench = bench.insert(boot(options));
                    (row.measure)(bench, *way, options.runs)
                }));
            }
            let Ok(samples) = samples else {
                failed.push(name);
                bench = None;
                continue;
            };
            let new = figures::of(row, *way, &samples);
            for f in &new {
                let [value, least, most] = [f.value, f.least, f.most].map(|value| f.unit.show(value));
                eprintln!("{name:28} {value:>12} {} ({least} to {most}, {} runs)", f.unit.name(), f.runs);
            }
            figures.extend(new);
        }
    }
    (figures, failed)
}

fn profile_rows(bench: &mut BenchRouter, rows: &[&Row], options: &Options) {
    for row in rows {
        bench.executed = Some(Default::default());
        (row.measure)(bench, Way::Hop, options.runs);
        let executed = bench.executed.take().unwrap().into_inner();
        println!("\n{}: {}", row.name, row.what);
        profile::print(&executed, &options.agent, bench.shell());
    }
}

impl Options {
    fn wants(&self, row: &Row) -> bool {
        match (&self.mode, self.rows.is_empty()) {
            (Mode::Check, true) => row.is_checked,
            (_, true) => true,
            (_, false) => self.rows.iter().any(|name| name == row.name),
        }
    }

    fn wants_fan_out(&self) -> bool {
        let is_figure = [Mode::Print, Mode::Write].contains(&self.mode);
        is_figure && (self.rows.is_empty() || self.rows.iter().any(|name| name == fan_out::NAME))
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
    let (mut rows, mut runs, mut hop, mut agent) = (Vec::new(), None, None, None);
    let (mut mode, mut hop_only) = (Mode::Print, false);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match &*word {
            // That of cargo.
            "--bench" => {}
            "--write" => mode = Mode::Write,
            "--check" => mode = Mode::Check,
            "--profile" => mode = Mode::Profile,
            "--hop-only" => hop_only = true,
            "--runs" => {
                let number = value()?.parse().ok().filter(|runs| *runs > 0);
                runs = Some(number.ok_or("--runs needs a number above 0")?);
            }
            "--hop" => hop = Some(absolute(&value()?)?),
            "--agent" => agent = Some(absolute(&value()?)?),
            name if name == fan_out::NAME || ROWS.iter().any(|row| row.name == name) => rows.push(word),
            _ => {
                let names: Vec<_> = ROWS.iter().map(|row| row.name).chain([fan_out::NAME]).collect();
                return Err(format!("{word} is neither an option nor a row; rows are {}", names.join(", ")));
            }
        }
    }
    let once = [Mode::Check, Mode::Profile].contains(&mode);
    Ok(Options {
        rows,
        runs: runs.unwrap_or(if once { 1 } else { RUNS }),
        hop: hop.unwrap_or_else(|| dist("hop")),
        agent: agent.unwrap_or_else(|| dist("hopd-mips")),
        hop_only: hop_only || mode == Mode::Check,
        mode,
    })
}

/// A path as it is meant at the top of the checkout: cargo runs a bench elsewhere.
fn absolute(path: &str) -> Result<PathBuf, String> {
    let path = root().join(path);
    path.canonicalize().map_err(|error| format!("{}: {error}", path.display()))
}
