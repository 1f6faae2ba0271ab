//! Report: what an attack cost others, and the verdict.

use std::fmt;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use tests::process::{peak_kib, resident_kib};
use tests::process_cluster::ProcessCluster;
use tests::status::Status;
use tokio::time::{Instant, sleep};

use crate::attacks::{Answers, Attack};
use crate::polite::Latencies;

/// How many times its quiet p99 a polite client may see.
const RATIO_MAX: f64 = 3.0;
/// A quiet p99 below this counts as this: with less, a ratio is of the machine's own noise.
const QUIET_MIN: Duration = Duration::from_millis(10);
/// How long memory has to come back.
const REST: Duration = Duration::from_secs(60);
/// How often it is looked whether it has.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How many times what it was before counts as come back.
const BACK_MAX: f64 = 1.3;

/// What is looked at before an attack and after it.
pub(crate) struct Watch {
    /// MiB of each node.
    memory: Vec<u64>,
    /// MiB of them that are stored data.
    stored: Vec<u64>,
    terms: u64,
}

/// What an attack cost.
#[derive(Debug)]
pub(crate) struct Report {
    /// Which.
    pub(crate) attack: &'static str,
    quiet: Latencies,
    attacked: Latencies,
    /// MiB that the node whose memory grew most held before, at most, and once it had come back;
    /// where it did not, of the one that was furthest from it a minute after.
    memory: (u64, u64, u64),
    /// By how many MiB stored data grew there, as the node counts its branches and catalogue: it
    /// shows why memory did not come back, and excuses nothing but what the attack says.
    stored: u64,
    /// How long that took; `None` where a minute was not enough.
    back_after: Option<Duration>,
    memory_max: u64,
    shown_by: &'static [&'static str],
    /// Whether the ratio is judged: on a machine shared with others it says little.
    pub(crate) judges_times: bool,
    leader_changes: u64,
    answers: Answers,
}

impl Watch {
    pub(crate) async fn start(cluster: &ProcessCluster) -> Result<Self> {
        let memory = mebibytes(cluster, resident_kib)?;
        Ok(Self { memory, stored: stored(cluster).await?, terms: terms(cluster).await? })
    }

    pub(crate) async fn end(
        self,
        cluster: &ProcessCluster,
        attack: &'static Attack,
        quiet: Latencies,
        attacked: Latencies,
        answers: Answers,
    ) -> Result<Report> {
        let successes = answers.0.iter().filter(|(status, _)| status.starts_with('2'));
        let kept = attack.kept_kib * successes.map(|(_, count)| *count as u64).sum::<u64>() / 1024;
        let grown = stored(cluster).await?.into_iter().zip(&self.stored);
        let kept = grown.map(|(now, before)| kept.min(now.saturating_sub(*before))).collect();
        let (after, back_after) = self.rest(cluster, kept).await?;
        let peaks = mebibytes(cluster, peak_kib)?;
        let stored = stored(cluster).await?.into_iter().zip(self.stored);
        let stored = stored.map(|(now, before)| now.saturating_sub(before));
        let grown = self.memory.into_iter().zip(peaks).zip(after.into_iter().zip(stored));
        let memory = grown.map(|((before, peak), (after, stored))| ((before, peak, after), stored));
        let memory = memory.max_by_key(|((before, peak, after), _)| match back_after {
            Some(_) => peak.saturating_sub(*before),
            None => after * 1000 / (*before).max(1),
        });
        let (memory, stored) = memory.unwrap_or_default();
        Ok(Report {
            attack: attack.name,
            quiet,
            attacked,
            memory,
            stored,
            back_after,
            memory_max: attack.memory_max_mib,
            shown_by: attack.shown_by,
            judges_times: true,
            leader_changes: terms(cluster).await?.saturating_sub(self.terms),
            answers,
        })
    }
}

