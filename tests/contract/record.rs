//! Record: plays what is recorded against a fresh node with the sample data and writes down what
//! it answered, for `tests/transcripts`.
//!
//! `--from DIR` (the recordings of the original where they are, else our own), `--into DIR`
//! (`tests/transcripts`), `--only ws-01,rest-01` plays and writes these alone. Names of records
//! that the sample data does not have are replaced by those of records like them.
#![allow(clippy::print_stdout, reason = "a drill prints what it did")]

use anyhow::Result;
use serde_json::Value;
use tests::contract::play;
use tests::contract::recording::{Does, RecordedCall, Scenario, own, read_all, transcripts};
use tests::drill::DrillOptions;
use tests::process_cluster::{Contents, ProcessCluster};

/// What may be given.
const OPTIONS: [&str; 3] = ["--from", "--into", "--only"];
/// Names in the recordings, and those of such records in the sample data.
const NAMES: [(&str, &str); 2] = [("T10", "table-10"), ("burger", "item-01")];

#[tokio::main]
async fn main() -> Result<()> {
    let options = DrillOptions::of_this_program(&OPTIONS)?;
    let from = options.value("--from", transcripts().unwrap_or_else(own))?;
    let into = options.value("--into", own())?;
    let only: String = options.value("--only", String::new())?;
    let is_wanted = |scenario: &Scenario| {
        only.is_empty() || scenario.name.split('+').any(|file| only.split(',').any(|o| o == file))
    };
    let scenarios = read_all(&from)?.into_iter().filter(is_wanted);
    let scenarios: Vec<Scenario> = scenarios.map(on_the_sample).collect();

    let mut cluster = ProcessCluster::plan(1, Contents::Sample).await?;
    cluster.keep_quiet();
    // Recordings have the original's headers, which let every origin read.
    cluster.tell("--allow-origin", "*");
    cluster.start_all().await?;
    let played = play::record(&scenarios, &[cluster.http(1)]).await?;
    let written = played.kept.write(&into)?;
    println!("{} exchanges; wrote {}", played.exchanges, written.join(", "));
    Ok(())
}

/// The scenario with the names of the sample data.
fn on_the_sample(mut scenario: Scenario) -> Scenario {
    for step in &mut scenario.steps {
        match &mut step.does {
            Does::RecordedCall(RecordedCall { body, .. }) => rename(body),
            Does::Send(_, frame) => rename(frame),
            Does::Open(..) | Does::Expect(..) | Does::Close(_) | Does::Note => {}
        }
    }
    scenario
}

fn rename(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Some((_, ours)) = NAMES.iter().find(|(name, _)| name == text) {
                *text = (*ours).to_owned();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(rename),
        Value::Object(members) => members.values_mut().for_each(rename),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
