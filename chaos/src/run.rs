//! Run: one chaos run from beginning to end. It starts a test cluster and a workload, injects and
//! heals one fault after another, collects the history and lets the checkers judge it.
//!
//! Promise: the same seed and options inject the same faults in the same order. The run ends at the
//! first failure that no checker can see: a node that exited, or writes that did not resume.
//! Refused: a verdict without logs. A run that could not read them reports that failure instead.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::cluster::{ClusterConfig, TestCluster};
use crate::collect;
use crate::failure::{FailureKind, RunFailure};
use crate::nemesis::{self, FaultKind, FaultTarget, HOSTILE_CLIENT, InjectedFault};
use crate::probe::DiskProbe;
use crate::rng::Rng;
use crate::workload::{self, OperationCounts, Recording, RunningWorkload, WorkloadConfig};
use history::checker::{self, Verdict};
use history::{BranchModule, DiskStall, Fault, History, MonotonicTime, NodeId};

/// How long the workload runs before the first fault, so that every branch has a leader and a log.
const WARM_UP: Duration = Duration::from_secs(3);
/// How many writes must be acknowledged after a fault was healed.
const RESUMED_WRITES: u64 = 20;
/// How long they may take.
const RESUME_TIMEOUT: Duration = Duration::from_secs(30);
/// How long responses may be in flight when a fault begins. An isolated node may still deliver
/// them; only after this time must it be silent.
const IN_FLIGHT: Duration = Duration::from_millis(500);
/// How many of a hundred faults are combined with a second one.
const COMBINED_PERCENT: u64 = 25;
/// How long leaders may take to be the preferred ones before and after a hostile client alone.
const SETTLED_WITHIN: Duration = Duration::from_secs(15);

/// What a run does, and for how long.
#[derive(Debug)]
pub struct RunConfig {
    /// The nodes and their environment.
    pub cluster: ClusterConfig,
    /// How long faults are injected. The last one may end later.
    pub fault_phase: Duration,
    /// The kinds of faults. Each is injected once, in random order, before any is repeated.
    pub kinds: Vec<&'static FaultKind>,
    /// How many clients write.
    pub writers: u32,
    /// How many clients subscribe.
    pub subscribers: u32,
    /// How long a writer pauses after each operation.
    pub pause: Duration,
    /// The file for all operations; `None` keeps none.
    pub history_file: Option<PathBuf>,
}

/// What a run found: the verdicts, and all that the report shows beside them.
#[derive(Debug, Serialize)]
pub struct RunResult {
    /// One verdict for each property; empty where no log could be read.
    pub verdicts: Vec<Verdict>,
    /// The faults that were injected.
    pub faults: Vec<Fault>,
    /// The faults that could not be injected: the errors, by kind.
    #[serde(rename = "missed")]
    pub not_injected: BTreeMap<String, Vec<String>>,
    /// What the run measured.
    pub figures: Figures,
    /// Writes acknowledged in each second.
    #[serde(rename = "acked_each_second")]
    pub acknowledged_per_second: Vec<u64>,
    /// For each fault and branch, the longest time without an acknowledged write.
    pub gaps: Vec<checker::WriteGap>,
    /// When the disk that all nodes share stalled.
    pub stalls: Vec<DiskStall>,
    /// Why the disk probe ended early, if it did; later stalls are not known then.
    #[serde(rename = "unprobed")]
    pub probe_error: Option<String>,
    /// What went wrong that no property covers.
    #[serde(rename = "troubles")]
    pub failures: Vec<RunFailure>,
}

/// What the run measured.
#[derive(Debug, Default, Serialize)]
pub struct Figures {
    /// What the clients counted.
    #[serde(flatten)]
    pub counts: OperationCounts,
    /// Seconds from the first write to the last.
    pub seconds: u64,
    /// Processor time of all nodes, in milliseconds.
    pub cpu_ms: u64,
    /// How often a hostile client was the only fault, and elections meanwhile.
    pub hostile: HostileFigures,
    /// Disk space of all nodes at the end, in MiB, by subdirectory.
    pub disk_mib: BTreeMap<&'static str, u64>,
}

/// What was seen while a hostile client was the only fault.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct HostileFigures {
    /// How often that was.
    pub windows: u64,
    /// Elections in all partitions meanwhile.
    pub elections: u64,
}

/// The state of a run in progress.
#[derive(Debug)]
pub struct Progress<'a> {
    /// Time since the workload started.
    pub elapsed: Duration,
    /// Faults injected so far.
    pub faults: usize,
    /// The fault in effect, or `calm`.
    pub activity: &'a str,
    /// What the clients counted so far.
    pub counts: OperationCounts,
}

