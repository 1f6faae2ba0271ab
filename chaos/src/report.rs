//! Report: what a run found, for people as text and a picture, for programs as JSON.

mod chart;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use crate::checker::WriteGap;
use crate::nemesis::FaultKind;
use crate::run::{Progress, RunResult};

/// Exit codes of a run.
const HELD: u8 = 0;
const BROKEN: u8 = 1;
const PROVES_NOTHING: u8 = 3;

/// A run with its verdict.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What was found.
    #[serde(flatten)]
    pub outcome: RunResult,
    /// How often each fault happened.
    pub faults_by_kind: BTreeMap<&'static str, usize>,
    /// Why the run proves less than it should.
    pub invalid: Vec<String>,
    /// The command that repeats it.
    pub repeat: String,
}

/// One line while it goes on.
pub fn line(progress: &Progress<'_>) -> String {
    let counts = progress.counts;
    format!(
        "{} faults, now {} · {} acked, {} unknown, {} heard",
        progress.faults, progress.now, counts.acked, counts.unknown, counts.heard
    )
}

impl Report {
    /// Counts the faults, and says what is missing of what was asked for.
    pub fn new(
        outcome: RunResult,
        kinds: &[&'static FaultKind],
        at_least: usize,
        repeat: String,
    ) -> Self {
        let mut by_kind: BTreeMap<&'static str, usize> =
            kinds.iter().map(|kind| (kind.name, 0)).collect();
        for (kind, count) in &mut by_kind {
            *count = outcome.faults.iter().filter(|fault| fault.kind == *kind).count();
        }
        let mut invalid: Vec<String> = by_kind
            .iter()
            .filter(|(_, count)| **count < at_least)
            .map(|(kind, count)| format!("{kind} happened {count} times, not {at_least}"))
            .collect();
        let no_minority = outcome.faults.iter().all(|fault| fault.minority.is_empty());
        for verdict in outcome.verdicts.iter().filter(|verdict| verdict.checked == 0) {
            // Where nobody was cut off nobody had to be silent.
            if !(no_minority && verdict.property == "minority-silent") {
                invalid.push(format!("nothing was checked of {}", verdict.property));
            }
        }
        Self { outcome, faults_by_kind: by_kind, invalid, repeat }
    }

    /// 0: every promise held; 1: one was broken; 3: the run proves less than it should.
    pub fn exit_code(&self) -> u8 {
        let broken = self.outcome.verdicts.iter().any(|verdict| !verdict.holds());
        if broken || !self.outcome.troubles.is_empty() {
            BROKEN
        } else if self.invalid.is_empty() {
            HELD
        } else {
            PROVES_NOTHING
        }
    }

    /// As JSON.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    /// Writes `report.txt`, `report.json` and `report.svg` into a folder.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("report.txt"), self.text())?;
        fs::write(folder.join("report.json"), self.json()?)?;
        fs::write(folder.join("report.svg"), chart::svg(&self.outcome))?;
        Ok(())
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        self.figures(&mut text);
        self.faults(&mut text);
        self.verdicts(&mut text);
        let _ = writeln!(text, "\nagain: {}", self.repeat);
        text
    }

    fn figures(&self, text: &mut String) {
        let f = &self.outcome.figures;
        let counts = f.counts;
        let _ = writeln!(
            text,
            "{} writes acknowledged ({} repeated), {} reads, {} refused, {} unknown; {} words \
             heard; {} faults in {} s",
            counts.acked,
            counts.repeated,
            counts.read,
            counts.refused,
            counts.unknown,
            counts.heard,
            self.outcome.faults.len(),
            f.seconds
        );
        let per_write = f.cpu_ms as f64 * 1000.0 / counts.acked.max(1) as f64;
        let per_second = counts.acked as f64 / f.seconds.max(1) as f64;
        let _ = writeln!(
            text,
            "{per_second:.0} writes a second; {per_write:.0} µs of processor time of all nodes for \
             each, reads and listening included"
        );
        let disk: Vec<String> =
            f.disk_mib.iter().map(|(part, mib)| format!("{part} {mib} MiB")).collect();
        let _ = writeln!(text, "on the disks of all nodes at the end: {}", disk.join(", "));
        let stalls = self.outcome.stalls.iter().map(|stall| stall.until.0 - stall.from.0);
        let (count, longest, all) = (stalls.len(), stalls.clone().max(), stalls.sum::<u64>());
        let _ = writeln!(
            text,
            "the disk under all nodes stood still {count} times, at most {} ms, {} ms in all",
            longest.unwrap_or(0).div_ceil(1000),
            all.div_ceil(1000)
        );
        if let Some(error) = &self.outcome.unprobed {
            let _ = writeln!(text, "what came later is not known: the probe ended, {error}");
        }
    }

