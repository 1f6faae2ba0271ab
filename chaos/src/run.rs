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
const CALM: Duration = Duration::from_secs(3);
/// After everything is healed, this many writes must be acknowledged anew, in this time.
const LIVELY_WRITES: u64 = 20;
const LIVELY_TIME: Duration = Duration::from_secs(30);
/// A strike lands while requests are under way: what a node cut off may still answer is over then.
const UNDER_WAY: Duration = Duration::from_millis(500);
/// Of a hundred faults, those that a mild one goes along with.
const TOGETHER: u64 = 25;

/// What a run is to do.
#[derive(Debug)]
pub struct RunConfig {
    /// Where, with what.
    pub plan: ClusterConfig,
    /// How long faults go on.
    pub storm: Duration,
    /// The kinds of faults, in a deck that is dealt anew when it is empty.
    pub kinds: Vec<&'static FaultKind>,
    /// Writers and subscribers.
    pub writers: u32,
    /// Subscribers.
    pub subscribers: u32,
    /// How long a writer rests after each operation.
    pub rest: Duration,
    /// Where every operation is kept, if anywhere.
    pub history: Option<PathBuf>,
}

/// What a run found.
#[derive(Debug, Serialize)]
pub struct RunResult {
    /// What each property says.
    pub verdicts: Vec<Verdict>,
    /// All faults.
    pub faults: Vec<Fault>,
    /// Strikes that could not be made, by kind, with why.
    pub missed: BTreeMap<String, Vec<String>>,
    /// What was counted.
    pub figures: Figures,
    /// Writes acknowledged in each second.
    pub acked_each_second: Vec<u64>,
    /// The longest times without an acknowledged write.
    pub gaps: Vec<checker::WriteGap>,
    /// When the disk under all nodes stood still.
    pub stalls: Vec<DiskStall>,
    /// Why that is not known to the end.
    pub unprobed: Option<String>,
    /// What went wrong besides.
    pub troubles: Vec<RunFailure>,
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
    pub now: &'a str,
    /// What was counted so far.
    pub counts: Counts,
}

/// Runs a storm.
///
/// # Errors
/// The arena cannot be made: nothing is said about the store then.
pub async fn run(order: &RunConfig, tell: &dyn Fn(&Progress<'_>)) -> Result<RunResult> {
    let mut arena = TestCluster::raise(&order.plan).context("making the arena")?;
    arena.start_all(nemesis::RECOVERY_TIME).await.context("starting the nodes")?;
    let nodes: Vec<(NodeId, String)> =
        arena.members.iter().map(|member| (member.id, member.http.clone())).collect();
    workload::set_up(&nodes).await.context("setting up")?;
    let crew = WorkloadConfig {
        nodes: nodes.clone(),
        writers: order.writers,
        subscribers: order.subscribers,
        seed: order.plan.seed,
        rest: order.rest,
    };
    let begin = Instant::now();
    let cpu_before = arena.cpu_ms();
    let probe =
        DiskProbe::start(&order.plan.work, begin.into_std()).context("starting the probe")?;
    let running = workload::start(crew, begin)?;
    let mut storm = ChaosRun {
        order,
        arena: &mut arena,
        nodes,
        running: &running,
        dice: Rng::new(order.plan.seed),
        begin,
        faults: Vec::new(),
        missed: BTreeMap::new(),
        troubles: Vec::new(),
        tell,
    };
    storm.rage().await;
    let ChaosRun { nodes, faults, missed, mut troubles, .. } = storm;
    let figures = Figures {
        counts: running.counts(),
        seconds: begin.elapsed().as_secs(),
        cpu_ms: arena.cpu_ms() - cpu_before,
        disk_mib: arena.disk_mib(),
    };
    let book = running.stop().await;
    let (stalls, unprobed) = probe.stop();
    // A node that is not there is told of; what the others know is judged all the same.
    let there: Vec<(NodeId, String)> =
        nodes.into_iter().filter(|(node, _)| arena.member(*node).is_running()).collect();
    let evidence = gather(&there, book, faults, stalls, &mut troubles).await;
    if let Some(file) = &order.history {
        evidence.keep_ops(file).context("keeping the history")?;
    }
    let unprobed = unprobed.map(|error| error.to_string());
    Ok(judge(evidence, missed, figures, unprobed, troubles))
}

/// The part with the faults.
struct ChaosRun<'a> {
    order: &'a RunConfig,
    arena: &'a mut TestCluster,
    nodes: Vec<(NodeId, String)>,
    running: &'a RunningWorkload,
    dice: Rng,
    begin: Instant,
    faults: Vec<Fault>,
    missed: BTreeMap<String, Vec<String>>,
    troubles: Vec<RunFailure>,
    tell: &'a dyn Fn(&Progress<'_>),
}

