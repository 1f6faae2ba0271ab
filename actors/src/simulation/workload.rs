//! Workload: what clients of a simulated cluster do, and what they remember of it.
//!
//! Promise: every write carries an id of its own; what has no answer, and one answer in three, is
//! asked again under the same id at another node. Reads are judged on the spot: whatever was
//! acknowledged before a read began is in its answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::{
    Action, Answer, BranchId, BranchKey, CatalogueChange, CatalogueEntry, Command, CommandId,
    ModuleConfig, ModuleId, Object, Origin, Outcome, PageQuery, Pattern, Precondition, Read,
    ReadLevel, RecordMutation, Request, Schema, SequenceRules, Timestamp, Transaction, Validation,
    Value, VersionRule,
};
use parking_lot::Mutex;
use raft::simulated::Rng;
use tokio::time::Instant;

use super::fleet::Fleet;
use super::schedule::NODES;
use crate::{RouteError, Store};

/// Branches of the workload: enough for every partition to have some.
pub(super) const BRANCHES: [&str; 4] = ["dar", "remal", "souq", "nile"];
/// Clients.
pub(super) const CLIENTS: u64 = 4;
/// Counters of a branch.
const COUNTERS: u64 = 3;

/// What an operation writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Act {
    /// Inserts a note under a key of its own.
    Note,
    /// Inserts a ticket, whose number the store takes.
    Ticket,
    /// Sets a counter to one more than was read, if it still has the version that was read.
    Count { counter: String, version: Option<u64>, value: u64 },
}

/// What a client knows of one write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Known {
    /// It happened; its last event has this offset.
    Done(u64),
    /// It was refused and did not happen.
    Refused(String),
    /// It may have happened, or may yet.
    Unknown,
}

/// One write.
#[derive(Debug, Clone)]
pub(super) struct Op {
    pub(super) id: CommandId,
    pub(super) branch: &'static str,
    pub(super) act: Act,
    pub(super) attempts: Vec<u64>,
    pub(super) invoked: Duration,
    pub(super) completed: Duration,
    pub(super) known: Known,
}

/// What all clients remember.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) ops: Vec<Op>,
    /// By branch: the highest offset that was acknowledged.
    pub(super) acknowledged: BTreeMap<&'static str, u64>,
    pub(super) reads: u64,
    pub(super) unread: u64,
    pub(super) wrong: Vec<String>,
}

/// The clients' common ground.
pub(super) struct Clients {
    pub(super) fleet: Arc<Fleet>,
    pub(super) memory: Mutex<Memory>,
    pub(super) began: Instant,
}

pub(super) fn key(branch: &str) -> BranchKey {
    let branch = BranchId::parse(branch).expect("the workload's names are good");
    BranchKey::new(branch, ModuleId::parse("shop").expect("the workload's names are good"))
}

fn json(text: &str) -> Value {
    Value::from_json(text.as_bytes()).expect("the workload's definitions are JSON")
}

/// A module with notes, numbered tickets and versioned counters.
pub(super) fn catalogue() -> Vec<CatalogueEntry> {
    let source = json(
        r#"{"tables":{
        "note":{"fields":{"id":{"type":"string","primaryKey":true},"text":{"type":"string"}}},
        "ticket":{"fields":{"id":{"type":"string","primaryKey":true},"note":{"type":"string"}}},
        "counter":{"versioned":true,"fields":{"id":{"type":"string","primaryKey":true},
            "version":{"type":"integer"},"n":{"type":"integer"},"op":{"type":"string"}}}}}"#,
    );
    let rules = json(r#"{"ticket":{"id":{"prefix":"T","start":1,"padding":6,"delimiter":"-"}}}"#);
    let id = ModuleId::parse("shop").expect("the workload's names are good");
    let module = ModuleConfig {
        schema: Arc::new(Schema::from_definition("shop", &source).expect("a good definition")),
        id: id.clone(),
        label: "Shop".into(),
        description: String::new(),
        tables: Vec::new(),
        source: Arc::new(source),
        validation: Validation::Strict,
        version_rule: VersionRule::Read,
        seed: None,
        dedup: model::DedupLimits::default(),
    };
    let patterns: Vec<Pattern> = Vec::new();
    let changes = [
        // First the rules: what is written between the module and them would take no number.
        CatalogueChange::Sequences(SequenceRules::from_doc(&rules).expect("a good rule")),
        CatalogueChange::Module(Arc::new(module)),
        CatalogueChange::Patterns { patterns, defaults: vec![id] },
    ];
    let entry = |(place, change)| CatalogueEntry {
        id: format!("simulated:{place}"),
        at: Timestamp::default(),
        change,
    };
    changes.into_iter().enumerate().map(entry).collect()
}

