//! Resume: a subscriber that loses its connection again and again and goes on at another node with
//! its cursor, while orders are written and leaders are killed. Every event must come once, in
//! order, and without a snapshot unless the node says `resync`.
//!
//! `--connections N` (300), `--rate N` (200 writes a second), `--kills N` (5), `--seed N` (1).
#![allow(clippy::print_stdout, reason = "a drill prints what it measured")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use history::LogPosition;
use serde_json::json;
use tests::client::Client;
use tests::drill::DrillOptions;
use tests::process_cluster::ProcessCluster;
use tests::recording::{ClientRecording, SubscriberRecorder};
use tests::session::ClientSession;
use tests::writer::OrderWriter;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, sleep, timeout};

/// Writers that share the rate.
const WRITERS: u64 = 8;
/// How long the subscriber waits for one more frame before it checks whether its stay is over.
const READ_TIMEOUT: Duration = Duration::from_millis(20);
/// How long the last events may take to come.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> Result<()> {
    let options = DrillOptions::of_this_program(&["--connections", "--rate", "--kills", "--seed"])?;
    let connections: u64 = options.value("--connections", 300)?;
    let rate: u64 = options.value("--rate", 200)?;
    let kills: u64 = options.value("--kills", 5)?;
    let mut rng = SeededRng(options.value("--seed", 1)?);

    let mut cluster = ProcessCluster::start(3).await?;
    cluster.keep_quiet();
    cluster.leaders_return().await?;
    let mut subscriber = ResumingSubscriber::begin(&cluster).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let writing = write(&cluster, rate, &stop);

    let mut down = None;
    let mut turn = 0;
    while subscriber.connections < connections {
        turn += 1;
        let kill_now = kills > 0 && turn % (connections / kills).max(1) == 0;
        if kill_now {
            if let Some(node) = down.take() {
                cluster.restart(node).await?;
            }
            let asked = cluster.ids()[0];
            let leader = cluster.leader(asked, "dar", "pos").await?;
            cluster.kill(leader)?;
            down = Some(leader);
            println!(
                "{turn:>4}  killed node {leader}, which led; {} events",
                subscriber.recorder.events()
            );
        }
        let node = cluster.ids()[rng.below(3)];
        let stay = Duration::from_millis(rng.below(120) as u64);
        if Some(node) != down {
            subscriber.connect(&cluster, node, stay).await?;
        } else if let Some(node) = down.take_if(|_| rng.below(10) == 0) {
            cluster.restart(node).await?;
        }
    }
    stop.store(true, Ordering::Release);
    let mut recording = ClientRecording::default();
    for task in writing {
        recording.extend(task.await??);
    }
    if let Some(node) = down {
        cluster.restart(node).await?;
    }
    subscriber.finish(&cluster, recording.acknowledged()).await?;
    let (connections, events) = (subscriber.connections, subscriber.recorder.events());
    recording.extend(subscriber.recorder.finish());
    let verdicts = recording.judge("dar", &cluster.clients(&cluster.ids())).await?;
    println!("connections {connections}, events {events}; {verdicts}");
    ensure!(verdicts.hold(), "something is wrong: see above");
    Ok(())
}

/// Writes at a rate until stopped; each task gives what it recorded.
fn write(
    cluster: &ProcessCluster,
    rate: u64,
    stop: &Arc<AtomicBool>,
) -> Vec<JoinHandle<Result<ClientRecording>>> {
    let writer = |n: u64| {
        let mut nodes: Vec<Client> = cluster.clients(&cluster.ids());
        nodes.rotate_left(usize::try_from(n % 3).expect("less than three"));
        let mut writer = OrderWriter::new(&format!("resume-{n}"), "dar", nodes);
        let (stop, every) = (Arc::clone(stop), Duration::from_micros(1_000_000 * WRITERS / rate));
        tokio::spawn(async move {
            let mut ticks = interval(every);
            while !stop.load(Ordering::Acquire) {
                ticks.tick().await;
                writer.write().await?;
            }
            Ok(writer.recording)
        })
    };
    (0..WRITERS).map(writer).collect()
}

/// Pseudo-random numbers, the same for one seed.
struct SeededRng(u64);

impl SeededRng {
    fn below(&mut self, end: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % end
    }
}

/// A subscriber that goes on at any node after the cursor up to which it has received the log.
struct ResumingSubscriber {
    recorder: SubscriberRecorder,
    cursor: LogPosition,
    connections: u64,
}

impl ResumingSubscriber {
    async fn begin(cluster: &ProcessCluster) -> Result<Self> {
        let node = cluster.ids()[0];
        let (_, snapshot) = ClientSession::enter(cluster.http(node), "dar").await?;
        let mut recorder = SubscriberRecorder::new(1, "dar");
        recorder.connected(node);
        let cursor = recorder.receive(&snapshot).context("a snapshot has a cursor")?;
        Ok(Self { recorder, cursor, connections: 0 })
    }

    /// Goes on at a node for a while.
    async fn connect(&mut self, cluster: &ProcessCluster, node: u64, stay: Duration) -> Result<()> {
        // A node that is just starting does not listen yet: no connection, nothing to judge.
        let Ok(mut session) = ClientSession::open(cluster.http(node)).await else { return Ok(()) };
        self.connections += 1;
        self.recorder.connected(node);
        let cursor = json!({ "epoch": self.cursor.epoch, "sequence": self.cursor.sequence });
        let hello =
            json!({ "type": "client:hello", "branchId": "dar", "resume": { "pos": cursor } });
        if session.send(&hello).await.is_err() {
            return Ok(());
        }
        let until = Instant::now() + stay;
        while Instant::now() < until {
            match timeout(READ_TIMEOUT, session.next()).await {
                Ok(Ok(frame)) => {
                    if let Some(cursor) = self.recorder.receive(&frame) {
                        self.cursor = cursor;
                    }
                }
                Ok(Err(_)) => return Ok(()), // The node died; go on elsewhere.
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Receives the rest, until every acknowledged write has come as an event.
    async fn finish(&mut self, cluster: &ProcessCluster, acknowledged: usize) -> Result<()> {
        let end = Instant::now() + DRAIN_TIMEOUT;
        while self.recorder.events() < acknowledged {
            let events = self.recorder.events();
            ensure!(Instant::now() < end, "{events} events of {acknowledged} came");
            self.connect(cluster, cluster.ids()[0], Duration::from_millis(500)).await?;
            sleep(READ_TIMEOUT).await;
        }
        Ok(())
    }
}
