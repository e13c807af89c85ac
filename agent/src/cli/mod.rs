//! The command line, and what it does without serving: `--self-test`, and facts that enrolment asks for.

pub mod options;
pub mod print;
pub mod self_test;
