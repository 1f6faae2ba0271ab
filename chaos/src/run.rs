//! Run: one storm from beginning to end: raise, set up, strike and heal, demand that everything
//! goes on, gather what is known, judge.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::checker::{self, Verdict};
use crate::cluster::{ClusterConfig, TestCluster};
use crate::collect;
use crate::failure::{FailureKind, RunFailure};
use crate::history::{BranchKey, DiskStall, Fault, History, MonotonicTime, NodeId};
use crate::nemesis::{self, FaultKind, FaultTarget, InjectedFault};
use crate::probe::DiskProbe;
use crate::rng::Rng;
use crate::workload::{self, Counts, Recording, RunningWorkload, WorkloadConfig};

/// How long the workload runs before the first fault.
const WARM_UP: Duration = Duration::from_secs(3);
/// After everything is healed, this many writes must be acknowledged anew, in this time.
const RESUMED_WRITES: u64 = 20;
const RESUME_TIMEOUT: Duration = Duration::from_secs(30);
/// A strike lands while requests are under way: what a node cut off may still answer is over then.
const IN_FLIGHT: Duration = Duration::from_millis(500);
/// Of a hundred faults, those that a mild one goes along with.
const COMBINED_PERCENT: u64 = 25;

/// What a run is to do.
#[derive(Debug)]
pub struct RunConfig {
    /// Where, with what.
    pub cluster: ClusterConfig,
    /// How long faults go on.
    pub fault_phase: Duration,
    /// The kinds of faults, in a deck that is dealt anew when it is empty.
    pub kinds: Vec<&'static FaultKind>,
    /// Writers and subscribers.
    pub writers: u32,
    /// Subscribers.
    pub subscribers: u32,
    /// How long a writer rests after each operation.
    pub pause: Duration,
    /// Where every operation is kept, if anywhere.
    pub history_file: Option<PathBuf>,
}

/// What a run found.
#[derive(Debug, Serialize)]
pub struct RunResult {
    /// What each property says.
    pub verdicts: Vec<Verdict>,
    /// All faults.
    pub faults: Vec<Fault>,
    /// Strikes that could not be made, by kind, with why.
    #[serde(rename = "missed")]
    pub not_injected: BTreeMap<String, Vec<String>>,
    /// What was counted.
    pub figures: Figures,
    /// Writes acknowledged in each second.
    #[serde(rename = "acked_each_second")]
    pub acknowledged_per_second: Vec<u64>,
    /// The longest times without an acknowledged write.
    pub gaps: Vec<checker::WriteGap>,
    /// When the disk under all nodes stood still.
    pub stalls: Vec<DiskStall>,
    /// Why that is not known to the end.
    #[serde(rename = "unprobed")]
    pub probe_error: Option<String>,
    /// What went wrong besides.
    #[serde(rename = "troubles")]
    pub failures: Vec<RunFailure>,
}

/// What was counted.
#[derive(Debug, Default, Serialize)]
pub struct Figures {
    /// By the clients.
    #[serde(flatten)]
    pub counts: Counts,
    /// Seconds from the first write to the last.
    pub seconds: u64,
    /// Processor time of all nodes, in milliseconds.
    pub cpu_ms: u64,
    /// What all nodes hold on their disks at the end, in MiB, by what it is for.
    pub disk_mib: BTreeMap<&'static str, u64>,
}

/// How a run goes on, told as it does.
#[derive(Debug)]
pub struct Progress<'a> {
    /// Since the storm began.
    pub elapsed: Duration,
    /// Faults so far.
    pub faults: usize,
    /// What goes on now.
    pub activity: &'a str,
    /// What was counted so far.
    pub counts: Counts,
}

