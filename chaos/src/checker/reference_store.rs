//! Honest: a store that does all it promises, with many clients, in play time: what it says must
//! hold, and what is changed in it afterwards must be found.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use serde_json::json;

use super::examples::{at, fault, replica};
use super::fields;
use super::wgl::tests::Rng;
use crate::history::{
    Attempt, BranchKey, Completion, History, Invocation, LogEvent, MonotonicTime, Operation,
    ReceivedMessage, Response, ReturnValue, SubscriptionMessage,
};

/// Clients at once.
const CLIENTS: u32 = 10;
/// Money in each place.
const DEPOSIT: i64 = 300;

/// A step of play: an operation takes effect, or is answered.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Apply(usize),
    Complete(usize),
    Invoke(u32),
}

/// One place.
struct ReferenceStore {
    place: BranchKey,
    log: Vec<LogEvent>,
    /// Number and version of each row that has one.
    held: BTreeMap<(&'static str, String), (i128, u64)>,
    lists: BTreeMap<String, Vec<u64>>,
    tickets: u64,
}

/// A whole run of so many operations.
pub(super) fn run(seed: u64, count: usize) -> History {
    let mut dice = Rng(seed);
    let mut stores = [ReferenceStore::open("one"), ReferenceStore::open("two")];
    let mut steps: BinaryHeap<Reverse<(u64, Step)>> =
        (0..CLIENTS).map(|client| Reverse((u64::from(client), Step::Invoke(client)))).collect();
    let mut ops: Vec<Operation> = Vec::new();
    let mut answers: Vec<Option<Completion>> = Vec::new();
    while let Some(Reverse((now, step))) = steps.pop() {
        match step {
            Step::Invoke(client) if ops.len() < count => {
                let index = ops.len();
                let store = &stores[usize::from(dice.below(2) == 0)];
                ops.push(store.ask(index, client, now, &mut dice));
                answers.push(None);
                let is_lost = dice.below(20) == 0;
                let effect = now + 1 + dice.below(900);
                let late = if is_lost { dice.below(3_000) } else { 0 };
                if !is_lost || dice.below(2) == 0 {
                    steps.push(Reverse((effect + late, Step::Apply(index))));
                }
                let answer = if is_lost { now + 1_000 } else { effect + 1 + dice.below(900) };
                ops[index].completed = MonotonicTime(answer);
                steps.push(Reverse((answer, Step::Complete(index))));
                if is_lost {
                    ops[index].outcome = Completion::Info { why: "lost".to_owned() };
                }
            }
            Step::Invoke(_) => {}
            Step::Apply(index) => {
                let store = usize::from(ops[index].place.branch == "two");
                answers[index] = Some(stores[store].happens(&ops[index]));
            }
            Step::Complete(index) => {
                let op = &mut ops[index];
                if !matches!(&op.outcome, Completion::Info { why } if why == "lost") {
                    op.outcome = answers[index].clone().expect("it happened before its answer");
                }
                steps.push(Reverse((now + dice.below(50), Step::Invoke(op.client))));
            }
        }
    }
    evidence(ops, &stores, &mut dice)
}

fn evidence(ops: Vec<Operation>, stores: &[ReferenceStore], dice: &mut Rng) -> History {
    let mut found = History { ops, ..History::default() };
    for (partition, store) in (1..).zip(stores) {
        for node in 1..=3 {
            found.logs.push((node, store.place.clone(), store.log.clone()));
            found.replicas.push(replica(node, partition, 9, &store.place.branch));
        }
        for ear in 0..3 {
            found.heard.extend(store.told(u32::from(partition) * 10 + ear, dice));
        }
        found.deposits.insert(store.place.name(), DEPOSIT);
    }
    found.faults.push(fault("pause", &[2], 10_000, 20_000));
    found
}

impl ReferenceStore {
    fn open(branch: &str) -> Self {
        let mut store = Self {
            place: BranchKey { branch: branch.to_owned(), module: "m".to_owned() },
            log: Vec::new(),
            held: BTreeMap::new(),
            lists: BTreeMap::new(),
            tickets: 0,
        };
        for account in ["p", "q", "s"] {
            store.write(fields::ACCOUNTS, account, None, 100);
        }
        store.write(fields::COUNTERS, "c", None, 0);
        store.write(fields::STOCK, "tea", None, 1_000_000);
        store
    }

    fn has(&self, table: &'static str, key: &str) -> (i128, u64) {
        self.held.get(&(table, key.to_owned())).copied().unwrap_or_default()
    }

    fn ask(&self, index: usize, client: u32, now: u64, dice: &mut Rng) -> Operation {
        let value = index as u64;
        let key = format!("r{}", dice.below(3));
        let version = self.has(fields::REGISTERS, &key).1;
        let intent = match dice.below(12) {
            0 | 1 => Invocation::Put { key, value },
            2 => Invocation::Cas { key, value, expected: version },
            3 | 4 => Invocation::Get { key },
            5 => Invocation::Append { lists: vec!["x".to_owned(), "y".to_owned()], element: value },
            6 => Invocation::Append { lists: vec!["y".to_owned()], element: value },
            7 => Invocation::ReadLists,
            8 => Invocation::Transfer { from: "p".to_owned(), to: "q".to_owned(), amount: 1 },
            9 => Invocation::ReadBalances,
            10 => Invocation::Ticket,
            _ if dice.below(2) == 0 => {
                let (value, expected) = self.has(fields::COUNTERS, "c");
                let value = u64::try_from(value).expect("it counts up") + 1;
                Invocation::Increment { key: "c".to_owned(), expected, value }
            }
            _ => {
                let (left, expected) = self.has(fields::STOCK, "tea");
                let left = i64::try_from(left).expect("there is not so much") - 1;
                Invocation::TakePiece { item: "tea".to_owned(), expected, left }
            }
        };
        Operation {
            id: format!("op-{index}"),
            client,
            place: self.place.clone(),
            intent,
            attempts: vec![Attempt { node: 1 + dice.below(3), at: MonotonicTime(now) }],
            invoked: MonotonicTime(now),
            completed: MonotonicTime(now),
            outcome: Completion::Info { why: "open".to_owned() },
        }
    }

