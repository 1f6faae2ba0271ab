//! Asking again: the same key is the same command, whichever node is asked.

use anyhow::Result;
use futures::future::join_all;
use serde_json::json;
use tests::client::TablePath;
use tests::cluster::InProcessCluster;
use tests::recording::OP_FIELD;
use tests::writer::order;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_key_at_two_nodes_gives_the_same_answer_and_one_row() -> Result<()> {
    let cluster = InProcessCluster::start(3).await?;
    let orders = TablePath::pos("dar", "order_header");
    let mark = order("once");
    let first = cluster.client(1).insert(&orders, Some("story-once"), &mark).await?.ok()?;
    for node in [2, 3, 1] {
        let again = cluster.client(node).insert(&orders, Some("story-once"), &mark).await?.ok()?;
        assert_eq!(again["record"], first["record"], "at node {node}");
        assert_eq!(again["ack"]["sequence"], first["ack"]["sequence"], "at node {node}");
    }
    let rows = cluster.client(2).rows(&orders).await?;
    assert_eq!(rows.iter().filter(|row| row[OP_FIELD] == "once").count(), 1);
    cluster.stop_all().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_key_at_all_nodes_at_once_counts_once() -> Result<()> {
    let cluster = InProcessCluster::start(3).await?;
    let orders = TablePath::pos("dar", "order_header");
    for round in 0..10 {
        let key = format!("story-{round}");
        let record = order(&key);
        let clients: Vec<_> = cluster.ids().into_iter().map(|id| cluster.client(id)).collect();
        let asked = clients.iter().map(|client| client.insert(&orders, Some(&key), &record));
        let mut ids = Vec::new();
        for reply in join_all(asked).await {
            ids.push(reply?.ok()?["record"]["id"].clone());
        }
        assert!(ids.iter().all(|id| *id == ids[0]), "{key}: {ids:?}");
        let rows = clients[0].rows(&orders).await?;
        assert_eq!(rows.iter().filter(|row| row[OP_FIELD] == key.as_str()).count(), 1, "{key}");
    }
    cluster.stop_all().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_key_with_other_content_is_refused() -> Result<()> {
    let cluster = InProcessCluster::start(3).await?;
    let orders = TablePath::pos("dar", "order_header");
    let key = Some("story-reused");
    cluster.client(1).insert(&orders, key, &order("one")).await?.ok()?;
    let other = cluster.client(2).insert(&orders, key, &order("two")).await?;
    assert_eq!((other.status, &other.body["error"]), (422, &json!("idempotency-key-reused")));
    let rows = cluster.client(3).rows(&orders).await?;
    assert!(!rows.iter().any(|row| row[OP_FIELD] == "two"));
    cluster.stop_all().await;
    Ok(())
}
