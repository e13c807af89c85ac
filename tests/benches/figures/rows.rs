//! What is measured: a row each, and the ways in which people get there.

use crate::bench_router::BenchRouter;
use crate::measure::{
    again, connect, delay, edited, first, idle, idle_kept, kept, lines, memory, other, output,
};
use crate::module;
use crate::source::Source;

/// How a program gets to a router and is run there, or what else is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// TCP without encryption, into a file in RAM; nothing is run. No way is cheaper.
    Raw,
    /// `ssh router 'cat >f && chmod 755 f && ./f'`.
    Ssh,
    /// `scp -O`, then `ssh router ./f`: what people do.
    Scp,
    /// `hop run`.
    Hop,
}

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// CPU seconds of the router.
    Cpu,
    /// Bytes on the wire.
    Bytes,
    /// Milliseconds of the router's clock.
    Delay,
    /// Memory in KiB.
    Memory,
    /// Seconds of this machine's clock.
    Wall,
}

/// One measurement: its figures.
pub type Sample = Vec<(Unit, f64)>;

/// A row of the table.
pub struct Row {
    /// What it is called on the command line and in the JSON.
    pub name: &'static str,
    /// What it is.
    pub what: &'static str,
    /// The ways that are compared.
    pub ways: &'static [Way],
    /// What is to be reached.
    pub goals: &'static [(Unit, Goal)],
    /// True if it is short, and repeats so well that CI compares it.
    pub is_checked: bool,
    /// Measures one way so many times.
    pub measure: fn(&mut BenchRouter, Way, usize) -> Vec<Sample>,
}

/// What Hop must reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// A figure of its own.
    AtMost(f64),
    /// A part of what another way costs.
    PartOf(Way, f64),
}

use Goal::{AtMost, PartOf};
use Unit::{Bytes, Cpu, Delay, Memory};
use Way::{Hop, Raw, Scp, Ssh};

/// All rows, in the order of the table.
pub const ROWS: [Row; 19] = [
    Row {
        name: "connect",
        what: "connect, ask, and leave",
        ways: &[Ssh, Hop],
        goals: &[],
        is_checked: true,
        measure: connect,
    },
    Row {
        name: "first",
        what: "first run of the hello",
        ways: &[Raw, Ssh, Scp, Hop],
        goals: &[(Cpu, AtMost(0.15))],
        is_checked: true,
        measure: |bench, way, runs| first(bench, way, runs, "hello"),
    },
    Row {
        name: "again",
        what: "the same hello again",
        ways: &[Ssh, Scp, Hop],
        goals: &[(Cpu, AtMost(0.028))],
        is_checked: true,
        measure: again,
    },
    Row {
        name: "edit",
        what: "the hello after one string was changed",
        ways: &[Ssh, Scp, Hop],
        goals: &[(Cpu, AtMost(0.055))],
        is_checked: true,
        measure: |bench, way, runs| edited(bench, way, runs, "hello", Source::change_a_string),
    },
    Row {
        name: "again-kept",
        what: "the same hello again, over a kept connection",
        ways: &[Hop],
        goals: &[(Cpu, AtMost(0.028))],
        is_checked: true,
        measure: |bench, way, runs| kept(bench, |bench| again(bench, way, runs)),
    },
    Row {
        name: "edit-kept",
        what: "the hello after one string was changed, over a kept connection",
        ways: &[Hop],
        goals: &[(Cpu, AtMost(0.055))],
        is_checked: true,
        measure: |bench, way, runs| {
            kept(bench, |bench| edited(bench, way, runs, "hello", Source::change_a_string))
        },
    },
    Row {
        name: "server",
        what: "first run of the net/http server",
        ways: &[Raw, Ssh, Scp, Hop],
        goals: &[(Cpu, AtMost(0.45))],
        is_checked: false,
        measure: |bench, way, runs| first(bench, way, runs, "server"),
    },
    Row {
        name: "server-other",
        what: "the same, on a router that has the hello",
        ways: &[Hop],
        goals: &[],
        is_checked: false,
        measure: other,
    },
    Row {
        name: "server-string",
        what: "the server after one string was changed",
        ways: &[Scp, Hop],
        goals: &[(Bytes, AtMost(15e3))],
        is_checked: true,
        measure: |bench, way, runs| edited(bench, way, runs, "server", Source::change_a_string),
    },
    Row {
        name: "server-function",
        what: "the server after a function was added",
        ways: &[Scp, Hop],
        goals: &[(Bytes, AtMost(45e3))],
        is_checked: false,
        measure: |bench, way, runs| edited(bench, way, runs, "server", |source, _| source.add_a_function()),
    },
    Row {
        name: "server-imports",
        what: "the server after three imports were added",
        ways: &[Scp, Hop],
        goals: &[(Bytes, AtMost(320e3))],
        is_checked: false,
        measure: |bench, way, runs| {
            edited(bench, way, runs, "server", |source, _| source.add_three_imports())
        },
    },
    Row {
        name: "output",
        what: "10 MiB of log lines of a program that is there",
        ways: &[Ssh, Hop],
        goals: &[(Cpu, PartOf(Ssh, 1.0 / 2.7))],
        is_checked: false,
        measure: |bench, way, runs| output(bench, way, runs, "log-lines"),
    },
    Row {
        name: "output-random",
        what: "10 MiB of random bytes of a program that is there",
        ways: &[Ssh, Hop],
        goals: &[],
        is_checked: false,
        measure: |bench, way, runs| output(bench, way, runs, "noise"),
    },
    Row {
        name: "lines",
        what: "1,000 lines, one every 10 ms, of a program that is there",
        ways: &[Ssh, Hop],
        goals: &[(Cpu, PartOf(Ssh, 0.55))],
        is_checked: false,
        measure: lines,
    },
    Row {
        name: "delay",
        what: "the slowest of 1,000 lines, there and its answer back",
        ways: &[Ssh, Hop],
        goals: &[(Delay, AtMost(20.0))],
        is_checked: false,
        measure: delay,
    },
    Row {
        name: "idle",
        what: "an hour with a program that is silent, connected",
        ways: &[Hop],
        goals: &[],
        is_checked: false,
        measure: idle,
    },
    Row {
        name: "idle-kept",
        what: "an hour of a kept connection, with nothing to do",
        ways: &[Hop],
        goals: &[(Cpu, AtMost(0.1)), (Memory, AtMost(640.0))],
        is_checked: false,
        measure: idle_kept,
    },
    Row {
        name: "memory",
        what: "the agent's memory while 8 MB arrive as an edit, and run",
        ways: &[Hop],
        goals: &[(Memory, AtMost(1536.0))],
        is_checked: false,
        measure: memory,
    },
    Row {
        name: "module",
        what: "the tests of a module of 20 packages, by `go test`",
        ways: &[Scp, Hop],
        goals: &[],
        is_checked: false,
        measure: module::measure,
    },
];
