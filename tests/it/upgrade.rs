//! Upgrade: a cluster moves to the next build node by node, and agrees on its level afterwards.
//!
//! The next build adds a field to an event, a variant to a request and a chunk to a checkpoint.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::binary::next_level;
use tests::client::Place;
use tests::fleet::Fleet;
use tests::patience::{Look, until};

const LEVEL: &str = "/api/cluster/level";

/// Writes through every node; the count of all tickets, which every node must show.
async fn write_everywhere(fleet: &Fleet, round: usize) -> Result<usize> {
    let place = Place::pos("dar", "order_header");
    for node in fleet.ids() {
        let order = json!({"shiftId": "s", "statusId": "open", "note": format!("{round}-{node}")});
        fleet.client(node).insert(&place, None, &order).await?.ok()?;
    }
    let counts = fleet.ids().into_iter().map(|node| fleet.client(node));
    let mut seen = Vec::new();
    for client in counts {
        seen.push(client.rows(&place).await?.len());
    }
    ensure!(seen.windows(2).all(|pair| pair[0] == pair[1]), "the nodes show {seen:?} orders");
    seen.first().copied().context("there are nodes")
}

async fn take_number(fleet: &Fleet, node: u64) -> Result<Value> {
    let path = "/api/branches/dar/modules/pos/sequences";
    let field = json!({"table": "order_header", "field": "id"});
    fleet.client(node).send_json("POST", path, None, &field).await?.ok()
}

/// Every replica of a partition comes to have applied the same and to hold the same, whatever build
/// its node runs.
async fn replicas_are_equal(fleet: &Fleet) -> Result<()> {
    let nodes = fleet.ids().len();
    until("replicas of a partition are equal", async || {
        let mut partitions: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for node in fleet.ids() {
            let Ok(held) = fleet.client(node).get("/api/cluster/replicas").await else {
                return Look::NotYet(format!("node {node} does not answer"));
            };
            for replica in held.body["replicas"].as_array().into_iter().flatten() {
                let state = format!("{} {}", replica["applied"], replica["stateHash"]);
                partitions.entry(replica["partition"].to_string()).or_default().push(state);
            }
        }
        for (partition, states) in &partitions {
            let is_equal = states.len() == nodes && states.iter().all(|it| *it == states[0]);
            if !is_equal {
                return Look::NotYet(format!("replicas of {partition} hold {states:?}"));
            }
        }
        if partitions.is_empty() {
            return Look::NotYet("there are none".to_owned());
        }
        Look::Done(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_upgraded_node_by_node_and_then_agrees_on_the_level() -> Result<()> {
    let next = next_level()?;
    let mut fleet = Fleet::plan(3, tests::fleet::Contents::Sample).await?;
    fleet.start_all().await?;
    let before = write_everywhere(&fleet, 0).await?;

    // Mixed: nothing of the next level is written, so an upgraded node may go back.
    for node in [3, 2] {
        fleet.kill(node)?;
        fleet.install(node, Some(&next));
        fleet.restart(node).await?;
        write_everywhere(&fleet, 1).await?;
        take_number(&fleet, node).await?;
    }
    replicas_are_equal(&fleet).await?;
    let refused = fleet.client(2).send_json("PUT", LEVEL, None, &json!({"level": 2})).await?;
    assert_eq!(refused.status, 409, "{:?}", refused.body);
    assert_eq!(refused.body["error"], "level-too-low");
    assert_eq!(refused.body["details"]["node"], 1);
    fleet.kill(2)?;
    fleet.install(2, None);
    fleet.restart(2).await?;
    write_everywhere(&fleet, 2).await?;

    // All run the next build: the level is raised, and what only it can read is written.
    for node in [1, 2] {
        fleet.kill(node)?;
        fleet.install(node, Some(&next));
        fleet.restart(node).await?;
    }
    let raised = until("the cluster agrees on level 2", async || {
        let asked = fleet.client(1).send_json("PUT", LEVEL, None, &json!({"level": 2})).await;
        let asked = asked.and_then(tests::client::Reply::ok);
        Look::when(asked.is_ok(), (), || format!("{asked:?}"))
    });
    raised.await?;
    let all = write_everywhere(&fleet, 3).await?;
    ensure!(all == before + 3 * 4, "{all} orders after 4 rounds more, {before} before");
    take_number(&fleet, 1).await?;
    replicas_are_equal(&fleet).await?;

    // The old build stops at the first entry of the level it does not know, and says what to do.
    fleet.kill(3)?;
    fleet.install(3, None);
    fleet.launch(3)?;
    until("the old build says that it must be upgraded", async || {
        let said = fleet.logged(3).contains("level 2, this build has 1: upgrade this node");
        Look::when(said, (), || "it does not yet".to_owned())
    })
    .await?;
    let _ = fleet.kill(3);

    // The next build reads all there is, of both levels.
    fleet.install(3, Some(&next));
    fleet.restart(3).await?;
    for node in [1, 2] {
        fleet.kill(node)?;
        fleet.restart(node).await?;
    }
    ensure!(write_everywhere(&fleet, 4).await? == all + 3, "an order is lost or doubled");
    replicas_are_equal(&fleet).await
}
