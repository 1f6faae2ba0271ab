//! Workload: clients that read and write as a chain of shops does, through every node, by REST and
//! by WebSocket, while faults are injected. Everything they do and receive is recorded.
//!
//! Each client has one operation at a time. An operation without a clear response is attempted
//! again under the same id at another node. So are three of ten acknowledged writes: the store must
//! give the same response again.
//!
//! Promise: every operation is recorded, whatever its result.
//! Refused: a judgement. Only responses that no correct store gives are marked as impossible.

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

use history::{BranchModule, Completion, MonotonicTime, NodeId, Operation, ReceivedMessage};

/// The module of all branches.
pub const MODULE: &str = "chaos";
/// How many branches exist from the beginning.
pub const BRANCHES: u64 = 4;
/// How long one generation of registers and lists is written to. It bounds the size of a register's
/// history, and with it the time of its check.
const GENERATION: Duration = Duration::from_secs(15);

/// The clients and the nodes of a workload.
#[derive(Debug, Clone)]
pub struct WorkloadConfig {
    /// The nodes: number, and address for clients.
    pub nodes: Vec<(NodeId, String)>,
    /// How many clients write; half of them by WebSocket.
    pub writers: u32,
    /// How many clients subscribe.
    pub subscribers: u32,
    /// The seed of the clients' random choices.
    pub seed: u64,
    /// How long a writer pauses after each operation.
    pub pause: Duration,
}

/// What all clients share.
#[derive(Debug)]
pub(crate) struct WorkloadContext {
    config: WorkloadConfig,
    started: Instant,
    is_stopped: AtomicBool,
    /// The next element or value: each is used once in a run.
    next_unique: AtomicU64,
    recording: Mutex<Recording>,
}

/// What the clients counted.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct OperationCounts {
    /// Writes acknowledged.
    #[serde(rename = "acked")]
    pub acknowledged: u64,
    /// Reads that completed.
    pub read: u64,
    /// Operations that failed: refused by a rule, or not done in any attempt.
    pub refused: u64,
    /// Operations with an unknown result.
    pub unknown: u64,
    /// Acknowledged writes that were sent again.
    pub repeated: u64,
    /// Messages that subscribers received.
    #[serde(rename = "heard")]
    pub received: u64,
}

impl OperationCounts {
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

/// What the clients recorded.
#[derive(Debug, Default)]
pub struct Recording {
    /// How many of each.
    pub counts: OperationCounts,
    /// All operations, in the order of their completion.
    pub operations: Vec<Operation>,
    /// All received messages, in the order of their arrival.
    pub received: Vec<ReceivedMessage>,
    /// Branches that clients created.
    pub branch_keys: Vec<BranchModule>,
    /// Responses that no correct store gives: a repeated response unlike the first one, a refusal
    /// for which there is no reason, a defect that the store reports.
    pub impossible_responses: Vec<String>,
}

/// A workload whose clients run.
#[derive(Debug)]
pub struct RunningWorkload {
    context: Arc<WorkloadContext>,
    tasks: JoinSet<()>,
}

/// Starts the clients. Times in the history count from `started`.
///
/// # Errors
/// An HTTP client cannot be created.
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
    /// What the clients counted so far.
    pub fn counts(&self) -> OperationCounts {
        self.context.recording().counts
    }

    /// The present reading of the history's clock.
    pub fn now(&self) -> MonotonicTime {
        self.context.now()
    }

    /// Lets every client finish its operation and every subscriber receive the end of the log, then
    /// returns what they recorded.
    pub async fn stop(mut self) -> Recording {
        self.context.is_stopped.store(true, Ordering::Relaxed);
        // Clients look at the flag between operations: none is interrupted in the middle of one.
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
        // Each lock covers whole additions only: a client that panicked left a complete recording.
        self.recording.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn http_address(&self, node: NodeId) -> &str {
        let found = self.config.nodes.iter().find(|(number, _)| *number == node);
        found.map_or("", |(_, http_address)| http_address)
    }
}

/// The branches that exist from the beginning.
pub fn branch_keys() -> Vec<BranchModule> {
    (1..=BRANCHES)
        .map(|number| BranchModule { branch: format!("chaos-{number}"), module: MODULE.to_owned() })
        .collect()
}

/// The sum of all accounts of each branch at the beginning, by [`BranchModule::name`].
pub fn deposits() -> BTreeMap<String, i64> {
    branch_keys()
        .iter()
        .map(|branch_key| (branch_key.name(), setup::ACCOUNTS_PER_BRANCH * setup::INITIAL_BALANCE))
        .collect()
}
