//! Report: the result of a run, for people as text and as a chart, for programs as JSON.
//!
//! Promise: a property of which nothing was checked is not reported to hold.
//! Refused: other names in JSON. They are public, also where the code has another word.

mod chart;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use crate::nemesis::FaultKind;
use crate::run::{Progress, RunResult};
use history::checker::WriteGap;

/// Exit code: every property held.
const EXIT_HELD: u8 = 0;
/// Exit code: a property was broken, or the run has a failure.
const EXIT_BROKEN: u8 = 1;
/// Exit code: nothing was broken, but the run proves less than it should.
const EXIT_INCONCLUSIVE: u8 = 3;

/// The result of a run, with what makes it valid.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The result of the run.
    #[serde(flatten)]
    pub result: RunResult,
    /// How often each fault of the scenario was injected.
    pub faults_by_kind: BTreeMap<&'static str, usize>,
    /// Why the run proves less than it should.
    pub invalid: Vec<String>,
    /// The command line that repeats the run.
    pub repeat: String,
}

/// One line about a run in progress.
pub fn progress_line(progress: &Progress<'_>) -> String {
    let counts = progress.counts;
    format!(
        "{} faults, now {} · {} acknowledged, {} unknown, {} received",
        progress.faults, progress.activity, counts.acknowledged, counts.unknown, counts.received
    )
}

impl Report {
    /// Counts the faults, and finds what makes the run prove less than it should: a fault that was
    /// injected less often than `at_least`, or a property of which nothing was checked.
    pub fn new(
        result: RunResult,
        kinds: &[&'static FaultKind],
        at_least: usize,
        repeat: String,
    ) -> Self {
        let mut by_kind: BTreeMap<&'static str, usize> =
            kinds.iter().map(|kind| (kind.name, 0)).collect();
        for (kind, count) in &mut by_kind {
            *count = result.faults.iter().filter(|fault| fault.kind == *kind).count();
        }
        let mut invalid: Vec<String> = by_kind
            .iter()
            .filter(|(_, count)| **count < at_least)
            .map(|(kind, count)| format!("{kind} was injected {count} times, not {at_least}"))
            .collect();
        let no_minority = result.faults.iter().all(|fault| fault.minority.is_empty());
        for verdict in result.verdicts.iter().filter(|verdict| verdict.checked == 0) {
            // Without a minority this property has nothing to check; that is no fault of the run.
            if !(no_minority && verdict.property == "minority-silent") {
                invalid.push(format!("nothing was checked of {}", verdict.property));
            }
        }
        Self { result, faults_by_kind: by_kind, invalid, repeat }
    }

    /// The exit code: 0 if every property held, 1 if one was broken or the run has a failure, 3 if
    /// the run proves less than it should.
    pub fn exit_code(&self) -> u8 {
        let broken = self.result.verdicts.iter().any(|verdict| !verdict.holds());
        if broken || !self.result.failures.is_empty() {
            EXIT_BROKEN
        } else if self.invalid.is_empty() {
            EXIT_HELD
        } else {
            EXIT_INCONCLUSIVE
        }
    }

    /// The report as JSON.
    ///
    /// # Errors
    /// It cannot be serialized.
    pub fn json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    /// Writes `report.txt`, `report.json` and `report.svg` into a directory.
    ///
    /// # Errors
    /// The directory or a file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("report.txt"), self.text())?;
        fs::write(folder.join("report.json"), self.json()?)?;
        fs::write(folder.join("report.svg"), chart::svg(&self.result))?;
        Ok(())
    }

