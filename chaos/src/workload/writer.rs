//! Writer: one client. It does one thing after another and writes down what it was told.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use tokio::time::sleep;

use super::records::{Rows, list_names};
use super::{MODULE, WorkloadContext, invocations, places, setup};
use crate::client::{AttemptResult, Request, RestClient, SocketClient};
use crate::history::{
    Attempt, BranchKey, Completion, Cursor, Invocation, NodeId, Operation, Response, ReturnValue,
};
use crate::rng::Rng;

/// How often an operation is asked for before its outcome counts as unknown.
const ATTEMPTS: usize = 5;
/// How often it is asked where nothing was done each time: a cluster without a leader says so fast.
const NOT_NOW_ATTEMPTS: usize = 40;
/// Between two attempts.
const BEFORE_AGAIN: Duration = Duration::from_millis(150);
/// Of a hundred operations, those asked again although they were answered.
const REPEATED: u64 = 30;
/// Registers of a generation.
const REGISTERS: u64 = 3;
/// What a store may refuse of what is asked here; everything asked of is there and well formed.
const DESERVED: [&str; 2] = ["version-conflict", "duplicate-key"];
/// Of a thousand operations, those that make a branch.
const NEW_BRANCHES_PER_MILLE: u64 = 1;

/// One client.
#[derive(Debug)]
pub(super) struct Writer {
    stage: Arc<WorkloadContext>,
    number: u32,
    dice: Rng,
    rest: RestClient,
    place: BranchKey,
    by_socket: bool,
    socket: Option<SocketClient>,
    cursor: Option<Cursor>,
    /// The node that must not be asked next.
    avoided: Option<NodeId>,
    done: u64,
}

impl Writer {
    /// A client with a place of its own to begin with.
    ///
    /// # Errors
    /// This machine cannot open it.
    pub(super) fn new(stage: &Arc<WorkloadContext>, number: u32) -> Result<Self> {
        let places = places();
        let place = places[number as usize % places.len()].clone();
        Ok(Self {
            stage: Arc::clone(stage),
            number,
            dice: Rng::of(stage.crew.seed, u64::from(number)),
            rest: RestClient::new()?,
            place,
            // Both doors for every place.
            by_socket: (number as usize / places.len()) % 2 == 1,
            socket: None,
            cursor: None,
            avoided: None,
            done: 0,
        })
    }

    /// Works until the storm is over.
    pub(super) async fn work(mut self) {
        while !self.stage.is_over() {
            self.one_operation().await;
            sleep(self.stage.crew.rest).await;
        }
    }

    async fn one_operation(&mut self) {
        let nothing = Rows::default();
        match self.dice.between(0, 999) {
            n if n < NEW_BRANCHES_PER_MILLE => self.new_branch().await,
            0..400 => self.register().await,
            400..500 => {
                let mut lists = list_names(self.stage.generation());
                self.dice.shuffle(&mut lists);
                lists.truncate(self.dice.between(2, 3) as usize);
                let element = self.stage.unique();
                self.op(Invocation::Append { lists, element }, &nothing).await;
            }
            500..540 => {
                let rows = Rows { generation: self.stage.generation(), rows: Vec::new() };
                self.op(Invocation::ReadLists, &rows).await;
            }
            540..680 => self.transfer().await,
            680..800 => {
                self.op(Invocation::Ticket, &nothing).await;
            }
            800..900 => self.increment().await,
            _ => self.take_piece().await,
        }
    }

    async fn register(&mut self) {
        let number = self.dice.between(1, REGISTERS);
        let key = format!("g{}-r{number}", self.stage.generation());
        let reply = self.op(Invocation::Get { key: key.clone() }, &Rows::default()).await;
        let Some(Response { seen: ReturnValue::Register(found), .. }) = reply else { return };
        let expected = found.map_or(0, |(_, version)| version);
        let value = self.stage.unique();
        self.op(Invocation::Cas { key, value, expected }, &Rows::default()).await;
    }

    async fn transfer(&mut self) {
        let Some((_, rows)) = self.op_with_rows(Invocation::ReadBalances, &Rows::default()).await
        else {
            return;
        };
        let mut accounts: Vec<i64> = (0..setup::ACCOUNTS).collect();
        self.dice.shuffle(&mut accounts);
        let (from, to) = (format!("a{}", accounts[0]), format!("a{}", accounts[1]));
        let amount = self.dice.between(1, 5).cast_signed();
        self.op(Invocation::Transfer { from, to, amount }, &rows).await;
    }

