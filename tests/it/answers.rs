//! Answers: what the owner of a branch answers reaches the client through any node, however large
//! it is beside its request.

use anyhow::Result;
use serde_json::{Value, json};
use tests::client::Place;
use tests::fleet::Fleet;

/// Rows of one batch, and characters of each: an answer of five megabytes to a small request.
const ROWS: usize = 500;
const TEXT: usize = 10_000;
/// Characters of one very large record.
const LARGE_TEXT: usize = 5_000_000;

fn tables() -> Value {
    let text = "x".repeat(TEXT);
    let mut rows: Vec<Value> =
        (0..ROWS).map(|n| json!({ "id": format!("r-{n}"), "name": "T", "note": text })).collect();
    rows.push(json!({ "id": "large", "name": "T", "note": "x".repeat(LARGE_TEXT) }));
    json!({ "snapshot": { "tables": { "dining_tables": rows } }, "mutationId": "m-1" })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_answer_to_a_small_request_comes_through_any_node() -> Result<()> {
    let fleet = Fleet::start(3).await?;
    let places = Place::pos("dar", "dining_tables");
    let leader = fleet.leader(1, "dar", "pos").await?;
    let client = fleet.client(leader);
    client.send_json("POST", "/api/sync/dar/pos", None, &tables()).await?.ok()?;
    for node in fleet.others(leader) {
        let client = fleet.client(node);
        let verbs: Vec<Value> = (0..ROWS)
            .map(|n| {
                let record = json!({ "id": format!("r-{n}"), "name": format!("T{node}") });
                json!({ "action": "merge", "table": "dining_tables", "record": record,
                        "includeRecord": true })
            })
            .collect();
        let batch = json!({ "verbs": verbs });
        let path = "/api/branches/dar/modules/pos/batch";
        let key = format!("batch-{node}");
        let first = client.send_json("POST", path, Some(&key), &batch).await?.ok()?;
        let again = client.send_json("POST", path, Some(&key), &batch).await?.ok()?;
        assert_eq!(first["cursor"], again["cursor"], "the retry has the first one's answer");

        let merge = json!({ "record": { "id": "large", "name": format!("L{node}") } });
        client.send_json("PATCH", &places.path(), None, &merge).await?.ok()?;

        // What is read: the whole module, a page of it, a query, the events.
        let rows = client.rows(&places).await?;
        assert_eq!(rows.len(), ROWS + 1);
        assert!(rows.iter().all(|row| row["name"] != "T"), "every row was merged");
        client.get("/api/branches/dar/modules/pos").await?.ok()?;
        let query = json!({ "table": "dining_tables", "limit": 1000 });
        let path = "/api/branches/dar/modules/pos/query";
        if let Ok(answer) = client.send_json("POST", path, None, &query).await {
            assert_ne!(answer.status, 504, "{}", answer.body);
        }
        let events = client.get("/api/branches/dar/modules/pos/events?limit=1000").await?;
        assert_eq!(events.status, 200);
    }
    Ok(())
}