/// Runs a cluster under a workload and faults, and checks the history.
///
/// # Errors
/// The test cluster cannot be set up, or the history file cannot be written. Such an error says
/// nothing about the store.
pub async fn run(config: &RunConfig, on_progress: &dyn Fn(&Progress<'_>)) -> Result<RunResult> {
    let mut cluster = TestCluster::new(&config.cluster).context("setting up the test cluster")?;
    cluster.start_all(nemesis::RECOVERY_TIMEOUT).await.context("starting the nodes")?;
    let nodes: Vec<(NodeId, String)> =
        cluster.processes.iter().map(|process| (process.id, process.http.clone())).collect();
    workload::set_up(&nodes).await.context("setting up")?;
    let workload_config = WorkloadConfig {
        nodes: nodes.clone(),
        writers: config.writers,
        subscribers: config.subscribers,
        seed: config.cluster.seed,
        pause: config.pause,
    };
    let started = Instant::now();
    let cpu_before = cluster.cpu_ms();
    let probe = DiskProbe::start(&config.cluster.work_dir, started.into_std())
        .context("starting the probe")?;
    let running = workload::start(workload_config, started)?;
    // Faults and clients draw from different series: how far a client got shifts no fault.
    let mut run = ChaosRun {
        config,
        cluster: &mut cluster,
        nodes,
        running: &running,
        rng: Rng::new(config.cluster.seed),
        started,
        faults: Vec::new(),
        not_injected: BTreeMap::new(),
        failures: Vec::new(),
        hostile: HostileFigures::default(),
        on_progress,
    };
    run.run_faults().await;
    let ChaosRun { nodes, faults, not_injected, mut failures, hostile, .. } = run;
    let figures = Figures {
        counts: running.counts(),
        seconds: started.elapsed().as_secs(),
        cpu_ms: cluster.cpu_ms() - cpu_before,
        hostile,
        disk_mib: cluster.disk_mib(),
    };
    // The nodes run until the clients have stopped: a subscriber must receive the end of the log.
    let recording = running.stop().await;
    let (stalls, probe_error) = probe.stop();
    // A node that exited is among the failures already; the state of the others is checked anyway.
    let running_nodes: Vec<(NodeId, String)> =
        nodes.into_iter().filter(|(node, _)| cluster.process(*node).is_running()).collect();
    let history = collect_history(&running_nodes, recording, faults, stalls, &mut failures).await;
    if let Some(file) = &config.history_file {
        write_operations(&history, file).context("keeping the history")?;
    }
    let probe_error = probe_error.map(|error| error.to_string());
    Ok(check_history(history, not_injected, figures, probe_error, failures))
}

fn write_operations(history: &History, file: &Path) -> std::io::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    history.write_operations(BufWriter::new(File::create(file)?))
}

/// The phase of a run in which faults are injected.
struct ChaosRun<'a> {
    config: &'a RunConfig,
    cluster: &'a mut TestCluster,
    nodes: Vec<(NodeId, String)>,
    running: &'a RunningWorkload,
    rng: Rng,
    started: Instant,
    faults: Vec<Fault>,
    not_injected: BTreeMap<String, Vec<String>>,
    failures: Vec<RunFailure>,
    hostile: HostileFigures,
    on_progress: &'a dyn Fn(&Progress<'_>),
}

