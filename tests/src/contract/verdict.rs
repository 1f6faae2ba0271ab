//! Verdict: the figures of a comparison, and what is left to do, most frequent first.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

use super::compare::{Difference, DifferenceKind};
use super::deviations::DeviationTable;

/// Most examples of one kind of difference in a list.
const PLACES_SHOWN: usize = 4;

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct ContractVerdict {
    /// Requests answered, frames sent and frames compared.
    pub exchanges: usize,
    /// Those that differ in any way.
    pub deviating: usize,
    /// Differences that a row of the table explains.
    pub explained: usize,
    /// Those that none explains.
    pub unexplained: Vec<Difference>,
    /// Rows that explain nothing.
    pub unused: Vec<String>,
}

impl ContractVerdict {
    /// Judges what was found in these files.
    pub fn of(
        exchanges: usize,
        differences: Vec<Difference>,
        table: &DeviationTable,
        files: &[String],
    ) -> Self {
        let places: BTreeSet<(&str, usize)> =
            differences.iter().map(|found| (found.file.as_str(), found.step)).collect();
        let deviating = places.len();
        let (explained, unexplained): (Vec<_>, Vec<_>) =
            differences.into_iter().partition(|found| table.explains(found));
        let unused = table.unused(files);
        Self { exchanges, deviating, explained: explained.len(), unexplained, unused }
    }

    /// Whether nothing is left to explain.
    pub fn is_clean(&self) -> bool {
        self.unexplained.is_empty() && self.unused.is_empty()
    }

    /// What is left to do: by request or frame, most frequent first.
    pub fn work(&self) -> String {
        let mut groups: BTreeMap<&str, Vec<&Difference>> = BTreeMap::new();
        for found in &self.unexplained {
            groups.entry(&found.what).or_default().push(found);
        }
        let mut groups: Vec<_> = groups.into_iter().collect();
        groups.sort_by_key(|(_, found)| std::cmp::Reverse(found.len()));
        let mut text = String::new();
        for (what, found) in groups {
            let _ = writeln!(text, "{:>5}  {what}", found.len());
            text.push_str(&kinds(&found));
        }
        for place in &self.unused {
            let _ = writeln!(text, "       the row `{place}` explains nothing");
        }
        text
    }

    /// Every difference on a line of its own.
    pub fn list(&self) -> String {
        let line = |found: &Difference| {
            format!(
                "{}#{} {} {} {}: recorded {}, ours {}\n",
                found.file,
                found.step,
                found.what,
                found.kind,
                found.path,
                found.recorded,
                found.ours
            )
        };
        self.unexplained.iter().map(line).collect()
    }
}

impl fmt::Display for ContractVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "replayed {}, deviate {}, explained {}, unexplained {}, rows without use {}",
            self.exchanges,
            self.deviating,
            self.explained,
            self.unexplained.len(),
            self.unused.len()
        )
    }
}

/// The kinds of difference of one request or frame.
fn kinds(found: &[&Difference]) -> String {
    let mut kinds: BTreeMap<(DifferenceKind, String), Vec<&Difference>> = BTreeMap::new();
    for found in found {
        kinds.entry((found.kind, general(&found.path))).or_default().push(found);
    }
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_by_key(|(_, found)| std::cmp::Reverse(found.len()));
    let mut text = String::new();
    for ((kind, path), found) in kinds {
        let places: BTreeSet<String> =
            found.iter().map(|found| format!("{}#{}", found.file, found.step)).collect();
        let shown: Vec<_> = places.iter().take(PLACES_SHOWN).cloned().collect();
        let more = if places.len() > shown.len() { " …" } else { "" };
        let first = found[0];
        let _ = writeln!(
            text,
            "       {:>4} {kind} {path}: recorded {}, ours {}  ({}{more})",
            found.len(),
            first.recorded,
            first.ours,
            shown.join(" ")
        );
    }
    text
}

/// A path without the keys of records and places in lists.
fn general(path: &str) -> String {
    let is_name =
        |step: &str| step.chars().all(|c| c.is_ascii_alphabetic() || c == '_') && !step.is_empty();
    let mut after_rows = false;
    let steps = path.split('/').map(|step| {
        let is_key = after_rows || !(step.is_empty() || is_name(step));
        after_rows = matches!(step, "rows" | "deltas" | "orders" | "lines");
        if is_key { "*" } else { step }
    });
    steps.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_most_frequent_comes_first() {
        let found = |what: &str, step| Difference {
            file: "f".to_owned(),
            step,
            what: what.to_owned(),
            path: format!("/body/rows/{step}/x"),
            kind: DifferenceKind::Value,
            recorded: "1".to_owned(),
            ours: "2".to_owned(),
        };
        let differences = vec![found("a", 1), found("b", 2), found("b", 3)];
        let verdict = ContractVerdict::of(9, differences, &DeviationTable::default(), &[]);
        assert_eq!(
            verdict.to_string(),
            "replayed 9, deviate 3, explained 0, unexplained 3, rows without use 0"
        );
        let work = verdict.work();
        assert!(work.find("2  b") < work.find("1  a"), "{work}");
        assert!(work.contains("2 value /body/rows/*/x: recorded 1, ours 2  (f#2 f#3)"), "{work}");
    }
}
