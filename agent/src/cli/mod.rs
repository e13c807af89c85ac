//! The command line, and the commands that do not serve: `--self-test`, and facts that enrolment needs.

pub mod options;
pub mod print;
pub mod self_test;
