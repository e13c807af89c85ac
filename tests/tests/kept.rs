//! The behaviour suite with this machine's own agent, over connections that are kept: nobody can tell but by the time.

mod behaviour;

const STAGE: hop_tests::Stage = hop_tests::Stage::Kept;
