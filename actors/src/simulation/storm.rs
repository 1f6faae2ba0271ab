//! Storm: one run: the cluster forms, clients work while faults strike, all is healed, and what is
//! left is judged.

use std::sync::Arc;
use std::time::Duration;

use model::NodeId;
use parking_lot::Mutex;
use raft::disk::{BitFlip, CrashKind, DamageTarget, DiskFaults, flip_bit};
use raft::simulated::Rng;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::fleet::{Fatality, Fleet};
use super::network::USUAL;
use super::oracle;
use super::schedule::{Fault, NODES, PARTITIONS, Strike, Victim, schedule};
use super::workload::{Act, BRANCHES, CLIENTS, Clients, Known, Memory};
use super::{Plan, Report};
use crate::Store;

/// How long a formed cluster may take to be whole again once nothing is wrong any more.
const HEALED_WITHIN: Duration = Duration::from_secs(60);
/// How long replicas may take to start before it is said that they refuse to.
const MENDED_AFTER: Duration = Duration::from_secs(5);
/// How long clients wait for the cluster to form before they begin.
const FORMED_WITHIN: Duration = Duration::from_secs(3);
/// How long a process that ended by itself stays down.
const RESTART: Duration = Duration::from_millis(700);
/// Logs that may end before one is buried.
const FATALITIES: usize = 64;
/// Pause of whoever waits for something.
const LOOK: Duration = Duration::from_millis(50);

/// What the tasks of a run share.
struct Storm {
    fleet: Arc<Fleet>,
    began: Instant,
    report: Mutex<Report>,
    dice: Mutex<Rng>,
    /// Bits that are turned over, by node.
    flipped: Mutex<Vec<(u64, BitFlip)>>,
}

/// Runs a plan where virtual time is current.
pub(super) async fn run(plan: Plan) -> std::io::Result<Report> {
    let (fatal, ends) = mpsc::channel(FATALITIES);
    let fleet = Arc::new(Fleet::new(plan, fatal)?);
    let began = Instant::now();
    let storm = Arc::new(Storm {
        fleet: fleet.clone(),
        began,
        report: Mutex::default(),
        dice: Mutex::new(Rng(plan.seed ^ 0x570E)),
        flipped: Mutex::default(),
    });
    for node in 1..=NODES {
        storm.bring_up(node).await;
    }
    tokio::spawn(storm.clone().bury(ends));
    let clients = Arc::new(Clients { fleet, memory: Mutex::default(), began });
    if plan.faults {
        tokio::spawn(storm.clone().follow(schedule(plan.seed, plan.length)));
    }
    storm.formed().await;
    let working: Vec<_> = (1..=CLIENTS)
        .map(|client| tokio::spawn(clients.clone().run(client, plan.seed, plan.length)))
        .collect();
    for work in working {
        if let Err(error) = work.await {
            storm.wrong(format!("a client failed: {error}"));
        }
    }
    tokio::time::sleep_until(began + plan.length).await;
    storm.heal_and_judge(&clients).await;
    let report = storm.finish(&clients.memory.lock());
    storm.fleet.shut().await;
    Ok(report)
}

impl Storm {
    fn tell(&self, words: String) {
        let words = words.replace(&self.fleet.room.display_path(), "");
        let at = self.began.elapsed();
        self.report.lock().story.push((at, words));
    }

    fn wrong(&self, words: String) {
        self.tell(format!("WRONG: {words}"));
        self.report.lock().violations.push(words);
    }

    /// Waits until something holds; `false`: it did not in time.
    async fn until(&self, within: Duration, mut holds: impl FnMut() -> bool) -> bool {
        let deadline = Instant::now() + within;
        while !holds() {
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(LOOK).await;
        }
        true
    }

    /// Strikes when it is time to.
    async fn follow(self: Arc<Self>, strikes: Vec<Strike>) {
        for strike in strikes {
            tokio::time::sleep_until(self.began + strike.at).await;
            tokio::spawn(self.clone().strike(strike));
        }
    }

    async fn formed(&self) {
        let fleet = &self.fleet;
        let ready =
            || (1..=NODES).all(|id| fleet.router(id).is_some_and(|router| router.ready().is_ok()));
        if self.until(FORMED_WITHIN, ready).await {
            self.tell("the cluster has formed".into());
        }
    }

