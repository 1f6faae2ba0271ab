//! Reference store: a correct store in memory, with concurrent clients under simulated time. Its
//! histories must hold under every checker, and a change to them afterwards must be found.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use serde_json::json;

use super::examples::{cursor_at, fault, replica};
use super::fields;
use super::wgl::tests::TestRng;
use crate::{
    Attempt, BranchModule, Completion, History, Invocation, LogEvent, MonotonicTime, Operation,
    ReceivedMessage, Response, ReturnValue, SubscriptionMessage, TableReading,
};

/// How many clients run at the same time.
const CLIENTS: u32 = 10;
/// The sum of all accounts of each branch.
const DEPOSIT: i64 = 300;

/// A step of the simulation.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    /// The operation with this index takes effect.
    Apply(usize),
    /// The operation with this index completes.
    Complete(usize),
    /// This client invokes its next operation.
    Invoke(u32),
}

/// The state of one branch.
struct ReferenceStore {
    branch_key: BranchModule,
    log: Vec<LogEvent>,
    /// Number and version of each row that has one.
    rows: BTreeMap<(&'static str, String), (i128, u64)>,
    lists: BTreeMap<String, Vec<u64>>,
    tickets: u64,
}

/// A history of this many operations.
pub(super) fn correct_history(seed: u64, count: usize) -> History {
    let mut rng = TestRng(seed);
    let mut stores = [ReferenceStore::new("one"), ReferenceStore::new("two")];
    let mut steps: BinaryHeap<Reverse<(u64, Step)>> =
        (0..CLIENTS).map(|client| Reverse((u64::from(client), Step::Invoke(client)))).collect();
    let mut operations: Vec<Operation> = Vec::new();
    let mut completions: Vec<Option<Completion>> = Vec::new();
    while let Some(Reverse((now, step))) = steps.pop() {
        match step {
            Step::Invoke(client) if operations.len() < count => {
                let index = operations.len();
                let store = &stores[usize::from(rng.below(2) == 0)];
                operations.push(store.invoke(index, client, now, &mut rng));
                completions.push(None);
                // A lost response: the operation takes effect with a probability of one half, and
                // perhaps only after the client gave up.
                let is_lost = rng.below(20) == 0;
                let applied_at = now + 1 + rng.below(900);
                let delay = if is_lost { rng.below(3_000) } else { 0 };
                if !is_lost || rng.below(2) == 0 {
                    steps.push(Reverse((applied_at + delay, Step::Apply(index))));
                }
                let completed_at =
                    if is_lost { now + 1_000 } else { applied_at + 1 + rng.below(900) };
                operations[index].completed = MonotonicTime(completed_at);
                steps.push(Reverse((completed_at, Step::Complete(index))));
                if is_lost {
                    operations[index].completion = Completion::Info { why: "lost".to_owned() };
                }
            }
            Step::Invoke(_) => {}
            Step::Apply(index) => {
                let store = usize::from(operations[index].branch_key.branch == "two");
                completions[index] = Some(stores[store].apply(&operations[index]));
            }
            Step::Complete(index) => {
                let op = &mut operations[index];
                if !matches!(&op.completion, Completion::Info { why } if why == "lost") {
                    op.completion =
                        completions[index].clone().expect("it takes effect before it completes");
                    op.attempts[0].completion = Some(op.completion.clone());
                }
                steps.push(Reverse((now + rng.below(50), Step::Invoke(op.client))));
            }
        }
    }
    history_of(operations, &stores, &mut rng)
}

fn history_of(operations: Vec<Operation>, stores: &[ReferenceStore], rng: &mut TestRng) -> History {
    let mut found = History { operations, first_number: Some(1), ..History::default() };
    for (partition, store) in (1..).zip(stores) {
        for node in 1..=3 {
            found.logs.push((node, store.branch_key.clone(), store.log.clone()));
            found.replicas.push(replica(node, partition, 9, &store.branch_key.branch));
            found.tables.push(store.table(node, fields::REGISTERS));
        }
        for subscriber in 0..3 {
            found.received.extend(store.deliver(u32::from(partition) * 10 + subscriber, rng));
        }
        found.deposits.insert(store.branch_key.name(), DEPOSIT);
    }
    found.faults.push(fault("pause", &[2], 10_000, 20_000));
    found
}

impl ReferenceStore {
    fn new(branch: &str) -> Self {
        let mut store = Self {
            branch_key: BranchModule { branch: branch.to_owned(), module: "m".to_owned() },
            log: Vec::new(),
            rows: BTreeMap::new(),
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

    fn row(&self, table: &'static str, key: &str) -> (i128, u64) {
        self.rows.get(&(table, key.to_owned())).copied().unwrap_or_default()
    }

    fn invoke(&self, index: usize, client: u32, now: u64, rng: &mut TestRng) -> Operation {
        let value = index as u64;
        let key = format!("r{}", rng.below(3));
        let version = self.row(fields::REGISTERS, &key).1;
        let invocation = match rng.below(13) {
            0 | 1 => Invocation::Put { key, value },
            2 => Invocation::Cas { key, value, expected: version },
            3 | 4 => Invocation::Get { key },
            5 => Invocation::Append { lists: vec!["x".to_owned(), "y".to_owned()], element: value },
            6 => Invocation::Append { lists: vec!["y".to_owned()], element: value },
            7 => Invocation::ReadLists,
            8 => Invocation::Transfer { from: "p".to_owned(), to: "q".to_owned(), amount: 1 },
            9 => Invocation::ReadBalances,
            10 => Invocation::Ticket,
            11 => Invocation::ReadHead,
            _ if rng.below(2) == 0 => {
                let (value, expected) = self.row(fields::COUNTERS, "c");
                let value = u64::try_from(value).expect("it counts up") + 1;
                Invocation::Increment { key: "c".to_owned(), expected, value }
            }
            _ => {
                let (left, expected) = self.row(fields::STOCK, "tea");
                let left = i64::try_from(left).expect("there is not so much") - 1;
                Invocation::TakePiece { item: "tea".to_owned(), expected, left }
            }
        };
        Operation {
            id: format!("op-{index}"),
            client,
            branch_key: self.branch_key.clone(),
            invocation,
            attempts: vec![Attempt {
                node: 1 + rng.below(3),
                at: MonotonicTime(now),
                completion: None,
            }],
            invoked: MonotonicTime(now),
            completed: MonotonicTime(now),
            completion: Completion::Info { why: "open".to_owned() },
        }
    }

    /// Writes a record with a number, and returns its version.
    fn write(&mut self, table: &'static str, key: &str, op: Option<&str>, number: i128) -> u64 {
        let version = self.row(table, key).1 + 1;
        self.rows.insert((table, key.to_owned()), (number, version));
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

    /// A table as a node shows it.
    fn table(&self, node: u64, table: &str) -> TableReading {
        let events = self.log.iter().filter(|event| event.table == table);
        let rows = events.filter_map(|event| Some((event.key.clone(), event.row.clone()?)));
        let (branch_key, table) = (self.branch_key.clone(), table.to_owned());
        TableReading { node, branch_key, table, rows: rows.collect() }
    }

    fn log(&mut self, table: &str, key: &str, op: Option<&str>, row: serde_json::Value) {
        let sequence = self.log.len() as u64 + 1;
        let (table, key) = (table.to_owned(), key.to_owned());
        let (cursor, id) = (cursor_at(sequence), format!("{}-{sequence}", self.branch_key.branch));
        self.log.push(LogEvent {
            cursor,
            id,
            table,
            key,
            op: op.map(str::to_owned),
            row: Some(row),
            previous: Some(format!("{:064x}", sequence - 1)),
            hash: Some(format!("{sequence:064x}")),
        });
    }

    fn apply(&mut self, op: &Operation) -> Completion {
        let id = Some(op.id.as_str());
        let mut return_value = ReturnValue::Nothing;
        let mut version = None;
        match &op.invocation {
            Invocation::Put { key, value } => {
                version = Some(self.write(fields::REGISTERS, key, id, (*value).into()));
            }
            Invocation::Cas { key, value, expected } => {
                if self.row(fields::REGISTERS, key).1 != *expected {
                    return super::examples::fail();
                }
                version = Some(self.write(fields::REGISTERS, key, id, (*value).into()));
            }
            Invocation::Get { key } => {
                let (value, version) = self.row(fields::REGISTERS, key);
                let value = u64::try_from(value).expect("values are above nothing");
                return_value = ReturnValue::Register((version > 0).then_some((value, version)));
            }
            Invocation::Append { lists, element } => {
                for list in lists {
                    self.lists.entry(list.clone()).or_default().push(*element);
                    let row = json!({ fields::LIST: list, fields::ELEMENT: element });
                    self.log(fields::ELEMENTS, &format!("{list}-{element}"), id, row);
                }
            }
            Invocation::ReadLists => return_value = ReturnValue::Lists(self.lists.clone()),
            Invocation::Transfer { from, to, amount } => {
                let (payer, paid) =
                    (self.row(fields::ACCOUNTS, from).0, self.row(fields::ACCOUNTS, to).0);
                self.write(fields::ACCOUNTS, from, id, payer - i128::from(*amount));
                self.write(fields::ACCOUNTS, to, id, paid + i128::from(*amount));
            }
            Invocation::ReadBalances => {
                let accounts =
                    self.rows.iter().filter(|((table, _), _)| *table == fields::ACCOUNTS);
                let balance = |number: i128| i64::try_from(number).expect("there is not so much");
                return_value = ReturnValue::Balances(
                    accounts.map(|((_, key), (it, _))| (key.clone(), balance(*it))).collect(),
                );
            }
            Invocation::Ticket => {
                self.tickets += 1;
                return_value = ReturnValue::Number(self.tickets);
                self.write(fields::TICKETS, &op.id, id, self.tickets.into());
            }
            Invocation::Increment { key, expected, value } => {
                if self.row(fields::COUNTERS, key).1 != *expected {
                    return super::examples::fail();
                }
                version = Some(self.write(fields::COUNTERS, key, id, (*value).into()));
            }
            Invocation::TakePiece { item, expected, left } => {
                if self.row(fields::STOCK, item).1 != *expected {
                    return super::examples::fail();
                }
                version = Some(self.write(fields::STOCK, item, id, (*left).into()));
            }
            Invocation::FirstWrite { .. } | Invocation::ReadHead => {}
        }
        let has_cursor = !op.invocation.is_read() || op.invocation == Invocation::ReadHead;
        let cursor = has_cursor.then(|| cursor_at(self.log.len() as u64));
        Completion::Ok(Response { cursor, version, return_value })
    }

    /// The log as a subscriber receives it whose connection breaks now and then.
    fn deliver(&self, subscriber: u32, rng: &mut TestRng) -> Vec<ReceivedMessage> {
        let mut connection = 1;
        let mut received = Vec::new();
        let mut push = |connection, message| {
            let branch_key = self.branch_key.clone();
            received.push(ReceivedMessage {
                subscriber,
                connection,
                node: 1,
                at: MonotonicTime(0),
                branch_key,
                message,
            });
        };
        let begin = rng.below(5);
        push(
            connection,
            SubscriptionMessage::Snapshot { cursor: cursor_at(begin), is_resync: false },
        );
        for batch in self.log.chunk_by(|one, next| one.op.is_some() && one.op == next.op) {
            let count = u32::try_from(batch.len()).expect("batches are small");
            for (index, event) in (1..).zip(batch) {
                if event.cursor.sequence <= begin {
                    continue;
                }
                if rng.below(50) == 0 {
                    connection += 1;
                    push(
                        connection,
                        SubscriptionMessage::Resumed {
                            cursor: cursor_at(event.cursor.sequence - 1),
                        },
                    );
                }
                let (cursor, id, op) = (event.cursor, event.id.clone(), event.op.clone());
                push(
                    connection,
                    SubscriptionMessage::Event { cursor, id, op, batch_position: (index, count) },
                );
            }
        }
        received
    }
}
