//! Conformance: plays the recordings of the original against nodes and prints what differs, by
//! request and frame, most frequent first.
//!
//! `--transcripts DIR` (beside `MISHKAH_ORIGINAL_DATA`), `--only rest-04` reports on these files
//! alone (those before them are played for the state they leave), `--alone` does not play those
//! before, `--node ADDRESS` plays against a node that runs already, `--nodes N` (1) starts so many
//! and asks each in turn, `--list` prints every difference on a line of its own.
#![allow(clippy::print_stdout, reason = "a drill prints what it found")]

use std::net::SocketAddr;

use anyhow::{Context, Result};
use tests::contract::deviations::DeviationTable;
use tests::contract::play::{Played, play};
use tests::contract::recording::{Scenario, original, read_original, transcripts};
use tests::contract::verdict::ContractVerdict;
use tests::drill::DrillOptions;
use tests::process_cluster::{Contents, ProcessCluster};

/// What may be given.
const OPTIONS: [&str; 6] = ["--transcripts", "--only", "--alone", "--node", "--nodes", "--list"];

#[tokio::main]
async fn main() -> Result<()> {
    let options = DrillOptions::of_this_program(&OPTIONS)?;
    let only: String = options.value("--only", String::new())?;
    let folder = options.value("--transcripts", transcripts().unwrap_or_default())?;
    let scenarios = chosen(read_original(&folder)?, &only, options.has("--alone"));
    let node: String = options.value("--node", String::new())?;
    let mut played = if node.is_empty() {
        on_a_cluster(&scenarios, options.value("--nodes", 1)?).await?
    } else {
        let node: SocketAddr = node.parse().context("--node ADDRESS:PORT")?;
        play(&scenarios, &[node]).await?
    };
    if !only.is_empty() {
        let is_asked = |file: &String| only.split(',').any(|only| only == file);
        played.differences.retain(|found| is_asked(&found.file));
        played.files.retain(is_asked);
    }
    let table = DeviationTable::of_the_document()?;
    let verdict = ContractVerdict::of(played.exchanges, played.differences, &table, &played.files);
    println!("{}", if options.has("--list") { verdict.list() } else { verdict.work() });
    println!("{verdict}");
    Ok(())
}

/// The scenarios up to the last that is asked for.
fn chosen(scenarios: Vec<Scenario>, only: &str, is_alone: bool) -> Vec<Scenario> {
    let is_asked = |scenario: &Scenario| {
        only.is_empty() || scenario.name.split('+').any(|file| only.split(',').any(|o| o == file))
    };
    let last = scenarios.iter().rposition(is_asked).unwrap_or_default();
    let upto = scenarios.into_iter().take(last + 1);
    upto.filter(|one| one.is_rehearsal || !is_alone || is_asked(one)).collect()
}

async fn on_a_cluster(scenarios: &[Scenario], nodes: usize) -> Result<Played> {
    let data = original().context("MISHKAH_ORIGINAL_DATA names the data they were taken on")?;
    let mut cluster = ProcessCluster::plan(nodes, Contents::Original(data)).await?;
    cluster.keep_quiet();
    // Recordings have the original's headers, which let every origin read.
    cluster.tell("--allow-origin", "*");
    cluster.start_all().await?;
    let nodes: Vec<SocketAddr> = cluster.ids().iter().map(|node| cluster.http(*node)).collect();
    play(scenarios, &nodes).await
}
