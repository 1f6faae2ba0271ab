//! A real browser shows a page of a foreign origin that tries to read and change a node's data in
//! every way a page has.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tests::browser::{chromium, visit};
use tests::client::{Client, Place};
use tests::fleet::{Contents, Fleet};

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

async fn node(origins: Option<&str>) -> Result<Fleet> {
    let mut fleet = Fleet::plan(1, Contents::Sample).await?;
    if let Some(origins) = origins {
        fleet.tell("--allow-origin", origins);
    }
    fleet.start_all().await?;
    Ok(fleet)
}

fn page(node: SocketAddr) -> String {
    PAGE.replace("NODE_ADDRESS", &node.to_string())
}

/// The version of the module and its orders.
async fn state(client: &Client) -> Result<(Value, Vec<Value>)> {
    let module = client.get("/api/branches/dar/modules/pos/version").await?.ok()?;
    Ok((module, client.rows(&Place::pos("dar", "order_header")).await?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_a_foreign_origin_changes_nothing() -> Result<()> {
    let Some(program) = browser() else { return Ok(()) };
    let fleet = node(None).await?;
    let client = fleet.client(1);
    let till = Place::pos("dar", "order_header");
    client.insert(&till, None, &json!({ "shiftId": "own", "statusId": "open" })).await?.ok()?;
    let before = state(&client).await?;
    let told = visit(&program, page(fleet.http(1)), fleet.http(1)).await?;
    for sent in ["image", "form", "simple", "withoutReferrer", "sandboxed"] {
        assert_eq!(told[sent], "sent", "a browser sends it without asking: {told}");
    }
    for refused in ["json", "delete", "read", "socket"] {
        assert_eq!(told[refused], "refused", "{told}");
    }
    for rebound in ["reboundRead", "reboundWrite"] {
        assert_eq!(told[rebound], 403, "{told}");
    }
    assert_eq!(state(&client).await?, before, "{told}");
    Ok(())
}

/// The same page does all of it where every origin is allowed: so it is the node that refuses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_page_does_all_of_it_where_every_origin_may() -> Result<()> {
    let Some(program) = browser() else { return Ok(()) };
    let fleet = node(Some("*")).await?;
    let client = fleet.client(1);
    let told = visit(&program, page(fleet.http(1)), fleet.http(1)).await?;
    assert_eq!(told["json"], 201, "{told}");
    assert_eq!(told["read"], 200, "{told}");
    assert_eq!(told["socket"], "open", "{told}");
    assert_eq!(told["reboundWrite"], 201, "{told}");
    let (_, rows) = state(&client).await?;
    let shifts: Vec<&str> = rows.iter().filter_map(|row| row["shiftId"].as_str()).collect();
    for attempt in ["form", "simple", "withoutReferrer", "sandboxed", "json", "reboundWrite"] {
        assert!(shifts.contains(&attempt), "{attempt} is among {shifts:?}");
    }
    let status = client.status().await?;
    let warnings = status["warnings"].as_array().context("a status has warnings")?;
    let is_told = |warning: &Value| warning.as_str().is_some_and(|w| w.contains("every origin"));
    assert!(warnings.iter().any(is_told), "{status}");
    Ok(())
}
