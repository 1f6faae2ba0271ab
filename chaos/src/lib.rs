//! The storm: real nodes under seeded faults, a recorded history, and properties that judge it.
//!
//! Promise: what a run did can be done again from its seed, and what it says is drawn from the
//! history alone. The storm leaves nothing behind and touches no network but its own.

pub mod checker;
pub mod client;
pub mod cluster;
pub mod collect;
pub mod environment;
pub mod failure;
pub mod history;
pub mod mutants;
pub mod nemesis;
pub mod probe;
pub mod report;
pub mod rng;
pub mod run;
pub mod scenario;
pub mod workload;
