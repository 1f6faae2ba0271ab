//! Answers: what the owner of a branch answers reaches the client through any node, however large
//! it is beside its request.

use anyhow::{Result, bail};
use serde_json::{Value, json};
use tests::client::{Client, TablePath};
use tests::process_cluster::ProcessCluster;

/// Rows of one batch, and characters of each: an answer of five megabytes to a small request.
const ROWS: usize = 500;
const TEXT: usize = 10_000;
/// How often a request is sent, under the same key, until it has an answer.
const TRIES: usize = 3;
/// Lines of one order, of the same size.
const LINES: usize = 100;
/// Characters of one very large record.
const LARGE_TEXT: usize = 5_000_000;

/// Rows in a snapshot that sends them.
fn tables(rows: Vec<Value>, name: &str) -> Value {
    json!({ "snapshot": { "tables": { "dining_tables": rows } }, "mutationId": name })
}

/// Asks until it is known what came of it: a busy machine may take longer than a request may.
async fn ask(client: &Client, method: &str, path: &str, key: &str, body: &Value) -> Result<Value> {
    for _ in 0..TRIES {
        let reply = client.send_json(method, path, Some(key), body).await?;
        if ![503, 504].contains(&reply.status) {
            return reply.ok();
        }
    }
    bail!("{method} {path} has no answer after {TRIES} tries")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_answer_to_a_small_request_comes_through_any_node() -> Result<()> {
    let cluster = ProcessCluster::start(3).await?;
    let places = TablePath::pos("dar", "dining_tables");
    let leader = cluster.leader(1, "dar", "pos").await?;
    let (text, large) = ("x".repeat(TEXT), "x".repeat(LARGE_TEXT));
    let mut rows: Vec<Value> =
        (0..ROWS).map(|n| json!({ "id": format!("r-{n}"), "name": "T", "note": text })).collect();
    rows.push(json!({ "id": "large", "name": "T", "note": large }));
    let snapshot = tables(rows, "m-1");
    ask(&cluster.client(leader), "POST", "/api/sync/dar/pos", "m-1", &snapshot).await?;
    for node in cluster.others(leader) {
        let client = cluster.client(node);
        let mutations: Vec<Value> = (0..ROWS)
            .map(|n| {
                let record = json!({ "id": format!("r-{n}"), "name": format!("T{node}") });
                json!({ "action": "merge", "table": "dining_tables", "record": record })
            })
            .collect();
        let batch = json!({ "verbs": mutations });
        let path = "/api/branches/dar/modules/pos/batch";
        let key = format!("batch-{node}");
        let first = ask(&client, "POST", path, &key, &batch).await?;
        let again = ask(&client, "POST", path, &key, &batch).await?;
        assert_eq!(first["cursor"], again["cursor"], "the retry has the first one's answer");
        assert_eq!(first["results"][ROWS - 1]["record"]["note"], text, "with what was not sent");

        let merge = json!({ "record": { "id": "large", "name": format!("L{node}") } });
        ask(&client, "PATCH", &places.path(), &format!("large-{node}"), &merge).await?;

        // What is read: the module's snapshot, a whole table, a query, the events.
        client.get("/api/branches/dar/modules/pos").await?.ok()?;
        let rows = client.rows(&places).await?;
        assert_eq!(rows.len(), ROWS + 1);
        assert!(rows.iter().all(|row| row["name"] != "T"), "every row was merged");
        let query = json!({ "branchId": "dar", "moduleId": "pos", "table": "dining_tables", "limit": 1000 });
        let found = client.send_json("POST", "/api/query/module", None, &query);
        assert_eq!(found.await?.status, 200);
        let events = client.get("/api/branches/dar/modules/pos/events?limit=1000").await?;
        assert_eq!(events.status, 200, "{}", events.body);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_orders_and_archive_entries_come_through_any_node() -> Result<()> {
    let cluster = ProcessCluster::start(3).await?;
    let leader = cluster.leader(1, "dar", "pos").await?;
    let text = "x".repeat(TEXT);
    let line = |n| json!({ "id": format!("L-{n}"), "qty": 1, "price": 1, "notes": text });
    let lines: Vec<Value> = (0..LINES).map(line).collect();
    let order = json!({ "order": { "id": "T1", "shiftId": "s", "lines": lines } });
    let path = "/api/branches/dar/modules/pos/orders";
    ask(&cluster.client(leader), "POST", path, "o-1", &order).await?;
    let others = cluster.others(leader);
    for (version, node) in (2..).zip(&others) {
        let order = json!({ "id": "T1", "shiftId": "s", "version": version, "status": "ready" });
        let (key, body) = (format!("o-{version}"), json!({ "order": order }));
        let saved = ask(&cluster.client(*node), "POST", path, &key, &body).await?;
        let lines = saved["order"]["lines"].as_array().map_or(0, Vec::len);
        assert_eq!(lines, LINES, "the lines that were not sent are in the answer");
    }
    let purge = json!({ "branchId": "dar" });
    let client = cluster.client(others[0]);
    let purged = ask(&client, "POST", "/api/manage/purge-live-data", "p-1", &purge).await?;
    let entry = purged["historyEntry"]["id"].as_str().unwrap_or_default();
    let path = format!("/api/manage/purge-history?branch=dar&module=pos&entryId={entry}");
    for node in others {
        let shown = cluster.client(node).get(&path).await?.ok()?;
        assert!(shown.to_string().len() > LINES * TEXT, "the entry has its records");
    }
    Ok(())
}