impl ChaosRun<'_> {
    async fn rage(&mut self) {
        self.wait(CALM, "calm").await;
        let mut deck: Vec<&'static FaultKind> = Vec::new();
        while self.begin.elapsed() < self.order.storm && self.troubles.is_empty() {
            if deck.is_empty() {
                deck.clone_from(&self.order.kinds);
                self.dice.shuffle(&mut deck);
            }
            let Some(kind) = deck.pop() else { break };
            self.one_fault(kind).await;
            self.miss_in_calm();
        }
        self.demand_life("the last fault").await;
        self.miss_in_calm();
    }

    /// The nodes that ended under nothing; after a trouble that is no news.
    fn miss_in_calm(&mut self) {
        if self.troubles.is_empty() {
            self.miss(&[]);
        }
    }

    /// The nodes that ended although none of these faults may have ended them.
    fn miss(&mut self, struck: &[InjectedFault]) {
        for member in &mut self.arena.members {
            let may_end = |struck: &InjectedFault| {
                struck.kind.ends_nodes && struck.nodes.contains(&member.id)
            };
            if struck.iter().any(may_end) || member.is_running() {
                continue;
            }
            let kinds: Vec<&str> = struck.iter().map(|struck| struck.kind.name).collect();
            let words = format!(
                "node {} ended by itself under {kinds:?}:\n{}",
                member.id,
                member.last_words()
            );
            self.troubles.push(FailureKind::EndedByItself.told(words));
        }
    }

    async fn one_fault(&mut self, kind: &'static FaultKind) {
        let mild: Vec<&'static FaultKind> = self
            .order
            .kinds
            .iter()
            .copied()
            .filter(|other| other.is_mild && other.name != kind.name)
            .collect();
        let mut kinds = vec![kind];
        if !mild.is_empty() && self.dice.percent(TOGETHER) {
            kinds.insert(0, *self.dice.pick(&mild));
        }
        let lasts = self.dice.between(kind.lasts_ms.0, kind.lasts_ms.1);
        let (mut struck, mut is_half) = (Vec::new(), false);
        for kind in kinds {
            let aim = self.aim().await;
            let from = self.running.now();
            (self.tell)(&self.progress(kind.name));
            match nemesis::strike(self.arena, kind, aim).await {
                Ok(done) => struck.push((from, self.running.now(), done)),
                Err(error) => {
                    is_half = true;
                    self.missed.entry(kind.name.to_owned()).or_default().push(format!("{error:#}"));
                }
            }
        }
        if !struck.is_empty() {
            self.wait(Duration::from_millis(lasts), kind.name).await;
        }
        let until = self.running.now();
        for (from, done, struck) in &struck {
            let (from, done) = (*from, *done);
            let fault = Fault {
                kind: struck.kind.name.to_owned(),
                nodes: struck.nodes.clone(),
                from,
                until,
                words: struck.words.clone(),
                minority: struck.minority.clone(),
                minority_from: MonotonicTime(done.0 + UNDER_WAY.as_micros() as u64),
            };
            struck.end();
            self.faults.push(fault);
        }
        let struck: Vec<_> = struck.into_iter().map(|(_, _, struck)| struck).collect();
        // A strike that came to nothing may have ended a node on the way.
        if !is_half {
            self.miss(&struck);
        }
        if let Err(error) = nemesis::heal_all(self.arena, &struck).await {
            let words = format!("after {}: {error:#}", kind.name);
            self.troubles.push(FailureKind::DoesNotComeBack.told(words));
            return;
        }
        self.demand_life(kind.name).await;
        let pause = self.dice.between(500, 3000);
        self.wait(Duration::from_millis(pause), "calm").await;
    }

    async fn aim(&mut self) -> FaultTarget {
        let places = workload::places();
        let place: &BranchKey = self.dice.pick(&places);
        let leader = collect::leader(&self.nodes, place).await;
        let any = self.dice.pick(&self.nodes).0;
        let dice = Rng::of(self.dice.throw(), 0);
        FaultTarget { leader: leader.unwrap_or(any), dice }
    }

    /// Writes must be acknowledged again.
    async fn demand_life(&mut self, after: &str) {
        let wanted = self.running.counts().acked + LIVELY_WRITES;
        let end = Instant::now() + LIVELY_TIME;
        while self.running.counts().acked < wanted {
            if Instant::now() > end {
                let words = format!(
                    "after {after}: {LIVELY_TIME:?} after everything was healed, {LIVELY_WRITES} \
                     writes were not acknowledged"
                );
                return self.troubles.push(FailureKind::DoesNotGoOn.told(words));
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn progress<'b>(&'b self, now: &'b str) -> Progress<'b> {
        Progress {
            elapsed: self.begin.elapsed(),
            faults: self.faults.len(),
            now,
            counts: self.running.counts(),
        }
    }

    async fn wait(&self, time: Duration, now: &str) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            (self.tell)(&self.progress(now));
            sleep(Duration::from_millis(250).min(end - Instant::now())).await;
        }
    }
}

