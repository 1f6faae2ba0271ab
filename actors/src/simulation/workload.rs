//! Workload: what clients of a simulated cluster do, and the operations that they record.
//!
//! Promise: every write has an id of its own; one without a clear answer, and one in three with an
//! acknowledgement, is sent again under the same id to another node. Tables and fields are those
//! that the checkers read.

use std::sync::Arc;
use std::time::Duration;

use history::checker::fields;
use history::{
    Attempt, Completion, Invocation, LogPosition, MonotonicTime, Operation, Response, ReturnValue,
};
use model::{
    Acceptance, Action, Answer, BranchId, BranchKey, BranchPattern, CatalogueChange,
    CatalogueEntry, Command, CommandId, ModuleConfig, ModuleId, Object, Origin, Outcome, PageQuery,
    Precondition, Read, ReadLevel, RecordMutation, Request, Schema, SequenceRules, Timestamp,
    Transaction, Validation, Value, VersionRule,
};
use parking_lot::Mutex;
use raft::simulated::Rng;
use tokio::time::Instant;

use super::cluster::SimulatedCluster;
use super::schedule::NODES;
use crate::{RouteError, Store};

/// Branches of the workload: enough for every partition to have some.
pub(super) const BRANCHES: [&str; 4] = ["dar", "remal", "souq", "nile"];
/// Clients.
pub(super) const CLIENTS: u32 = 4;
/// The module of every branch.
const MODULE: &str = "shop";
/// Registers and counters of a branch that all clients share.
const SHARED_KEYS: u64 = 3;
/// How often an operation is sent at most.
const ATTEMPTS: usize = 4;
/// The epoch of every log: no branch is ever restored.
pub(super) const EPOCH: u64 = 1;

/// One client.
pub(super) struct SimulatedClient {
    number: u32,
    rng: Rng,
}

impl SimulatedClient {
    pub(super) fn new(number: u32, rng: Rng) -> Self {
        Self { number, rng }
    }

    async fn pause(&mut self, shortest_ms: u64, longest_ms: u64) {
        let [shortest, longest] = [shortest_ms, longest_ms].map(Duration::from_millis);
        tokio::time::sleep(self.rng.between(shortest, longest)).await;
    }
}

/// Everything that the clients share.
pub(super) struct SimulatedClients {
    cluster: Arc<SimulatedCluster>,
    started: Instant,
    recorded: Mutex<Recorded>,
}

#[derive(Default)]
struct Recorded {
    operations: Vec<Operation>,
    /// The last reading of the clock.
    now: MonotonicTime,
    /// The last value written to a register: each is unique in the run.
    last_value: u64,
}

/// The branch:module of a branch.
pub(super) fn branch_key(branch: &str) -> BranchKey {
    let branch = BranchId::parse(branch).expect("the workload's names are valid");
    BranchKey::new(branch, ModuleId::parse(MODULE).expect("the workload's names are valid"))
}

/// The same, as a history names it.
pub(super) fn history_key(branch: &str) -> history::BranchModule {
    history::BranchModule { branch: branch.to_owned(), module: MODULE.to_owned() }
}

fn json(text: &str) -> Value {
    Value::from_json(text.as_bytes()).expect("the workload's definitions are JSON")
}

