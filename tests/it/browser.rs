//! A real browser shows a page of a foreign origin that tries to read and change a node's data in
//! every way a page has.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tests::browser::{chromium, visit};
use tests::client::{Client, TablePath};
use tests::process_cluster::{Contents, ProcessCluster};

/// The page: every attempt says `sent`, a status, `open`, or `refused`.
const PAGE: &str = include_str!("browser/foreign.html");

#[allow(clippy::print_stderr, reason = "a skipped story says so")]
fn browser() -> Option<PathBuf> {
    let found = chromium();
    if found.is_none() {
        eprintln!("skipped: there is no chromium on this machine");
    }
    found
}

async fn node(origins: Option<&str>) -> Result<ProcessCluster> {
    let mut cluster = ProcessCluster::plan(1, Contents::Sample).await?;
    if let Some(origins) = origins {
        cluster.tell("--allow-origin", origins);
    }
    cluster.start_all().await?;
    Ok(cluster)
}

fn page(node: SocketAddr) -> String {
    PAGE.replace("NODE_ADDRESS", &node.to_string())
}

/// The version of the module and its orders.
async fn state(client: &Client) -> Result<(Value, Vec<Value>)> {
    let module = client.get("/api/branches/dar/modules/pos/version").await?.ok()?;
    Ok((module, client.rows(&TablePath::pos("dar", "order_header")).await?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_a_foreign_origin_changes_nothing() -> Result<()> {
    let Some(program) = browser() else { return Ok(()) };
    let cluster = node(None).await?;
    let client = cluster.client(1);
    let till = TablePath::pos("dar", "order_header");
    client.insert(&till, None, &json!({ "shiftId": "own", "statusId": "open" })).await?.ok()?;
    let before = state(&client).await?;
    let answers = visit(&program, page(cluster.http(1)), cluster.http(1)).await?;
    for sent in ["image", "form", "simple", "withoutReferrer", "sandboxed"] {
        assert_eq!(answers[sent], "sent", "a browser sends it without asking: {answers}");
    }
    for refused in ["json", "delete", "read", "socket"] {
        assert_eq!(answers[refused], "refused", "{answers}");
    }
    for rebound in ["reboundRead", "reboundWrite"] {
        assert_eq!(answers[rebound], 403, "{answers}");
    }
    assert_eq!(state(&client).await?, before, "{answers}");
    Ok(())
}

/// The same page does all of it where every origin is allowed: so it is the node that refuses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_page_does_all_of_it_where_every_origin_may() -> Result<()> {
    let Some(program) = browser() else { return Ok(()) };
    let cluster = node(Some("*")).await?;
    let client = cluster.client(1);
    let answers = visit(&program, page(cluster.http(1)), cluster.http(1)).await?;
    assert_eq!(answers["json"], 201, "{answers}");
    assert_eq!(answers["read"], 200, "{answers}");
    assert_eq!(answers["socket"], "open", "{answers}");
    assert_eq!(answers["reboundWrite"], 201, "{answers}");
    let (_, rows) = state(&client).await?;
    let shifts: Vec<&str> = rows.iter().filter_map(|row| row["shiftId"].as_str()).collect();
    for attempt in ["form", "simple", "withoutReferrer", "sandboxed", "json", "reboundWrite"] {
        assert!(shifts.contains(&attempt), "{attempt} is among {shifts:?}");
    }
    let status = client.status().await?;
    let warnings = status["warnings"].as_array().context("a status has warnings")?;
    let is_printed = |warning: &Value| warning.as_str().is_some_and(|w| w.contains("every origin"));
    assert!(warnings.iter().any(is_printed), "{status}");
    Ok(())
}
