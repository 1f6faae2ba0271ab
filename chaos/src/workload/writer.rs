//! Writer: one client that performs one operation after another and records each.
//!
//! Promise: an operation with one unclear attempt and no clear response stays unknown. All attempts
//! have the operation's id as idempotency key.
//! Refused: a guess. A response that no rule explains is recorded as impossible.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use tokio::time::sleep;

use super::records::{QueryRows, list_names};
use super::{MODULE, WorkloadContext, branch_keys, invocations, setup};
use crate::client::{AttemptResult, RestClient, SocketClient, WorkloadRequest};
use crate::rng::Rng;
use history::{
    Attempt, BranchModule, Completion, Invocation, LogPosition, NodeId, Operation, Response,
    ReturnValue,
};

/// How many attempts without a clear response an operation may have before it counts as unknown.
const ATTEMPTS: usize = 5;
/// How many attempts may be answered with "unavailable". They are more, because a cluster without a
/// leader gives this response fast.
const UNAVAILABLE_ATTEMPTS: usize = 40;
/// The pause between two attempts.
const RETRY_DELAY: Duration = Duration::from_millis(150);
/// How many of a hundred acknowledged writes are sent again.
const REPEATED_PERCENT: u64 = 30;
/// How many registers a generation has.
const REGISTERS_PER_GENERATION: u64 = 3;
/// The codes with which a store may refuse an operation. Every request is well formed and names
/// what exists, so there is no reason for another one.
const EXPECTED_REFUSALS: [&str; 2] = ["version-conflict", "duplicate-key"];
/// How many of a thousand operations create a branch.
const NEW_BRANCHES_PER_MILLE: u64 = 1;

/// A client that reads and writes one branch.
#[derive(Debug)]
pub(super) struct Writer {
    context: Arc<WorkloadContext>,
    number: u32,
    rng: Rng,
    rest: RestClient,
    branch_key: BranchModule,
    uses_socket: bool,
    socket: Option<SocketClient>,
    cursor: Option<LogPosition>,
    /// The node that the next attempt must not use.
    avoided_node: Option<NodeId>,
    operation_count: u64,
}

impl Writer {
    /// A client; its number decides its branch.
    ///
    /// # Errors
    /// The HTTP client cannot be created.
    pub(super) fn new(context: &Arc<WorkloadContext>, number: u32) -> Result<Self> {
        let branch_keys = branch_keys();
        let branch_key = branch_keys[number as usize % branch_keys.len()].clone();
        Ok(Self {
            context: Arc::clone(context),
            number,
            rng: Rng::with_stream(context.config.seed, u64::from(number)),
            rest: RestClient::new()?,
            branch_key,
            // Divided first, so that every branch has writers by REST and by WebSocket.
            uses_socket: (number as usize / branch_keys.len()) % 2 == 1,
            socket: None,
            cursor: None,
            avoided_node: None,
            operation_count: 0,
        })
    }

    /// Performs operations until the workload is stopped.
    pub(super) async fn run(mut self) {
        while !self.context.is_stopped() {
            self.one_operation().await;
            sleep(self.context.config.pause).await;
        }
    }

    /// Performs one random operation, with the read that it needs before.
    async fn one_operation(&mut self) {
        let nothing = QueryRows::default();
        match self.rng.between(0, 999) {
            // First: the arms below cover the same numbers.
            n if n < NEW_BRANCHES_PER_MILLE => self.new_branch().await,
            0..400 => self.register().await,
            400..500 => {
                let mut lists = list_names(self.context.generation());
                self.rng.shuffle(&mut lists);
                lists.truncate(self.rng.between(2, 3) as usize);
                let element = self.context.next_unique();
                self.perform(Invocation::Append { lists, element }, &nothing).await;
            }
            500..540 => {
                let rows = QueryRows { generation: self.context.generation(), rows: Vec::new() };
                self.perform(Invocation::ReadLists, &rows).await;
            }
            540..680 => self.transfer().await,
            680..800 => {
                self.perform(Invocation::Ticket, &nothing).await;
            }
            800..900 => self.increment().await,
            _ => self.take_piece().await,
        }
    }