fn command(id: &CommandId, branch: &str, act: &Act) -> Command {
    let op = id.request.as_str();
    let mutation = match act {
        Act::Note => {
            let record: Object = [("id", op), ("text", op)].into_iter().collect();
            RecordMutation::new(Action::Insert, "note", record)
        }
        Act::Ticket => {
            let record: Object = [("note", op)].into_iter().collect();
            RecordMutation::new(Action::Insert, "ticket", record)
        }
        Act::Count { counter, version, value } => {
            let record: Object = [
                ("id", Value::from(counter.as_str())),
                ("n", Value::from(*value)),
                ("op", Value::from(op)),
            ]
            .into_iter()
            .collect();
            match version {
                None => RecordMutation::new(Action::Insert, "counter", record),
                Some(version) => {
                    let mut mutation = RecordMutation::new(Action::Merge, "counter", record);
                    mutation.preconditions.push(Precondition::VersionIs(*version));
                    mutation
                }
            }
        }
    };
    Command {
        id: id.clone(),
        key: key(branch),
        origin: Arc::new(Origin::default()),
        request: Request::Transaction(Transaction::of(vec![mutation])),
    }
}

impl Clients {
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// One client's life, until the time is over.
    pub(super) async fn run(self: Arc<Self>, client: u64, seed: u64, until: Duration) {
        let mut dice = Rng(seed ^ (client << 32));
        let mut number = 0;
        while self.now() < until {
            tokio::time::sleep(dice.between(Duration::from_millis(20), Duration::from_millis(180)))
                .await;
            let branch = BRANCHES[usize::try_from(dice.below(4)).unwrap_or(0)];
            let node = 1 + dice.below(NODES);
            number += 1;
            let name = format!("c{client}-{number}");
            match dice.below(10) {
                0..4 => self.write(&mut dice, name, branch, Act::Note, node).await,
                4..6 => self.write(&mut dice, name, branch, Act::Ticket, node).await,
                6..8 => {
                    let counter = format!("k{}", dice.below(COUNTERS));
                    if let Some(act) = self.next_count(branch, counter, node).await {
                        self.write(&mut dice, name, branch, act, node).await;
                    }
                }
                _ => {
                    self.read_head(branch, node).await;
                }
            }
        }
    }

    /// One write with all its attempts.
    pub(super) async fn write(
        &self,
        dice: &mut Rng,
        request: String,
        branch: &'static str,
        act: Act,
        first: u64,
    ) {
        let id = CommandId { session: "simulated".into(), request };
        let invoked = self.now();
        let (mut node, mut known, mut attempts) = (first, Known::Unknown, Vec::new());
        for _ in 0..4 {
            attempts.push(node);
            let answer = self.attempt(node, command(&id, branch, &act)).await;
            known = self.agree(&id, known, answer);
            let again = known == Known::Unknown || dice.chance(300);
            if !again {
                break;
            }
            node = 1 + (node + dice.below(NODES - 1)) % NODES;
            tokio::time::sleep(dice.between(Duration::from_millis(1), Duration::from_millis(300)))
                .await;
        }
        let mut memory = self.memory.lock();
        if let Known::Done(offset) = known {
            let highest = memory.acknowledged.entry(branch).or_default();
            *highest = offset.max(*highest);
        }
        let completed = self.now();
        memory.ops.push(Op { id, branch, act, attempts, invoked, completed, known });
    }

