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
use serde_json::{Value, json};
use tests::client::Client;
use tests::drill::Options;
use tests::fleet::Fleet;
use tests::session::Session;
use tests::writer::Writer;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, sleep, timeout};

/// Writers that share the rate.
const WRITERS: u64 = 8;
/// How long the subscriber waits for one more frame before it looks at its watch again.
const GLANCE: Duration = Duration::from_millis(20);
/// How long the last events may take to come.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::of_this_program(&["--connections", "--rate", "--kills", "--seed"])?;
    let connections: u64 = options.value("--connections", 300)?;
    let rate: u64 = options.value("--rate", 200)?;
    let kills: u64 = options.value("--kills", 5)?;
    let mut chance = Chance(options.value("--seed", 1)?);

    let mut fleet = Fleet::start(3).await?;
    fleet.keep_quiet();
    fleet.leaders_return().await?;
    let mut subscriber = Subscriber::begin(&fleet).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let writing = write(&fleet, rate, &stop);

    let mut down = None;
    let mut turn = 0;
    while subscriber.connections < connections {
        turn += 1;
        let kill_now = kills > 0 && turn % (connections / kills).max(1) == 0;
        if kill_now {
            if let Some(node) = down.take() {
                fleet.restart(node).await?;
            }
            let asked = fleet.ids()[0];
            let leader = fleet.leader(asked, "dar", "pos").await?;
            fleet.kill(leader)?;
            down = Some(leader);
            println!("{turn:>4}  killed node {leader}, which led; {} events", subscriber.seen);
        }
        let node = fleet.ids()[chance.below(3)];
        let stay = Duration::from_millis(chance.below(120) as u64);
        if Some(node) != down {
            subscriber.connect(&fleet, node, stay).await?;
        } else if let Some(node) = down.take_if(|_| chance.below(10) == 0) {
            fleet.restart(node).await?;
        }
    }
    stop.store(true, Ordering::Release);
    let mut acked = 0;
    for task in writing {
        acked += task.await??;
    }
    if let Some(node) = down {
        fleet.restart(node).await?;
    }
    subscriber.finish(&fleet, acked).await?;
    println!(
        "connections {}, events {}, writes acknowledged {acked}, twice 0, missing 0, snapshots {}, \
         resyncs {}",
        subscriber.connections, subscriber.seen, subscriber.snapshots, subscriber.resyncs
    );
    ensure!(subscriber.snapshots == subscriber.resyncs, "a snapshot came that nobody announced");
    Ok(())
}

/// Writes at a rate until told to stop; each task gives the number of its acknowledged writes.
fn write(fleet: &Fleet, rate: u64, stop: &Arc<AtomicBool>) -> Vec<JoinHandle<Result<u64>>> {
    let writer = |n: u64| {
        let mut nodes: Vec<Client> = fleet.clients(&fleet.ids());
        nodes.rotate_left(usize::try_from(n % 3).expect("less than three"));
        let mut writer = Writer::new(&format!("resume-{n}"), "dar", nodes);
        let (stop, every) = (Arc::clone(stop), Duration::from_micros(1_000_000 * WRITERS / rate));
        tokio::spawn(async move {
            let (mut ticks, mut acked) = (interval(every), 0);
            while !stop.load(Ordering::Acquire) {
                ticks.tick().await;
                writer.write().await?;
                acked += 1;
            }
            Ok(acked)
        })
    };
    (0..WRITERS).map(writer).collect()
}

/// Numbers that look like chance, the same for one seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % end
    }
}

struct Subscriber {
    epoch: u64,
    /// The last event seen.
    sequence: u64,
    seen: u64,
    connections: u64,
    snapshots: u64,
    resyncs: u64,
}

impl Subscriber {
    async fn begin(fleet: &Fleet) -> Result<Self> {
        let (_, snapshot) = Session::enter(fleet.http(fleet.ids()[0]), "dar").await?;
        let cursor = &snapshot["cursors"]["pos"];
        let number = |name: &str| cursor[name].as_u64().context("a snapshot tells its cursors");
        Ok(Self {
            epoch: number("epoch")?,
            sequence: number("sequence")?,
            seen: 0,
            connections: 0,
            snapshots: 0,
            resyncs: 0,
        })
    }

    /// Goes on at a node for a while.
    async fn connect(&mut self, fleet: &Fleet, node: u64, stay: Duration) -> Result<()> {
        // A node that is just starting does not listen yet: no connection, nothing to judge.
        let Ok(mut session) = Session::open(fleet.http(node)).await else { return Ok(()) };
        self.connections += 1;
        let cursor = json!({ "epoch": self.epoch, "sequence": self.sequence });
        let hello =
            json!({ "type": "client:hello", "branchId": "dar", "resume": { "pos": cursor } });
        if session.send(&hello).await.is_err() {
            return Ok(());
        }
        let until = Instant::now() + stay;
        while Instant::now() < until {
            match timeout(GLANCE, session.next()).await {
                Ok(Ok(frame)) => self.take(&frame)?,
                Ok(Err(_)) => return Ok(()), // The node died; go on elsewhere.
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn take(&mut self, frame: &Value) -> Result<()> {
        match frame["type"].as_str() {
            Some("server:event") => {
                let sequence = frame["sequence"].as_u64().context("an event has a sequence")?;
                let last = self.sequence;
                ensure!(sequence == last + 1, "event {sequence} came after {last}");
                (self.sequence, self.seen) = (sequence, self.seen + 1);
            }
            Some("server:resync") => self.resyncs += 1,
            Some("server:snapshot") => {
                self.snapshots += 1;
                let cursor = &frame["cursors"]["pos"];
                self.epoch = cursor["epoch"].as_u64().context("an epoch")?;
                self.sequence = cursor["sequence"].as_u64().context("a sequence")?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Reads what is left, until every acknowledged write was seen.
    async fn finish(&mut self, fleet: &Fleet, acked: u64) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while self.seen < acked {
            ensure!(Instant::now() < end, "{} events of {acked} came", self.seen);
            self.connect(fleet, fleet.ids()[0], Duration::from_millis(500)).await?;
            sleep(GLANCE).await;
        }
        Ok(())
    }
}
