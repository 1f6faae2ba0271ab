//! Simulation: a whole cluster in one thread, under virtual time, with faults out of a seed.
//!
//! Three nodes, two partitions and group 0 run the very code of a node: router, actors, proposer,
//! openraft, log, checkpoints and working store. What is simulated: the wires (late, cut, lossy),
//! the log's disk (loses power, tears, fails, fills up), time, and chance. A run first keeps to
//! safety under faults; then everything is healed and it demands liveness: leaders, fresh writes
//! and reads, replicas that are equal.
//!
//! Promise: one seed, one schedule of faults. Refused, and said so: what checkpoints and the
//! working store write goes to files in memory that do not lose what was not synced; a node is
//! never paused; its wall clock never jumps; sockets and JSON are not here.
//!
//! What is not closed: the order in which tokio wakes those who watch one value (it is the seed's
//! too where tokio is built with `--cfg tokio_unstable`), the order of hash maps in libraries, and
//! sled's own threads, which decide how long its files are. Two runs of one seed have the same
//! faults at the same virtual times, and may differ in who leads then;
//! [`Report::first_difference`] says where they part.

mod fleet;
mod network;
mod oracle;
mod schedule;
mod storm;
#[cfg(test)]
mod tests;
mod workload;

use std::collections::BTreeMap;
use std::time::Duration;

pub use schedule::{Fault, Strike, Victim, schedule};

/// One run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Everything follows from it.
    pub seed: u64,
    /// Virtual time under faults; healing and judging come after it.
    pub length: Duration,
    /// Whether faults strike at all.
    pub faults: bool,
    /// Whether the disks lie about what is durable: then the oracle must speak.
    pub lying: bool,
}

impl Plan {
    /// A seed under faults.
    pub fn new(seed: u64, length: Duration) -> Self {
        Self { seed, length, faults: true, lying: false }
    }
}

/// What came of a run.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// What was wrong, in words; nothing when all held.
    pub violations: Vec<String>,
    /// Faults that struck, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Writes that were acknowledged, refused, and left without an answer.
    pub acknowledged: u64,
    /// See above.
    pub refused: u64,
    /// See above.
    pub unknown: u64,
    /// Linearizable reads answered.
    pub reads: u64,
    /// Messages carried by the wires, lost, and carried with pieces of checkpoints.
    pub messages: (u64, u64, u64),
    /// Replicas whose log was shortened below a checkpoint by the end.
    pub purged: u64,
    /// Starts a node refused because of what it found on its disk.
    pub refusals: u64,
    /// Lives of nodes that ended.
    pub lives: u64,
    /// Virtual time in all.
    pub virtual_time: Duration,
    /// Virtual time from the end of the faults until all replicas were equal.
    pub healed_after: Duration,
    /// What happened to the nodes, with virtual times.
    pub story: Vec<(Duration, String)>,
    /// The story and every write with its answer, by virtual time.
    pub steps: Vec<(Duration, String)>,
}

impl Report {
    /// Where two runs part: the first step in which they differ, of both.
    pub fn first_difference(&self, other: &Self) -> Option<(String, String)> {
        let shown = |step: Option<&(Duration, String)>| match step {
            Some((at, words)) => format!("{:.6} {words}", at.as_secs_f64()),
            None => "nothing more".to_owned(),
        };
        let steps = self.steps.len().max(other.steps.len());
        let at = (0..steps).find(|&at| self.steps.get(at) != other.steps.get(at))?;
        Some((shown(self.steps.get(at)), shown(other.steps.get(at))))
    }
}

/// Runs one seed on this thread.
///
/// # Errors
/// When the machine refuses a runtime or room for files.
pub fn run(plan: Plan) -> std::io::Result<Report> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true);
    #[cfg(tokio_unstable)]
    builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&plan.seed.to_le_bytes()));
    let runtime = builder.build()?;
    let report = runtime.block_on(async {
        raft::simulated::begin(plan.seed);
        Box::pin(storm::run(plan)).await
    });
    // What still runs ends here, while time and chance are still the seed's.
    drop(runtime);
    raft::simulated::end();
    report
}
