//! The behaviour suite with this machine's own agent, over connections that are kept: nobody can tell but by the time.

mod behaviour;

const TARGET: hop_tests::Target = hop_tests::Target::Kept;
