//! Mutants: builds with a bug on purpose, each put through the storm that should find it.
//!
//! A storm that finds nothing proves nothing, unless it is known to find what is there. Each mutant
//! has the faults that make it visible; it is given a few rounds, each of another seed.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::Value;

use crate::failure::RunFailure;

/// A mutant, and what makes it visible.
#[derive(Debug, Clone, Copy)]
pub struct Mutant {
    /// Its name, as the build takes it (`model/src/mutant.rs`).
    pub name: &'static str,
    /// The faults.
    pub scenario: &'static str,
    /// How long one round is.
    pub minutes: f64,
    /// Whether loopback shows it.
    pub on_loopback: bool,
    /// Whether it takes a crowd of clients that never rest, so that what is not read piles up on a
    /// slow machine too.
    pub is_crowded: bool,
}

/// The crowd, as options of a run.
const HIGH_LOAD_OPTIONS: [&str; 6] = ["--writers", "48", "--subscribers", "16", "--rest-ms", "0"];

const fn mutant(
    name: &'static str,
    scenario: &'static str,
    minutes: f64,
    on_loopback: bool,
) -> Mutant {
    Mutant { name, scenario, minutes, on_loopback, is_crowded: false }
}

const fn crowded(mutant: Mutant) -> Mutant {
    Mutant { is_crowded: true, ..mutant }
}

/// All of them.
pub const MUTANTS: [Mutant; 11] = [
    mutant("acknowledge-before-commit", "kill-leader,pause-leader", 0.5, true),
    mutant("acknowledge-before-fsync", "power-all", 0.5, false),
    mutant("read-from-deposed-leader", "pause-leader", 0.7, true),
    mutant("forget-exactly-once-in-checkpoint", "kill-follower,kill-leader", 0.7, true),
    mutant("skip-directory-fsync", "power-all,power-one", 0.7, false),
    // A fault that slows nobody down. On loopback the system itself holds megabytes of what is not
    // read, before the node's queue does.
    crowded(mutant("drop-event-when-queue-full", "clock-ahead", 0.7, false)),
    mutant("reorder-two-events", "slow-sync", 0.3, true),
    mutant("reuse-sequence-number-after-failover", "kill-leader", 0.4, true),
    mutant("apply-twice-after-restart", "kill-all,kill-follower", 0.5, true),
    mutant("purge-wal-before-checkpoint-durable", "power-all", 1.0, false),
    mutant("skip-tail-sync-at-open", "kill-all,power-all", 1.0, false),
];

/// What came of one.
#[derive(Debug, Serialize)]
pub struct MutantResult {
    /// The mutant.
    pub mutant: &'static str,
    /// The properties that spoke against it, or what else gave it away; empty if nothing did.
    pub caught_by: Vec<String>,
    /// Rounds it took.
    pub rounds: u32,
    /// Seconds it took.
    pub seconds: u64,
}

/// How to look for them.
#[derive(Debug)]
pub struct MutantTest {
    /// The node's program, built with the feature `mutants`.
    pub binary: PathBuf,
    /// On loopback.
    pub loopback: bool,
    /// Rounds of each at most.
    pub rounds: u32,
    /// The first seed.
    pub seed: u64,
    /// Where the reports go.
    pub out: PathBuf,
}

impl MutantTest {
    /// Puts a mutant through its storm until it is caught.
    ///
    /// # Errors
    /// The storm itself failed.
    pub fn one(&self, mutant: &Mutant) -> Result<MutantResult> {
        let began = Instant::now();
        let mut found =
            MutantResult { mutant: mutant.name, caught_by: Vec::new(), rounds: 0, seconds: 0 };
        while found.caught_by.is_empty() && found.rounds < self.rounds {
            found.caught_by = self.round(mutant, self.seed + u64::from(found.rounds))?;
            found.rounds += 1;
        }
        found.seconds = began.elapsed().max(Duration::from_secs(1)).as_secs();
        Ok(found)
    }

    fn round(&self, mutant: &Mutant, seed: u64) -> Result<Vec<String>> {
        let out = self.out.join(mutant.name);
        // What an earlier round said must not be taken for this one's.
        let report = out.join("report.json");
        if report.exists() {
            std::fs::remove_file(&report)?;
        }
        let mut storm = Command::new(std::env::current_exe()?);
        storm.arg("run").arg("--binary").arg(&self.binary).arg("--out").arg(&out);
        storm.args(["--mutant", mutant.name, "--scenario", mutant.scenario]);
        storm.args(["--minutes", &mutant.minutes.to_string(), "--seed", &seed.to_string()]);
        if self.loopback {
            storm.arg("--loopback");
        }
        if mutant.is_crowded {
            storm.args(HIGH_LOAD_OPTIONS);
        }
        let ended = storm.stdout(Stdio::null()).status().context("starting a storm")?;
        ensure!(report.exists(), "the storm for {} ended with {ended}", mutant.name);
        let said: Value = serde_json::from_str(&std::fs::read_to_string(report)?)?;
        against(&said)
    }
}

/// What a report has against a build.
fn against(report: &Value) -> Result<Vec<String>> {
    let list = |name: &str| report[name].as_array().cloned().unwrap_or_default();
    let broken = list("verdicts").into_iter().filter(|v| v["violations"].as_u64() > Some(0));
    let mut against: Vec<String> =
        broken.filter_map(|v| v["property"].as_str().map(str::to_owned)).collect();
    if against.is_empty() {
        let speaks = |trouble: &RunFailure| trouble.what.speaks_against_the_build();
        let troubles: Vec<RunFailure> =
            serde_json::from_value(list("troubles").into()).context("reading the troubles")?;
        let troubles = troubles.into_iter().filter(speaks);
        against.extend(troubles.filter_map(|it| Some(it.words.lines().next()?.to_owned())));
    }
    Ok(against)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::Environment;
    use crate::failure::FailureKind;
    use crate::scenario;

    #[test]
    fn every_mutant_has_a_storm_where_it_is_put_through_one() {
        for mutant in &MUTANTS {
            let ground =
                if mutant.on_loopback { Environment::Loopback } else { Environment::Namespaces };
            let named = mutant.scenario.split(',').count();
            let kinds = scenario::kinds(mutant.scenario, ground).unwrap();
            assert_eq!(kinds.len(), named, "{}", mutant.name);
        }
    }

    #[test]
    fn a_mutant_is_caught_by_what_the_report_says_is_broken() {
        let against_text = |text: &str| against(&serde_json::from_str(text).unwrap());
        let held = r#"{"verdicts":[{"property":"bank","violations":0}],"troubles":[]}"#;
        assert!(against_text(held).unwrap().is_empty());
        let broken = r#"{"verdicts":[{"property":"bank","violations":2}],"troubles":[]}"#;
        assert_eq!(against_text(broken).unwrap(), ["bank"]);
        let with = |what: FailureKind| {
            let trouble = what.told("node 1 ended\nwith words");
            against(&serde_json::json!({"verdicts": [], "troubles": [trouble]})).unwrap()
        };
        assert_eq!(with(FailureKind::EndedByItself), ["node 1 ended"]);
        // A slow machine may do the same.
        assert!(with(FailureKind::DoesNotGoOn).is_empty());
        // What this program cannot read is no acquittal.
        let unread = r#"{"verdicts":[],"troubles":[{"what":"another","words":"new"}]}"#;
        against_text(unread).unwrap_err();
    }
}