    /// Writes a row with a number, and gives its version.
    fn write(&mut self, table: &'static str, key: &str, op: Option<&str>, number: i128) -> u64 {
        let version = self.has(table, key).1 + 1;
        self.held.insert((table, key.to_owned()), (number, version));
        let field = match table {
            fields::ACCOUNTS => fields::BALANCE,
            fields::STOCK => fields::LEFT,
            fields::TICKETS => fields::NUMBER,
            _ => fields::VALUE,
        };
        let number = i64::try_from(number).expect("numbers are small here");
        self.log(table, key, op, json!({ field: number, fields::VERSION: version }));
        version
    }

    fn log(&mut self, table: &str, key: &str, op: Option<&str>, row: serde_json::Value) {
        let sequence = self.log.len() as u64 + 1;
        let (table, key) = (table.to_owned(), key.to_owned());
        let (cursor, id) = (at(sequence), format!("{}-{sequence}", self.place.branch));
        self.log.push(LogEvent {
            cursor,
            id,
            table,
            key,
            op: op.map(str::to_owned),
            row: Some(row),
        });
    }

    fn happens(&mut self, op: &Operation) -> Completion {
        let id = Some(op.id.as_str());
        let mut seen = ReturnValue::Nothing;
        let mut version = None;
        match &op.intent {
            Invocation::Put { key, value } => {
                version = Some(self.write(fields::REGISTERS, key, id, (*value).into()));
            }
            Invocation::Cas { key, value, expected } => {
                if self.has(fields::REGISTERS, key).1 != *expected {
                    return super::examples::refused();
                }
                version = Some(self.write(fields::REGISTERS, key, id, (*value).into()));
            }
            Invocation::Get { key } => {
                let (value, version) = self.has(fields::REGISTERS, key);
                let value = u64::try_from(value).expect("values are above nothing");
                seen = ReturnValue::Register((version > 0).then_some((value, version)));
            }
            Invocation::Append { lists, element } => {
                for list in lists {
                    self.lists.entry(list.clone()).or_default().push(*element);
                    let row = json!({ fields::LIST: list, fields::ELEMENT: element });
                    self.log(fields::ELEMENTS, &format!("{list}-{element}"), id, row);
                }
            }
            Invocation::ReadLists => seen = ReturnValue::Lists(self.lists.clone()),
            Invocation::Transfer { from, to, amount } => {
                let (payer, paid) =
                    (self.has(fields::ACCOUNTS, from).0, self.has(fields::ACCOUNTS, to).0);
                self.write(fields::ACCOUNTS, from, id, payer - i128::from(*amount));
                self.write(fields::ACCOUNTS, to, id, paid + i128::from(*amount));
            }
            Invocation::ReadBalances => {
                let accounts =
                    self.held.iter().filter(|((table, _), _)| *table == fields::ACCOUNTS);
                let balance = |number: i128| i64::try_from(number).expect("there is not so much");
                seen = ReturnValue::Balances(
                    accounts.map(|((_, key), (it, _))| (key.clone(), balance(*it))).collect(),
                );
            }
            Invocation::Ticket => {
                self.tickets += 1;
                seen = ReturnValue::Number(self.tickets);
                self.write(fields::TICKETS, &op.id, id, self.tickets.into());
            }
            Invocation::Increment { key, expected, value } => {
                if self.has(fields::COUNTERS, key).1 != *expected {
                    return super::examples::refused();
                }
                version = Some(self.write(fields::COUNTERS, key, id, (*value).into()));
            }
            Invocation::TakePiece { item, expected, left } => {
                if self.has(fields::STOCK, item).1 != *expected {
                    return super::examples::refused();
                }
                version = Some(self.write(fields::STOCK, item, id, (*left).into()));
            }
            Invocation::FirstWrite { .. } => {}
        }
        let cursor = (!op.intent.is_read()).then(|| at(self.log.len() as u64));
        Completion::Ok(Response { cursor, version, seen })
    }

    /// All of the log as a subscriber hears it that is cut off now and then.
    fn told(&self, subscriber: u32, dice: &mut Rng) -> Vec<ReceivedMessage> {
        let mut connection = 1;
        let mut heard = Vec::new();
        let mut say = |connection, word| {
            let place = self.place.clone();
            heard.push(ReceivedMessage {
                subscriber,
                connection,
                node: 1,
                at: MonotonicTime(0),
                place,
                word,
            });
        };
        let begin = dice.below(5);
        say(connection, SubscriptionMessage::Snapshot { cursor: at(begin), is_told: false });
        for batch in self.log.chunk_by(|one, next| one.op.is_some() && one.op == next.op) {
            let count = u32::try_from(batch.len()).expect("batches are small");
            for (index, logged) in (1..).zip(batch) {
                if logged.cursor.sequence <= begin {
                    continue;
                }
                if dice.below(50) == 0 {
                    connection += 1;
                    say(
                        connection,
                        SubscriptionMessage::Resumed { cursor: at(logged.cursor.sequence - 1) },
                    );
                }
                let (cursor, id, op) = (logged.cursor, logged.id.clone(), logged.op.clone());
                say(
                    connection,
                    SubscriptionMessage::Event { cursor, id, op, of_batch: (index, count) },
                );
            }
        }
        heard
    }
}