    fn faults(&self, text: &mut String) {
        let _ = writeln!(
            text,
            "\n{:<16} {:>5}   longest time without a write, ms: {:>7} {:>7} {:>7}   \
             less the disk's stalls: {:>7} {:>7} {:>7}",
            "fault", "count", "median", "p99", "max", "median", "p99", "max"
        );
        for (kind, count) in &self.faults_by_kind {
            let [all, steady] = [|gap: &WriteGap| gap.micros, |gap: &WriteGap| gap.steady_micros]
                .map(|micros| percentiles(&self.gaps_ms(kind, micros)));
            let _ = writeln!(
                text,
                "{kind:<16} {count:>5} {:>42} {:>7} {:>7} {:>34} {:>7} {:>7}",
                all[0], all[1], all[2], steady[0], steady[1], steady[2]
            );
            for why in self.outcome.missed.get(*kind).into_iter().flatten().take(1) {
                let missed = self.outcome.missed[*kind].len();
                let _ = writeln!(text, "    could not be made {missed} times: {why}");
            }
        }
    }

    /// For each fault of a kind, how long the place that suffered most took no write; in order.
    fn gaps_ms(&self, kind: &str, micros: impl Fn(&WriteGap) -> u64) -> Vec<u64> {
        let mut worst: BTreeMap<usize, u64> = BTreeMap::new();
        for gap in self.outcome.gaps.iter().filter(|gap| gap.kind == kind) {
            let ms = worst.entry(gap.fault).or_default();
            *ms = micros(gap).div_ceil(1000).max(*ms);
        }
        let mut gaps: Vec<u64> = worst.into_values().collect();
        gaps.sort_unstable();
        gaps
    }

    fn verdicts(&self, text: &mut String) {
        let _ = writeln!(text);
        for verdict in &self.outcome.verdicts {
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
            for shown in &verdict.shown {
                let _ = writeln!(text, "         {shown}");
            }
        }
        for trouble in &self.outcome.troubles {
            let _ = writeln!(text, "BROKEN {}", trouble.words);
        }
        for invalid in &self.invalid {
            let _ = writeln!(text, "the run proves less than it should: {invalid}");
        }
    }
}

/// Median, p99 and maximum of figures in order.
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
    use crate::checker::Verdict;
    use crate::failure::FailureKind;
    use crate::run::Figures;

    fn verdict(property: &'static str, checked: u64, violations: u64) -> Verdict {
        Verdict { checked, violations, ..Verdict::new(property, "a promise") }
    }

    fn judged(verdicts: Vec<Verdict>) -> Report {
        let outcome = RunResult {
            verdicts,
            faults: Vec::new(),
            missed: BTreeMap::new(),
            figures: Figures::default(),
            acked_each_second: Vec::new(),
            gaps: Vec::new(),
            stalls: Vec::new(),
            unprobed: None,
            troubles: Vec::new(),
        };
        Report::new(outcome, &[], 0, String::new())
    }

    #[test]
    fn a_promise_of_which_nothing_was_checked_is_not_said_to_hold() {
        let nobody_cut_off = judged(vec![verdict("bank", 5, 0), verdict("minority-silent", 0, 0)]);
        let text = nobody_cut_off.text();
        assert!(text.contains("\nholds  bank "), "{text}");
        assert!(text.contains("\n-      minority-silent "), "{text}");
        assert_eq!(nobody_cut_off.exit_code(), HELD);
        // Of every other there is something to check in every run.
        let unseen = judged(vec![verdict("bank", 0, 0)]);
        assert_eq!(unseen.invalid, ["nothing was checked of bank"]);
        assert_eq!(unseen.exit_code(), PROVES_NOTHING);
    }

    #[test]
    fn what_is_broken_counts_more_than_what_is_not_known() {
        let broken = judged(vec![verdict("bank", 5, 1), verdict("events", 0, 0)]);
        assert!(broken.text().contains("\nBROKEN bank "));
        assert_eq!(broken.exit_code(), BROKEN);
        let mut troubled = judged(vec![verdict("bank", 5, 0)]);
        troubled.outcome.troubles.push(FailureKind::DoesNotGoOn.told("no more writes".to_owned()));
        assert_eq!(troubled.exit_code(), BROKEN);
    }
}
