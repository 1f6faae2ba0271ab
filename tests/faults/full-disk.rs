//! Full disk: fills the disk of the node that leads `dar:pos` while clients write through every
//! node, and prints how soon another node leads, what the clients saw, and when the first one leads
//! again after there is space.
//!
//! Each node has a small file system in memory, so this needs root. `--seconds N` (25): how long
//! the disk is full.
#![allow(clippy::print_stdout, reason = "a drill prints what it measured")]

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::client::{Client, TablePath};
use tests::drill::DrillOptions;
use tests::process_cluster::{Contents, ProcessCluster};
use tokio::time::{Instant, sleep};

/// The size of each file system: some segments of the log, a store and checkpoints.
const SIZE_MIB: u64 = 320;
/// The branch whose leader is looked at.
const BRANCH: &str = "dar";
/// The clients.
const WRITERS: usize = 4;
/// Bytes of each record: enough to need new segments of the log soon.
const RECORD_BYTES: usize = 16 << 10;
/// How long the leader is waited for in vain at most.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// How soon another node is to lead: two seconds, and what a look every tenth of one adds.
const AWAY_MAX: Duration = Duration::from_millis(2_500);
/// How long a write may take meanwhile: until another node leads, and a retry.
const WRITE_MAX: Duration = Duration::from_secs(5);

/// A file system in memory, which is gone when this is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: PathBuf) -> Result<Self> {
        fs::create_dir_all(&path)?;
        let size = format!("size={SIZE_MIB}m");
        let mut mount = Command::new("mount");
        let status = mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&path).status()?;
        ensure!(status.success(), "a file system cannot be mounted: this drill needs root");
        Ok(Self(path))
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Takes all free space.
    fn fill(&self) -> Result<()> {
        let mut filler = File::create(self.filler())?;
        let mut block = vec![1; 1 << 20];
        while !block.is_empty() {
            // What does not fit is tried again in halves.
            if filler.write_all(&block).is_err() {
                block.truncate(block.len() / 2);
            }
        }
        Ok(())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // What is left is a directory in memory; the next start of the machine removes it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// What the clients saw.
#[derive(Debug, Default)]
struct Seen {
    acknowledged: usize,
    failed: usize,
    longest: Duration,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = DrillOptions::of_this_program(&["--seconds"])?;
    let full_for = Duration::from_secs(options.value("--seconds", 25)?);
    let home = tempfile::tempdir()?;
    let mut cluster = ProcessCluster::plan(3, Contents::Sample).await?;
    cluster.keep_quiet();
    let disks = mount(&mut cluster, home.path())?;
    cluster.start_all().await?;
    cluster.leaders_return().await?;
    let leader = cluster.leader(1, BRANCH, "pos").await?;
    let other = cluster.others(leader)[0];
    let disk = &disks[usize::try_from(leader)? - 1];

    let over = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..WRITERS)
        .map(|n| tokio::spawn(write(cluster.clients(&cluster.ids()), n, Arc::clone(&over))))
        .collect();
    sleep(Duration::from_secs(1)).await;
    disk.fill()?;
    let full = Instant::now();
    let away = led_by(&cluster, other, |now| now != leader).await;
    let said = says_unfit(&cluster.client(leader)).await;
    sleep(full_for.saturating_sub(full.elapsed())).await;
    over.store(true, Ordering::Relaxed);
    let mut seen = Seen::default();
    for writer in writers {
        let its = writer.await??;
        seen.acknowledged += its.acknowledged;
        seen.failed += its.failed;
        seen.longest = seen.longest.max(its.longest);
    }
    fs::remove_file(disk.filler())?;
    let back = led_by(&cluster, other, |now| now == leader).await;

    let shown = |found: Option<Duration>| {
        found
            .map_or_else(|| "never".to_owned(), |took| format!("after {:.1} s", took.as_secs_f64()))
    };
    println!("another node leads {BRANCH}: {} of a full disk", shown(away));
    println!("the node says why: {}", if said { "yes" } else { "no" });
    println!(
        "clients: {} acknowledged, {} failed, the longest took {:.1} s",
        seen.acknowledged,
        seen.failed,
        seen.longest.as_secs_f64()
    );
    println!("the first node leads again: {} of space", shown(back));
    for node in cluster.ids() {
        cluster.stop(node).await?;
    }
    let is_soon = away.is_some_and(|took| took <= AWAY_MAX) && seen.longest <= WRITE_MAX;
    let is_fine = is_soon && back.is_some() && seen.failed == 0 && said;
    ensure!(is_fine, "something is wrong: see above");
    Ok(())
}

fn mount(cluster: &mut ProcessCluster, home: &Path) -> Result<Vec<SmallDisk>> {
    let mut disks = Vec::new();
    for node in cluster.ids() {
        let disk = SmallDisk::mount(home.join(format!("disk-{node}")))?;
        cluster.put_data(node, &disk.0.join("data"));
        disks.push(disk);
    }
    Ok(disks)
}

/// Writes through one node after the other until it is over.
async fn write(nodes: Vec<Client>, writer: usize, over: Arc<AtomicBool>) -> Result<Seen> {
    let place = TablePath::pos(BRANCH, "dining_tables");
    let mut seen = Seen::default();
    let text = "x".repeat(RECORD_BYTES);
    for n in writer.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let record =
            json!({ "record": { "id": format!("full-{writer}-{}", n % 10), "name": text } });
        let (began, node) = (Instant::now(), &nodes[n % nodes.len()]);
        let reply = node.send_json("PUT", &place.path(), None, &record).await;
        if reply.is_ok_and(|reply| reply.ok().is_ok()) {
            seen.acknowledged += 1;
        } else {
            seen.failed += 1;
        }
        seen.longest = seen.longest.max(began.elapsed());
    }
    Ok(seen)
}

/// Waits until the branch is led by a node that meets the condition, as another node sees it.
async fn led_by(
    cluster: &ProcessCluster,
    asked: u64,
    is_it: impl Fn(u64) -> bool,
) -> Option<Duration> {
    let began = Instant::now();
    while began.elapsed() < WAIT_MAX {
        let status = cluster.status(asked).await.ok();
        if status.and_then(|status| status.leader_of(BRANCH, "pos")).is_some_and(&is_it) {
            return Some(began.elapsed());
        }
        sleep(Duration::from_millis(100)).await;
    }
    None
}

/// Whether a node says in `/readyz?verbose` that it should not lead.
async fn says_unfit(node: &Client) -> bool {
    let asked = async {
        let ready = node.get("/readyz?verbose").await?.ok()?;
        let unfit = ready["unfit"].as_object().context("it says nothing of it")?;
        anyhow::Ok(unfit.contains_key("disk-full"))
    };
    asked.await.unwrap_or(false)
}
