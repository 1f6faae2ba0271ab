//! Idle branches: what a branch costs a node that is made by one write and then left alone: of its
//! process, by what the system says, and of its class, by what the node counts.
//!
//! `--branches N` (20,000), `--rest SECONDS` (330: the branches' actors sleep after 300),
//! `--most KIB` (20: beyond so many for each branch it ends with an error).
#![allow(clippy::print_stdout, reason = "a drill prints what it measured")]

use std::time::Duration;

use anyhow::{Result, ensure};
use futures::StreamExt;
use serde_json::json;
use tests::client::{Client, TablePath};
use tests::drill::DrillOptions;
use tests::process::resident_kib;
use tests::process_cluster::{Contents, ProcessCluster};
use tokio::time::sleep;

/// Writes under way at a time.
const WRITERS: usize = 64;
/// Before the first measurement, so that forming the cluster is over; and after the writes, so that
/// what they took is given back.
const SETTLE: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() -> Result<()> {
    let options = DrillOptions::of_this_program(&["--branches", "--rest", "--most"])?;
    let branches: u64 = options.value("--branches", 20_000)?;
    let rest = options.value("--rest", 330)?;
    let most: u64 = options.value("--most", 20)?;
    let mut cluster = ProcessCluster::plan(1, Contents::Sample).await?;
    cluster.keep_quiet();
    cluster.tell("--branches-per-address-burst", 0);
    cluster.start_all().await?;
    let (node, pid) = (cluster.client(1), cluster.pid(1)?);
    // So that what the first of all brings is not counted.
    make(&node, 0).await?;
    sleep(SETTLE).await;

    println!("            resident  allocated  class branches  metrics");
    let before = Figures::of(&node, pid).await?;
    before.print("before");
    let writes = (1..=branches).map(|n| make(&node, n));
    let mut writes = futures::stream::iter(writes).buffer_unordered(WRITERS);
    while let Some(written) = writes.next().await {
        written?;
    }
    sleep(SETTLE).await;
    let awake = Figures::of(&node, pid).await?;
    awake.print("awake");
    sleep(Duration::from_secs(rest)).await;
    let asleep = Figures::of(&node, pid).await?;
    asleep.print("asleep");

    for (name, now) in [("awake", &awake), ("asleep", &asleep)] {
        let each = |now: u64, before: u64| now.saturating_sub(before) / branches;
        println!(
            "{name:<10} {:>7} B {:>8} B  {:>12} B  a branch",
            each(now.resident, before.resident),
            each(now.allocated, before.allocated),
            each(now.counted, before.counted)
        );
    }
    let each = asleep.resident.saturating_sub(before.resident) / branches;
    ensure!(each <= most * 1024, "an idle branch takes {each} bytes, over {most} KiB");
    cluster.stop(1).await
}

/// Makes a branch by writing one record to it.
async fn make(node: &Client, n: u64) -> Result<()> {
    let branch = format!("lab:made-{n}");
    let at = TablePath { branch: &branch, module: "scratchpad", table: "scratchpad_entry" };
    let reply = node.insert(&at, None, &json!({ "id": "e-1" })).await?;
    ensure!(reply.status == 201, "{}: {}", reply.status, reply.body);
    Ok(())
}

/// What a node holds, in bytes.
struct Figures {
    resident: u64,
    allocated: u64,
    /// Of the class `branches`.
    counted: u64,
    /// Lines of its metrics.
    metrics: usize,
}

impl Figures {
    async fn of(node: &Client, pid: u32) -> Result<Self> {
        let verbose = node.get("/readyz?verbose").await?.ok()?;
        let memory = &verbose["memory"];
        let classes = memory["classes"].as_array().cloned().unwrap_or_default();
        let counted = classes.iter().find(|class| class["class"] == "branches");
        let metrics = reqwest::get(format!("{}/metrics", node.base())).await?.text().await?;
        Ok(Self {
            resident: resident_kib(pid)? * 1024,
            allocated: memory["allocated"].as_u64().unwrap_or_default(),
            counted: counted.map_or(0, |class| class["held"].as_u64().unwrap_or_default()),
            metrics: metrics.lines().count(),
        })
    }

    fn print(&self, name: &str) {
        let mib = |bytes: u64| bytes / 1024 / 1024;
        println!(
            "{name:<10} {:>5} MiB  {:>5} MiB  {:>10} MiB  {:>7}",
            mib(self.resident),
            mib(self.allocated),
            mib(self.counted),
            self.metrics
        );
    }
}