    /// Whether a write was acknowledged.
    pub(super) fn is_done(&self, request: &str) -> bool {
        let memory = self.memory.lock();
        let op = memory.ops.iter().rev().find(|op| op.id.request == request);
        op.is_some_and(|op| matches!(op.known, Known::Done(_)))
    }

    async fn attempt(&self, node: u64, command: Command) -> Known {
        let Some((router, ended)) = self.fleet.client(node) else { return Known::Unknown };
        let answer = tokio::select! {
            biased;
            () = ended.cancelled() => return Known::Unknown,
            answer = router.submit(command) => answer,
        };
        match answer {
            Ok(Outcome::Accepted(accepted)) => match accepted.delta.last() {
                Some(offset) => Known::Done(offset.0),
                None => Known::Unknown,
            },
            Ok(Outcome::Rejected(reject)) => Known::Refused(reject.code().to_owned()),
            Err(
                RouteError::Busy { .. }
                | RouteError::Unavailable { .. }
                | RouteError::Indeterminate
                | RouteError::UnknownBranch(_)
                | RouteError::UnknownModule(_)
                | RouteError::Rejected(_),
            ) => Known::Unknown,
        }
    }

    /// What two answers to the same id say together: they must not contradict each other.
    fn agree(&self, id: &CommandId, before: Known, now: Known) -> Known {
        match (before, now) {
            (Known::Unknown, now) => now,
            (before, Known::Unknown) => before,
            (before, now) => {
                if before != now {
                    let wrong = format!("{}: answered {before:?}, then {now:?}", id.request);
                    self.memory.lock().wrong.push(wrong);
                }
                before
            }
        }
    }

    /// Reads at one node; `None` without an answer.
    async fn read(&self, node: u64, branch: &str, read: Read) -> Option<Answer> {
        let (router, ended) = self.fleet.client(node)?;
        let answer = tokio::select! {
            biased;
            () = ended.cancelled() => None,
            answer = router.read(key(branch), read, ReadLevel::Linearizable) => answer.ok(),
        };
        let mut memory = self.memory.lock();
        memory.reads += u64::from(answer.is_some());
        memory.unread += u64::from(answer.is_none());
        answer
    }

    /// Reads where the log stands: not before what was acknowledged.
    pub(super) async fn read_head(&self, branch: &'static str, node: u64) -> bool {
        let least = self.memory.lock().acknowledged.get(branch).copied().unwrap_or(0);
        let Some(Answer::Head(head)) = self.read(node, branch, Read::Head).await else {
            return false;
        };
        if head.offset.0 < least {
            let wrong = format!(
                "stale: node {node} read {branch} at {}, {least} had been acknowledged",
                head.offset.0
            );
            self.memory.lock().wrong.push(wrong);
        }
        let mut memory = self.memory.lock();
        let highest = memory.acknowledged.entry(branch).or_default();
        *highest = head.offset.0.max(*highest);
        true
    }

    /// Reads a counter and says what adding one to it means.
    async fn next_count(&self, branch: &'static str, counter: String, node: u64) -> Option<Act> {
        let page = PageQuery { table: "counter".into(), ..PageQuery::default() };
        let Answer::Page(page) = self.read(node, branch, Read::Page(page)).await? else {
            return None;
        };
        let named = |row: &&Arc<Object>| row.get("id").and_then(Value::as_str) == Some(&counter);
        let Some(row) = page.rows.iter().find(named) else {
            return Some(Act::Count { counter, version: None, value: 1 });
        };
        let number = |name: &str| row.get(name).and_then(Value::as_u64);
        let (version, value) = (number("version"), number("n")? + 1);
        Some(Act::Count { counter, version, value })
    }
}
