//! Workload: clients that do what a chain of shops does, through every node and both doors, while
//! the storm goes on; and write all of it down.
//!
//! Each client has one operation at a time. An operation that gets no clear answer is asked again,
//! under the same id, at another node; so are three of ten that were answered.

mod invocations;
mod records;
mod setup;
mod subscriber;
mod writer;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub(crate) use setup::PADDING_FIELD;
pub use setup::{definition, set_up};

use crate::history::{BranchKey, Completion, MonotonicTime, NodeId, Operation, ReceivedMessage};

/// The module everything happens in.
pub const MODULE: &str = "storm";
/// Branches that are there from the beginning.
pub const BRANCHES: u64 = 4;
/// How long one generation of keys is written to: bounds how much is judged at once.
const GENERATION: Duration = Duration::from_secs(15);

/// Who takes part.
#[derive(Debug, Clone)]
pub struct WorkloadConfig {
    /// The nodes: number, and where clients reach it.
    pub nodes: Vec<(NodeId, String)>,
    /// Writers; every second one over a socket.
    pub writers: u32,
    /// Subscribers.
    pub subscribers: u32,
    /// For everything the clients leave to chance.
    pub seed: u64,
    /// How long a writer rests after each operation.
    pub pause: Duration,
}

/// What everybody shares.
#[derive(Debug)]
pub(crate) struct WorkloadContext {
    config: WorkloadConfig,
    started: Instant,
    is_stopped: AtomicBool,
    /// Elements and values: each is unique in the run.
    next_unique: AtomicU64,
    recording: Mutex<Recording>,
}

/// What was counted.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Counts {
    /// Writes acknowledged.
    #[serde(rename = "acked")]
    pub acknowledged: u64,
    /// Reads answered.
    pub read: u64,
    /// Operations refused by a rule, and those of which nothing was done.
    pub refused: u64,
    /// Operations whose outcome is not known.
    pub unknown: u64,
    /// Operations asked again although they were answered.
    pub repeated: u64,
    /// Words subscribers heard.
    #[serde(rename = "heard")]
    pub received: u64,
}

impl Counts {
    fn add(&mut self, op: &Operation) {
        let counted = match op.completion {
            Completion::Ok(_) if op.invocation.is_read() => &mut self.read,
            Completion::Ok(_) => &mut self.acknowledged,
            Completion::Fail { .. } => &mut self.refused,
            Completion::Info { .. } => &mut self.unknown,
        };
        *counted += 1;
    }
}

/// What was written down.
#[derive(Debug, Default)]
pub struct Recording {
    /// How much of each.
    pub counts: Counts,
    /// All operations, by completion.
    pub operations: Vec<Operation>,
    /// All words, by subscriber and time.
    pub received: Vec<ReceivedMessage>,
    /// Places made by operations.
    pub branch_keys: Vec<BranchKey>,
    /// Answers that cannot be right: a second one unlike the first, a refusal nothing can deserve,
    /// a defect the store owns.
    pub impossible_responses: Vec<String>,
}

/// Clients at work.
#[derive(Debug)]
pub struct RunningWorkload {
    context: Arc<WorkloadContext>,
    tasks: JoinSet<()>,
}

/// Sets the crew to work.
///
/// # Errors
/// This machine cannot open clients.
pub fn start(config: WorkloadConfig, started: Instant) -> Result<RunningWorkload> {
    let context = Arc::new(WorkloadContext {
        config,
        started,
        is_stopped: AtomicBool::new(false),
        next_unique: AtomicU64::new(1),
        recording: Mutex::default(),
    });
    let mut tasks = JoinSet::new();
    for number in 1..=context.config.writers {
        tasks.spawn(writer::Writer::new(&context, number)?.run());
    }
    for number in 1..=context.config.subscribers {
        tasks.spawn(subscriber::Subscriber::new(&context, number).run());
    }
    Ok(RunningWorkload { context, tasks })
}

impl RunningWorkload {
    /// What was counted so far.
    pub fn counts(&self) -> Counts {
        self.context.recording().counts
    }

    /// Now, as the history counts.
    pub fn now(&self) -> MonotonicTime {
        self.context.now()
    }

    /// Lets everybody finish what is under way, and takes what was written down.
    pub async fn stop(mut self) -> Recording {
        self.context.is_stopped.store(true, Ordering::Relaxed);
        while self.tasks.join_next().await.is_some() {}
        let mut recording = self.context.recording();
        std::mem::take(&mut *recording)
    }
}

impl WorkloadContext {
    fn now(&self) -> MonotonicTime {
        MonotonicTime::from_elapsed(self.started.elapsed())
    }

    fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }

    fn next_unique(&self) -> u64 {
        self.next_unique.fetch_add(1, Ordering::Relaxed)
    }

    fn generation(&self) -> u64 {
        self.started.elapsed().as_secs() / GENERATION.as_secs()
    }

    fn recording(&self) -> std::sync::MutexGuard<'_, Recording> {
        // Nobody leaves the book half written; who fell while holding it left it whole.
        self.recording.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn http_address(&self, node: NodeId) -> &str {
        let found = self.config.nodes.iter().find(|(number, _)| *number == node);
        found.map_or("", |(_, http_address)| http_address)
    }
}

/// The places that are there from the beginning.
pub fn branch_keys() -> Vec<BranchKey> {
    (1..=BRANCHES)
        .map(|number| BranchKey { branch: format!("storm-{number}"), module: MODULE.to_owned() })
        .collect()
}

/// What all accounts of each place hold together, by the place's name.
pub fn deposits() -> BTreeMap<String, i64> {
    branch_keys()
        .iter()
        .map(|branch_key| (branch_key.name(), setup::ACCOUNTS_PER_BRANCH * setup::INITIAL_BALANCE))
        .collect()
}
