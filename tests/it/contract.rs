//! The contract: recordings played against real nodes over real sockets. What differs is either in
//! the table of `docs/protocol.md` or wrong.

use std::net::SocketAddr;

use anyhow::Result;
use tests::contract::deviations::DeviationTable;
use tests::contract::play::play;
use tests::contract::recording::{original, own, read_all, read_original, transcripts};
use tests::contract::verdict::ContractVerdict;
use tests::process_cluster::{Contents, ProcessCluster};

/// Plays what was recorded of the original; says that it skips where there is nothing.
#[allow(clippy::print_stderr, reason = "a skipped story says so, and figures are always shown")]
async fn judge(nodes: usize) -> Result<()> {
    let (Some(data), Some(folder)) = (original(), transcripts()) else {
        eprintln!("skipped: there are no recordings beside MISHKAH_ORIGINAL_DATA");
        return Ok(());
    };
    let mut cluster = ProcessCluster::plan(nodes, Contents::Original(data)).await?;
    cluster.keep_quiet();
    // Recordings have the original's headers, which let every origin read.
    cluster.tell("--allow-origin", "*");
    cluster.start_all().await?;
    let addresses: Vec<SocketAddr> = cluster.ids().iter().map(|node| cluster.http(*node)).collect();
    let played = play(&read_original(&folder)?, &addresses).await?;
    let table = DeviationTable::of_the_document()?;
    let verdict = ContractVerdict::of(played.exchanges, played.differences, &table, &played.files);
    eprintln!("{}\n{verdict}, on {nodes} nodes", verdict.work());
    assert!(verdict.is_clean(), "{verdict}; rows without use: {:?}", verdict.unused);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_answers_as_the_original_was_recorded() -> Result<()> {
    judge(1).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_answer_as_the_original_was_recorded() -> Result<()> {
    judge(3).await
}

/// How often the sample's recordings are played at most. A reset raises its flag after the module
/// began again, so the snapshot that its sockets get in between shows it or not: both are right,
/// and one of them was recorded.
const PLAYS: usize = 4;

/// Plays what was recorded on the sample data.
#[allow(clippy::print_stderr, reason = "figures are always shown")]
async fn judge_the_sample(nodes: usize) -> Result<()> {
    for plays in 1..=PLAYS {
        let mut cluster = ProcessCluster::plan(nodes, Contents::Sample).await?;
        cluster.keep_quiet();
        // Recordings have the original's headers, which let every origin read.
        cluster.tell("--allow-origin", "*");
        cluster.start_all().await?;
        let addresses: Vec<SocketAddr> =
            cluster.ids().iter().map(|node| cluster.http(*node)).collect();
        let played = play(&read_all(&own())?, &addresses).await?;
        let none = DeviationTable::default();
        let verdict =
            ContractVerdict::of(played.exchanges, played.differences, &none, &played.files);
        eprintln!("{verdict}, on the sample data, on {nodes} nodes");
        let list = verdict.list().to_string();
        let of_a_flag =
            |line: &str| line.contains("server:snapshot") && line.contains("/fullSyncFlags/");
        if !verdict.is_clean() && list.lines().all(of_a_flag) && plays < PLAYS {
            continue;
        }
        assert!(
            verdict.is_clean(),
            "where this is meant, record it again (`cargo run -p tests --example record`):\n{list}"
        );
        break;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_the_sample_data_answers_as_it_was_recorded() -> Result<()> {
    judge_the_sample(1).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_answer_on_sample_data_as_one_was_recorded() -> Result<()> {
    judge_the_sample(3).await
}