/// A module with versioned registers and counters, and numbered tickets.
pub(super) fn catalogue() -> Vec<CatalogueEntry> {
    let source = json(
        r#"{"tables":{
        "registers":{"versioned":true,"fields":{"id":{"type":"string","primaryKey":true},
            "version":{"type":"integer"},"value":{"type":"integer"},"op":{"type":"string"}}},
        "tickets":{"fields":{"id":{"type":"string","primaryKey":true},"op":{"type":"string"}}},
        "counters":{"versioned":true,"fields":{"id":{"type":"string","primaryKey":true},
            "version":{"type":"integer"},"value":{"type":"integer"},"op":{"type":"string"}}}}}"#,
    );
    let rules = json(r#"{"tickets":{"id":{"prefix":"T","start":1,"padding":6,"delimiter":"-"}}}"#);
    let id = ModuleId::parse(MODULE).expect("the workload's names are valid");
    let module = ModuleConfig {
        schema: Arc::new(Schema::from_definition(MODULE, &source).expect("a valid definition")),
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
    let patterns: Vec<BranchPattern> = Vec::new();
    let changes = [
        // First the rules: a ticket that is written between the module and them has no number.
        CatalogueChange::Sequences(SequenceRules::from_doc(&rules).expect("a valid rule")),
        CatalogueChange::Module(Arc::new(module)),
        CatalogueChange::Patterns { patterns, defaults: vec![id] },
    ];
    let entry = |(index, change)| CatalogueEntry {
        id: format!("simulated:{index}"),
        at: Timestamp::default(),
        change,
    };
    changes.into_iter().enumerate().map(entry).collect()
}

/// The mutation of a write; `None` for a read, and for what this workload does not do.
fn mutation(id: &str, invocation: &Invocation) -> Option<RecordMutation> {
    let (table, key, value, expected) = match invocation {
        Invocation::Ticket => {
            let record: Object = [(fields::OP, id)].into_iter().collect();
            return Some(RecordMutation::new(Action::Insert, fields::TICKETS, record));
        }
        Invocation::Cas { key, value, expected } => (fields::REGISTERS, key, value, expected),
        Invocation::Increment { key, value, expected } => (fields::COUNTERS, key, value, expected),
        Invocation::Put { .. }
        | Invocation::Get { .. }
        | Invocation::Append { .. }
        | Invocation::ReadLists
        | Invocation::Transfer { .. }
        | Invocation::ReadBalances
        | Invocation::TakePiece { .. }
        | Invocation::FirstWrite { .. }
        | Invocation::ReadHead => return None,
    };
    let record = [
        ("id", Value::from(key.as_str())),
        (fields::VALUE, Value::from(*value)),
        (fields::OP, Value::from(id)),
    ];
    let record: Object = record.into_iter().collect();
    // No version yet: only an insert fails if another client was faster.
    if *expected == 0 {
        return Some(RecordMutation::new(Action::Insert, table, record));
    }
    let mut mutation = RecordMutation::new(Action::Merge, table, record);
    mutation.preconditions.push(Precondition::VersionIs(*expected));
    Some(mutation)
}

impl SimulatedClients {
    pub(super) fn new(cluster: Arc<SimulatedCluster>, started: Instant) -> Self {
        Self { cluster, started, recorded: Mutex::default() }
    }

    /// The operations, in the order of their invocation.
    pub(super) fn operations(&self) -> Vec<Operation> {
        let mut operations = self.recorded.lock().operations.clone();
        operations.sort_by_key(|op| op.invoked);
        operations
    }

    /// A reading of the run's clock, later than every earlier one: virtual time stands still while
    /// tasks run, and a checker must know which of two readings came first.
    fn now(&self) -> MonotonicTime {
        let elapsed = MonotonicTime::from_elapsed(self.started.elapsed());
        let mut recorded = self.recorded.lock();
        recorded.now = elapsed.max(MonotonicTime(recorded.now.0 + 1));
        recorded.now
    }

    fn next_value(&self) -> u64 {
        let mut recorded = self.recorded.lock();
        recorded.last_value += 1;
        recorded.last_value
    }

    /// One client, until this much virtual time has passed.
    pub(super) async fn run(self: Arc<Self>, number: u32, seed: u64, until: Duration) {
        let mut client = SimulatedClient::new(number, Rng(seed ^ (u64::from(number) << 32)));
        let mut count = 0;
        while self.started.elapsed() < until {
            client.pause(20, 180).await;
            let branch = BRANCHES[usize::try_from(client.rng.below(4)).unwrap_or(0)];
            let node = 1 + client.rng.below(NODES);
            count += 1;
            let id = format!("c{number}-{count}");
            match client.rng.below(10) {
                0..2 => {
                    self.insert(&mut client, id, branch, node).await;
                }
                2..4 => self.compare_and_set(&mut client, id, branch, node).await,
                4..6 => {
                    self.write(&mut client, id, branch, Invocation::Ticket, node).await;
                }
                6..8 => self.increment(&mut client, id, branch, node).await,
                _ => {
                    self.read_head(&client, branch, node).await;
                }
            }
        }
    }

    /// Sets a register that nobody else writes; whether it was acknowledged.
    pub(super) async fn insert(
        &self,
        client: &mut SimulatedClient,
        id: String,
        branch: &str,
        node: u64,
    ) -> bool {
        let cas = Invocation::Cas { key: id.clone(), value: self.next_value(), expected: 0 };
        self.write(client, id, branch, cas, node).await
    }

    /// Reads a shared register, then sets it if it still has the version that was read.
    async fn compare_and_set(
        &self,
        client: &mut SimulatedClient,
        id: String,
        branch: &str,
        node: u64,
    ) {
        let key = format!("r{}", client.rng.below(SHARED_KEYS));
        let invoked = self.now();
        let row = self.read_row(node, branch, fields::REGISTERS, &key).await;
        let completion = match &row {
            Some(register) => Completion::Ok(Response {
                return_value: ReturnValue::Register(*register),
                ..Response::default()
            }),
            None => Completion::Info { why: "no answer".to_owned() },
        };
        self.record_read(
            (client, branch, node),
            Invocation::Get { key: key.clone() },
            invoked,
            completion,
        );
        let Some(register) = row else { return };
        let expected = register.map_or(0, |(_, version)| version);
        let cas = Invocation::Cas { key, value: self.next_value(), expected };
        self.write(client, id, branch, cas, node).await;
    }

    /// Adds one to a shared counter, if it still has the version that was read.
    async fn increment(&self, client: &mut SimulatedClient, id: String, branch: &str, node: u64) {
        let key = format!("k{}", client.rng.below(SHARED_KEYS));
        // Not recorded: the version guards the write, so a stale value would do no harm.
        let Some(row) = self.read_row(node, branch, fields::COUNTERS, &key).await else { return };
        let (value, expected) = row.unwrap_or_default();
        let invocation = Invocation::Increment { key, expected, value: value + 1 };
        self.write(client, id, branch, invocation, node).await;
    }

    /// One write with all its attempts; whether it was acknowledged.
    async fn write(
        &self,
        client: &mut SimulatedClient,
        id: String,
        branch: &str,
        invocation: Invocation,
        first: u64,
    ) -> bool {
        let Some(mutation) = mutation(&id, &invocation) else { return false };
        let command = Command {
            id: CommandId { session: "simulated".into(), request: id.clone() },
            key: branch_key(branch),
            origin: Arc::new(Origin::default()),
            request: Request::Transaction(Transaction::of(vec![mutation])),
        };
        let invoked = self.now();
        let mut completion = Completion::Info { why: "not sent".to_owned() };
        let (mut node, mut attempts) = (first, Vec::new());
        for _ in 0..ATTEMPTS {
            let at = self.now();
            let answer = self.submit(node, command.clone()).await;
            // The first clear answer counts; the checkers compare every later one with it.
            if matches!(completion, Completion::Info { .. }) {
                completion = answer.clone();
            }
            attempts.push(Attempt { node, at, completion: Some(answer) });
            let is_unclear = matches!(completion, Completion::Info { .. });
            if !is_unclear && !client.rng.random_bool(300) {
                break;
            }
            node = 1 + (node + client.rng.below(NODES - 1)) % NODES;
            client.pause(1, 300).await;
        }
        let is_acknowledged = matches!(completion, Completion::Ok(_));
        self.record((client, branch, id), invocation, attempts, invoked, completion);
        is_acknowledged
    }

    async fn submit(&self, node: u64, command: Command) -> Completion {
        let info = |why: &str| Completion::Info { why: why.to_owned() };
        let Some((store, crashed)) = self.cluster.client(node) else {
            return info("the node does not run");
        };
        let answer = tokio::select! {
            // A crash first: an answer of the same moment would not have left a real node.
            biased;
            () = crashed.cancelled() => return info("the node crashed"),
            answer = store.submit(command) => answer,
        };
        match answer {
            Ok(Outcome::Accepted(accepted)) => match response(&accepted) {
                Some(response) => Completion::Ok(response),
                None => info("accepted without an event"),
            },
            Ok(Outcome::Rejected(reject)) => Completion::Fail { code: reject.code().to_owned() },
            // Some of these say that nothing was done; a client may take each for unknown.
            Err(
                error @ (RouteError::Busy { .. }
                | RouteError::TopicsFull { .. }
                | RouteError::Unavailable { .. }
                | RouteError::MemoryFull(_)
                | RouteError::BranchQuota(_)
                | RouteError::Indeterminate
                | RouteError::UnknownBranch(_)
                | RouteError::UnknownModule(_)
                | RouteError::Rejected(_)),
            ) => info(&error.to_string()),
        }
    }

    /// Reads linearizably at one node; `None` without an answer.
    async fn read(&self, node: u64, branch: &str, read: Read) -> Option<Answer> {
        let (store, crashed) = self.cluster.client(node)?;
        tokio::select! {
            biased;
            () = crashed.cancelled() => None,
            answer = store.read(branch_key(branch), read, ReadLevel::Linearizable) => answer.ok(),
        }
    }

    /// The value and version of a row; `None` without an answer, `Some(None)` without such a row.
    async fn read_row(
        &self,
        node: u64,
        branch: &str,
        table: &str,
        key: &str,
    ) -> Option<Option<(u64, u64)>> {
        let page = PageQuery { table: table.into(), ..PageQuery::default() };
        let Answer::Page(page) = self.read(node, branch, Read::Page(page)).await? else {
            return None;
        };
        let is_wanted = |row: &&Arc<Object>| row.get("id").and_then(Value::as_str) == Some(key);
        let Some(row) = page.rows.iter().find(is_wanted) else { return Some(None) };
        let number = |name: &str| row.get(name).and_then(Value::as_u64);
        Some(Some((number(fields::VALUE)?, number(fields::VERSION)?)))
    }

    /// Reads where a log ends; whether there was an answer.
    pub(super) async fn read_head(
        &self,
        client: &SimulatedClient,
        branch: &str,
        node: u64,
    ) -> bool {
        let invoked = self.now();
        let completion = match self.read(node, branch, Read::Head).await {
            Some(Answer::Head(head)) => {
                let cursor = Some(LogPosition { epoch: EPOCH, sequence: head.offset.0 });
                Completion::Ok(Response { cursor, ..Response::default() })
            }
            Some(_) | None => Completion::Info { why: "no answer".to_owned() },
        };
        let is_answered = matches!(completion, Completion::Ok(_));
        self.record_read((client, branch, node), Invocation::ReadHead, invoked, completion);
        is_answered
    }

    fn record_read(
        &self,
        (client, branch, node): (&SimulatedClient, &str, u64),
        invocation: Invocation,
        invoked: MonotonicTime,
        completion: Completion,
    ) {
        let attempts = vec![Attempt { node, at: invoked, completion: None }];
        // The clock gives no reading twice.
        let id = format!("read-{}", invoked.0);
        self.record((client, branch, id), invocation, attempts, invoked, completion);
    }

    fn record(
        &self,
        (client, branch, id): (&SimulatedClient, &str, String),
        invocation: Invocation,
        attempts: Vec<Attempt>,
        invoked: MonotonicTime,
        completion: Completion,
    ) {
        let completed = self.now();
        let (client, branch_key) = (client.number, history_key(branch));
        self.recorded.lock().operations.push(Operation {
            id,
            client,
            branch_key,
            invocation,
            attempts,
            invoked,
            completed,
            completion,
        });
    }
}

/// The response in an acknowledgement.
fn response(accepted: &Acceptance) -> Option<Response> {
    let event = accepted.delta.events.last()?;
    let cursor = Some(LogPosition { epoch: EPOCH, sequence: event.offset.0 });
    let change = event.record()?;
    let version = change.record.get(fields::VERSION).and_then(Value::as_u64);
    let number = |key: &str| key.strip_prefix("T-")?.parse().ok();
    let return_value = match change.table.as_str() {
        fields::TICKETS => ReturnValue::Number(number(change.key.as_str())?),
        _ => ReturnValue::Nothing,
    };
    Some(Response { cursor, version, return_value })
}
