//! Mutants: builds with a deliberate bug, each run under the faults that should reveal it.
//!
//! A run that finds nothing proves nothing, unless it is known to find bugs that exist. Each mutant
//! names the faults that make it visible, and has several rounds with different seeds.
//!
//! Promise: a mutant counts as caught only by a broken property, or by a failure that proves a bug.
//! Refused: a slow machine as proof. A mutant is not caught by writes that came too late.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::Value;

use crate::failure::RunFailure;

/// A mutant, and the run that makes it visible.
#[derive(Debug, Clone, Copy)]
pub struct MutantRun {
    /// Its name, as the build takes it (`model/src/mutant.rs`).
    pub name: &'static str,
    /// The faults, as `--scenario` takes them.
    pub scenario: &'static str,
    /// The duration of one round.
    pub minutes: f64,
    /// Whether it is visible on loopback.
    pub on_loopback: bool,
    /// Whether it takes many clients without pauses, so that queues fill on a slow machine too.
    pub needs_high_load: bool,
}

/// The options of a run with many clients without pauses.
const HIGH_LOAD_OPTIONS: [&str; 6] = ["--writers", "48", "--subscribers", "16", "--rest-ms", "0"];

const fn mutant(
    name: &'static str,
    scenario: &'static str,
    minutes: f64,
    on_loopback: bool,
) -> MutantRun {
    MutantRun { name, scenario, minutes, on_loopback, needs_high_load: false }
}

const fn with_high_load(mutant: MutantRun) -> MutantRun {
    MutantRun { needs_high_load: true, ..mutant }
}

/// All mutants.
pub const MUTANTS: [MutantRun; 11] = [
    mutant("acknowledge-before-commit", "kill-leader,pause-leader", 0.5, true),
    mutant("acknowledge-before-fsync", "power-all", 0.5, false),
    mutant("read-from-deposed-leader", "pause-leader", 0.7, true),
    mutant("forget-exactly-once-in-checkpoint", "kill-follower,kill-leader", 0.7, true),
    mutant("skip-directory-fsync", "power-all,power-one", 0.7, false),
    // The clock fault slows no client down, so that the queues fill. On loopback the kernel buffers
    // megabytes for each socket, and the node's own queue stays empty.
    with_high_load(mutant("drop-event-when-queue-full", "clock-ahead", 0.7, false)),
    mutant("reorder-two-events", "slow-sync", 0.3, true),
    mutant("reuse-sequence-number-after-failover", "kill-leader", 0.4, true),
    mutant("apply-twice-after-restart", "kill-all,kill-follower", 0.5, true),
    mutant("purge-wal-before-checkpoint-durable", "power-all", 1.0, false),
    mutant("skip-tail-sync-at-open", "kill-all,power-all", 1.0, false),
];

/// The result of testing one mutant.
#[derive(Debug, Serialize)]
pub struct MutantResult {
    /// The mutant.
    pub mutant: &'static str,
    /// The properties that it broke, or else its failures; empty if it was not caught.
    pub caught_by: Vec<String>,
    /// How many rounds it took.
    pub rounds: u32,
    /// How long it took, in seconds.
    pub seconds: u64,
}

/// How mutants are tested.
#[derive(Debug)]
pub struct MutantTest {
    /// The node's program, built with the feature `mutants`.
    pub binary: PathBuf,
    /// Whether the runs are on loopback.
    pub loopback: bool,
    /// Most rounds of one mutant.
    pub rounds: u32,
    /// The seed of the first round.
    pub seed: u64,
    /// The directory for the reports.
    pub out: PathBuf,
}

impl MutantTest {
    /// Runs a mutant under its faults until it is caught or has had all its rounds.
    ///
    /// # Errors
    /// A run wrote no report, or its report cannot be read.
    pub fn run(&self, mutant: &MutantRun) -> Result<MutantResult> {
        let began = Instant::now();
        let mut result =
            MutantResult { mutant: mutant.name, caught_by: Vec::new(), rounds: 0, seconds: 0 };
        while result.caught_by.is_empty() && result.rounds < self.rounds {
            result.caught_by = self.round(mutant, self.seed + u64::from(result.rounds))?;
            result.rounds += 1;
        }
        result.seconds = began.elapsed().max(Duration::from_secs(1)).as_secs();
        Ok(result)
    }

