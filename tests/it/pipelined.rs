//! Pipelined: many writes sent without waiting, on one socket and on many connections. What the
//! original answered out of order and with one number for many.

use anyhow::Result;
use serde_json::{Value, json};
use tests::client::TablePath;
use tests::cluster::InProcessCluster;
use tests::process_cluster::ProcessCluster;
use tests::session::ClientSession;

/// Inserts sent at once.
const INSERTS: usize = 10;

fn publish(id: &str) -> Value {
    json!({
        "type": "client:publish",
        "moduleId": "pos",
        "table": "order_header",
        "action": "module:insert",
        "record": { "id": id, "shiftId": "s", "statusId": "open" },
        "includeRecord": true,
        "meta": { "requestId": id },
    })
}

/// Sends five publishes at once; their acknowledgements must come in order, numbered in a row.
async fn five_in_a_row(session: &mut ClientSession, round: &str) -> Result<()> {
    let ids: Vec<String> = (0..5).map(|n| format!("{round}-{n}")).collect();
    for id in &ids {
        session.send(&publish(id)).await?;
    }
    acknowledged(session, &ids).await
}

async fn acknowledged(session: &mut ClientSession, ids: &[String]) -> Result<()> {
    let mut acks = Vec::new();
    for _ in ids {
        acks.push(session.wait_for("server:ack").await?);
    }
    let names: Vec<_> =
        acks.iter().map(|ack| ack["meta"]["clientMeta"]["requestId"].clone()).collect();
    assert_eq!(names, ids, "acknowledged in the order they were sent");
    for counter in ["sequence", "version"] {
        let numbers: Vec<u64> = acks.iter().filter_map(|ack| ack[counter].as_u64()).collect();
        let first = numbers[0];
        assert_eq!(numbers, (first..first + ids.len() as u64).collect::<Vec<_>>(), "{counter}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_publishes_stay_in_order_over_a_failover() -> Result<()> {
    let mut cluster = ProcessCluster::start(3).await?;
    let leader = cluster.leader(1, "dar", "pos").await?;
    let through = cluster.others(leader)[0];
    let (mut session, _) = ClientSession::enter(cluster.http(through), "dar").await?;
    five_in_a_row(&mut session, "calm").await?;
    // The leader dies between the five.
    let ids: Vec<String> = (0..5).map(|n| format!("burst-{n}")).collect();
    for id in &ids[..2] {
        session.send(&publish(id)).await?;
    }
    cluster.kill(leader)?;
    for id in &ids[2..] {
        session.send(&publish(id)).await?;
    }
    acknowledged(&mut session, &ids).await?;
    let rows = cluster.client(through).rows(&TablePath::pos("dar", "order_header")).await?;
    for id in &ids {
        assert_eq!(rows.iter().filter(|row| row["id"] == **id).count(), 1, "{id}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_inserts_at_once_through_all_nodes_get_ten_numbers() -> Result<()> {
    let cluster = InProcessCluster::start(3).await?;
    let place = TablePath::pos("dar", "order_header");
    let before = cluster.client(1).get(&format!("{}/version", place.module_path())).await?.ok()?;
    let inserts = (0..INSERTS).map(|n| {
        let client = cluster.client(cluster.ids()[n % 3]);
        async move {
            let record = json!({ "shiftId": "s", "statusId": "open" });
            client.insert(&place, None, &record).await?.ok()
        }
    });
    let made = futures::future::try_join_all(inserts).await?;
    let mut ids: Vec<String> = made.iter().map(|made| made["record"]["id"].to_string()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), INSERTS, "ten orders");
    for counter in ["sequence", "version"] {
        let mut numbers: Vec<u64> =
            made.iter().filter_map(|made| made["ack"][counter].as_u64()).collect();
        numbers.sort_unstable();
        let first = numbers[0];
        assert_eq!(numbers, (first..first + INSERTS as u64).collect::<Vec<_>>(), "{counter}");
    }
    let after = cluster.client(2).get(&format!("{}/version", place.module_path())).await?.ok()?;
    assert_eq!(after.as_u64(), before.as_u64().map(|before| before + INSERTS as u64));
    cluster.stop_all().await;
    Ok(())
}
