//! Intents: each intent as a request, and what an answer to it shows.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::records::{ACCOUNT_ROWS, Rows, list_parts};
use super::setup::{PAD, PAD_BYTES};
use crate::client::{Request, Verb, Written};
use crate::history::{Intent, Reply, Seen};

/// The request of an intent. `rows` is what was read before it, where that is to be changed.
pub(super) fn request(id: &str, intent: &Intent, rows: &Rows) -> Request {
    let write = |action, table, record: Value, expected| {
        Request::Write(vec![verb(id, action, table, record, expected)])
    };
    match intent {
        Intent::Put { key, value } => {
            write("save", "registers", json!({"id": key, "value": value}), None)
        }
        Intent::Cas { key, value, expected: 0 } => {
            write("insert", "registers", json!({"id": key, "value": value}), None)
        }
        Intent::Cas { key, value, expected } => {
            let pad = "x".repeat(PAD_BYTES);
            let record = json!({"id": key, "value": value, PAD: pad});
            write("merge", "registers", record, Some(*expected))
        }
        Intent::Get { key } => Request::Rows { table: "registers", wanted: json!({"id": key}) },
        Intent::Append { lists, element } => Request::Write(
            lists
                .iter()
                .map(|list| {
                    let (generation, _) = list_parts(list);
                    let record = json!({"id": format!("{list}:{element}"), "list": list,
                                        "generation": generation, "element": element});
                    verb(id, "insert", "elements", record, None)
                })
                .collect(),
        ),
        Intent::ReadLists => {
            Request::Rows { table: "elements", wanted: json!({"generation": rows.generation}) }
        }
        Intent::Transfer { from, to, amount } => {
            let moved = |account: &str, by: i64| {
                let (balance, version) = rows.number(account, "balance");
                let record = json!({"id": account, "balance": balance + by});
                verb(id, "merge", "accounts", record, Some(version))
            };
            Request::Write(vec![moved(from, -amount), moved(to, *amount)])
        }
        Intent::ReadBalances => Request::Rows { table: ACCOUNT_ROWS, wanted: json!([]) },
        Intent::Ticket => write("insert", "tickets", json!({"id": id}), None),
        Intent::Increment { key, expected, value } => {
            write("merge", "counters", json!({"id": key, "value": value}), Some(*expected))
        }
        Intent::TakePiece { item, expected, left } => {
            write("merge", "stock", json!({"id": item, "left": left}), Some(*expected))
        }
        Intent::FirstWrite { value } => {
            write("insert", "registers", json!({"id": "first", "value": value}), None)
        }
    }
}

fn verb(
    id: &str,
    action: &'static str,
    table: &'static str,
    mut record: Value,
    expected: Option<u64>,
) -> Verb {
    record["op"] = id.into();
    Verb { action, table, record, expected }
}

/// What an acknowledgement shows.
pub(super) fn acknowledged(intent: &Intent, written: &Written) -> Reply {
    let record = &written.record;
    let number = || record["number"].as_str()?.parse().ok();
    let is_ticket = matches!(intent, Intent::Ticket);
    let seen = is_ticket.then(number).flatten().map_or(Seen::Nothing, Seen::Number);
    Reply { cursor: written.cursor, version: record["version"].as_u64(), seen }
}

/// What rows show.
pub(super) fn read(intent: &Intent, rows: &Rows) -> Reply {
    let seen =
        match intent {
            Intent::Get { key } => Seen::Register(rows.find(key).map(|row| {
                (row["value"].as_u64().unwrap_or(0), row["version"].as_u64().unwrap_or(0))
            })),
            Intent::ReadLists => Seen::Lists(rows.lists()),
            Intent::ReadBalances => {
                let balance =
                    |row: &Value| Some((row["id"].as_str()?.to_owned(), row["balance"].as_i64()?));
                Seen::Balances(rows.rows.iter().filter_map(balance).collect::<BTreeMap<_, _>>())
            }
            Intent::Put { .. }
            | Intent::Cas { .. }
            | Intent::Append { .. }
            | Intent::Transfer { .. }
            | Intent::Ticket
            | Intent::Increment { .. }
            | Intent::TakePiece { .. }
            | Intent::FirstWrite { .. } => Seen::Nothing,
        };
    Reply { cursor: None, version: None, seen }
}
