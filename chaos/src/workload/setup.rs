//! Setup: the module of the storm, its branches, and what is in them before it begins.

use anyhow::{Result, bail};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant, sleep};

use super::{MODULE, places};
use crate::client::{AttemptResult, Mutation, Request, RestClient};
use crate::history::{BranchKey, NodeId};

/// Accounts of a place.
pub(super) const ACCOUNTS: i64 = 6;
/// What each holds at first.
pub(super) const BALANCE: i64 = 100;
/// Counters of a place, and items in stock.
pub(super) const COUNTERS: u64 = 4;
/// Pieces of each item at first.
const PIECES: i64 = 1_000_000;
/// A field that makes the log grow, so that checkpoints are made, and needed, within a storm.
pub(crate) const PAD: &str = "pad";
/// Bytes in it.
pub(super) const PAD_BYTES: usize = 4 << 10;
/// How long the cluster may take until all of it is there.
const PATIENCE: Duration = Duration::from_secs(60);

/// The module's definition: strict, and every change names the version it read.
pub fn definition() -> Value {
    let table = |name: &str, versioned: bool, fields: &[(&str, &str)]| {
        let mut all = vec![json!({"name": "id", "type": "string", "primaryKey": true})];
        all.extend(fields.iter().map(|(name, kind)| json!({"name": name, "type": kind})));
        all.push(json!({"name": "op", "type": "string"}));
        if versioned {
            all.push(json!({"name": "version", "type": "integer"}));
        }
        json!({"name": name, "versioned": versioned, "fields": all})
    };
    json!({"tables": [
        table("registers", true, &[("value", "integer"), (PAD, "text")]),
        table("elements", false,
              &[("generation", "integer"), ("list", "string"), ("element", "integer")]),
        table("accounts", true, &[("balance", "integer")]),
        table("counters", true, &[("value", "integer")]),
        table("stock", true, &[("left", "integer")]),
        table("tickets", false, &[("number", "string")]),
    ]})
}

/// Makes the module, its branches, and what is in them.
///
/// # Errors
/// The cluster does not take it within a minute.
pub async fn set_up(nodes: &[(NodeId, String)]) -> Result<()> {
    let rest = RestClient::new()?;
    let (_, http) = &nodes[0];
    let module = json!({"id": MODULE, "validation": "strict", "versionRule": "read",
                        "schema": definition()});
    insist(&rest, http, "/api/modules", "set-up-module", &module).await?;
    for place in places() {
        let branch = json!({"id": place.branch, "modules": [MODULE]});
        insist(&rest, http, "/api/branches", &format!("set-up-{}", place.branch), &branch).await?;
        let numbers = format!("{}/sequences", crate::client::module_path(&place));
        let field = json!({"table": "tickets", "field": "number"});
        insist(&rest, http, &numbers, &format!("set-up-numbers-{}", place.branch), &field).await?;
        fill(&rest, http, &place).await?;
    }
    Ok(())
}

async fn insist(rest: &RestClient, http: &str, path: &str, key: &str, body: &Value) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        match rest.call(http, "POST", path, key, body).await {
            AttemptResult::Acknowledged(_) | AttemptResult::Rows(_) => return Ok(()),
            other if Instant::now() > end => bail!("{path} is not taken: {other:?}"),
            AttemptResult::Refused(_)
            | AttemptResult::Unavailable(_)
            | AttemptResult::Unknown(_)
            | AttemptResult::Defect(_) => {
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn fill(rest: &RestClient, http: &str, place: &BranchKey) -> Result<()> {
    let row = |table, record| Mutation { action: "insert", table, record, expected: None };
    let mut verbs: Vec<Mutation> = (0..ACCOUNTS)
        .map(|n| row("accounts", json!({"id": format!("a{n}"), "balance": BALANCE})))
        .collect();
    for n in 0..COUNTERS {
        verbs.push(row("counters", json!({"id": format!("c{n}"), "value": 0})));
        verbs.push(row("stock", json!({"id": format!("s{n}"), "left": PIECES})));
    }
    let end = Instant::now() + PATIENCE;
    let key = format!("set-up-rows-{}", place.branch);
    loop {
        match rest.ask(http, place, &key, &Request::Write(verbs.clone())).await {
            AttemptResult::Acknowledged(_) | AttemptResult::Rows(_) => return Ok(()),
            other if Instant::now() > end => bail!("{} cannot be filled: {other:?}", place.name()),
            AttemptResult::Refused(_)
            | AttemptResult::Unavailable(_)
            | AttemptResult::Unknown(_)
            | AttemptResult::Defect(_) => {
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