    /// The report as text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        self.write_figures(&mut text);
        self.write_faults(&mut text);
        self.write_verdicts(&mut text);
        let _ = writeln!(text, "\nagain: {}", self.repeat);
        text
    }

    fn write_figures(&self, text: &mut String) {
        let figures = &self.result.figures;
        let counts = figures.counts;
        let _ = writeln!(
            text,
            "{} writes acknowledged ({} repeated), {} reads, {} refused, {} unknown; {} \
             messages received; {} faults in {} s",
            counts.acknowledged,
            counts.repeated,
            counts.read,
            counts.refused,
            counts.unknown,
            counts.received,
            self.result.faults.len(),
            figures.seconds
        );
        let per_write = figures.cpu_ms as f64 * 1000.0 / counts.acknowledged.max(1) as f64;
        let per_second = counts.acknowledged as f64 / figures.seconds.max(1) as f64;
        let _ = writeln!(
            text,
            "{per_second:.0} writes a second; {per_write:.0} µs of processor time of all nodes for \
             each, reads and subscriptions included"
        );
        let hostile = figures.hostile;
        if hostile.windows > 0 {
            let _ = writeln!(
                text,
                "{} times a hostile client was the only fault; elections meanwhile: {}",
                hostile.windows, hostile.elections
            );
        }
        let disk: Vec<String> =
            figures.disk_mib.iter().map(|(part, mib)| format!("{part} {mib} MiB")).collect();
        let _ = writeln!(text, "on the disks of all nodes at the end: {}", disk.join(", "));
        let stalls = self.result.stalls.iter().map(|stall| stall.until.0 - stall.from.0);
        let (count, longest, all) = (stalls.len(), stalls.clone().max(), stalls.sum::<u64>());
        let _ = writeln!(
            text,
            "the disk that all nodes share stalled {count} times, at most {} ms, {} ms in all",
            longest.unwrap_or(0).div_ceil(1000),
            all.div_ceil(1000)
        );
        if let Some(error) = &self.result.probe_error {
            let _ = writeln!(text, "later stalls are not known: the probe failed, {error}");
        }
    }

    fn write_faults(&self, text: &mut String) {
        let _ = writeln!(
            text,
            "\n{:<16} {:>5}   longest time without a write, ms: {:>7} {:>7} {:>7}   \
             less the disk's stalls: {:>7} {:>7} {:>7}",
            "fault", "count", "median", "p99", "max", "median", "p99", "max"
        );
        for (kind, count) in &self.faults_by_kind {
            let [all, steady] =
                [|gap: &WriteGap| gap.micros, |gap: &WriteGap| gap.micros_without_stalls]
                    .map(|micros| percentiles(&self.gaps_ms(kind, micros)));
            let _ = writeln!(
                text,
                "{kind:<16} {count:>5} {:>42} {:>7} {:>7} {:>34} {:>7} {:>7}",
                all[0], all[1], all[2], steady[0], steady[1], steady[2]
            );
            // One error stands for all of its kind; the JSON has each.
            for why in self.result.not_injected.get(*kind).into_iter().flatten().take(1) {
                let not_injected = self.result.not_injected[*kind].len();
                let _ = writeln!(text, "    could not be injected {not_injected} times: {why}");
            }
        }
    }

    /// For each fault of a kind, the longest write gap of any branch, in milliseconds, sorted.
    fn gaps_ms(&self, kind: &str, micros: impl Fn(&WriteGap) -> u64) -> Vec<u64> {
        let mut worst: BTreeMap<usize, u64> = BTreeMap::new();
        for gap in self.result.gaps.iter().filter(|gap| gap.kind == kind) {
            let ms = worst.entry(gap.fault).or_default();
            *ms = micros(gap).div_ceil(1000).max(*ms);
        }
        let mut gaps: Vec<u64> = worst.into_values().collect();
        gaps.sort_unstable();
        gaps
    }

    fn write_verdicts(&self, text: &mut String) {
        let _ = writeln!(text);
        for verdict in &self.result.verdicts {
            let word = match verdict.checked {
                _ if !verdict.holds() => "BROKEN",
                0 => "-",
                _ => "holds",
            };
            let _ = writeln!(
                text,
                "{word:<6} {:<28} {:>8} checked, {} wrong",
                verdict.property, verdict.checked, verdict.violations
            );
            for detail in &verdict.details {
                let _ = writeln!(text, "         {detail}");
            }
        }
        for failure in &self.result.failures {
            let _ = writeln!(text, "BROKEN {}", failure.description);
        }
        for invalid in &self.invalid {
            let _ = writeln!(text, "the run proves less than it should: {invalid}");
        }
    }
}

/// Median, 99th percentile and maximum of sorted figures; `-` if there are none.
fn percentiles(figures: &[u64]) -> [String; 3] {
    let len = figures.len();
    [50, 99, 100].map(|of_hundred| match len {
        0 => "-".to_owned(),
        _ => figures[((len * of_hundred).div_ceil(100)).clamp(1, len) - 1].to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::FailureKind;
    use crate::run::Figures;
    use history::checker::Verdict;

    fn verdict(property: &'static str, checked: u64, violations: u64) -> Verdict {
        Verdict { checked, violations, ..Verdict::new(property, "a promise") }
    }

    fn report(verdicts: Vec<Verdict>) -> Report {
        let result = RunResult {
            verdicts,
            faults: Vec::new(),
            not_injected: BTreeMap::new(),
            figures: Figures::default(),
            acknowledged_per_second: Vec::new(),
            gaps: Vec::new(),
            stalls: Vec::new(),
            probe_error: None,
            failures: Vec::new(),
        };
        Report::new(result, &[], 0, String::new())
    }

    #[test]
    fn a_property_without_checks_is_not_reported_to_hold() {
        let without_minority =
            report(vec![verdict("bank", 5, 0), verdict("minority-silent", 0, 0)]);
        let text = without_minority.text();
        assert!(text.contains("\nholds  bank "), "{text}");
        assert!(text.contains("\n-      minority-silent "), "{text}");
        assert_eq!(without_minority.exit_code(), EXIT_HELD);
        // Every other property has something to check in every run.
        let unchecked = report(vec![verdict("bank", 0, 0)]);
        assert_eq!(unchecked.invalid, ["nothing was checked of bank"]);
        assert_eq!(unchecked.exit_code(), EXIT_INCONCLUSIVE);
    }

    #[test]
    fn a_broken_property_outweighs_an_unchecked_one() {
        let broken = report(vec![verdict("bank", 5, 1), verdict("events", 0, 0)]);
        assert!(broken.text().contains("\nBROKEN bank "));
        assert_eq!(broken.exit_code(), EXIT_BROKEN);
        let mut with_failure = report(vec![verdict("bank", 5, 0)]);
        with_failure
            .result
            .failures
            .push(FailureKind::WritesNotResumed.with_description("no more writes".to_owned()));
        assert_eq!(with_failure.exit_code(), EXIT_BROKEN);
    }
}