async fn gather(
    nodes: &[(NodeId, String)],
    book: Recording,
    faults: Vec<Fault>,
    stalls: Vec<DiskStall>,
    troubles: &mut Vec<RunFailure>,
) -> History {
    let mut places = workload::places();
    places.extend(book.places);
    let told = book.impossible;
    if !told.is_empty() {
        let shown = told.iter().take(checker::DETAILS_MAX).map(|it| format!("\n         {it}"));
        let shown: String = shown.collect();
        let words = format!("{} answers cannot be right:{shown}", told.len());
        troubles.push(FailureKind::ImpossibleAnswers.told(words));
    }
    let mut keep =
        |error: anyhow::Error| troubles.push(FailureKind::CannotBeRead.told(format!("{error:#}")));
    let replicas = collect::replicas(nodes).await.map_err(&mut keep).unwrap_or_default();
    let logs = collect::logs(nodes, &places).await.map_err(&mut keep).unwrap_or_default();
    let mut ops = book.ops;
    ops.sort_by_key(|op| op.invoked);
    let deposits = workload::deposits();
    History { ops, heard: book.heard, logs, replicas, faults, stalls, deposits }
}

fn judge(
    evidence: History,
    missed: BTreeMap<String, Vec<String>>,
    figures: Figures,
    unprobed: Option<String>,
    troubles: Vec<RunFailure>,
) -> RunResult {
    // Without the logs nothing can be said; that they could not be read is among the troubles.
    let judges = if evidence.logs.is_empty() { Vec::new() } else { checker::all() };
    let verdicts = judges.into_iter().map(|judge| judge(&evidence)).collect();
    let gaps = checker::gaps(&evidence);
    let mut acked_each_second = Vec::new();
    for op in &evidence.ops {
        if op.outcome.reply().is_some() && !op.intent.is_read() {
            let second = usize::try_from(op.completed.0 / 1_000_000).unwrap_or(0);
            if acked_each_second.len() <= second {
                acked_each_second.resize(second + 1, 0);
            }
            acked_each_second[second] += 1;
        }
    }
    let History { faults, stalls, .. } = evidence;
    RunResult {
        verdicts,
        faults,
        missed,
        figures,
        acked_each_second,
        gaps,
        stalls,
        unprobed,
        troubles,
    }
}
