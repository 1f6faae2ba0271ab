//! Writing at one node, reading at every other.

use anyhow::Result;
use serde_json::{Value, json};
use tests::client::{Client, TablePath};
use tests::cluster::InProcessCluster;
use tests::writer::order;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_node_takes_every_node_shows_at_once() -> Result<()> {
    let cluster = InProcessCluster::start(3).await?;
    for branch in ["dar", "remal"] {
        let orders = TablePath::pos(branch, "order_header");
        for writer in cluster.ids() {
            let made = cluster.client(writer).insert(&orders, None, &order("story")).await?.ok()?;
            let id = made["record"]["id"].clone();
            for reader in cluster.ids() {
                let rows = cluster.client(reader).rows(&orders).await?;
                let there = rows.iter().filter(|row| row["id"] == id).count();
                assert_eq!(there, 1, "{id}, written at {writer}, at {reader}");
            }
        }
    }
    cluster.stop_all().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_lives_its_life_through_different_nodes() -> Result<()> {
    let cluster = InProcessCluster::start(3).await?;
    let nodes: Vec<Client> = cluster.ids().into_iter().map(|id| cluster.client(id)).collect();
    let orders = TablePath::pos("dar", "order_header");
    let made = nodes[0].insert(&orders, None, &order("life")).await?.ok()?;
    let id = made["record"]["id"].clone();
    assert_eq!(made["record"]["version"], 1);

    let change = |version: u64, status: &str| {
        let record = json!({ "id": id, "version": version, "statusId": status });
        json!({ "record": record })
    };
    let path = orders.path();
    let changed = nodes[1].send_json("PATCH", &path, None, &change(2, "cooking")).await?.ok()?;
    assert_eq!(changed["record"]["version"], 2);
    let stale = nodes[2].send_json("PATCH", &path, None, &change(2, "ready")).await?;
    assert_eq!((stale.status, &stale.body["error"]), (409, &json!("version-conflict")));
    assert_eq!(stale.body["details"]["currentVersion"], 2);

    let deleted = nodes[2].send_json("DELETE", &path, None, &json!({ "id": id })).await?.ok()?;
    assert_eq!(deleted["status"], "deleted");
    for node in &nodes {
        assert!(!node.rows(&orders).await?.iter().any(|row| row["id"] == id));
    }
    cluster.stop_all().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_are_taken_once_and_without_gaps_by_all_nodes_at_once() -> Result<()> {
    let cluster = InProcessCluster::start(3).await?;
    let orders = TablePath::pos("remal", "order_header");
    let writers = cluster.ids().into_iter().map(|id| {
        let client = cluster.client(id);
        tokio::spawn(async move {
            let mut ids = Vec::new();
            for n in 0..20 {
                let made =
                    client.insert(&orders, None, &order(&format!("{id}-{n}"))).await?.ok()?;
                ids.push(made["record"]["id"].as_str().unwrap_or_default().to_owned());
            }
            anyhow::Ok(ids)
        })
    });
    let mut ids = Vec::new();
    for writer in writers.collect::<Vec<_>>() {
        ids.extend(writer.await??);
    }
    ids.sort_unstable();
    let number = |id: &String| id.strip_prefix("REM-").and_then(|text| text.parse::<u64>().ok());
    let numbers: Vec<u64> = ids.iter().filter_map(number).collect();
    assert_eq!(numbers.len(), 60, "{ids:?}");
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{ids:?}");
    cluster.stop_all().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scratchpad_exists_once_it_is_written_to_and_not_before() -> Result<()> {
    let cluster = InProcessCluster::start(3).await?;
    let notes = TablePath { branch: "lab:story", module: "scratchpad", table: "scratchpad_entry" };
    for node in cluster.ids() {
        assert_eq!(cluster.client(node).rows(&notes).await?, Vec::<Value>::new());
        let status = cluster.client(node).status().await?;
        let branches = status["branches"].as_array().cloned().unwrap_or_default();
        assert!(branches.iter().all(|b| b["branch"] != "lab:story"), "a read creates no branch");
    }
    let note = json!({ "content": "شاي بالنعناع — mint tea" });
    let made = cluster.client(2).insert(&notes, None, &note).await?.ok()?;
    assert_eq!(made["record"]["content"], note["content"]);
    assert_eq!(cluster.client(3).rows(&notes).await?.len(), 1);
    cluster.stop_all().await;
    Ok(())
}
