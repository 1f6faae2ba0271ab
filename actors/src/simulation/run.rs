//! Run: one simulated run: the cluster forms, clients work while faults are injected, every fault
//! is healed, and the recorded history is checked.

use std::sync::Arc;
use std::time::Duration;

use history::checker::all_checkers;
use history::{Completion, History, Operation};
use model::NodeId;
use parking_lot::Mutex;
use raft::disk::{BitFlip, CrashKind, DamageTarget, DiskFaults, flip_bit};
use raft::simulated::Rng;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::cluster::{DISK_LATENCY_MS, LogFailure, SimulatedCluster};
use super::collect;
use super::network::USUAL_LATENCY;
use super::schedule::{NODES, NodeSelector, PARTITIONS, ScheduledFault, SimulatedFault, schedule};
use super::workload::{BRANCHES, CLIENTS, SimulatedClient, SimulatedClients, catalogue};
use super::{SimulationConfig, SimulationReport};
use crate::Store;

/// How long a formed cluster may take to be whole again once no fault is injected any more.
const HEALED_WITHIN: Duration = Duration::from_secs(60);
/// How long replicas may take to start before the run repairs a disk that they refuse.
const REPAIRED_AFTER: Duration = Duration::from_secs(5);
/// How long clients wait for the cluster to form before they begin.
const FORMED_WITHIN: Duration = Duration::from_secs(3);
/// How long a process that exited by itself stays down.
const RESTART_DELAY: Duration = Duration::from_millis(700);
/// Logs that may fail before the first of them is handled.
const LOG_FAILURES: usize = 64;
/// The pause between two polls of a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// What the tasks of a run share.
struct SimulatedRun {
    cluster: Arc<SimulatedCluster>,
    started: Instant,
    report: Mutex<SimulationReport>,
    rng: Mutex<Rng>,
    /// Bits that are flipped on a disk, by node.
    flipped: Mutex<Vec<(u64, BitFlip)>>,
}

/// Runs a configuration where virtual time is current.
pub(super) async fn run(config: SimulationConfig) -> std::io::Result<SimulationReport> {
    let (sender, log_failures) = mpsc::channel(LOG_FAILURES);
    let cluster = Arc::new(SimulatedCluster::new(config, catalogue(), sender)?);
    let started = Instant::now();
    let run = Arc::new(SimulatedRun {
        cluster: cluster.clone(),
        started,
        report: Mutex::default(),
        rng: Mutex::new(Rng(config.seed ^ 0x570E)),
        flipped: Mutex::default(),
    });
    for node in 1..=NODES {
        run.start_node(node).await;
    }
    tokio::spawn(run.clone().handle_log_failures(log_failures));
    let clients = Arc::new(SimulatedClients::new(cluster, started));
    if config.faults {
        tokio::spawn(run.clone().inject_all(schedule(config.seed, config.length)));
    }
    run.wait_until_formed().await;
    let tasks: Vec<_> = (1..=CLIENTS)
        .map(|client| tokio::spawn(clients.clone().run(client, config.seed, config.length)))
        .collect();
    for task in tasks {
        if let Err(error) = task.await {
            run.violation(format!("a client failed: {error}"));
        }
    }
    tokio::time::sleep_until(started + config.length).await;
    run.heal_and_wait(&clients).await;
    let mut history = History { operations: clients.operations(), ..History::default() };
    match collect::collect(&run.cluster, &mut history).await {
        Ok(()) => {
            run.check(&history);
            run.check_stamps().await;
        }
        Err(reason) => run.violation(format!("liveness: {reason}")),
    }
    let report = run.finish(&history.operations);
    run.cluster.stop_all().await;
    Ok(report)
}

impl SimulatedRun {
    fn log(&self, message: String) {
        // Without the folder's name, which differs from run to run.
        let message = message.replace(&self.cluster.root.display_path(), "");
        let at = self.started.elapsed();
        self.report.lock().events.push((at, message));
    }

    fn violation(&self, message: String) {
        self.log(format!("WRONG: {message}"));
        self.report.lock().violations.push(message);
    }