    fn round(&self, mutant: &MutantRun, seed: u64) -> Result<Vec<String>> {
        let out = self.out.join(mutant.name);
        // The report of an earlier round must not be mistaken for this one's.
        let report = out.join("report.json");
        if report.exists() {
            std::fs::remove_file(&report)?;
        }
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("run").arg("--binary").arg(&self.binary).arg("--out").arg(&out);
        command.args(["--mutant", mutant.name, "--scenario", mutant.scenario]);
        command.args(["--minutes", &mutant.minutes.to_string(), "--seed", &seed.to_string()]);
        if self.loopback {
            command.arg("--loopback");
        }
        if mutant.needs_high_load {
            command.args(HIGH_LOAD_OPTIONS);
        }
        let status = command.stdout(Stdio::null()).status().context("starting a chaos run")?;
        ensure!(
            report.exists(),
            "the run for {} ended with {status} and without a report",
            mutant.name
        );
        let report_json: Value = serde_json::from_str(&std::fs::read_to_string(report)?)?;
        failed_checks(&report_json)
    }
}

/// The properties that a report calls broken; if there are none, the failures that prove a bug.
fn failed_checks(report: &Value) -> Result<Vec<String>> {
    let list = |name: &str| report[name].as_array().cloned().unwrap_or_default();
    let broken = list("verdicts").into_iter().filter(|v| v["violations"].as_u64() > Some(0));
    let mut failed_checks: Vec<String> =
        broken.filter_map(|v| v["property"].as_str().map(str::to_owned)).collect();
    if failed_checks.is_empty() {
        let is_evidence = |failure: &RunFailure| failure.kind.indicts_build();
        let failures: Vec<RunFailure> =
            serde_json::from_value(list("troubles").into()).context("reading the failures")?;
        let failures = failures.into_iter().filter(is_evidence);
        failed_checks
            .extend(failures.filter_map(|it| Some(it.description.lines().next()?.to_owned())));
    }
    Ok(failed_checks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::Environment;
    use crate::failure::FailureKind;
    use crate::scenario;

    #[test]
    fn every_mutant_has_faults_its_environment_allows() {
        for mutant in &MUTANTS {
            let environment =
                if mutant.on_loopback { Environment::Loopback } else { Environment::Namespaces };
            let named = mutant.scenario.split(',').count();
            let kinds = scenario::kinds(mutant.scenario, environment).unwrap();
            assert_eq!(kinds.len(), named, "{}", mutant.name);
        }
    }

    #[test]
    fn a_mutant_is_caught_by_broken_properties_or_failures() {
        let failed_checks_in = |text: &str| failed_checks(&serde_json::from_str(text).unwrap());
        let all_hold = r#"{"verdicts":[{"property":"bank","violations":0}],"troubles":[]}"#;
        assert!(failed_checks_in(all_hold).unwrap().is_empty());
        let broken = r#"{"verdicts":[{"property":"bank","violations":2}],"troubles":[]}"#;
        assert_eq!(failed_checks_in(broken).unwrap(), ["bank"]);
        let with = |kind: FailureKind| {
            let failure = kind.with_description("node 1 ended\nwith words");
            failed_checks(&serde_json::json!({"verdicts": [], "troubles": [failure]})).unwrap()
        };
        assert_eq!(with(FailureKind::NodeExited), ["node 1 ended"]);
        // A slow machine may do the same.
        assert!(with(FailureKind::WritesNotResumed).is_empty());
        // A kind of failure that this program does not know must not count as "not caught".
        let unknown_kind = r#"{"verdicts":[],"troubles":[{"what":"another","words":"new"}]}"#;
        failed_checks_in(unknown_kind).unwrap_err();
    }
}
