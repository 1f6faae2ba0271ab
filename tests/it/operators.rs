//! Operators: what `mishkah status --json` says of three nodes.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::binary::{binary, mishkah};
use tests::process_cluster::ProcessCluster;
use tests::status::Status;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_spread_and_the_sample_branches_live_apart() -> Result<()> {
    let cluster = ProcessCluster::start(3).await?;
    cluster.leaders_return().await?;
    for node in cluster.ids() {
        let status = Status(by_command(cluster.client(node).base())?);
        let partitions = status.list("partitions");
        assert_eq!(partitions.len(), 16, "partitions of node {node}'s answer");
        for partition in partitions {
            assert_eq!(partition["replicas"].as_array().map(Vec::len), Some(3), "{partition}");
        }
        let leads = status.leads(&cluster.ids());
        assert_eq!(leads.iter().sum::<usize>(), 16);
        assert!(leads.iter().all(|count| [5, 6].contains(count)), "{leads:?}");
        let leader = |branch| status.leader_of(branch, "pos").context("a sample branch is led");
        assert_ne!(
            leader("dar")?,
            leader("remal")?,
            "the sample branches are led by different nodes"
        );
        assert_eq!(status.list("nodes").len(), 3);
        assert!(status.list("nodes").iter().all(|node| node["reachable"] == true), "{}", status.0);
    }
    Ok(())
}

#[test]
fn the_program_as_it_is_built_has_no_mutants_in_it() -> Result<()> {
    // In two pieces, so that this program may be searched as well.
    let name = "skip-directory-fsync";
    let done = mishkah()?.arg("start").env("MISHKAH_MUTANT", name).output()?;
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(!done.status.success() && said.contains("MISHKAH_MUTANT"), "{said}");
    let program = std::fs::read(binary()?)?;
    assert!(program.windows(14).any(|bytes| bytes == b"MISHKAH_LISTEN"), "it can be searched");
    assert!(!program.windows(name.len()).any(|bytes| bytes == name.as_bytes()));
    Ok(())
}

/// The answer of the command an operator types.
fn by_command(node: &str) -> Result<Value> {
    let done = mishkah()?.args(["status", "--json", "--node", node]).output()?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "`mishkah status` found something: {}, {said}", done.status);
    serde_json::from_slice(&done.stdout).context("`mishkah status --json` prints JSON")
}
