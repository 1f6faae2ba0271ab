//! Simulation: a whole cluster in one thread, under virtual time, with faults out of a seed.
//!
//! Three nodes, two partitions and group 0 run the very code of a node: store, actors, proposer,
//! openraft, log, checkpoints and working store. What is simulated: the network (slow, cut, losing
//! messages), the log's disk (loses power, tears writes, fails, fills up), time, and random
//! numbers. A run first injects faults; then everything is healed and it requires liveness:
//! leaders, new writes and reads, replicas that have applied the same. What clients did and what
//! the nodes hold at the end is a [`history::History`], which the checkers of that crate judge.
//!
//! Promise: one seed, one schedule of faults. Refused, and said so: what checkpoints and the
//! working store write goes to files in memory that do not lose what was not synced; a node is
//! never paused; its wall clock never jumps; sockets and JSON are not here.
//!
//! What is not closed: the order in which tokio wakes those who watch one value (it is the seed's
//! too where tokio is built with `--cfg tokio_unstable`), the order of hash maps in libraries, and
//! sled's own threads, which decide how long its files are. Two runs of one seed have the same
//! faults at the same virtual times, and may differ in who leads then;
//! [`SimulationReport::first_difference`] says where they part.

mod cluster;
mod collect;
mod network;
mod run;
mod schedule;
#[cfg(test)]
mod tests;
mod workload;

use std::collections::BTreeMap;
use std::time::Duration;

pub use schedule::{NodeSelector, ScheduledFault, SimulatedFault, schedule};

/// What a run does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SimulationConfig {
    /// Everything follows from it.
    pub seed: u64,
    /// Virtual time under faults; healing and checking come after it.
    pub length: Duration,
    /// Whether faults are injected at all.
    pub faults: bool,
    /// Whether the disks ignore syncs and report them as done: then the checkers must find a loss.
    pub ignored_syncs: bool,
}

impl SimulationConfig {
    /// A seed under faults.
    pub fn new(seed: u64, length: Duration) -> Self {
        Self { seed, length, faults: true, ignored_syncs: false }
    }
}

/// What came of a run.
#[derive(Debug, Clone, Default)]
pub struct SimulationReport {
    /// The violations, each with its property; empty if everything held.
    pub violations: Vec<String>,
    /// How many facts of each property were checked.
    pub checked: BTreeMap<&'static str, u64>,
    /// How many faults were injected, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Writes that were refused.
    pub refused: u64,
    /// Writes without a clear answer.
    pub unknown: u64,
    /// Linearizable reads that were answered and recorded.
    pub reads: u64,
    /// Messages carried by the network, lost, and carried with pieces of checkpoints.
    pub messages: (u64, u64, u64),
    /// Replicas whose log was cut below a checkpoint by the end.
    pub purged: u64,
    /// How often a node refused to start on what it found on its disk.
    pub refusals: u64,
    /// How often a node crashed.
    pub crashes: u64,
    /// Virtual time in all.
    pub virtual_time: Duration,
    /// Virtual time from the end of the faults until all replicas had applied the same.
    pub healed_after: Duration,
    /// What happened to the nodes, with virtual times.
    pub events: Vec<(Duration, String)>,
    /// The events and every operation with its completion, by virtual time.
    pub steps: Vec<(Duration, String)>,
}

impl SimulationReport {
    /// Where two runs part: the first step in which they differ, of both.
    pub fn first_difference(&self, other: &Self) -> Option<(String, String)> {
        let format_step = |step: Option<&(Duration, String)>| match step {
            Some((at, words)) => format!("{:.6} {words}", at.as_secs_f64()),
            None => "nothing more".to_owned(),
        };
        let steps = self.steps.len().max(other.steps.len());
        let at = (0..steps).find(|&at| self.steps.get(at) != other.steps.get(at))?;
        Some((format_step(self.steps.get(at)), format_step(other.steps.get(at))))
    }
}

/// Runs one seed on this thread.
///
/// # Errors
/// When the machine refuses a runtime or a folder for files.
pub fn run(config: SimulationConfig) -> std::io::Result<SimulationReport> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true);
    #[cfg(tokio_unstable)]
    builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&config.seed.to_le_bytes()));
    let runtime = builder.build()?;
    let report = runtime.block_on(async {
        raft::simulated::begin(config.seed);
        Box::pin(run::run(config)).await
    });
    // What still runs ends here, while time and random numbers are still the seed's.
    drop(runtime);
    raft::simulated::end();
    report
}
