//! A data directory of the original, served as it is.

use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result};
use tests::client::TablePath;
use tests::process_cluster::{Contents, ProcessCluster};
use tests::writer::order;

/// Where such a directory is; without it these stories say that they skip.
const ORIGINAL: &str = "MISHKAH_ORIGINAL_DATA";

#[allow(clippy::print_stderr, reason = "a skipped story says so")]
fn original() -> Option<PathBuf> {
    let given = env::var_os(ORIGINAL).map(PathBuf::from);
    if given.is_none() {
        eprintln!("skipped: {ORIGINAL} names no data directory of the original");
    }
    given
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_menu_is_served_and_its_order_numbers_go_on() -> Result<()> {
    let Some(original) = original() else { return Ok(()) };
    let mut cluster = ProcessCluster::plan(1, Contents::Original(original)).await?;
    cluster.start_all().await?;
    let till = cluster.client(1);

    let module = till.get("/api/branches/dar/modules/pos").await?.ok()?;
    let menu = module["tables"]["menu_items"].as_array().context("the module has a menu")?;
    assert_eq!(menu.len(), 94);

    let orders = TablePath::pos("dar", "order_header");
    for expected in ["DAR-001001", "DAR-001002"] {
        let made = till.insert(&orders, None, &order(expected)).await?.ok()?;
        assert_eq!(made["record"]["id"], expected);
    }
    let made =
        till.insert(&TablePath::pos("remal", "order_header"), None, &order("r")).await?.ok()?;
    assert_eq!(made["record"]["id"], "REM-002001");

    cluster.stop(1).await?;
    cluster.restart(1).await?;
    let rows = till.rows(&orders).await?;
    assert_eq!(rows.len(), 2, "what was written is there after a restart, beside the seed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_configured_module_that_can_load_is_loaded() -> Result<()> {
    let Some(original) = original() else { return Ok(()) };
    let mut cluster = ProcessCluster::plan(1, Contents::Original(original)).await?;
    cluster.start_all().await?;
    let till = cluster.client(1);
    for (branch, table) in [("dar", "menu_items"), ("remal", "menu_items")] {
        let rows = till.rows(&TablePath::pos(branch, table)).await?;
        assert!(!rows.is_empty(), "{branch} has its seed");
    }
    Ok(())
}
