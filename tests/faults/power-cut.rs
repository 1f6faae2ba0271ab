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
use tests::client::Place;
use tests::disk::Disk;
use tests::drill::Options;
use tests::fleet::{Contents, Fleet};
use tests::ledger::{Ledger, Verdict};
use tests::writer::{Progress, Writer, Writing, write_together};

/// Orders of each writer that follow after the cut, so that writes are under way at that moment.
const AFTER: usize = 50;
const WRITERS: usize = 4;

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::of_this_program(&["--runs", "--writes", "--all"])?;
    let runs: u32 = options.value("--runs", 20)?;
    let writes: usize = options.value("--writes", 300)?;
    let all = options.has("--all");

    println!("run  killed before  verdict");
    let (mut acked, mut lost, mut unclean, mut unopened) = (0, 0, 0, 0);
    for run in 1..=runs {
        let kill_before = run % 2 == 0;
        let shown = if kill_before { "yes" } else { "no" };
        let done = if all {
            cut_all(writes, kill_before).await
        } else {
            cut_one(writes, kill_before).await
        };
        match done {
            Ok(verdict) => {
                println!("{run:>3}  {shown:<13}  {verdict}");
                acked += verdict.acked;
                lost += verdict.lost.len();
                unclean += u32::from(!verdict.is_clean());
            }
            Err(error) => {
                println!("{run:>3}  {shown:<13}  did not come back: {error:#}");
                unopened += 1;
            }
        }
    }
    println!(
        "runs {runs}, acked {acked}, lost {lost}, unclean {unclean}, failed reopens {unopened}"
    );
    ensure!(unclean + unopened == 0, "something is wrong: see above");
    Ok(())
}

/// The disk of node 1 is cut, while only nodes 1 and 2 are there to acknowledge.
async fn cut_one(writes: usize, kill_before: bool) -> Result<Verdict> {
    let folder = tempfile::tempdir()?;
    let disk = Disk::new(folder.path(), "node-1")?;
    let (victim, partner, witness) = (1, 2, 3);
    let mut fleet = Fleet::plan(3, Contents::Sample).await?;
    fleet.keep_quiet();
    fleet.put_data(victim, &disk.path().join("data"));
    fleet.start_all().await?;
    fleet.kill(witness)?;

    let (progress, writing) = set_to_work(&fleet, &[partner, witness], writes);
    if kill_before {
        progress.reached(writes / 2).await?;
        fleet.kill(victim)?;
        fleet.restart(victim).await.context("after the kill")?;
    }
    progress.reached(writes).await?;
    disk.cut()?;
    fleet.kill(victim)?;
    fleet.kill(partner)?;
    disk.restore()?;
    fleet.launch(witness)?;
    fleet.restart(victim).await.context("after the power cut")?;
    fleet.wait_until_ready(witness).await?;

    let ledger = writing.finish().await?;
    judge_at(&fleet, &[victim, witness], &ledger).await
    // The fleet is dropped before the disk it stands on.
}

/// All three disks are cut at once.
async fn cut_all(writes: usize, kill_before: bool) -> Result<Verdict> {
    let folder = tempfile::tempdir()?;
    let mut fleet = Fleet::plan(3, Contents::Sample).await?;
    fleet.keep_quiet();
    let disks = disks_for(&mut fleet, folder.path())?;
    fleet.start_all().await?;

    let (progress, writing) = set_to_work(&fleet, &fleet.ids(), writes);
    if kill_before {
        progress.reached(writes / 2).await?;
        for node in fleet.ids() {
            fleet.kill(node)?;
        }
        fleet.start_all().await.context("after the kill")?;
    }
    progress.reached(writes).await?;
    for disk in &disks {
        disk.cut()?;
    }
    for node in fleet.ids() {
        fleet.kill(node)?;
    }
    for disk in &disks {
        disk.restore()?;
    }
    fleet.start_all().await.context("after the power cut")?;

    let ledger = writing.finish().await?;
    let verdict = judge_at(&fleet, &fleet.ids(), &ledger).await;
    drop(fleet);
    verdict
}

fn disks_for(fleet: &mut Fleet, folder: &Path) -> Result<Vec<Disk>> {
    let mut disks = Vec::new();
    for node in fleet.ids() {
        let disk = Disk::new(folder, &format!("node-{node}"))?;
        fleet.put_data(node, &disk.path().join("data"));
        disks.push(disk);
    }
    Ok(disks)
}

fn set_to_work(fleet: &Fleet, through: &[u64], writes: usize) -> (Progress, Writing) {
    let writers =
        (0..WRITERS).map(|n| Writer::new(&format!("cut-{n}"), "dar", fleet.clients(through)));
    write_together(writers.collect(), writes / WRITERS + AFTER)
}

/// The worst of what these nodes show.
async fn judge_at(fleet: &Fleet, nodes: &[u64], ledger: &Ledger) -> Result<Verdict> {
    let mut worst = Verdict::default();
    for (at, node) in nodes.iter().enumerate() {
        let rows = fleet.client(*node).rows(&Place::pos("dar", "order_header")).await?;
        let verdict = ledger.judge(&rows, "DAR-");
        if at == 0 || !verdict.is_clean() {
            worst = verdict;
        }
    }
    Ok(worst)
}