impl Watch {
    /// Waits until all nodes hold about as much as before and what they keep, in MiB, a minute at
    /// most: what they hold then, and how long it took.
    async fn rest(
        &self,
        cluster: &ProcessCluster,
        kept: Vec<u64>,
    ) -> Result<(Vec<u64>, Option<Duration>)> {
        let ended = Instant::now();
        loop {
            let now = mebibytes(cluster, resident_kib)?;
            let is_back = |((before, now), kept): ((&u64, &u64), &u64)| {
                *now as f64 <= (*before).max(1) as f64 * BACK_MAX + *kept as f64
            };
            if self.memory.iter().zip(&now).zip(&kept).all(is_back) {
                return Ok((now, Some(ended.elapsed())));
            }
            if ended.elapsed() >= REST {
                return Ok((now, None));
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

/// MiB of records and branches that each node holds, as it counts them.
async fn stored(cluster: &ProcessCluster) -> Result<Vec<u64>> {
    let mut all = Vec::new();
    for node in cluster.ids() {
        let status = cluster.status(node).await?;
        let classes = status.0["memory"]["classes"].as_array().cloned().unwrap_or_default();
        let is_stored =
            |class: &&Value| matches!(class["class"].as_str(), Some("branches" | "catalogue"));
        let bytes = classes.iter().filter(is_stored).filter_map(|class| class["held"].as_u64());
        all.push(bytes.sum::<u64>() / 1024 / 1024);
    }
    Ok(all)
}

fn mebibytes(cluster: &ProcessCluster, of: fn(u32) -> Result<u64>) -> Result<Vec<u64>> {
    cluster.ids().into_iter().map(|node| Ok(of(cluster.pid(node)?)? / 1024)).collect()
}

/// The terms of all partitions, added up: each election raises it.
async fn terms(cluster: &ProcessCluster) -> Result<u64> {
    let status = Status::of(&cluster.client(1)).await?;
    Ok(status.list("partitions").iter().filter_map(|partition| partition["term"].as_u64()).sum())
}

impl Report {
    /// The head of the table.
    pub(crate) const HEADER: &str = "attack             polite p99: quiet → attacked   failed   \
                                     MiB: before → most → after, stored (s)   elections   answers";

    /// Of the p50 or the p99, whichever grew more.
    fn ratio(&self) -> f64 {
        let grown = |share| {
            let quiet = self.quiet.quantile(share).max(QUIET_MIN);
            self.attacked.quantile(share).as_secs_f64() / quiet.as_secs_f64()
        };
        grown(0.5).max(grown(0.99))
    }

    /// Whether the rule holds.
    pub(crate) fn holds(&self) -> bool {
        let (before, peak, _) = self.memory;
        (!self.judges_times || self.ratio() <= RATIO_MAX)
            && self.attacked.failed() == 0
            && peak.saturating_sub(before) <= self.memory_max
            && self.back_after.is_some()
            && self.leader_changes == 0
            // A defect: whatever is sent, it is answered or refused.
            && !self.answers.0.contains_key("500")
            && self.was_attack()
    }

    /// Whether the attack reached what it attacks.
    fn was_attack(&self) -> bool {
        let seen = |answer: &&str| self.answers.0.get(*answer).is_some_and(|count| *count > 0);
        self.shown_by.iter().any(seen)
    }

    /// The same as one line of JSON.
    pub(crate) fn json(&self) -> Value {
        let (before, peak, after) = self.memory;
        let micros = |seen: &Latencies| seen.quantile(0.99).as_micros() as u64;
        let median = |seen: &Latencies| seen.quantile(0.5).as_micros() as u64;
        let (writes, reads) = self.attacked.quantiles_by_kind(0.99);
        json!({
            "attack": self.attack,
            "holds": self.holds(),
            "polite": {
                "quietP50Micros": median(&self.quiet),
                "attackedP50Micros": median(&self.attacked),
                "quietP99Micros": micros(&self.quiet),
                "attackedP99Micros": micros(&self.attacked),
                "attackedP99MicrosOfWrites": writes.as_micros() as u64,
                "attackedP99MicrosOfReads": reads.as_micros() as u64,
                "ratio": self.ratio(),
                "answered": self.attacked.count(),
                "failed": self.attacked.failed.0,
            },
            "memoryMiB": { "before": before, "peak": peak, "after": after, "stored": self.stored, "allowed": self.memory_max },
            "memoryBackAfterSeconds": self.back_after.map(|it| it.as_secs()),
            "elections": self.leader_changes,
            "answers": self.answers.0,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, peak, after) = self.memory;
        let millis = |seen: &Latencies| seen.quantile(0.99).as_secs_f64() * 1e3;
        let failed = self.attacked.failed();
        write!(
            f,
            "{:<16} {:>7.1} ms → {:>8.1} ms ({:>4.1} ×) {:>5}/{:<5} {before:>6} → {peak:>5} → {after:>5}, {:>4} ({}) {:>9}   ",
            self.attack,
            millis(&self.quiet),
            millis(&self.attacked),
            self.ratio(),
            failed,
            self.attacked.count() + failed,
            self.stored,
            self.back_after.map_or_else(|| "never".to_owned(), |it| it.as_secs().to_string()),
            self.leader_changes,
        )?;
        write!(f, "{}   {}", self.answers, if self.holds() { "holds" } else { "BROKEN" })?;
        if failed > 0 {
            write!(f, " (the polite client got {})", self.attacked.failed)?;
        }
        Ok(())
    }
}