    async fn register(&mut self) {
        let number = self.rng.between(1, REGISTERS_PER_GENERATION);
        let key = format!("g{}-r{number}", self.context.generation());
        let response =
            self.perform(Invocation::Get { key: key.clone() }, &QueryRows::default()).await;
        let Some(Response { return_value: ReturnValue::Register(found), .. }) = response else {
            return;
        };
        let expected = found.map_or(0, |(_, version)| version);
        let value = self.context.next_unique();
        self.perform(Invocation::Cas { key, value, expected }, &QueryRows::default()).await;
    }

    async fn transfer(&mut self) {
        let Some((_, rows)) =
            self.perform_with_rows(Invocation::ReadBalances, &QueryRows::default()).await
        else {
            return;
        };
        let mut accounts: Vec<i64> = (0..setup::ACCOUNTS_PER_BRANCH).collect();
        self.rng.shuffle(&mut accounts);
        let (from, to) = (format!("a{}", accounts[0]), format!("a{}", accounts[1]));
        let amount = self.rng.between(1, 5).cast_signed();
        self.perform(Invocation::Transfer { from, to, amount }, &rows).await;
    }

    async fn increment(&mut self) {
        let key = format!("c{}", self.rng.between(0, setup::COUNTERS_PER_BRANCH - 1));
        let Some(rows) = self.read_record("counters", &key).await else { return };
        let (value, expected) = rows.number(&key, "value");
        let value = value.cast_unsigned() + 1;
        self.perform(Invocation::Increment { key, expected, value }, &rows).await;
    }

    async fn take_piece(&mut self) {
        let item = format!("s{}", self.rng.between(0, setup::COUNTERS_PER_BRANCH - 1));
        let Some(rows) = self.read_record("stock", &item).await else { return };
        let (left, expected) = rows.number(&item, "left");
        if left > 0 {
            self.perform(Invocation::TakePiece { item, expected, left: left - 1 }, &rows).await;
        }
    }

    /// Reads a record without recording the read. A stale result is harmless: the version that it
    /// shows guards the write that follows.
    async fn read_record(&mut self, table: &'static str, key: &str) -> Option<QueryRows> {
        let node = self.choose_node();
        let request = WorkloadRequest::Query { table, filter: json!({"id": key}) };
        match self.attempt(node, "look", &request).await {
            AttemptResult::Rows(rows) if !rows.is_empty() => {
                Some(QueryRows { generation: 0, rows })
            }
            AttemptResult::Rows(_)
            | AttemptResult::Acknowledged(_)
            | AttemptResult::Refused(_)
            | AttemptResult::Unavailable(_)
            | AttemptResult::Unknown(_)
            | AttemptResult::Defect(_) => None,
        }
    }

    async fn new_branch(&mut self) {
        let number = self.context.next_unique();
        let branch_key =
            BranchModule { branch: format!("new-{number}"), module: MODULE.to_owned() };
        let body = json!({"id": branch_key.branch, "modules": [MODULE]});
        let node = self.choose_node();
        let result = self.rest.call(
            self.context.http_address(node),
            "POST",
            "/api/branches",
            &branch_key.branch,
            &body,
        );
        let result = result.await;
        self.record_if_impossible(&branch_key.branch, &result);
        if !matches!(result, AttemptResult::Acknowledged(_)) {
            return;
        }
        // Before the write: its log is read at the end even if the write has no clear response.
        self.context.recording().branch_keys.push(branch_key.clone());
        let (previous_branch_key, uses_socket) =
            (std::mem::replace(&mut self.branch_key, branch_key), self.uses_socket);
        // By REST: the session is subscribed to the writer's own branch.
        self.uses_socket = false;
        self.perform(Invocation::FirstWrite { value: number }, &QueryRows::default()).await;
        self.branch_key = previous_branch_key;
        self.uses_socket = uses_socket;
    }

    async fn perform(&mut self, invocation: Invocation, rows: &QueryRows) -> Option<Response> {
        self.perform_with_rows(invocation, rows).await.map(|(response, _)| response)
    }