    async fn increment(&mut self) {
        let key = format!("c{}", self.dice.between(0, setup::COUNTERS - 1));
        let Some(rows) = self.look("counters", &key).await else { return };
        let (value, expected) = rows.number(&key, "value");
        let value = value.cast_unsigned() + 1;
        self.op(Invocation::Increment { key, expected, value }, &rows).await;
    }

    async fn take_piece(&mut self) {
        let item = format!("s{}", self.dice.between(0, setup::COUNTERS - 1));
        let Some(rows) = self.look("stock", &item).await else { return };
        let (left, expected) = rows.number(&item, "left");
        if left > 0 {
            self.op(Invocation::TakePiece { item, expected, left: left - 1 }, &rows).await;
        }
    }

    /// Reads a row without writing it down.
    async fn look(&mut self, table: &'static str, key: &str) -> Option<Rows> {
        let node = self.any_node();
        let request = Request::Query { table, wanted: json!({"id": key}) };
        match self.attempt(node, "look", &request).await {
            AttemptResult::Rows(rows) if !rows.is_empty() => Some(Rows { generation: 0, rows }),
            AttemptResult::Rows(_)
            | AttemptResult::Acknowledged(_)
            | AttemptResult::Refused(_)
            | AttemptResult::Unavailable(_)
            | AttemptResult::Unknown(_)
            | AttemptResult::Defect(_) => None,
        }
    }

    async fn new_branch(&mut self) {
        let number = self.stage.unique();
        let place = BranchKey { branch: format!("new-{number}"), module: MODULE.to_owned() };
        let body = json!({"id": place.branch, "modules": [MODULE]});
        let node = self.any_node();
        let made =
            self.rest.call(self.stage.http(node), "POST", "/api/branches", &place.branch, &body);
        let made = made.await;
        self.doubt(&place.branch, &made);
        if !matches!(made, AttemptResult::Acknowledged(_)) {
            return;
        }
        self.stage.book().places.push(place.clone());
        let (home, by_socket) = (std::mem::replace(&mut self.place, place), self.by_socket);
        self.by_socket = false;
        self.op(Invocation::FirstWrite { value: number }, &Rows::default()).await;
        self.place = home;
        self.by_socket = by_socket;
    }

    async fn op(&mut self, intent: Invocation, rows: &Rows) -> Option<Response> {
        self.op_with_rows(intent, rows).await.map(|(reply, _)| reply)
    }

    /// Does an intent and writes it down; its reply and rows, if it was acknowledged.
    async fn op_with_rows(&mut self, intent: Invocation, rows: &Rows) -> Option<(Response, Rows)> {
        self.done += 1;
        let id = format!("{}-{}-{}", self.stage.crew.seed, self.number, self.done);
        let request = invocations::request(&id, &intent, rows);
        let invoked = self.stage.now();
        let (attempts, answer) = self.insist(&id, &request).await;
        let completed = self.stage.now();
        let mut shown = Rows { generation: rows.generation, rows: Vec::new() };
        let outcome = match answer {
            AttemptResult::Acknowledged(written) => {
                Completion::Ok(invocations::acknowledged(&intent, &written))
            }
            AttemptResult::Rows(found) => {
                shown.rows = found;
                Completion::Ok(invocations::read(&intent, &shown))
            }
            AttemptResult::Refused(code) | AttemptResult::Unavailable(code) => {
                Completion::Fail { code }
            }
            AttemptResult::Unknown(why) | AttemptResult::Defect(why) => Completion::Info { why },
        };
        let reply = outcome.reply().cloned();
        let (client, place) = (self.number, self.place.clone());
        let op = Operation { id, client, place, intent, attempts, invoked, completed, outcome };
        let mut book = self.stage.book();
        book.counts.add(&op);
        book.ops.push(op);
        drop(book);
        reply.map(|reply| (reply, shown))
    }

    /// Asks until there is a clear answer, or patience ends. What one attempt left open stays
    /// open: a later "not now" does not close it.
    async fn insist(&mut self, id: &str, request: &Request) -> (Vec<Attempt>, AttemptResult) {
        let mut attempts = Vec::new();
        let mut open = None;
        let (mut asked, mut turned_away) = (0, 0);
        while asked < ATTEMPTS && turned_away < NOT_NOW_ATTEMPTS {
            let node = self.any_node();
            attempts.push(Attempt { node, at: self.stage.now() });
            let answer = self.attempt(node, id, request).await;
            match answer {
                AttemptResult::Unavailable(_) if self.stage.is_over() => break,
                AttemptResult::Unavailable(_) => turned_away += 1,
                AttemptResult::Unknown(why) | AttemptResult::Defect(why) => {
                    asked += 1;
                    open = Some(why);
                }
                clear @ (AttemptResult::Acknowledged(_)
                | AttemptResult::Rows(_)
                | AttemptResult::Refused(_)) => {
                    let clear = self.maybe_repeat(id, request, &mut attempts, clear).await;
                    return (attempts, clear);
                }
            }
            self.avoided = Some(node);
            sleep(BEFORE_AGAIN).await;
        }
        (
            attempts,
            open.map_or_else(
                || AttemptResult::Unavailable("unavailable".to_owned()),
                AttemptResult::Unknown,
            ),
        )
    }

