//! Keys: one record for one key, at every node and after a restart.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tests::client::{Client, TablePath};
use tests::process_cluster::ProcessCluster;

/// A shelf's slot, named by two texts, and a stock, named by a number.
fn definition() -> Value {
    json!({ "tables": [
        { "name": "slot", "fields": [
            { "name": "shelf", "type": "string", "primaryKey": true },
            { "name": "slot", "type": "string", "primaryKey": true },
            { "name": "n", "type": "integer", "nullable": true }] },
        { "name": "stock", "fields": [
            { "name": "code", "type": "decimal", "primaryKey": true },
            { "name": "n", "type": "integer", "nullable": true }] }] })
}

const SLOTS: TablePath<'static> = TablePath { branch: "dar", module: "shelves", table: "slot" };
const STOCK: TablePath<'static> = TablePath { branch: "dar", module: "shelves", table: "stock" };

async fn define(till: &Client, validation: &str) -> Result<()> {
    let module = json!({ "id": "shelves", "schema": definition(), "validation": validation });
    till.send_json("POST", "/api/modules", None, &module).await?.ok()?;
    let module = json!({ "moduleId": "shelves" });
    till.send_json("POST", "/api/branches/dar/modules", None, &module).await?.ok()?;
    Ok(())
}

/// The next page, newest first, after the cursor of the one before.
async fn older(till: &Client, cursor: &Value) -> Result<Value> {
    let after = cursor["key"].as_str().map(|key| format!("&afterKey={key}")).unwrap_or_default();
    till.get(&format!("{}?limit=2&order=desc{after}", STOCK.path())).await?.ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_names_one_record_at_every_node_and_after_a_restart() -> Result<()> {
    let mut cluster = ProcessCluster::start(3).await?;
    let nodes = cluster.clients(&cluster.ids());
    define(&nodes[0], "strict").await?;
    for (n, (rack, slot)) in
        [("A:", "1"), ("A", ":1"), ("north", "bar::1"), ("north::bar", "1")].into_iter().enumerate()
    {
        let record = json!({ "shelf": rack, "slot": slot, "n": n });
        nodes[n % 3].insert(&SLOTS, None, &record).await?.ok()?;
    }
    for code in ["6221031490017.0", "1.50", "3", "4", "5"] {
        let record: Value = serde_json::from_str(&format!(r#"{{"code":{code}}}"#))?;
        nodes[1].insert(&STOCK, None, &record).await?.ok()?;
    }
    let first = older(&nodes[0], &Value::Null).await?;
    assert_eq!(first["cursor"]["key"], "4");
    nodes[2].send_json("DELETE", &STOCK.path(), None, &json!({ "code": 4.0 })).await?.ok()?;

    for node in cluster.ids() {
        cluster.stop(node).await?;
        cluster.restart(node).await?;
    }
    for node in cluster.clients(&cluster.ids()) {
        assert_eq!(node.rows(&SLOTS).await?.len(), 4);
        for (n, key) in
            ["A~:::1", "A::~:1", "north::bar~:~:1", "north~:~:bar::1"].iter().enumerate()
        {
            let read = node.get(&format!("{}/{key}", SLOTS.path())).await?.ok()?;
            assert_eq!(read["record"]["n"], n, "{key}");
        }
        let second = older(&node, &first["cursor"]).await?;
        assert_eq!(second["meta"]["cursorMatched"], true);
        let codes: Vec<String> = second["rows"]
            .as_array()
            .context("a page has rows")?
            .iter()
            .map(|row| row["code"].to_string())
            .collect();
        assert_eq!(codes, ["3", "1.5"], "the row the first page ended with is gone");
        let last = older(&node, &second["cursor"]).await?;
        assert_eq!(last["cursor"]["key"], "6221031490017");
        let all = format!("{}?afterKey=1.500", STOCK.path());
        assert_eq!(node.get(&all).await?.ok()?["count"], 2);
    }
    Ok(())
}
