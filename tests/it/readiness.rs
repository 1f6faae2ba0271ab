//! Readiness: a node says that it serves only while a majority of what it serves is at work.

use anyhow::Result;
use tests::process_cluster::ProcessCluster;
use tests::wait::{WaitState, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_a_majority_is_not_ready_until_it_is_back() -> Result<()> {
    let mut cluster = ProcessCluster::start(3).await?;
    let leader = cluster.leader(1, "dar", "pos").await?;
    let [other, third] = cluster.others(leader)[..] else { panic!("three nodes") };
    cluster.kill(other)?;
    cluster.wait_until_ready(leader).await?;
    cluster.kill(third)?;

    // Also what this node itself leads has no majority any more.
    let alone = cluster.client(leader);
    let refused = until("the last node says so", async || match alone.get("/readyz").await {
        Ok(reply) if reply.status == 503 && reply.body["reason"] == "no-majority" => {
            WaitState::Done(reply.body)
        }
        other => WaitState::NotYet(format!("{other:?}")),
    })
    .await?;
    let without = refused["details"]["partitionsWithoutLeader"].as_u64();
    assert!(without.is_some_and(|count| count > 0), "{refused}");
    let status =
        until("every partition is without a majority", async || match alone.status().await {
            Ok(status) => {
                let led = status["partitions"].as_array().into_iter().flatten();
                let led = led.filter(|partition| !partition["leader"].is_null()).count();
                WaitState::when(led == 0, status.clone(), || format!("{led} are led"))
            }
            Err(error) => WaitState::NotYet(format!("{error:#}")),
        })
        .await?;
    let warnings = status["warnings"].to_string();
    assert!(warnings.contains("no leader for"), "{warnings}");
    assert_eq!(alone.get("/readyz").await?.status, 503, "it stays so");

    cluster.launch(other)?;
    cluster.wait_until_ready(leader).await?;
    Ok(())
}
