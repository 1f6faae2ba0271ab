//! Idle: what the demo's nodes use while nobody asks them anything.
//!
//! `--nodes N` (3), `--seconds N` (30).
#![allow(clippy::print_stdout, reason = "a drill prints what it measured")]

use std::time::Duration;

use anyhow::Result;
use tests::demo::Demo;
use tests::drill::DrillOptions;
use tests::process::{cpu, resident_kib};
use tokio::time::{Instant, sleep};

/// Before measuring, so that forming the cluster is over.
const SETTLE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Result<()> {
    let options = DrillOptions::of_this_program(&["--nodes", "--seconds"])?;
    let seconds = options.value("--seconds", 30)?;
    let mut demo = Demo::start(options.value("--nodes", 3)?).await?;
    sleep(SETTLE).await;

    let pids = demo.pids()?;
    let before: Vec<Duration> = pids.iter().map(|pid| cpu(*pid)).collect::<Result<_>>()?;
    let began = Instant::now();
    sleep(Duration::from_secs(seconds)).await;
    let passed = began.elapsed().as_secs_f64();

    println!("node  share of one core  resident");
    let mut total = 0.0;
    for ((node, pid), before) in demo.ids().into_iter().zip(&pids).zip(before) {
        let share = (cpu(*pid)? - before).as_secs_f64() / passed * 100.0;
        total += share;
        println!("{node:>4}  {share:>15.2} %  {:>4} MiB", resident_kib(*pid)? / 1024);
    }
    println!(" all  {total:>15.2} %  over {passed:.0} s");
    demo.stop().await
}
