//! Invocations: the request of each invocation, and the response that its result shows.
//!
//! Promise: every write stores the operation's id in field `op`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::records::{ACCOUNTS_TABLE, QueryRows, list_parts};
use super::setup::{PADDING_BYTES, PADDING_FIELD};
use crate::client::{Acknowledgement, RecordWrite, WorkloadRequest};
use history::{Invocation, Response, ReturnValue};

/// The request of an invocation. `rows` is what the client has read before, if the request changes
/// it.
pub(super) fn request(id: &str, invocation: &Invocation, rows: &QueryRows) -> WorkloadRequest {
    let write = |action, table, record: Value, expected| {
        WorkloadRequest::Write(vec![mutation(id, action, table, record, expected)])
    };
    match invocation {
        Invocation::Put { key, value } => {
            write("save", "registers", json!({"id": key, "value": value}), None)
        }
        // No version yet: only an insert fails if somebody else was faster.
        Invocation::Cas { key, value, expected: 0 } => {
            write("insert", "registers", json!({"id": key, "value": value}), None)
        }
        Invocation::Cas { key, value, expected } => {
            // Only this write is padded: it is frequent enough to make the log grow.
            let pad = "x".repeat(PADDING_BYTES);
            let record = json!({"id": key, "value": value, PADDING_FIELD: pad});
            write("merge", "registers", record, Some(*expected))
        }
        Invocation::Get { key } => {
            WorkloadRequest::Query { table: "registers", filter: json!({"id": key}) }
        }
        Invocation::Append { lists, element } => WorkloadRequest::Write(
            lists
                .iter()
                .map(|list| {
                    let (generation, _) = list_parts(list);
                    let record = json!({"id": format!("{list}:{element}"), "list": list,
                                        "generation": generation, "element": element});
                    mutation(id, "insert", "elements", record, None)
                })
                .collect(),
        ),
        Invocation::ReadLists => WorkloadRequest::Query {
            table: "elements",
            filter: json!({"generation": rows.generation}),
        },
        Invocation::Transfer { from, to, amount } => {
            let change_balance = |account: &str, by: i64| {
                let (balance, version) = rows.number(account, "balance");
                let record = json!({"id": account, "balance": balance + by});
                mutation(id, "merge", "accounts", record, Some(version))
            };
            WorkloadRequest::Write(vec![change_balance(from, -amount), change_balance(to, *amount)])
        }
        Invocation::ReadBalances => {
            WorkloadRequest::Query { table: ACCOUNTS_TABLE, filter: json!([]) }
        }
        Invocation::Ticket => write("insert", "tickets", json!({"id": id}), None),
        Invocation::Increment { key, expected, value } => {
            write("merge", "counters", json!({"id": key, "value": value}), Some(*expected))
        }
        Invocation::TakePiece { item, expected, left } => {
            write("merge", "stock", json!({"id": item, "left": left}), Some(*expected))
        }
        Invocation::FirstWrite { value } => {
            write("insert", "registers", json!({"id": "first", "value": value}), None)
        }
        // Not performed here: over REST the end of a log is read with the log.
        Invocation::ReadHead => WorkloadRequest::Query { table: "registers", filter: json!([]) },
    }
}

fn mutation(
    id: &str,
    action: &'static str,
    table: &'static str,
    mut record: Value,
    expected: Option<u64>,
) -> RecordWrite {
    record["op"] = id.into();
    RecordWrite { action, table, record, expected }
}

/// The response in an acknowledgement.
pub(super) fn write_response(invocation: &Invocation, written: &Acknowledgement) -> Response {
    let record = &written.record;
    let number = || record["number"].as_str()?.parse().ok();
    let is_ticket = matches!(invocation, Invocation::Ticket);
    let return_value =
        is_ticket.then(number).flatten().map_or(ReturnValue::Nothing, ReturnValue::Number);
    Response { cursor: written.cursor, version: record["version"].as_u64(), return_value }
}

/// The response in the rows of a query.
pub(super) fn read_response(invocation: &Invocation, rows: &QueryRows) -> Response {
    let return_value = match invocation {
        Invocation::Get { key } => {
            ReturnValue::Register(rows.find(key).map(|row| {
                (row["value"].as_u64().unwrap_or(0), row["version"].as_u64().unwrap_or(0))
            }))
        }
        Invocation::ReadLists => ReturnValue::Lists(rows.lists()),
        Invocation::ReadBalances => {
            let balance =
                |row: &Value| Some((row["id"].as_str()?.to_owned(), row["balance"].as_i64()?));
            ReturnValue::Balances(rows.rows.iter().filter_map(balance).collect::<BTreeMap<_, _>>())
        }
        Invocation::Put { .. }
        | Invocation::Cas { .. }
        | Invocation::Append { .. }
        | Invocation::Transfer { .. }
        | Invocation::Ticket
        | Invocation::Increment { .. }
        | Invocation::TakePiece { .. }
        | Invocation::FirstWrite { .. }
        | Invocation::ReadHead => ReturnValue::Nothing,
    };
    Response { cursor: None, version: None, return_value }
}