    /// Performs an operation and records it. Returns its response and rows if it was acknowledged.
    async fn perform_with_rows(
        &mut self,
        invocation: Invocation,
        rows: &QueryRows,
    ) -> Option<(Response, QueryRows)> {
        self.operation_count += 1;
        let id = format!("{}-{}-{}", self.context.config.seed, self.number, self.operation_count);
        let request = invocations::request(&id, &invocation, rows);
        // Read before the first attempt and after the last one: the interval must contain the
        // moment at which the operation took effect.
        let invoked = self.context.now();
        let (attempts, result) = self.attempt_until_answered(&id, &invocation, &request).await;
        let completed = self.context.now();
        let mut read_rows = QueryRows { generation: rows.generation, rows: Vec::new() };
        let completion = match result {
            AttemptResult::Acknowledged(written) => {
                Completion::Ok(invocations::write_response(&invocation, &written))
            }
            AttemptResult::Rows(found) => {
                read_rows.rows = found;
                Completion::Ok(invocations::read_response(&invocation, &read_rows))
            }
            AttemptResult::Refused(code) | AttemptResult::Unavailable(code) => {
                Completion::Fail { code }
            }
            AttemptResult::Unknown(why) | AttemptResult::Defect(why) => Completion::Info { why },
        };
        let response = completion.response().cloned();
        let (client, branch_key) = (self.number, self.branch_key.clone());
        let operation = Operation {
            id,
            client,
            branch_key,
            invocation,
            attempts,
            invoked,
            completed,
            completion,
        };
        let mut recording = self.context.recording();
        recording.counts.add(&operation);
        recording.operations.push(operation);
        // Released before the next operation: all clients share the lock.
        drop(recording);
        response.map(|response| (response, read_rows))
    }

    /// Makes attempts until one has a clear result, or there were too many. A later "unavailable"
    /// does not settle an earlier unknown attempt; an acknowledgement or a refusal does, because
    /// all attempts are one request to the store.
    async fn attempt_until_answered(
        &mut self,
        id: &str,
        invocation: &Invocation,
        request: &WorkloadRequest,
    ) -> (Vec<Attempt>, AttemptResult) {
        let mut attempts = Vec::new();
        let mut unknown = None;
        let (mut unclear, mut unavailable) = (0, 0);
        while unclear < ATTEMPTS && unavailable < UNAVAILABLE_ATTEMPTS {
            let node = self.choose_node();
            // Recorded before it is sent: a checker must know of a request whose response is lost.
            attempts.push(Attempt { node, at: self.context.now(), completion: None });
            let result = self.attempt(node, id, request).await;
            match result {
                AttemptResult::Unavailable(_) if self.context.is_stopped() => break,
                AttemptResult::Unavailable(_) => unavailable += 1,
                AttemptResult::Unknown(why) | AttemptResult::Defect(why) => {
                    unclear += 1;
                    unknown = Some(why);
                }
                definite @ (AttemptResult::Acknowledged(_)
                | AttemptResult::Rows(_)
                | AttemptResult::Refused(_)) => {
                    let answer = attempt_completion(invocation, &definite);
                    if let Some(last) = attempts.last_mut() {
                        last.completion = answer;
                    }
                    if matches!(definite, AttemptResult::Acknowledged(_)) {
                        self.maybe_repeat(id, invocation, request, &mut attempts).await;
                    }
                    return (attempts, definite);
                }
            }
            self.avoided_node = Some(node);
            sleep(RETRY_DELAY).await;
        }
        (
            attempts,
            unknown.map_or_else(
                || AttemptResult::Unavailable("unavailable".to_owned()),
                AttemptResult::Unknown,
            ),
        )
    }

    /// Sends some acknowledged writes again, to another node. A checker compares the answers.
    async fn maybe_repeat(
        &mut self,
        id: &str,
        invocation: &Invocation,
        request: &WorkloadRequest,
        attempts: &mut Vec<Attempt>,
    ) {
        if !self.rng.random_bool(REPEATED_PERCENT) {
            return;
        }
        self.avoided_node = attempts.last().map(|attempt| attempt.node);
        let node = self.choose_node();
        let at = self.context.now();
        let second = self.attempt(node, id, request).await;
        let completion = attempt_completion(invocation, &second);
        attempts.push(Attempt { node, at, completion });
        self.context.recording().counts.repeated += 1;
    }

