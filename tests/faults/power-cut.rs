//! Power cut: takes the supply from a node's disk while orders are written, starts the node again
//! on what survived, and asks whether every acknowledged order is there.
//!
//! So that the disk in question is the one that must have them, a third node is away during the
//! writes, and the second is taken away before the answer: what is read then was on the disk that
//! lost its power. In every second run that node is killed and started again before the cut: what
//! it reads back after a kill may exist only in memory. With `--all`, three disks lose power at
//! once.
//!
//! `--runs N` (20), `--writes N` (300, before the cut), `--all`. As root.
#![allow(clippy::print_stdout, reason = "a drill prints what it measured")]

use std::path::Path;

use anyhow::{Context, Result, ensure};
use tests::disk::PowerCutDisk;
use tests::drill::DrillOptions;
use tests::process_cluster::{Contents, ProcessCluster};
use tests::recording::Verdicts;
use tests::writer::{AcknowledgedCount, OrderWriter, RunningWriters, start_writers};

/// Orders of each writer that follow after the cut, so that writes are under way at that moment.
const AFTER: usize = 50;
const WRITERS: usize = 4;

#[tokio::main]
async fn main() -> Result<()> {
    let options = DrillOptions::of_this_program(&["--runs", "--writes", "--all"])?;
    let runs: u32 = options.value("--runs", 20)?;
    let writes: usize = options.value("--writes", 300)?;
    let all = options.has("--all");

    println!("run  killed before  verdicts");
    let (mut acknowledged, mut lost, mut violated, mut unopened) = (0, 0, 0, 0);
    for run in 1..=runs {
        let kill_before = run % 2 == 0;
        let shown = if kill_before { "yes" } else { "no" };
        let done = if all {
            cut_all(writes, kill_before).await
        } else {
            cut_one(writes, kill_before).await
        };
        match done {
            Ok(verdicts) => {
                println!("{run:>3}  {shown:<13}  {verdicts}");
                acknowledged += verdicts.acknowledged;
                lost += verdicts.violations("no-lost-acknowledgement");
                violated += u32::from(!verdicts.hold());
            }
            Err(error) => {
                println!("{run:>3}  {shown:<13}  did not come back: {error:#}");
                unopened += 1;
            }
        }
    }
    println!(
        "runs {runs}, acknowledged {acknowledged}, lost {lost}, violated in {violated}, failed \
         reopens {unopened}"
    );
    ensure!(violated + unopened == 0, "something is wrong: see above");
    Ok(())
}

/// The disk of node 1 is cut, while only nodes 1 and 2 are there to acknowledge.
async fn cut_one(writes: usize, kill_before: bool) -> Result<Verdicts> {
    let folder = tempfile::tempdir()?;
    let disk = PowerCutDisk::new(folder.path(), "node-1")?;
    let (victim, partner, witness) = (1, 2, 3);
    let mut cluster = ProcessCluster::plan(3, Contents::Sample).await?;
    cluster.keep_quiet();
    cluster.put_data(victim, &disk.path().join("data"));
    cluster.start_all().await?;
    cluster.kill(witness)?;

    let (acknowledged, running) = start_writing(&cluster, &[partner, witness], writes);
    if kill_before {
        acknowledged.reached(writes / 2).await?;
        cluster.kill(victim)?;
        cluster.restart(victim).await.context("after the kill")?;
    }
    acknowledged.reached(writes).await?;
    disk.cut()?;
    cluster.kill(victim)?;
    cluster.kill(partner)?;
    disk.restore()?;
    cluster.launch(witness)?;
    cluster.restart(victim).await.context("after the power cut")?;
    cluster.wait_until_ready(witness).await?;

    let recording = running.finish().await?;
    recording.judge("dar", &cluster.clients(&[victim, witness])).await
    // The cluster is dropped before the disk it stands on.
}

/// All three disks are cut at once.
async fn cut_all(writes: usize, kill_before: bool) -> Result<Verdicts> {
    let folder = tempfile::tempdir()?;
    let mut cluster = ProcessCluster::plan(3, Contents::Sample).await?;
    cluster.keep_quiet();
    let disks = disks_for(&mut cluster, folder.path())?;
    cluster.start_all().await?;

    let (acknowledged, running) = start_writing(&cluster, &cluster.ids(), writes);
    if kill_before {
        acknowledged.reached(writes / 2).await?;
        for node in cluster.ids() {
            cluster.kill(node)?;
        }
        cluster.start_all().await.context("after the kill")?;
    }
    acknowledged.reached(writes).await?;
    for disk in &disks {
        disk.cut()?;
    }
    for node in cluster.ids() {
        cluster.kill(node)?;
    }
    for disk in &disks {
        disk.restore()?;
    }
    cluster.start_all().await.context("after the power cut")?;

    let recording = running.finish().await?;
    let verdicts = recording.judge("dar", &cluster.clients(&cluster.ids())).await;
    drop(cluster);
    verdicts
}

fn disks_for(cluster: &mut ProcessCluster, folder: &Path) -> Result<Vec<PowerCutDisk>> {
    let mut disks = Vec::new();
    for node in cluster.ids() {
        let disk = PowerCutDisk::new(folder, &format!("node-{node}"))?;
        cluster.put_data(node, &disk.path().join("data"));
        disks.push(disk);
    }
    Ok(disks)
}

fn start_writing(
    cluster: &ProcessCluster,
    through: &[u64],
    writes: usize,
) -> (AcknowledgedCount, RunningWriters) {
    let writers = (0..WRITERS)
        .map(|n| OrderWriter::new(&format!("cut-{n}"), "dar", cluster.clients(through)));
    start_writers(writers.collect(), writes / WRITERS + AFTER)
}
