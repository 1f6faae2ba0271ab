//! Client: requests to the store, and the interpretation of its responses.
//!
//! Promise: a response means what the protocol says and no more. 4xx: the operation did not happen.
//! 408, 429 and 503: this attempt did nothing. 500: the store reports a defect. Everything else
//! that is no success, and no response at all, is unknown.
//! Refused: a retry. Whoever sends a request decides about the next attempt.

mod rest;
mod socket;

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

pub use rest::RestClient;
pub use socket::SocketClient;

use history::{BranchModule, LogPosition};

/// How long one attempt may take. It is shorter than a node's own deadline, so that clients abandon
/// some requests that still take effect.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a node may take to report its status.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);

/// A change to one record.
#[derive(Debug, Clone)]
pub struct RecordWrite {
    /// `insert`, `merge` or `save`.
    pub action: &'static str,
    /// The table.
    pub table: &'static str,
    /// The record, or the fields to change.
    pub record: Value,
    /// The version the record must have.
    pub expected: Option<u64>,
}

/// A request to a branch.
#[derive(Debug, Clone)]
pub enum WorkloadRequest {
    /// Changes; several of them are one batch: all or none.
    Write(Vec<RecordWrite>),
    /// A linearizable query for the rows whose fields have these values.
    Query {
        /// The table.
        table: &'static str,
        /// The values by field.
        filter: Value,
    },
}

/// The result of one attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum AttemptResult {
    /// The write happened.
    Acknowledged(Acknowledgement),
    /// The rows of a query.
    Rows(Vec<Value>),
    /// A rule refused it, with this code: it did not happen.
    Refused(String),
    /// This attempt did nothing; an earlier one may have.
    Unavailable(String),
    /// It may have happened, or may happen later.
    Unknown(String),
    /// The store reports a defect of its own: it may have happened.
    Defect(String),
}

/// What an acknowledgement says.
#[derive(Debug, Clone, PartialEq)]
pub struct Acknowledgement {
    /// The cursor of the last event.
    pub cursor: Option<LogPosition>,
    /// The first record after the write; `null` if the response contains none.
    pub record: Value,
}

/// An HTTP client that waits at most two seconds for a response.
///
/// # Errors
/// The HTTP client cannot be created.
pub fn http_client() -> Result<reqwest::Client> {
    Ok(reqwest::Client::builder().no_proxy().timeout(STATUS_TIMEOUT).build()?)
}

/// Whether a node is ready.
pub async fn is_ready(client: &reqwest::Client, http: &str) -> bool {
    let response = client.get(format!("http://{http}/readyz")).send().await;
    response.is_ok_and(|response| response.status().is_success())
}

/// Reads JSON from a node.
///
/// # Errors
/// The node does not respond, responds with an error status, or not with JSON.
pub async fn get(client: &reqwest::Client, http: &str, path: &str) -> Result<Value> {
    let response = client.get(format!("http://{http}{path}")).send().await?.error_for_status()?;
    Ok(serde_json::from_str(&response.text().await?)?)
}

/// The path of a branch:module in the REST API.
pub(crate) fn module_path(branch_key: &BranchModule) -> String {
    format!("/api/branches/{}/modules/{}", branch_key.branch, branch_key.module)
}

/// The cursor in a response or frame.
pub(crate) fn cursor_of(value: &Value) -> Option<LogPosition> {
    Some(LogPosition { epoch: value["epoch"].as_u64()?, sequence: value["sequence"].as_u64()? })
}

/// A mutation as REST and WebSocket take it in a batch.
fn mutation_json(mutation: &RecordWrite) -> Value {
    let mut json = json!({
        "action": format!("module:{}", mutation.action),
        "table": mutation.table,
        "record": mutation.record,
    });
    if let Some(expected) = mutation.expected {
        json["expectedVersion"] = expected.into();
    }
    // With the record in the event, a subscriber can tell which operation wrote it.
    json["includeRecord"] = true.into();
    json
}

/// The record of a single mutation, which carries the expected version itself.
fn record_json(mutation: &RecordWrite) -> Value {
    let mut record = mutation.record.clone();
    if let Some(expected) = mutation.expected {
        record["version"] = expected.into();
    }
    record
}