impl ChaosRun<'_> {
    async fn run_faults(&mut self) {
        self.wait(WARM_UP, "calm").await;
        let mut remaining_kinds: Vec<&'static FaultKind> = Vec::new();
        while self.started.elapsed() < self.config.fault_phase && self.failures.is_empty() {
            if remaining_kinds.is_empty() {
                remaining_kinds.clone_from(&self.config.kinds);
                self.rng.shuffle(&mut remaining_kinds);
            }
            let Some(kind) = remaining_kinds.pop() else { break };
            self.inject_one(kind).await;
            self.record_exited_nodes_without_fault();
        }
        self.require_writes_to_resume("the last fault").await;
        self.record_exited_nodes_without_fault();
    }

    /// Records the nodes that exited while no fault was in effect. After another failure it records
    /// none: the run ends anyway, and the exit may follow from that failure.
    fn record_exited_nodes_without_fault(&mut self) {
        if self.failures.is_empty() {
            self.record_exited_nodes(&[]);
        }
    }

    /// Records the nodes that exited although none of these faults may end them.
    fn record_exited_nodes(&mut self, injected: &[InjectedFault]) {
        for process in &mut self.cluster.processes {
            let may_have_ended = |injected: &InjectedFault| {
                injected.kind.may_end_nodes && injected.nodes.contains(&process.id)
            };
            if injected.iter().any(may_have_ended) || process.is_running() {
                continue;
            }
            let kinds: Vec<&str> = injected.iter().map(|injected| injected.kind.name).collect();
            let description = format!(
                "node {} exited under {kinds:?}, which does not end it:\n{}",
                process.id,
                process.log_tail()
            );
            self.failures.push(FailureKind::NodeExited.with_description(description));
        }
    }

    /// Injects one fault, perhaps with a second one, waits, heals, and requires that writes resume.
    async fn inject_one(&mut self, kind: &'static FaultKind) {
        let combinable: Vec<&'static FaultKind> = self
            .config
            .kinds
            .iter()
            .copied()
            .filter(|other| other.is_combinable && other.name != kind.name)
            .collect();
        let mut kinds = vec![kind];
        if !combinable.is_empty() && self.rng.random_bool(COMBINED_PERCENT) {
            // The combinable fault comes first: the other one then acts on a degraded cluster.
            kinds.insert(0, *self.rng.choose(&combinable));
        }
        // Every number is drawn whether or not the injection succeeds: one that fails must not
        // change the faults after it.
        let duration_ms = self.rng.between(kind.duration_ms.0, kind.duration_ms.1);
        let (mut injected, mut is_incomplete) = (Vec::new(), false);
        // With another fault it would not be known whose elections they are.
        let terms_before = if kinds.iter().all(|kind| kind.name == HOSTILE_CLIENT) {
            self.settled_terms().await
        } else {
            None
        };
        for kind in kinds {
            let target = self.choose_target().await;
            let from = self.running.now();
            (self.on_progress)(&self.progress(kind.name));
            match nemesis::inject(self.cluster, kind, target).await {
                Ok(done) => injected.push((from, self.running.now(), done)),
                Err(error) => {
                    is_incomplete = true;
                    self.not_injected
                        .entry(kind.name.to_owned())
                        .or_default()
                        .push(format!("{error:#}"));
                }
            }
        }
        if !injected.is_empty() {
            self.wait(Duration::from_millis(duration_ms), kind.name).await;
        }
        if let Some(before) = terms_before {
            self.count_elections(before).await;
        }
        let until = self.running.now();
        for (from, injected_at, injected) in &injected {
            let (from, injected_at) = (*from, *injected_at);
            let fault = Fault {
                kind: injected.kind.name.to_owned(),
                nodes: injected.nodes.clone(),
                from,
                until,
                description: injected.description.clone(),
                minority: injected.minority.clone(),
                // Counted from the end of the injection: until then some links still worked.
                minority_from: MonotonicTime(injected_at.0 + IN_FLIGHT.as_micros() as u64),
            };
            // Before healing: a task that throttles a node would stop it again afterwards.
            injected.stop_background_task();
            self.faults.push(fault);
        }
        let injected: Vec<_> = injected.into_iter().map(|(_, _, injected)| injected).collect();
        // An injection that failed halfway may have ended a node and returned no list of nodes.
        if !is_incomplete {
            self.record_exited_nodes(&injected);
        }
        if let Err(error) = nemesis::heal_all(self.cluster, &injected).await {
            let description = format!("after {}: {error:#}", kind.name);
            self.failures.push(FailureKind::NodeNotRecovered.with_description(description));
            return;
        }
        self.require_writes_to_resume(kind.name).await;
        let pause = self.rng.between(500, 3000);
        self.wait(Duration::from_millis(pause), "calm").await;
    }

    /// The terms once every leader is the preferred one; `None` where that takes too long.
    async fn settled_terms(&self) -> Option<u64> {
        let until = Instant::now() + SETTLED_WITHIN;
        loop {
            let terms = collect::terms(&self.nodes).await;
            if terms.is_some() || Instant::now() >= until {
                return terms;
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// Counts the elections since a hostile client, the only fault, began. In a run of nothing else
    /// there must be none; in others a node may still be busy with an earlier fault.
    async fn count_elections(&mut self, terms_before: u64) {
        let Some(terms) = self.settled_terms().await else { return };
        let elections = terms.saturating_sub(terms_before);
        self.hostile.windows += 1;
        self.hostile.elections += elections;
        let are_alone = self.config.kinds.iter().all(|kind| kind.name == HOSTILE_CLIENT);
        if elections > 0 && are_alone {
            let description = format!("{elections} elections beside a hostile client");
            self.failures.push(FailureKind::ElectionsByClients.with_description(description));
        }
    }

    /// Chooses a branch and asks for its leader, which may change before the fault is injected.
    async fn choose_target(&mut self) -> FaultTarget {
        let branch_keys = workload::branch_keys();
        let branch_key: &BranchModule = self.rng.choose(&branch_keys);
        let leader = collect::leader(&self.nodes, branch_key).await;
        // Drawn also where a leader is known: the series must not depend on who answers.
        let any = self.rng.choose(&self.nodes).0;
        let rng = Rng::with_stream(self.rng.next_u64(), 0);
        FaultTarget { leader: leader.unwrap_or(any), rng }
    }

    /// Waits until writes are acknowledged again; records a failure if they are not in time.
    async fn require_writes_to_resume(&mut self, after: &str) {
        let wanted = self.running.counts().acknowledged + RESUMED_WRITES;
        let end = Instant::now() + RESUME_TIMEOUT;
        while self.running.counts().acknowledged < wanted {
            if Instant::now() > end {
                let description = format!(
                    "after {after}: {RESUMED_WRITES} writes were not acknowledged within \
                     {RESUME_TIMEOUT:?} after everything was healed"
                );
                return self
                    .failures
                    .push(FailureKind::WritesNotResumed.with_description(description));
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn progress<'b>(&'b self, activity: &'b str) -> Progress<'b> {
        Progress {
            elapsed: self.started.elapsed(),
            faults: self.faults.len(),
            activity,
            counts: self.running.counts(),
        }
    }

    async fn wait(&self, time: Duration, activity: &str) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            (self.on_progress)(&self.progress(activity));
            sleep(Duration::from_millis(250).min(end - Instant::now())).await;
        }
    }
}

/// Joins what the clients recorded with the logs and replicas that the nodes show. A part that
/// cannot be read is left empty, and the error is added to the failures.
async fn collect_history(
    nodes: &[(NodeId, String)],
    recording: Recording,
    faults: Vec<Fault>,
    stalls: Vec<DiskStall>,
    failures: &mut Vec<RunFailure>,
) -> History {
    let mut branch_keys = workload::branch_keys();
    branch_keys.extend(recording.branch_keys);
    let impossible = recording.impossible_responses;
    if !impossible.is_empty() {
        let shown =
            impossible.iter().take(checker::DETAILS_MAX).map(|it| format!("\n         {it}"));
        let shown: String = shown.collect();
        let description = format!("{} responses are impossible:{shown}", impossible.len());
        failures.push(FailureKind::ImpossibleResponses.with_description(description));
    }
    let mut report_unreadable = |error: anyhow::Error| {
        failures.push(FailureKind::StateUnreadable.with_description(format!("{error:#}")))
    };
    // The replicas first: this waits until they have settled, and the logs are complete then.
    let replicas =
        collect::replicas(nodes).await.map_err(&mut report_unreadable).unwrap_or_default();
    let logs = collect::logs(nodes, &branch_keys)
        .await
        .map_err(&mut report_unreadable)
        .unwrap_or_default();
    let tables = collect::tables(nodes).await.map_err(&mut report_unreadable).unwrap_or_default();
    let mut operations = recording.operations;
    operations.sort_by_key(|op| op.invoked);
    History {
        operations,
        received: recording.received,
        logs,
        tables,
        replicas,
        faults,
        stalls,
        deposits: workload::deposits(),
        first_number: None,
    }
}

fn check_history(
    history: History,
    not_injected: BTreeMap<String, Vec<String>>,
    figures: Figures,
    probe_error: Option<String>,
    failures: Vec<RunFailure>,
) -> RunResult {
    // Without logs every acknowledged write would count as lost; that they could not be read is a
    // failure already.
    let checkers = if history.logs.is_empty() { Vec::new() } else { checker::all_checkers() };
    let verdicts = checkers.into_iter().map(|check| check(&history)).collect();
    let gaps = checker::write_gaps(&history);
    let mut acknowledged_per_second = Vec::new();
    for op in &history.operations {
        if op.completion.response().is_some() && !op.invocation.is_read() {
            let second = usize::try_from(op.completed.0 / 1_000_000).unwrap_or(0);
            if acknowledged_per_second.len() <= second {
                acknowledged_per_second.resize(second + 1, 0);
            }
            acknowledged_per_second[second] += 1;
        }
    }
    let History { faults, stalls, .. } = history;
    RunResult {
        verdicts,
        faults,
        not_injected,
        figures,
        acknowledged_per_second,
        gaps,
        stalls,
        probe_error,
        failures,
    }
}
