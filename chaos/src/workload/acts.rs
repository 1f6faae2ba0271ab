//! Acts: each act as a request, and what an answer to it shows.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::records::{ACCOUNT_ROWS, Rows, list_parts};
use super::setup::{PAD, PAD_BYTES};
use crate::client::{Request, Verb, Written};
use crate::history::{Act, Reply, Seen};

/// The request of an act. `rows` is what was read before it, for acts that change what they read.
pub(super) fn request(id: &str, act: &Act, rows: &Rows) -> Request {
    let write = |action, table, record: Value, expected| {
        Request::Write(vec![verb(id, action, table, record, expected)])
    };
    match act {
        Act::Put { key, value } => {
            write("save", "registers", json!({"id": key, "value": value}), None)
        }
        Act::Cas { key, value, expected: 0 } => {
            write("insert", "registers", json!({"id": key, "value": value}), None)
        }
        Act::Cas { key, value, expected } => {
            let pad = "x".repeat(PAD_BYTES);
            let record = json!({"id": key, "value": value, PAD: pad});
            write("merge", "registers", record, Some(*expected))
        }
        Act::Get { key } => Request::Rows { table: "registers", wanted: json!({"id": key}) },
        Act::Append { lists, element } => Request::Write(
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
        Act::ReadLists => {
            Request::Rows { table: "elements", wanted: json!({"generation": rows.generation}) }
        }
        Act::Transfer { from, to, amount } => {
            let moved = |account: &str, by: i64| {
                let (balance, version) = rows.number(account, "balance");
                let record = json!({"id": account, "balance": balance + by});
                verb(id, "merge", "accounts", record, Some(version))
            };
            Request::Write(vec![moved(from, -amount), moved(to, *amount)])
        }
        Act::ReadBalances => Request::Rows { table: ACCOUNT_ROWS, wanted: json!([]) },
        Act::Ticket => write("insert", "tickets", json!({"id": id}), None),
        Act::Increment { key, expected, value } => {
            write("merge", "counters", json!({"id": key, "value": value}), Some(*expected))
        }
        Act::TakePiece { item, expected, left } => {
            write("merge", "stock", json!({"id": item, "left": left}), Some(*expected))
        }
        Act::FirstWrite { value } => {
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
pub(super) fn acknowledged(act: &Act, written: &Written) -> Reply {
    let record = &written.record;
    let seen = match act {
        Act::Ticket => record["number"]
            .as_str()
            .and_then(|number| number.parse().ok())
            .map_or(Seen::Nothing, Seen::Number),
        Act::Put { .. }
        | Act::Cas { .. }
        | Act::Get { .. }
        | Act::Append { .. }
        | Act::ReadLists
        | Act::Transfer { .. }
        | Act::ReadBalances
        | Act::Increment { .. }
        | Act::TakePiece { .. }
        | Act::FirstWrite { .. } => Seen::Nothing,
    };
    Reply { cursor: written.cursor, version: record["version"].as_u64(), seen }
}

/// What rows show.
pub(super) fn read(act: &Act, rows: &Rows) -> Reply {
    let seen =
        match act {
            Act::Get { key } => Seen::Register(rows.find(key).map(|row| {
                (row["value"].as_u64().unwrap_or(0), row["version"].as_u64().unwrap_or(0))
            })),
            Act::ReadLists => Seen::Lists(rows.lists()),
            Act::ReadBalances => {
                let balance =
                    |row: &Value| Some((row["id"].as_str()?.to_owned(), row["balance"].as_i64()?));
                Seen::Balances(rows.rows.iter().filter_map(balance).collect::<BTreeMap<_, _>>())
            }
            Act::Put { .. }
            | Act::Cas { .. }
            | Act::Append { .. }
            | Act::Transfer { .. }
            | Act::Ticket
            | Act::Increment { .. }
            | Act::TakePiece { .. }
            | Act::FirstWrite { .. } => Seen::Nothing,
        };
    Reply { cursor: None, version: None, seen }
}