/// Runs a storm.
///
/// # Errors
/// The arena cannot be made: nothing is said about the store then.
pub async fn run(config: &RunConfig, on_progress: &dyn Fn(&Progress<'_>)) -> Result<RunResult> {
    let mut cluster = TestCluster::new(&config.cluster).context("making the arena")?;
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
        on_progress,
    };
    run.run_faults().await;
    let ChaosRun { nodes, faults, not_injected, mut failures, .. } = run;
    let figures = Figures {
        counts: running.counts(),
        seconds: started.elapsed().as_secs(),
        cpu_ms: cluster.cpu_ms() - cpu_before,
        disk_mib: cluster.disk_mib(),
    };
    let recording = running.stop().await;
    let (stalls, probe_error) = probe.stop();
    // A node that is not there is told of; what the others know is judged all the same.
    let running_nodes: Vec<(NodeId, String)> =
        nodes.into_iter().filter(|(node, _)| cluster.process(*node).is_running()).collect();
    let history = collect_history(&running_nodes, recording, faults, stalls, &mut failures).await;
    if let Some(file) = &config.history_file {
        history.write_operations(file).context("keeping the history")?;
    }
    let probe_error = probe_error.map(|error| error.to_string());
    Ok(check_history(history, not_injected, figures, probe_error, failures))
}

/// The part with the faults.
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

    /// The nodes that ended under nothing; after a trouble that is no news.
    fn record_exited_nodes_without_fault(&mut self) {
        if self.failures.is_empty() {
            self.record_exited_nodes(&[]);
        }
    }

    /// The nodes that ended although none of these faults may have ended them.
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
                "node {} ended by itself under {kinds:?}:\n{}",
                process.id,
                process.log_tail()
            );
            self.failures.push(FailureKind::NodeExited.with_description(description));
        }
    }

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
            kinds.insert(0, *self.rng.choose(&combinable));
        }
        let duration_ms = self.rng.between(kind.duration_ms.0, kind.duration_ms.1);
        let (mut injected, mut is_incomplete) = (Vec::new(), false);
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
                minority_from: MonotonicTime(injected_at.0 + IN_FLIGHT.as_micros() as u64),
            };
            injected.stop_background_task();
            self.faults.push(fault);
        }
        let injected: Vec<_> = injected.into_iter().map(|(_, _, injected)| injected).collect();
        // A strike that came to nothing may have ended a node on the way.
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

    async fn choose_target(&mut self) -> FaultTarget {
        let branch_keys = workload::branch_keys();
        let branch_key: &BranchKey = self.rng.choose(&branch_keys);
        let leader = collect::leader(&self.nodes, branch_key).await;
        let any = self.rng.choose(&self.nodes).0;
        let rng = Rng::with_stream(self.rng.next_u64(), 0);
        FaultTarget { leader: leader.unwrap_or(any), rng }
    }

    /// Writes must be acknowledged again.
    async fn require_writes_to_resume(&mut self, after: &str) {
        let wanted = self.running.counts().acknowledged + RESUMED_WRITES;
        let end = Instant::now() + RESUME_TIMEOUT;
        while self.running.counts().acknowledged < wanted {
            if Instant::now() > end {
                let description = format!(
                    "after {after}: {RESUME_TIMEOUT:?} after everything was healed, {RESUMED_WRITES} \
                     writes were not acknowledged"
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
        let description = format!("{} answers cannot be right:{shown}", impossible.len());
        failures.push(FailureKind::ImpossibleResponses.with_description(description));
    }
    let mut report_unreadable = |error: anyhow::Error| {
        failures.push(FailureKind::StateUnreadable.with_description(format!("{error:#}")))
    };
    let replicas =
        collect::replicas(nodes).await.map_err(&mut report_unreadable).unwrap_or_default();
    let logs = collect::logs(nodes, &branch_keys)
        .await
        .map_err(&mut report_unreadable)
        .unwrap_or_default();
    let mut operations = recording.operations;
    operations.sort_by_key(|op| op.invoked);
    let deposits = workload::deposits();
    History { operations, received: recording.received, logs, replicas, faults, stalls, deposits }
}

fn check_history(
    history: History,
    not_injected: BTreeMap<String, Vec<String>>,
    figures: Figures,
    probe_error: Option<String>,
    failures: Vec<RunFailure>,
) -> RunResult {
    // Without the logs nothing can be said; that they could not be read is among the troubles.
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