    /// Starts a node. What it refuses because of a bit turned over is turned back first.
    async fn bring_up(&self, node: u64) {
        for _ in 0..3 {
            let Err(reason) = self.fleet.start(node).await else {
                self.tell(format!("node {node} runs"));
                return;
            };
            self.tell(format!("node {node} refuses to start: {reason}"));
            self.report.lock().refusals += 1;
            let mut flipped = self.flipped.lock();
            let mine = flipped.iter().position(|(whose, _)| *whose == node);
            match mine.map(|place| flipped.swap_remove(place)) {
                Some((_, bit)) => self.turn_back(node, &bit),
                None => {
                    drop(flipped);
                    self.wrong(format!("node {node} refuses to start: {reason}"));
                    return;
                }
            }
        }
    }

    /// Ends nodes whose log cannot go on, as their processes would, and starts them again.
    async fn bury(self: Arc<Self>, mut ends: mpsc::Receiver<Fatality>) {
        while let Some((node, life, reason)) = ends.recv().await {
            if self.fleet.life(node) != life {
                continue;
            }
            self.tell(format!("node {node} ends: {reason}"));
            // What stands on a disk whose sync failed is as unknown as after a loss of power.
            if self.end(node, CrashKind::PowerLoss) {
                let storm = self.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(RESTART).await;
                    storm.bring_up(node).await;
                });
            }
        }
    }

    /// Ends a node's life; whether it ran.
    fn end(&self, node: u64, ending: CrashKind) -> bool {
        match self.fleet.end(node, ending) {
            Ok(dir) => {
                let ended = dir.is_some();
                self.report.lock().lives += u64::from(ended);
                ended
            }
            Err(error) => {
                self.wrong(format!("the simulated disk of node {node} failed: {error}"));
                false
            }
        }
    }

    fn who(&self, victim: Victim) -> u64 {
        match victim {
            Victim::Node(node) => node,
            Victim::Leader(group) => self.fleet.leader(group).unwrap_or(1),
        }
    }

    /// Whether the node it is meant for runs.
    fn strikes_somebody(&self, fault: Fault) -> bool {
        let up = self.fleet.up();
        match fault {
            Fault::Kill(victim)
            | Fault::Power(victim)
            | Fault::Torn(victim, _)
            | Fault::Flip(victim, _)
            | Fault::StoreGone(victim)
            | Fault::Isolate(victim)
            | Fault::Full(victim)
            | Fault::DiskFails(victim)
            | Fault::SlowDisk(victim, _) => up.contains(&self.who(victim)),
            Fault::PowerAll => !up.is_empty(),
            Fault::OneWay(..) | Fault::Late(_) | Fault::Lossy(_) => true,
        }
    }

    async fn strike(self: Arc<Self>, strike: Strike) {
        if !self.strikes_somebody(strike.fault) {
            return self.tell(format!("strikes nobody: {strike}"));
        }
        *self.report.lock().faults.entry(strike.fault.kind()).or_default() += 1;
        self.tell(format!("{strike}"));
        match strike.fault {
            Fault::Kill(victim) => self.down(&[self.who(victim)], CrashKind::Kill, strike).await,
            Fault::Power(victim) | Fault::Flip(victim, _) | Fault::StoreGone(victim) => {
                self.down(&[self.who(victim)], CrashKind::PowerLoss, strike).await;
            }
            Fault::PowerAll => self.down(&[1, 2, 3], CrashKind::PowerLoss, strike).await,
            Fault::Torn(victim, calls) => {
                self.fleet.with(self.who(victim), |up| up.disk.lose_power_after(calls));
            }
            Fault::DiskFails(victim) => {
                let (writes, node) = (strike.lasts.as_millis().is_multiple_of(2), self.who(victim));
                self.fleet.fail(
                    node,
                    DiskFaults { write_errors: writes, sync_errors: !writes, ..self.fleet.sound() },
                );
            }
            Fault::Full(victim) => {
                let node = self.who(victim);
                self.fleet.fail(node, DiskFaults { full: true, ..self.fleet.sound() });
                tokio::time::sleep(strike.lasts).await;
                self.fleet.fail(node, self.fleet.sound());
            }
            Fault::SlowDisk(victim, most) => {
                let node = self.who(victim);
                self.fleet.pace(node, most);
                tokio::time::sleep(strike.lasts).await;
                self.fleet.pace(node, 3);
            }
            Fault::Isolate(victim) => {
                let node = self.who(victim);
                let others = (1..=NODES).filter(|other| *other != node);
                let pairs = others.flat_map(|other| [(node, other), (other, node)]).collect();
                self.cut(node, pairs, strike.lasts).await;
            }
            Fault::OneWay(from, to) => self.cut(from, vec![(from, to)], strike.lasts).await,
            Fault::Late(most) => {
                self.fleet.wires.delay((USUAL.0, Duration::from_millis(most)));
                tokio::time::sleep(strike.lasts).await;
                self.fleet.wires.delay(USUAL);
            }
            Fault::Lossy(per_mille) => {
                self.fleet.wires.lose(per_mille);
                tokio::time::sleep(strike.lasts).await;
                self.fleet.wires.lose(0);
            }
        }
    }

    /// Ends nodes together, does to their files what the fault says, and starts them again.
    async fn down(&self, nodes: &[u64], ending: CrashKind, strike: Strike) {
        let ended: Vec<u64> =
            nodes.iter().copied().filter(|node| self.end(*node, ending)).collect();
        for &node in &ended {
            let Some(dir) = self.fleet.dir(node) else { continue };
            match strike.fault {
                Fault::Flip(_, kept) => self.turn_a_bit(node, &dir, kept),
                Fault::StoreGone(_) => self.fleet.room.remove(&dir.join("store")),
                Fault::Kill(_)
                | Fault::Power(_)
                | Fault::PowerAll
                | Fault::Torn(..)
                | Fault::Isolate(_)
                | Fault::OneWay(..)
                | Fault::Late(_)
                | Fault::Lossy(_)
                | Fault::Full(_)
                | Fault::DiskFails(_)
                | Fault::SlowDisk(..) => {}
            }
        }
        tokio::time::sleep(strike.lasts).await;
        for node in ended {
            self.bring_up(node).await;
        }
    }

    fn turn_a_bit(&self, node: u64, dir: &std::path::Path, kept: DamageTarget) {
        match flip_bit(dir, kept, &mut self.dice.lock()) {
            Ok(Some(flipped)) => {
                self.tell(format!("node {node}: a bit turns over: {flipped:?}"));
                self.flipped.lock().push((node, flipped));
            }
            Ok(None) => self.tell(format!("node {node} keeps nothing of {kept:?} yet")),
            Err(error) => self.wrong(format!("no bit of node {node} could be turned: {error}")),
        }
    }

    fn turn_back(&self, node: u64, bit: &BitFlip) {
        let Some(dir) = self.fleet.dir(node) else { return };
        if let Err(error) = bit.revert(&dir) {
            self.tell(format!("node {node}: {bit:?} is no more: {error}"));
        }
    }

    /// A replica that refuses what it keeps stays away while its node runs. Once all else is well,
    /// what was turned over on its disk is turned back, as an operator would bring a good copy.
    async fn mend_disks(&self) {
        let flipped = std::mem::take(&mut *self.flipped.lock());
        for (node, bit) in flipped {
            let groups = self.fleet.with(node, |up| up.groups.all().len()).unwrap_or(0);
            if groups > usize::from(PARTITIONS) {
                continue;
            }
            self.tell(format!("node {node} serves {groups} groups only; {bit:?} is turned back"));
            self.report.lock().refusals += 1;
            self.end(node, CrashKind::Kill);
            self.turn_back(node, &bit);
            self.bring_up(node).await;
        }
    }

    async fn cut(&self, node: u64, pairs: Vec<(u64, u64)>, lasts: Duration) {
        for (from, to) in &pairs {
            self.fleet.wires.cut(NodeId(*from), NodeId(*to));
        }
        self.fleet.notice_links(node);
        tokio::time::sleep(lasts).await;
        for (from, to) in &pairs {
            self.fleet.wires.heal(NodeId(*from), NodeId(*to));
        }
        self.fleet.notice_links(node);
    }

    /// Undoes every fault, then demands that the cluster is whole again, and judges.
    async fn heal_and_judge(&self, clients: &Clients) {
        self.tell("everything is healed".into());
        // Faults that still last end by themselves within this time.
        let healing = Instant::now();
        let mut whole = false;
        while healing.elapsed() < HEALED_WITHIN && !whole {
            self.heal().await;
            if healing.elapsed() > MENDED_AFTER {
                self.mend_disks().await;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            whole = self.alive(clients).await;
        }
        self.report.lock().healed_after = healing.elapsed();
        if !whole {
            self.wrong(format!("liveness: {}", self.what_is_missing()));
        }
        match oracle::held(&self.fleet).await {
            Ok(held) => {
                for wrong in oracle::judge(&clients.memory.lock(), &held) {
                    self.wrong(wrong);
                }
            }
            Err(reason) => self.wrong(format!("liveness: {reason}")),
        }
    }

    async fn heal(&self) {
        for (from, to) in self.fleet.wires.cut_off() {
            self.fleet.wires.heal(from, to);
        }
        self.fleet.wires.delay(USUAL);
        self.fleet.wires.lose(0);
        let up = self.fleet.up();
        for node in 1..=NODES {
            self.fleet.fail(node, self.fleet.sound());
            self.fleet.pace(node, 3);
            self.fleet.notice_links(node);
            if !up.contains(&node) {
                self.bring_up(node).await;
            }
        }
    }

    /// Whether every node takes a fresh write and read for every branch, and replicas are equal.
    async fn alive(&self, clients: &Clients) -> bool {
        // Each round asks under ids of its own.
        let mut dice = Rng(self.dice.lock().next_u64());
        for node in 1..=NODES {
            for branch in BRANCHES {
                let name = format!("last-{node}-{branch}-{}", dice.next_u64());
                clients.write(&mut dice, name.clone(), branch, Act::Note, node).await;
                if !clients.is_done(&name) || !clients.read_head(branch, node).await {
                    return false;
                }
            }
        }
        self.until(Duration::from_secs(10), || self.equal()).await
    }

    fn equal(&self) -> bool {
        (0..=PARTITIONS).all(|group| {
            let at = |node| {
                let group = raft::GroupId(group);
                self.fleet.with(node, |up| Some(up.groups.get(group)?.status().applied)).flatten()
            };
            let first = at(1);
            first.is_some() && (2..=NODES).all(|node| at(node) == first)
        })
    }

    fn what_is_missing(&self) -> String {
        let mut words = Vec::new();
        for node in 1..=NODES {
            let Some(router) = self.fleet.router(node) else {
                words.push(format!("node {node} does not run"));
                continue;
            };
            if let Err(reason) = router.ready() {
                words.push(format!("node {node}: {reason}"));
            }
            self.fleet.with(node, |up| {
                for (id, group) in up.groups.all() {
                    let status = group.status();
                    words.push(format!(
                        "node {node} group {id}: term {} leader {:?} log {} committed {} \
                         applied {} stopped {:?}",
                        status.term,
                        status.leader,
                        status.last_log,
                        status.committed,
                        status.applied,
                        status.stopped
                    ));
                }
            });
        }
        words.join("; ")
    }

    fn finish(&self, memory: &Memory) -> Report {
        let mut report = std::mem::take(&mut *self.report.lock());
        for op in &memory.ops {
            match op.known {
                Known::Done(_) => report.acknowledged += 1,
                Known::Refused(_) => report.refused += 1,
                Known::Unknown => report.unknown += 1,
            }
        }
        report.reads = memory.reads;
        for op in &memory.ops {
            let words = format!("{} {:?} {:?}", op.id.request, op.attempts, op.known);
            report.steps.push((op.completed, words));
        }
        report.steps.extend(report.story.iter().cloned());
        report.steps.sort();
        for node in 1..=NODES {
            self.fleet.with(node, |up| {
                for group in up.groups.all().into_values() {
                    report.purged += u64::from(group.status().purged > 0);
                }
            });
        }
        report.messages = self.fleet.wires.counts();
        report.virtual_time = self.began.elapsed();
        report
    }
}
