//! Setup: creates the module, the branches, and the records that exist before the first operation.
//!
//! Promise: all of it is acknowledged before the workload starts. Its records have no field `op`: a
//! checker tells them from those of operations by that.

use anyhow::{Result, bail};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant, sleep};

use super::{MODULE, branch_keys};
use crate::client::{AttemptResult, RecordWrite, RestClient, WorkloadRequest};
use history::{BranchModule, NodeId};

/// How many accounts a branch has.
pub(super) const ACCOUNTS_PER_BRANCH: i64 = 6;
/// The balance of each account at the beginning.
pub(super) const INITIAL_BALANCE: i64 = 100;
/// How many counters a branch has, and how many items in stock.
pub(super) const COUNTERS_PER_BRANCH: u64 = 4;
/// The pieces of each item at the beginning: more than a run can take.
const INITIAL_PIECES: i64 = 1_000_000;
/// A field whose size makes the log grow, so that nodes write and need checkpoints within a run.
pub(crate) const PADDING_FIELD: &str = "pad";
/// The size of the padding, in bytes.
pub(super) const PADDING_BYTES: usize = 4 << 10;
/// How long the cluster may take to acknowledge one step.
const SETUP_TIMEOUT: Duration = Duration::from_secs(60);

/// The module's schema. In a versioned table every change names the version that it read.
pub fn definition() -> Value {
    let table = |name: &str, versioned: bool, fields: &[(&str, &str)]| {
        let mut columns = vec![json!({"name": "id", "type": "string", "primaryKey": true})];
        columns.extend(fields.iter().map(|(name, kind)| json!({"name": name, "type": kind})));
        columns.push(json!({"name": "op", "type": "string"}));
        if versioned {
            columns.push(json!({"name": "version", "type": "integer"}));
        }
        json!({"name": name, "versioned": versioned, "fields": columns})
    };
    json!({"tables": [
        table("registers", true, &[("value", "integer"), (PADDING_FIELD, "text")]),
        table("elements", false,
              &[("generation", "integer"), ("list", "string"), ("element", "integer")]),
        table("accounts", true, &[("balance", "integer")]),
        table("counters", true, &[("value", "integer")]),
        table("stock", true, &[("left", "integer")]),
        table("tickets", false, &[("number", "string")]),
    ]})
}

/// Creates the module, its branches, and their records.
///
/// # Errors
/// The cluster does not acknowledge a step within a minute.
pub async fn set_up(nodes: &[(NodeId, String)]) -> Result<()> {
    let rest = RestClient::new()?;
    let (_, http) = &nodes[0];
    let module = json!({"id": MODULE, "validation": "strict", "versionRule": "read",
                        "schema": definition()});
    post_until_accepted(&rest, http, "/api/modules", "set-up-module", &module).await?;
    for branch_key in branch_keys() {
        let branch = json!({"id": branch_key.branch, "modules": [MODULE]});
        post_until_accepted(
            &rest,
            http,
            "/api/branches",
            &format!("set-up-{}", branch_key.branch),
            &branch,
        )
        .await?;
        let sequences_path = format!("{}/sequences", crate::client::module_path(&branch_key));
        let field = json!({"table": "tickets", "field": "number"});
        post_until_accepted(
            &rest,
            http,
            &sequences_path,
            &format!("set-up-numbers-{}", branch_key.branch),
            &field,
        )
        .await?;
        insert_initial_records(&rest, http, &branch_key).await?;
    }
    Ok(())
}

/// Posts a body until the store acknowledges it. All attempts have the same idempotency key.
async fn post_until_accepted(
    rest: &RestClient,
    http: &str,
    path: &str,
    key: &str,
    body: &Value,
) -> Result<()> {
    let deadline = Instant::now() + SETUP_TIMEOUT;
    loop {
        match rest.call(http, "POST", path, key, body).await {
            AttemptResult::Acknowledged(_) | AttemptResult::Rows(_) => return Ok(()),
            other if Instant::now() > deadline => bail!("{path} is not acknowledged: {other:?}"),
            // A refusal too: a branch may be refused until the node has applied the module.
            AttemptResult::Refused(_)
            | AttemptResult::Unavailable(_)
            | AttemptResult::Unknown(_)
            | AttemptResult::Defect(_) => {
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Inserts the accounts, counters and items of a branch in one batch.
async fn insert_initial_records(
    rest: &RestClient,
    http: &str,
    branch_key: &BranchModule,
) -> Result<()> {
    let insert = |table, record| RecordWrite { action: "insert", table, record, expected: None };
    let mut mutations: Vec<RecordWrite> = (0..ACCOUNTS_PER_BRANCH)
        .map(|n| insert("accounts", json!({"id": format!("a{n}"), "balance": INITIAL_BALANCE})))
        .collect();
    for n in 0..COUNTERS_PER_BRANCH {
        mutations.push(insert("counters", json!({"id": format!("c{n}"), "value": 0})));
        mutations.push(insert("stock", json!({"id": format!("s{n}"), "left": INITIAL_PIECES})));
    }
    let deadline = Instant::now() + SETUP_TIMEOUT;
    // One key for all attempts: an insert that is repeated without it fails as a duplicate.
    let key = format!("set-up-rows-{}", branch_key.branch);
    loop {
        match rest.send(http, branch_key, &key, &WorkloadRequest::Write(mutations.clone())).await {
            AttemptResult::Acknowledged(_) | AttemptResult::Rows(_) => return Ok(()),
            other if Instant::now() > deadline => {
                bail!("the records of {} are not acknowledged: {other:?}", branch_key.name())
            }
            AttemptResult::Refused(_)
            | AttemptResult::Unavailable(_)
            | AttemptResult::Unknown(_)
            | AttemptResult::Defect(_) => {
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
