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

pub(crate) use setup::PAD;
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
    pub rest: Duration,
}

/// What everybody shares.
#[derive(Debug)]
pub(crate) struct WorkloadContext {
    crew: WorkloadConfig,
    begin: Instant,
    is_over: AtomicBool,
    /// Elements and values: each is unique in the run.
    unique: AtomicU64,
    book: Mutex<Recording>,
}

/// What was counted.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Counts {
    /// Writes acknowledged.
    pub acked: u64,
    /// Reads answered.
    pub read: u64,
    /// Operations refused by a rule, and those of which nothing was done.
    pub refused: u64,
    /// Operations whose outcome is not known.
    pub unknown: u64,
    /// Operations asked again although they were answered.
    pub repeated: u64,
    /// Words subscribers heard.
    pub heard: u64,
}

impl Counts {
    fn add(&mut self, op: &Operation) {
        let counted = match op.outcome {
            Completion::Ok(_) if op.intent.is_read() => &mut self.read,
            Completion::Ok(_) => &mut self.acked,
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
    pub ops: Vec<Operation>,
    /// All words, by subscriber and time.
    pub heard: Vec<ReceivedMessage>,
    /// Places made by operations.
    pub places: Vec<BranchKey>,
    /// Answers that cannot be right: a second one unlike the first, a refusal nothing can deserve,
    /// a defect the store owns.
    pub impossible: Vec<String>,
}

/// Clients at work.
#[derive(Debug)]
pub struct RunningWorkload {
    stage: Arc<WorkloadContext>,
    tasks: JoinSet<()>,
}

/// Sets the crew to work.
///
/// # Errors
/// This machine cannot open clients.
pub fn start(crew: WorkloadConfig, begin: Instant) -> Result<RunningWorkload> {
    let stage = Arc::new(WorkloadContext {
        crew,
        begin,
        is_over: AtomicBool::new(false),
        unique: AtomicU64::new(1),
        book: Mutex::default(),
    });
    let mut tasks = JoinSet::new();
    for number in 1..=stage.crew.writers {
        tasks.spawn(writer::Writer::new(&stage, number)?.work());
    }
    for number in 1..=stage.crew.subscribers {
        tasks.spawn(subscriber::Subscriber::new(&stage, number).listen());
    }
    Ok(RunningWorkload { stage, tasks })
}

impl RunningWorkload {
    /// What was counted so far.
    pub fn counts(&self) -> Counts {
        self.stage.book().counts
    }

    /// Now, as the history counts.
    pub fn now(&self) -> MonotonicTime {
        self.stage.now()
    }

    /// Lets everybody finish what is under way, and takes what was written down.
    pub async fn stop(mut self) -> Recording {
        self.stage.is_over.store(true, Ordering::Relaxed);
        while self.tasks.join_next().await.is_some() {}
        let mut book = self.stage.book();
        std::mem::take(&mut *book)
    }
}

impl WorkloadContext {
    fn now(&self) -> MonotonicTime {
        MonotonicTime::after(self.begin.elapsed())
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn unique(&self) -> u64 {
        self.unique.fetch_add(1, Ordering::Relaxed)
    }

    fn generation(&self) -> u64 {
        self.begin.elapsed().as_secs() / GENERATION.as_secs()
    }

    fn book(&self) -> std::sync::MutexGuard<'_, Recording> {
        // Nobody leaves the book half written; who fell while holding it left it whole.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn http(&self, node: NodeId) -> &str {
        let found = self.crew.nodes.iter().find(|(number, _)| *number == node);
        found.map_or("", |(_, http)| http)
    }
}

/// The places that are there from the beginning.
pub fn places() -> Vec<BranchKey> {
    (1..=BRANCHES)
        .map(|number| BranchKey { branch: format!("storm-{number}"), module: MODULE.to_owned() })
        .collect()
}

/// What all accounts of each place hold together, by the place's name.
pub fn deposits() -> BTreeMap<String, i64> {
    places().iter().map(|place| (place.name(), setup::ACCOUNTS * setup::BALANCE)).collect()
}
