//! Upgrade: a cluster moves to the next build node by node, and agrees on its level afterwards.
//!
//! The next build adds a field to an event, a variant to a request and a chunk to a checkpoint.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use model::codec::{LEVEL, NEXT_LEVEL};
use serde_json::{Value, json};
use tests::binary::next_level;
use tests::client::TablePath;
use tests::process_cluster::ProcessCluster;
use tests::wait::{WaitState, until};

const LEVEL_PATH: &str = "/api/cluster/level";

/// Writes through every node; the count of all tickets, which every node must show.
async fn write_everywhere(cluster: &ProcessCluster, round: usize) -> Result<usize> {
    let place = TablePath::pos("dar", "order_header");
    for node in cluster.ids() {
        let order = json!({"shiftId": "s", "statusId": "open", "note": format!("{round}-{node}")});
        cluster.client(node).insert(&place, None, &order).await?.ok()?;
    }
    let counts = cluster.ids().into_iter().map(|node| cluster.client(node));
    let mut seen = Vec::new();
    for client in counts {
        seen.push(client.rows(&place).await?.len());
    }
    ensure!(seen.windows(2).all(|pair| pair[0] == pair[1]), "the nodes show {seen:?} orders");
    seen.first().copied().context("there are nodes")
}

async fn take_number(cluster: &ProcessCluster, node: u64) -> Result<Value> {
    let path = "/api/branches/dar/modules/pos/sequences";
    let field = json!({"table": "order_header", "field": "id"});
    cluster.client(node).send_json("POST", path, None, &field).await?.ok()
}

/// Every replica of a partition comes to have applied the same and to hold the same, whatever build
/// its node runs.
async fn replicas_are_equal(cluster: &ProcessCluster) -> Result<()> {
    let nodes = cluster.ids().len();
    until("replicas of a partition are equal", async || {
        let mut partitions: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for node in cluster.ids() {
            let Ok(held) = cluster.client(node).get("/api/cluster/replicas").await else {
                return WaitState::NotYet(format!("node {node} does not answer"));
            };
            for replica in held.body["replicas"].as_array().into_iter().flatten() {
                let state = format!("{} {}", replica["applied"], replica["stateHash"]);
                partitions.entry(replica["partition"].to_string()).or_default().push(state);
            }
        }
        for (partition, states) in &partitions {
            let is_equal = states.len() == nodes && states.iter().all(|it| *it == states[0]);
            if !is_equal {
                return WaitState::NotYet(format!("replicas of {partition} hold {states:?}"));
            }
        }
        if partitions.is_empty() {
            return WaitState::NotYet("there are none".to_owned());
        }
        WaitState::Done(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_upgraded_node_by_node_then_raises_its_level() -> Result<()> {
    let next = next_level()?;
    let level = json!({"level": NEXT_LEVEL});
    let mut cluster = ProcessCluster::plan(3, tests::process_cluster::Contents::Sample).await?;
    cluster.start_all().await?;
    let before = write_everywhere(&cluster, 0).await?;

    // Mixed: nothing of the next level is written, so an upgraded node may go back.
    for node in [3, 2] {
        cluster.kill(node)?;
        cluster.install(node, Some(&next));
        cluster.restart(node).await?;
        write_everywhere(&cluster, 1).await?;
        take_number(&cluster, node).await?;
    }
    replicas_are_equal(&cluster).await?;
    let refused = cluster.client(2).send_json("PUT", LEVEL_PATH, None, &level).await?;
    assert_eq!(refused.status, 409, "{:?}", refused.body);
    assert_eq!(refused.body["error"], "level-too-low");
    assert_eq!(refused.body["details"]["node"], 1);
    cluster.kill(2)?;
    cluster.install(2, None);
    cluster.restart(2).await?;
    write_everywhere(&cluster, 2).await?;

    // All run the next build: the level is raised, and what only it can read is written.
    for node in [1, 2] {
        cluster.kill(node)?;
        cluster.install(node, Some(&next));
        cluster.restart(node).await?;
    }
    let raised = until("the cluster agrees on the next level", async || {
        let asked = cluster.client(1).send_json("PUT", LEVEL_PATH, None, &level).await;
        let asked = asked.and_then(tests::client::HttpReply::ok);
        WaitState::when(asked.is_ok(), (), || format!("{asked:?}"))
    });
    raised.await?;
    let all = write_everywhere(&cluster, 3).await?;
    ensure!(all == before + 3 * 4, "{all} orders after 4 rounds more, {before} before");
    take_number(&cluster, 1).await?;
    replicas_are_equal(&cluster).await?;

    // The old build stops at the first entry of the level it does not know, and says what to do.
    cluster.kill(3)?;
    cluster.install(3, None);
    cluster.launch(3)?;
    let needed = format!("level {NEXT_LEVEL}, this build has {LEVEL}: upgrade this node");
    until("the old build says that it must be upgraded", async || {
        let said = cluster.logged(3).contains(&needed);
        WaitState::when(said, (), || "it does not yet".to_owned())
    })
    .await?;
    let _ = cluster.kill(3);

    // The next build reads all there is, of both levels.
    cluster.install(3, Some(&next));
    cluster.restart(3).await?;
    for node in [1, 2] {
        cluster.kill(node)?;
        cluster.restart(node).await?;
    }
    ensure!(write_everywhere(&cluster, 4).await? == all + 3, "an order is lost or doubled");
    replicas_are_equal(&cluster).await
}
