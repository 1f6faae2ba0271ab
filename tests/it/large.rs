//! Large: writes of many megabytes, through any node, on every replica; and what comes after them.

use anyhow::Result;
use serde_json::{Value, json};
use tests::client::TablePath;
use tests::process_cluster::ProcessCluster;
use tests::session::ClientSession;

/// Rows of the snapshot that is sent.
const ROWS: usize = 5_500;
/// Characters of each row's text: in all above what one message between nodes may have at once.
const TEXT: usize = 1_000;

fn snapshot(round: usize) -> Value {
    let text = "x".repeat(TEXT);
    let rows: Vec<Value> = (0..ROWS)
        .map(|n| json!({ "id": format!("{round}-{n}"), "name": "T", "note": text }))
        .collect();
    json!({ "snapshot": { "tables": { "dining_tables": rows } }, "mutationId": format!("m-{round}") })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_snapshot_is_taken_by_any_node_and_can_be_restored() -> Result<()> {
    let mut cluster = ProcessCluster::start(3).await?;
    let places = TablePath::pos("dar", "dining_tables");
    let (mut session, _) = ClientSession::enter(cluster.http(2), "dar").await?;
    for (round, node) in cluster.ids().into_iter().enumerate() {
        let client = cluster.client(node);
        client.send_json("POST", "/api/sync/dar/pos", None, &snapshot(round)).await?.ok()?;
        session.wait_for("server:snapshot").await?;
        for reader in cluster.ids() {
            let rows = cluster.client(reader).rows(&places).await?;
            assert_eq!(rows.len(), ROWS, "node {reader} after {node}");
            assert_eq!(rows[0]["id"], format!("{round}-0"));
        }
    }
    let purge = json!({ "branchId": "dar", "tables": ["dining_tables"] });
    let purged = cluster
        .client(1)
        .send_json("POST", "/api/manage/purge-live-data", None, &purge)
        .await?
        .ok()?;
    assert_eq!(purged["totalRemoved"], ROWS);
    let entry = &purged["historyEntry"]["id"];
    let restore = json!({ "branchId": "dar", "entryId": entry });
    let path = "/api/manage/purge-history";
    let restored = cluster.client(3).send_json("POST", path, None, &restore).await?.ok()?;
    assert_eq!(restored["totalRestored"], ROWS);

    // A node that was away meanwhile catches up, and a small write goes on as ever.
    let leader = cluster.leader(1, "dar", "pos").await?;
    let away = cluster.others(leader)[0];
    cluster.kill(away)?;
    let client = cluster.client(leader);
    client.send_json("POST", "/api/sync/dar/pos", None, &snapshot(7)).await?.ok()?;
    client.insert(&places, None, &json!({ "id": "small", "name": "T" })).await?.ok()?;
    cluster.restart(away).await?;
    assert_eq!(cluster.client(away).rows(&places).await?.len(), ROWS + 1);
    Ok(())
}
