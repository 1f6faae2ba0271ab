//! Large: writes of many megabytes, through any node, on every replica; and what comes after them.

use anyhow::Result;
use serde_json::{Value, json};
use tests::client::Place;
use tests::fleet::Fleet;
use tests::session::Session;

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
async fn a_snapshot_of_six_megabytes_is_taken_through_any_node_and_can_be_purged_and_restored()
-> Result<()> {
    let mut fleet = Fleet::start(3).await?;
    let places = Place::pos("dar", "dining_tables");
    let (mut session, _) = Session::enter(fleet.http(2), "dar").await?;
    for (round, node) in fleet.ids().into_iter().enumerate() {
        let client = fleet.client(node);
        client.send_json("POST", "/api/sync/dar/pos", None, &snapshot(round)).await?.ok()?;
        session.wait_for("server:snapshot").await?;
        for reader in fleet.ids() {
            let rows = fleet.client(reader).rows(&places).await?;
            assert_eq!(rows.len(), ROWS, "node {reader} after {node}");
            assert_eq!(rows[0]["id"], format!("{round}-0"));
        }
    }
    let purge = json!({ "branchId": "dar", "tables": ["dining_tables"] });
    let purged = fleet
        .client(1)
        .send_json("POST", "/api/manage/purge-live-data", None, &purge)
        .await?
        .ok()?;
    assert_eq!(purged["totalRemoved"], ROWS);
    let entry = &purged["historyEntry"]["id"];
    let restore = json!({ "branchId": "dar", "entryId": entry });
    let path = "/api/manage/purge-history";
    let restored = fleet.client(3).send_json("POST", path, None, &restore).await?.ok()?;
    assert_eq!(restored["totalRestored"], ROWS);

    // A node that was away meanwhile catches up, and a small write goes on as ever.
    let leader = fleet.leader(1, "dar", "pos").await?;
    let away = fleet.others(leader)[0];
    fleet.kill(away)?;
    let client = fleet.client(leader);
    client.send_json("POST", "/api/sync/dar/pos", None, &snapshot(7)).await?.ok()?;
    client.insert(&places, None, &json!({ "id": "small", "name": "T" })).await?.ok()?;
    fleet.restart(away).await?;
    assert_eq!(fleet.client(away).rows(&places).await?.len(), ROWS + 1);
    Ok(())
}