    /// Sends a request once and records an impossible result.
    async fn attempt(
        &mut self,
        node: NodeId,
        id: &str,
        request: &WorkloadRequest,
    ) -> AttemptResult {
        let result = self.send(node, id, request).await;
        self.record_if_impossible(id, &result);
        result
    }

    /// Records a result that no correct store gives.
    fn record_if_impossible(&self, id: &str, result: &AttemptResult) {
        let description = match result {
            AttemptResult::Refused(code) if !EXPECTED_REFUSALS.contains(&code.as_str()) => code,
            AttemptResult::Defect(description) => description,
            AttemptResult::Refused(_)
            | AttemptResult::Acknowledged(_)
            | AttemptResult::Rows(_)
            | AttemptResult::Unavailable(_)
            | AttemptResult::Unknown(_) => return,
        };
        let description = format!("{id} on {}: {description}", self.branch_key.name());
        self.context.recording().impossible_responses.push(description);
    }

    /// Sends a request once: a write by the client's own means, a query always by REST.
    async fn send(&mut self, node: NodeId, id: &str, request: &WorkloadRequest) -> AttemptResult {
        match request {
            WorkloadRequest::Write(mutations) if self.uses_socket => {
                if let Err(error) = self.connect(node).await {
                    return AttemptResult::Unavailable(format!("{error:#}"));
                }
                let Some(socket) = self.socket.as_mut() else {
                    return AttemptResult::Unavailable("no socket".to_owned());
                };
                let result = socket.write(&self.branch_key, id, mutations, &mut self.cursor).await;
                // The session may still deliver the response, and must not be used again.
                if matches!(result, AttemptResult::Unknown(_)) {
                    self.socket = None;
                }
                result
            }
            WorkloadRequest::Write(_) | WorkloadRequest::Query { .. } => {
                self.rest.send(self.context.http_address(node), &self.branch_key, id, request).await
            }
        }
    }

    /// Opens a session with this node after the client's cursor, unless the present session is with
    /// it.
    async fn connect(&mut self, node: NodeId) -> Result<()> {
        if self.socket.as_ref().is_some_and(|socket| socket.node == node) {
            return Ok(());
        }
        self.socket = None;
        let client = format!("writer-{}", self.number);
        let http = self.context.http_address(node).to_owned();
        self.socket =
            Some(SocketClient::open((node, &http), &self.branch_key, &client, self.cursor).await?);
        Ok(())
    }

    fn choose_node(&mut self) -> NodeId {
        // Set after an unclear attempt and before a repeated one; it counts for one choice.
        let avoided_node = self.avoided_node.take();
        // Mostly the node of the session: opening another one costs more than a write.
        if let Some(socket) =
            self.socket.as_ref().filter(|socket| Some(socket.node) != avoided_node)
            && self.rng.random_bool(80)
        {
            return socket.node;
        }
        let nodes = &self.context.config.nodes;
        let others = nodes.iter().map(|(node, _)| *node).filter(|node| Some(*node) != avoided_node);
        *self.rng.choose(&others.collect::<Vec<_>>())
    }
}

/// The answer of one attempt at a write; `None` for one at a read, of which only the operation's
/// completion counts. An attempt that did nothing says as little as one that is unknown: another
/// attempt of the operation may have done it.
fn attempt_completion(invocation: &Invocation, result: &AttemptResult) -> Option<Completion> {
    Some(match result {
        AttemptResult::Acknowledged(written) => {
            Completion::Ok(invocations::write_response(invocation, written))
        }
        AttemptResult::Refused(code) => Completion::Fail { code: code.clone() },
        AttemptResult::Rows(_) => return None,
        AttemptResult::Unavailable(why)
        | AttemptResult::Unknown(why)
        | AttemptResult::Defect(why) => Completion::Info { why: why.clone() },
    })
}
