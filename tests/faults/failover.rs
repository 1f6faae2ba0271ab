//! Failover: kills the process that leads dar:pos while orders are written through another node,
//! and prints what was acknowledged, what is there, and the longest silence.
//!
//! `--runs N` (1), `--writes N` (1000), `--writers N` (1: the silence is then the outage itself).
#![allow(clippy::print_stdout, reason = "a drill prints what it measured")]

use anyhow::{Result, ensure};
use tests::drill::{DrillOptions, Samples};
use tests::process_cluster::ProcessCluster;
use tests::recording::{ClientRecording, Verdicts};
use tests::writer::{OrderWriter, start_writers};

#[tokio::main]
async fn main() -> Result<()> {
    let options = DrillOptions::of_this_program(&["--runs", "--writes", "--writers"])?;
    let runs: u32 = options.value("--runs", 1)?;
    let writes: usize = options.value("--writes", 1000)?;
    let writers: usize = options.value("--writers", 1)?;

    println!("run  verdicts, longest gap between two acknowledgements");
    let mut gaps = Samples::default();
    let mut all_hold = true;
    for run in 1..=runs {
        let (verdicts, gap) = drill(writes / writers, writers).await?;
        println!("{run:>3}  {verdicts}; longest gap {gap:.2} s");
        all_hold &= verdicts.hold();
        gaps.add(gap);
    }
    println!("longest gap in seconds: {gaps}");
    ensure!(all_hold, "something is wrong: see above");
    Ok(())
}

/// One leader's death; the verdicts, and the longest silence in seconds.
async fn drill(writes: usize, writers: usize) -> Result<(Verdicts, f64)> {
    let mut cluster = ProcessCluster::start(3).await?;
    cluster.keep_quiet();
    cluster.leaders_return().await?;
    let leader = cluster.leader(1, "dar", "pos").await?;
    let through = cluster.others(leader)[0];
    let crowd = (0..writers)
        .map(|n| OrderWriter::new(&format!("drill-{n}"), "dar", cluster.clients(&[through])))
        .collect();
    let (acknowledged, running) = start_writers(crowd, writes);
    acknowledged.reached(writes * writers / 2).await?;
    cluster.kill(leader)?;

    let mut recording = ClientRecording::default();
    let mut gap = 0.0_f64;
    for writer in running.writers().await? {
        gap = gap.max(writer.longest_gap.as_secs_f64());
        recording.extend(writer.recording);
    }
    Ok((recording.judge("dar", &cluster.clients(&[through])).await?, gap))
}
