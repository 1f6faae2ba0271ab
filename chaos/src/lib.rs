//! Chaos: real nodes under seeded faults, and a recorded history, which the checkers of crate
//! `history` judge.
//!
//! Promise: a seed repeats the faults of a run, and its verdicts follow from the history alone. A
//! run leaves nothing behind and changes no network but its own.
//! Refused: knowledge of how a node works. Everything is observed from outside.

pub mod client;
pub mod cluster;
pub mod collect;
pub mod environment;
pub mod failure;
pub mod mutants;
pub mod nemesis;
pub mod probe;
pub mod report;
pub mod rng;
pub mod run;
pub mod scenario;
pub mod workload;