    /// Asks again, at another node, for what was acknowledged: it must be told the same.
    async fn maybe_repeat(
        &mut self,
        id: &str,
        request: &Request,
        attempts: &mut Vec<Attempt>,
        first: AttemptResult,
    ) -> AttemptResult {
        let is_write = matches!(first, AttemptResult::Acknowledged(_));
        if !is_write || !self.dice.percent(REPEATED) {
            return first;
        }
        self.avoided = attempts.last().map(|attempt| attempt.node);
        let node = self.any_node();
        let at = self.stage.now();
        let again = self.attempt(node, id, request).await;
        if matches!(again, AttemptResult::Acknowledged(_)) {
            attempts.push(Attempt { node, at });
        }
        let same = match (&first, &again) {
            (AttemptResult::Acknowledged(first), AttemptResult::Acknowledged(again)) => {
                first.cursor == again.cursor
            }
            (
                _,
                AttemptResult::Unavailable(_)
                | AttemptResult::Unknown(_)
                | AttemptResult::Defect(_),
            ) => true,
            (
                _,
                AttemptResult::Refused(_) | AttemptResult::Rows(_) | AttemptResult::Acknowledged(_),
            ) => false,
        };
        let mut book = self.stage.book();
        book.counts.repeated += 1;
        if !same {
            let told = format!("{id} on {}: first {first:?}, then {again:?}", self.place.name());
            book.impossible.push(told);
        }
        drop(book);
        first
    }

    async fn attempt(&mut self, node: NodeId, id: &str, request: &Request) -> AttemptResult {
        let answer = self.ask(node, id, request).await;
        self.doubt(id, &answer);
        answer
    }

    /// Writes an answer down that cannot be right.
    fn doubt(&self, id: &str, answer: &AttemptResult) {
        let words = match answer {
            AttemptResult::Refused(code) if !DESERVED.contains(&code.as_str()) => code,
            AttemptResult::Defect(words) => words,
            AttemptResult::Refused(_)
            | AttemptResult::Acknowledged(_)
            | AttemptResult::Rows(_)
            | AttemptResult::Unavailable(_)
            | AttemptResult::Unknown(_) => return,
        };
        let told = format!("{id} on {}: {words}", self.place.name());
        self.stage.book().impossible.push(told);
    }

    async fn ask(&mut self, node: NodeId, id: &str, request: &Request) -> AttemptResult {
        match request {
            Request::Write(verbs) if self.by_socket => {
                if let Err(error) = self.connect(node).await {
                    return AttemptResult::Unavailable(format!("{error:#}"));
                }
                let Some(socket) = self.socket.as_mut() else {
                    return AttemptResult::Unavailable("no socket".to_owned());
                };
                let answer = socket.write(&self.place, id, verbs, &mut self.cursor).await;
                if matches!(answer, AttemptResult::Unknown(_)) {
                    self.socket = None;
                }
                answer
            }
            Request::Write(_) | Request::Query { .. } => {
                self.rest.ask(self.stage.http(node), &self.place, id, request).await
            }
        }
    }

    /// Has a session at this node: a client with a socket keeps it while it is asked of the same
    /// node, and otherwise comes back after its cursor.
    async fn connect(&mut self, node: NodeId) -> Result<()> {
        if self.socket.as_ref().is_some_and(|socket| socket.node == node) {
            return Ok(());
        }
        self.socket = None;
        let client = format!("writer-{}", self.number);
        let http = self.stage.http(node).to_owned();
        self.socket =
            Some(SocketClient::open((node, &http), &self.place, &client, self.cursor).await?);
        Ok(())
    }

    fn any_node(&mut self) -> NodeId {
        // Who had no use of a node, or asks again, asks another one next.
        let avoided = self.avoided.take();
        // A session is kept for a while: opening one costs more than a write.
        if let Some(socket) = self.socket.as_ref().filter(|socket| Some(socket.node) != avoided)
            && self.dice.percent(80)
        {
            return socket.node;
        }
        let nodes = &self.stage.crew.nodes;
        let others = nodes.iter().map(|(node, _)| *node).filter(|node| Some(*node) != avoided);
        *self.dice.pick(&others.collect::<Vec<_>>())
    }
}
