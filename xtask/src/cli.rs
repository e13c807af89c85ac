//! The command line of `cargo xtask`, and which function each command calls.

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::build::{dist, toolchain};
use crate::checks::{bench, demo, fuzz, reproduce, size, test, words};
use crate::{packages, packaging, virtual_routers};

/// The test in `tests/tests/host/documents.rs` that compares docs/commands.md with the help of hop, and writes it on request.
const DOCS_TEST: &str = "commands_page_matches_help";

/// Set up, build, test and measure Hop.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what the other commands need, after saying what and why
    Setup,
    /// Build target/dist: hop, hopd-mips, hopd-mipsel and hopd-host
    Build,
    /// Pack hop for Debian and as a tarball, and the agent for OpenWrt, into target/dist
    Dist(DistArgs),
    /// Set up, build, and run a Go program on a big-endian and a little-endian virtual router
    Demo,
    /// Set up, build, and run the tests
    Test(TestArgs),
    /// Measure what Hop costs a router, next to raw TCP, ssh, and scp with ssh
    Bench(BenchArgs),
    /// Build the fuzz targets, and run each for some seconds
    Fuzz(FuzzArgs),
    /// Build kernels and root archives of the virtual routers from Debian's sources, into the cache
    VirtualRouters,
    /// Compare the size of the agents with their budgets, and print what they consist of
    Size,
    /// Build an agent a second time, in another directory and another home, and compare it byte by byte
    Reproduce,
    /// Look for words that must not come back, by the list xtask/words.txt
    Words,
    /// Generate proto/src/generated from proto/hop/v1
    Codegen,
    /// Write docs/commands.md from the help of hop
    Docs,
}

#[derive(Args)]
struct DistArgs {
    /// Also check each package as who installs it would, and pack all of it twice, which must change nothing
    #[arg(long)]
    check: bool,
    /// The machines for which hop is packed; all if none is named
    #[arg(value_name = "MACHINE")]
    machines: Vec<packaging::Machine>,
}

#[derive(Args)]
struct TestArgs {
    /// Run every suite, also those that take long
    #[arg(long)]
    all: bool,
    /// A suite (behaviour, enrolment, faults, hostile, soak, third_party, virtual_router) and parts of the names of its tests; `rest` for
    /// what `--all` adds; or arguments of `cargo test`: `exit_code`
    #[arg(value_name = "ARGUMENT", trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// What to measure: all rows, those that are named, or where the instructions of some go.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BenchArgs {
    #[command(subcommand)]
    pub profile: Option<Profile>,
    #[command(flatten)]
    pub measure: MeasureArgs,
}

/// How rows are measured.
#[derive(Args)]
pub struct MeasureArgs {
    /// Write the figures into docs/benchmarks and README.md
    #[arg(long, conflicts_with = "check")]
    pub write: bool,
    /// Compare Hop's part of the rows that repeat well with docs/benchmarks, and fail if one is more than 5 % away
    #[arg(long)]
    pub check: bool,
    /// Measure Hop's part of the rows only; --write keeps the other figures
    #[arg(long)]
    pub hop_only: bool,
    /// Measure each row this often
    #[arg(long, value_name = "N")]
    pub runs: Option<u32>,
    /// Measure this hop, not the one in target/dist
    #[arg(long, value_name = "FILE")]
    pub hop: Option<String>,
    /// Measure this agent, not the one in target/dist
    #[arg(long, value_name = "FILE")]
    pub agent: Option<String>,
    /// Names of rows; all if none is named
    #[arg(value_name = "ROW")]
    pub rows: Vec<String>,
}

/// Commands of the bench.
#[derive(Subcommand)]
pub enum Profile {
    /// Show in which functions the router's instructions of these rows are spent
    Profile {
        /// Names of rows
        #[arg(value_name = "ROW", required = true)]
        rows: Vec<String>,
    },
}

/// Which fuzz targets run, and for how long.
#[derive(Args)]
pub struct FuzzArgs {
    /// How long each target runs; with 0 it only replays the checked-in corpus
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub seconds: u32,
    /// Names of targets; all if none is named
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,
}

impl Cli {
    /// Runs the command.
    pub fn run(self) -> Result<()> {
        match self.command {
            Command::Setup => toolchain::Toolchain::set_up().map(|_| ()).and_then(|()| packages::qemu_user()),
            Command::Build => dist::build(),
            Command::Dist(DistArgs { check, machines }) => packaging::run(&machines, check),
            Command::Demo => demo::run(),
            Command::Test(TestArgs { all, arguments }) => test::test(all, &arguments),
            Command::Bench(arguments) => bench::run(&arguments),
            Command::Fuzz(arguments) => fuzz::fuzz(&arguments),
            Command::VirtualRouters => virtual_routers::build(),
            Command::Size => size::check(),
            Command::Reproduce => reproduce::check(),
            Command::Words => words::check(),
            Command::Codegen => test::write("HOP_CODEGEN", &["-p", "xtask", "--test", "codegen"]),
            Command::Docs => dist::build()
                .and_then(|()| test::write("HOP_DOCS", &["-p", "hop-tests", "--test", "host", DOCS_TEST])),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        let words = ["cargo xtask"].into_iter().chain(line.split_whitespace());
        Cli::try_parse_from(words).map(|cli| cli.command)
    }

    #[test]
    fn every_command_and_argument_has_help() {
        fn check(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
            }
            command.get_subcommands().for_each(check);
        }
        let cli = Cli::command();
        cli.clone().debug_assert();
        check(&cli);
    }

    #[test]
    fn docs_command_runs_existing_test() {
        let source = crate::paths::root().join("tests/tests/host/documents.rs");
        assert!(std::fs::read_to_string(source).unwrap().contains(&format!("fn {DOCS_TEST}(")));
    }

    #[test]
    fn test_passes_arguments_to_cargo_test() {
        for (line, all, arguments) in [
            ("test", false, ""),
            ("test --all", true, ""),
            ("test faults cable_cut", false, "faults cable_cut"),
            ("test -p hop-tests --test host exit_code", false, "-p hop-tests --test host exit_code"),
            ("test -p hop-tests -- --exact name", false, "-p hop-tests -- --exact name"),
            ("test -- -p hop", false, "-p hop"),
            ("test --all soak --all", true, "soak --all"),
        ] {
            let Command::Test(test) = parse(line).unwrap() else { panic!("{line}") };
            assert_eq!((test.all, test.arguments.join(" ").as_str()), (all, arguments), "{line}");
        }
    }

    #[test]
    fn bench_accepts_rows_and_profile() {
        let Command::Bench(bench) = parse("bench --runs 1 --hop target/hop first").unwrap() else { panic!() };
        assert_eq!((bench.measure.runs, bench.measure.rows.join(" ").as_str()), (Some(1), "first"));
        let Command::Bench(bench) = parse("bench profile first again").unwrap() else { panic!() };
        let Some(Profile::Profile { rows }) = bench.profile else { panic!() };
        assert_eq!(rows, ["first", "again"]);
        for wrong in ["bench profile", "bench --write --check", "bench --runs many"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn fuzz_defaults_to_ten_seconds() {
        let Command::Fuzz(fuzz) = parse("fuzz").unwrap() else { panic!() };
        assert_eq!((fuzz.seconds, fuzz.targets.len()), (10, 0));
        let Command::Fuzz(fuzz) = parse("fuzz run --seconds 0 stdin").unwrap() else { panic!() };
        assert_eq!((fuzz.seconds, fuzz.targets.join(" ").as_str()), (0, "run stdin"));
        for wrong in ["fuzz --seconds", "fuzz --seconds soon", "fuzz --minutes 1"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