    /// Judges the history by every property.
    fn check(&self, history: &History) {
        for check in all_checkers() {
            let verdict = check(history);
            self.report.lock().checked.insert(verdict.property, verdict.checked);
            for detail in verdict.details {
                self.violation(format!("{}: {detail}", verdict.property));
            }
        }
    }

    /// Whatever the clocks of nodes showed, no event may be stamped with a time that was not.
    async fn check_stamps(&self) {
        let now = raft::simulated::wall_millis().unwrap_or_default().cast_signed();
        match collect::last_stamps(&self.cluster).await {
            Ok(stamps) => {
                for (branch, at) in stamps.into_iter().filter(|(_, at)| *at > now + 60_000) {
                    self.violation(format!("stamps: {branch} is {} s ahead", (at - now) / 1000));
                }
            }
            Err(reason) => self.violation(format!("liveness: {reason}")),
        }
    }

    /// Waits until a condition holds; `false`: it did not in time.
    async fn until(&self, timeout: Duration, mut condition: impl FnMut() -> bool) -> bool {
        let deadline = Instant::now() + timeout;
        while !condition() {
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        true
    }

    /// Injects each fault at its time.
    async fn inject_all(self: Arc<Self>, faults: Vec<ScheduledFault>) {
        for fault in faults {
            tokio::time::sleep_until(self.started + fault.at).await;
            // A task of its own: faults overlap.
            tokio::spawn(self.clone().inject(fault));
        }
    }

    async fn wait_until_formed(&self) {
        let cluster = &self.cluster;
        let ready = |id| cluster.store(id).is_some_and(|store| store.ready().is_ok());
        if self.until(FORMED_WITHIN, || (1..=NODES).all(ready)).await {
            self.log("the cluster has formed".into());
        }
    }

    /// Starts a node. If it refuses its disk because of a flipped bit, that bit is restored first.
    async fn start_node(&self, node: u64) {
        // One disk may hold several flipped bits, and the node names one at a time.
        for _ in 0..3 {
            let Err(reason) = self.cluster.start(node).await else {
                self.log(format!("node {node} runs"));
                return;
            };
            self.log(format!("node {node} refuses to start: {reason}"));
            self.report.lock().refusals += 1;
            let mut flipped = self.flipped.lock();
            let own = flipped.iter().position(|(id, _)| *id == node);
            match own.map(|index| flipped.swap_remove(index)) {
                Some((_, bit)) => self.restore_bit(node, &bit),
                None => {
                    drop(flipped);
                    self.violation(format!("node {node} refuses to start: {reason}"));
                    return;
                }
            }
        }
    }

    /// Crashes nodes whose log cannot go on, as their processes would, and starts them again.
    async fn handle_log_failures(self: Arc<Self>, mut failures: mpsc::Receiver<LogFailure>) {
        while let Some((node, incarnation, reason)) = failures.recv().await {
            // Another fault may have crashed that incarnation already.
            if self.cluster.incarnation(node) != incarnation {
                continue;
            }
            self.log(format!("node {node} ends: {reason}"));
            // What is on a disk whose sync failed is as unknown as after a loss of power.
            if self.crash(node, CrashKind::PowerLoss) {
                let run = self.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(RESTART_DELAY).await;
                    run.start_node(node).await;
                });
            }
        }
    }

    /// Crashes a node; whether it ran.
    fn crash(&self, node: u64, kind: CrashKind) -> bool {
        match self.cluster.crash(node, kind) {
            Ok(dir) => {
                let did_run = dir.is_some();
                self.report.lock().crashes += u64::from(did_run);
                did_run
            }
            Err(error) => {
                self.violation(format!("the simulated disk of node {node} failed: {error}"));
                false
            }
        }
    }

    fn node(&self, selector: NodeSelector) -> u64 {
        match selector {
            NodeSelector::Node(node) => node,
            NodeSelector::Leader(group) => self.cluster.leader(group).unwrap_or(1),
        }
    }

    /// Whether the node that a fault is for runs.
    fn has_target(&self, fault: SimulatedFault) -> bool {
        let running = self.cluster.running_nodes();
        match fault {
            SimulatedFault::Kill(node)
            | SimulatedFault::PowerLoss(node)
            | SimulatedFault::TornWrite(node, _)
            | SimulatedFault::BitFlip(node, _)
            | SimulatedFault::StoreRemoved(node)
            | SimulatedFault::Isolate(node)
            | SimulatedFault::DiskFull(node)
            | SimulatedFault::DiskError(node)
            | SimulatedFault::ClockLeap(node, _)
            | SimulatedFault::SlowDisk(node, _) => running.contains(&self.node(node)),
            SimulatedFault::PowerLossAll => !running.is_empty(),
            SimulatedFault::OneWay(..) | SimulatedFault::Latency(_) | SimulatedFault::Loss(_) => {
                true
            }
        }
    }

    /// Injects a fault and heals it after its duration.
    async fn inject(self: Arc<Self>, fault: ScheduledFault) {
        if !self.has_target(fault.fault) {
            return self.log(format!("no node for: {fault}"));
        }
        *self.report.lock().faults.entry(fault.fault.kind()).or_default() += 1;
        self.log(format!("{fault}"));
        match fault.fault {
            SimulatedFault::Kill(node) => {
                self.crash_for_a_while(&[self.node(node)], CrashKind::Kill, fault).await;
            }
            SimulatedFault::PowerLoss(node)
            | SimulatedFault::BitFlip(node, _)
            | SimulatedFault::StoreRemoved(node) => {
                self.crash_for_a_while(&[self.node(node)], CrashKind::PowerLoss, fault).await;
            }
            SimulatedFault::PowerLossAll => {
                self.crash_for_a_while(&[1, 2, 3], CrashKind::PowerLoss, fault).await;
            }
            SimulatedFault::TornWrite(node, calls) => {
                self.cluster.with_node(self.node(node), |it| it.disk.lose_power_after(calls));
            }
            SimulatedFault::DiskError(node)
            | SimulatedFault::DiskFull(node)
            | SimulatedFault::SlowDisk(node, _) => {
                // Now: who leads may change while the fault lasts, and it is healed where it was
                // injected.
                self.inject_into_disk(self.node(node), fault).await;
            }
            SimulatedFault::ClockLeap(node, skew_ms) => {
                let node = self.node(node);
                self.cluster.set_clock_skew(node, skew_ms);
                tokio::time::sleep(fault.duration).await;
                self.cluster.set_clock_skew(node, 0);
            }
            SimulatedFault::Isolate(node) => {
                let node = self.node(node);
                let others = (1..=NODES).filter(|other| *other != node);
                let pairs = others.flat_map(|other| [(node, other), (other, node)]).collect();
                self.cut(node, pairs, fault.duration).await;
            }
            SimulatedFault::OneWay(from, to) => {
                self.cut(from, vec![(from, to)], fault.duration).await;
            }
            SimulatedFault::Latency(longest) => {
                let latency = (USUAL_LATENCY.0, Duration::from_millis(longest));
                self.cluster.network.set_latency(latency);
                tokio::time::sleep(fault.duration).await;
                self.cluster.network.set_latency(USUAL_LATENCY);
            }
            SimulatedFault::Loss(per_mille) => {
                self.cluster.network.set_loss(per_mille);
                tokio::time::sleep(fault.duration).await;
                self.cluster.network.set_loss(0);
            }
        }
    }

    async fn inject_into_disk(&self, node: u64, fault: ScheduledFault) {
        let cluster = &self.cluster;
        let no_fault = cluster.no_fault();
        if let SimulatedFault::SlowDisk(_, longest) = fault.fault {
            cluster.set_disk_latency(node, longest);
            tokio::time::sleep(fault.duration).await;
            cluster.set_disk_latency(node, DISK_LATENCY_MS);
        } else if let SimulatedFault::DiskFull(_) = fault.fault {
            cluster.set_disk_faults(node, DiskFaults { full: true, ..no_fault });
            tokio::time::sleep(fault.duration).await;
            cluster.set_disk_faults(node, no_fault);
        } else {
            // Not healed: the first error ends the process, and its next disk has no fault.
            let is_write = fault.duration.as_millis().is_multiple_of(2);
            let faults = DiskFaults { write_errors: is_write, sync_errors: !is_write, ..no_fault };
            cluster.set_disk_faults(node, faults);
        }
    }

    /// Crashes nodes together, changes their files as the fault demands, and starts them again.
    async fn crash_for_a_while(&self, nodes: &[u64], kind: CrashKind, fault: ScheduledFault) {
        let crashed: Vec<u64> =
            nodes.iter().copied().filter(|node| self.crash(*node, kind)).collect();
        for &node in &crashed {
            let Some(dir) = self.cluster.dir(node) else { continue };
            match fault.fault {
                SimulatedFault::BitFlip(_, target) => self.flip_bit(node, &dir, target),
                SimulatedFault::StoreRemoved(_) => self.cluster.root.remove(&dir.join("store")),
                SimulatedFault::Kill(_)
                | SimulatedFault::PowerLoss(_)
                | SimulatedFault::PowerLossAll
                | SimulatedFault::TornWrite(..)
                | SimulatedFault::Isolate(_)
                | SimulatedFault::OneWay(..)
                | SimulatedFault::Latency(_)
                | SimulatedFault::Loss(_)
                | SimulatedFault::DiskFull(_)
                | SimulatedFault::DiskError(_)
                | SimulatedFault::ClockLeap(..)
                | SimulatedFault::SlowDisk(..) => {}
            }
        }
        tokio::time::sleep(fault.duration).await;
        for node in crashed {
            self.start_node(node).await;
        }
    }

    fn flip_bit(&self, node: u64, dir: &std::path::Path, target: DamageTarget) {
        match flip_bit(dir, target, &mut self.rng.lock()) {
            Ok(Some(flipped)) => {
                self.log(format!("node {node}: a bit flips: {flipped:?}"));
                self.flipped.lock().push((node, flipped));
            }
            Ok(None) => self.log(format!("node {node} has nothing of {target:?} yet")),
            Err(error) => self.violation(format!("no bit of node {node} could flip: {error}")),
        }
    }

    fn restore_bit(&self, node: u64, bit: &BitFlip) {
        let Some(dir) = self.cluster.dir(node) else { return };
        if let Err(error) = bit.revert(&dir) {
            self.log(format!("node {node}: {bit:?} is no more: {error}"));
        }
    }

    /// A replica that refuses its files stays down while its node runs. Once everything else is
    /// healed, flipped bits are restored, as an operator would bring a good copy.
    async fn repair_disks(&self) {
        let flipped = std::mem::take(&mut *self.flipped.lock());
        for (node, bit) in flipped {
            let groups = self.cluster.with_node(node, |it| it.groups.all().len()).unwrap_or(0);
            // Group 0 too: a node with all its groups has read past the bit.
            if groups > usize::from(PARTITIONS) {
                continue;
            }
            self.log(format!("node {node} serves only {groups} groups; {bit:?} is restored"));
            self.report.lock().refusals += 1;
            self.crash(node, CrashKind::Kill);
            self.restore_bit(node, &bit);
            self.start_node(node).await;
        }
    }

    async fn cut(&self, node: u64, pairs: Vec<(u64, u64)>, duration: Duration) {
        for (from, to) in &pairs {
            self.cluster.network.cut(NodeId(*from), NodeId(*to));
        }
        self.cluster.report_links(node);
        tokio::time::sleep(duration).await;
        for (from, to) in &pairs {
            self.cluster.network.heal(NodeId(*from), NodeId(*to));
        }
        self.cluster.report_links(node);
    }

    /// Heals every fault, then requires that the cluster is whole again.
    async fn heal_and_wait(&self, clients: &SimulatedClients) {
        self.log("everything is healed".into());
        let started = Instant::now();
        let mut is_whole = false;
        // Again in each round: a fault that was scheduled before may still begin or end.
        while started.elapsed() < HEALED_WITHIN && !is_whole {
            self.heal().await;
            if started.elapsed() > REPAIRED_AFTER {
                self.repair_disks().await;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            is_whole = self.is_whole(clients).await;
        }
        self.report.lock().healed_after = started.elapsed();
        if !is_whole {
            self.violation(format!("liveness: {}", self.describe_nodes()));
        }
    }

    async fn heal(&self) {
        let cluster = &self.cluster;
        for (from, to) in cluster.network.cuts() {
            cluster.network.heal(from, to);
        }
        cluster.network.set_latency(USUAL_LATENCY);
        cluster.network.set_loss(0);
        let running = cluster.running_nodes();
        for node in 1..=NODES {
            cluster.set_disk_faults(node, cluster.no_fault());
            cluster.set_disk_latency(node, DISK_LATENCY_MS);
            cluster.set_clock_skew(node, 0);
            cluster.report_links(node);
            if !running.contains(&node) {
                self.start_node(node).await;
            }
        }
    }

    /// Whether every node takes a new write and read of every branch, and all replicas have applied
    /// the same.
    async fn is_whole(&self, clients: &SimulatedClients) -> bool {
        // Each round asks under ids of its own.
        let rng = Rng(self.rng.lock().next_u64());
        let mut client = SimulatedClient::new(0, rng);
        let round = self.started.elapsed().as_millis();
        for node in 1..=NODES {
            for branch in BRANCHES {
                let id = format!("last-{node}-{branch}-{round}");
                let is_written = clients.insert(&mut client, id, branch, node).await;
                if !is_written || !clients.read_head(&client, branch, node).await {
                    return false;
                }
            }
        }
        self.until(Duration::from_secs(10), || self.have_applied_the_same()).await
    }

    fn have_applied_the_same(&self) -> bool {
        (0..=PARTITIONS).all(|group| {
            let applied = |node| {
                let group = raft::GroupId(group);
                let applied =
                    self.cluster.with_node(node, |it| Some(it.groups.get(group)?.status().applied));
                applied.flatten()
            };
            let first = applied(1);
            first.is_some() && (2..=NODES).all(|node| applied(node) == first)
        })
    }

    /// The state of every node and group, for a cluster that is not whole.
    fn describe_nodes(&self) -> String {
        let mut lines = Vec::new();
        for node in 1..=NODES {
            let Some(store) = self.cluster.store(node) else {
                lines.push(format!("node {node} does not run"));
                continue;
            };
            if let Err(reason) = store.ready() {
                lines.push(format!("node {node}: {reason}"));
            }
            self.cluster.with_node(node, |it| {
                for (id, group) in it.groups.all() {
                    let status = group.status();
                    lines.push(format!(
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
        lines.join("; ")
    }

    fn finish(&self, operations: &[Operation]) -> SimulationReport {
        let mut report = std::mem::take(&mut *self.report.lock());
        for op in operations {
            let is_read = op.invocation.is_read();
            match op.completion {
                Completion::Ok(_) if is_read => report.reads += 1,
                Completion::Info { .. } if is_read => {}
                Completion::Ok(_) => report.acknowledged += 1,
                Completion::Fail { .. } => report.refused += 1,
                Completion::Info { .. } => report.unknown += 1,
            }
            let nodes: Vec<u64> = op.attempts.iter().map(|attempt| attempt.node).collect();
            let step = format!("{} {nodes:?} {:?}", op.id, op.completion);
            report.steps.push((Duration::from_micros(op.completed.0), step));
        }
        report.steps.extend(report.events.iter().cloned());
        report.steps.sort();
        for node in 1..=NODES {
            self.cluster.with_node(node, |it| {
                for group in it.groups.all().into_values() {
                    report.purged += u64::from(group.status().purged > 0);
                }
            });
        }
        report.messages = self.cluster.network.counts();
        report.virtual_time = self.started.elapsed();
        report
    }
}
