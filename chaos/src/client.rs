//! Client: what is asked of the store, and what its answers mean.
//!
//! Promise: an answer is taken for what the protocol says of it and no more. 4xx: it did not
//! happen. 429 and 503: nothing was done, by this attempt. 500: the store owns a defect. Anything
//! else that is no success, and silence, is *maybe*.

mod rest;
mod socket;

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

pub use rest::RestClient;
pub use socket::SocketClient;

use crate::history::{BranchKey, Cursor};

/// How long one attempt may take: shorter than a node's own limit, so that some are abandoned
/// whose outcome the node would still have told.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a look at a node may take.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);

/// A change to one record.
#[derive(Debug, Clone)]
pub struct Mutation {
    /// `insert`, `merge` or `save`.
    pub action: &'static str,
    /// The table.
    pub table: &'static str,
    /// The record, or the fields to change.
    pub record: Value,
    /// The version the record must have.
    pub expected: Option<u64>,
}

/// What is asked.
#[derive(Debug, Clone)]
pub enum Request {
    /// Changes; several are all or none.
    Write(Vec<Mutation>),
    /// The rows whose fields have these values, linearizably.
    Query {
        /// The table.
        table: &'static str,
        /// The values by field.
        filter: Value,
    },
}

/// What an attempt brought.
#[derive(Debug, Clone, PartialEq)]
pub enum AttemptResult {
    /// It happened.
    Acknowledged(Acknowledgement),
    /// The rows.
    Rows(Vec<Value>),
    /// It was refused by a rule: it did not happen.
    Refused(String),
    /// Nothing was done, by this attempt.
    Unavailable(String),
    /// It may have happened, or may yet.
    Unknown(String),
    /// The store says of itself that it is wrong: it may have happened.
    Defect(String),
}

/// What an acknowledgement says.
#[derive(Debug, Clone, PartialEq)]
pub struct Acknowledgement {
    /// Where the last event stands.
    pub cursor: Option<Cursor>,
    /// The first record after it, where it is shown.
    pub record: Value,
}

/// A client of HTTP that waits two seconds for an answer and no longer.
///
/// # Errors
/// This machine cannot open one.
pub fn http_client() -> Result<reqwest::Client> {
    Ok(reqwest::Client::builder().no_proxy().timeout(STATUS_TIMEOUT).build()?)
}

/// Whether a node serves.
pub async fn is_ready(client: &reqwest::Client, http: &str) -> bool {
    let response = client.get(format!("http://{http}/readyz")).send().await;
    response.is_ok_and(|response| response.status().is_success())
}

/// Reads JSON from a node.
///
/// # Errors
/// No answer, or no success.
pub async fn get(client: &reqwest::Client, http: &str, path: &str) -> Result<Value> {
    let response = client.get(format!("http://{http}{path}")).send().await?.error_for_status()?;
    Ok(serde_json::from_str(&response.text().await?)?)
}

/// Where a module is found.
pub(crate) fn module_path(branch_key: &BranchKey) -> String {
    format!("/api/branches/{}/modules/{}", branch_key.branch, branch_key.module)
}

/// The cursor of an answer or frame.
pub(crate) fn cursor_of(value: &Value) -> Option<Cursor> {
    Some(Cursor { epoch: value["epoch"].as_u64()?, sequence: value["sequence"].as_u64()? })
}

/// A verb as both doors take it in a batch.
fn mutation_json(mutation: &Mutation) -> Value {
    let mut json = json!({
        "action": format!("module:{}", mutation.action),
        "table": mutation.table,
        "record": mutation.record,
    });
    if let Some(expected) = mutation.expected {
        json["expectedVersion"] = expected.into();
    }
    // Subscribers are then told whose operation it was.
    json["includeRecord"] = true.into();
    json
}

/// A verb's record, which carries the version it must have where it comes alone.
fn record_json(mutation: &Mutation) -> Value {
    let mut record = mutation.record.clone();
    if let Some(expected) = mutation.expected {
        record["version"] = expected.into();
    }
    record
}
