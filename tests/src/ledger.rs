//! Ledger: what was asked and what was acknowledged, and the verdict over what is there.
//!
//! Every order carries its write's key, so a write that was applied twice shows as two rows even
//! though each has a number of its own. A write without an answer may be there or not; what was
//! acknowledged must be there, once, under the number that was told.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

/// The field of an order that carries its write's key: any text is allowed in it.
pub const MARK: &str = "shiftId";

/// What was asked and acknowledged.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    asked: BTreeSet<String>,
    acked: BTreeMap<String, String>,
    /// Keys that were answered with two different numbers, with both.
    contradicted: Vec<String>,
}

/// What is wrong, in counts and by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Writes asked for.
    pub asked: usize,
    /// Writes acknowledged.
    pub acked: usize,
    /// Acknowledged, and not there under the number that was told.
    pub lost: Vec<String>,
    /// There more than once.
    pub duplicated: Vec<String>,
    /// There, and never asked for.
    pub invented: Vec<String>,
    /// Answered with two different numbers.
    pub contradicted: Vec<String>,
    /// Numbers missing between the first and the last of the sequence.
    pub missing_numbers: Vec<u64>,
    /// Numbers carried by two rows.
    pub repeated_numbers: Vec<u64>,
}

impl Ledger {
    /// A write is about to be asked for.
    pub fn ask(&mut self, key: &str) {
        self.asked.insert(key.to_owned());
    }

    /// A write was acknowledged under this id.
    pub fn ack(&mut self, key: &str, id: &str) {
        self.ask(key);
        if let Some(before) = self.acked.insert(key.to_owned(), id.to_owned())
            && before != id
        {
            self.contradicted.push(format!("{key}: {before} and {id}"));
        }
    }

    /// How many writes were acknowledged.
    pub fn acked(&self) -> usize {
        self.acked.len()
    }

    /// Takes over what another writer noted.
    pub fn merge(&mut self, other: Self) {
        self.asked.extend(other.asked);
        self.contradicted.extend(other.contradicted);
        for (key, id) in other.acked {
            self.ack(&key, &id);
        }
    }

    /// Judges the rows of the orders' table. `prefix` begins the numbers of the sequence, `DAR-`.
    pub fn judge(&self, rows: &[Value], prefix: &str) -> Verdict {
        let mut ids_by_mark: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let mut numbers: BTreeMap<u64, usize> = BTreeMap::new();
        for row in rows {
            let id = row["id"].as_str().unwrap_or_default();
            if let Some(mark) = row[MARK].as_str() {
                ids_by_mark.entry(mark).or_default().push(id);
            }
            if let Some(number) = id.strip_prefix(prefix).and_then(|text| text.parse().ok()) {
                *numbers.entry(number).or_default() += 1;
            }
        }
        let is_there =
            |key: &str, id: &str| ids_by_mark.get(key).is_some_and(|ids| ids.contains(&id));
        let lost = self.acked.iter().filter(|(key, id)| !is_there(key, id));
        let marked = |mark: &&str| self.asked.contains(*mark);
        let twice = ids_by_mark.iter().filter(|(mark, ids)| marked(mark) && ids.len() > 1);
        let invented = ids_by_mark.keys().filter(|mark| mark.starts_with(KEY) && !marked(mark));
        let first = numbers.keys().next().copied().unwrap_or(0);
        let last = numbers.keys().next_back().copied().unwrap_or(0);
        Verdict {
            asked: self.asked.len(),
            acked: self.acked.len(),
            lost: lost.map(|(key, id)| format!("{key} as {id}")).collect(),
            duplicated: twice.map(|(mark, ids)| format!("{mark} as {ids:?}")).collect(),
            invented: invented.map(|mark| (*mark).to_owned()).collect(),
            contradicted: self.contradicted.clone(),
            missing_numbers: (first..=last).filter(|n| !numbers.contains_key(n)).collect(),
            repeated_numbers: numbers.iter().filter(|(_, n)| **n > 1).map(|(n, _)| *n).collect(),
        }
    }
}

/// How every key of ours begins, so that sample data is told apart.
pub const KEY: &str = "w-";

impl Verdict {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        let Self { lost, duplicated, invented, contradicted, .. } = self;
        let rows = [lost, duplicated, invented, contradicted];
        rows.iter().all(|list| list.is_empty()) && self.is_dense()
    }

    /// Whether the sequence has neither a gap nor a number twice.
    pub fn is_dense(&self) -> bool {
        self.missing_numbers.is_empty() && self.repeated_numbers.is_empty()
    }

    /// # Panics
    /// If anything is wrong, naming all of it.
    pub fn assert_clean(&self) {
        assert!(self.is_clean(), "{self}\n{self:#?}");
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "asked {}, acked {}, lost {}, duplicated {}, invented {}, contradicted {}, dense: {}",
            self.asked,
            self.acked,
            self.lost.len(),
            self.duplicated.len(),
            self.invented.len(),
            self.contradicted.len(),
            if self.is_dense() { "yes" } else { "no" },
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(number: u64, mark: &str) -> Value {
        json!({ "id": format!("DAR-{number:06}"), MARK: mark })
    }

    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        ledger.ack("w-1", "DAR-001001");
        ledger.ack("w-2", "DAR-001002");
        ledger.ask("w-3");
        ledger
    }

    #[test]
    fn what_was_acked_is_there_and_what_is_unknown_may_be() {
        let two = vec![row(1001, "w-1"), row(1002, "w-2")];
        ledger().judge(&two, "DAR-").assert_clean();
        let three = [two, vec![row(1003, "w-3")]].concat();
        ledger().judge(&three, "DAR-").assert_clean();
    }

    #[test]
    fn every_wrong_is_named() {
        let verdict = |rows: &[Value]| ledger().judge(rows, "DAR-");
        assert_eq!(verdict(&[row(1001, "w-1")]).lost, ["w-2 as DAR-001002"]);
        let twice = verdict(&[row(1001, "w-1"), row(1002, "w-2"), row(1003, "w-2")]);
        assert_eq!(twice.duplicated.len(), 1);
        let gap = verdict(&[row(1001, "w-1"), row(1002, "w-2"), row(1004, "w-3")]);
        assert_eq!(gap.missing_numbers, [1003]);
        let invented = verdict(&[row(1001, "w-1"), row(1002, "w-2"), row(1003, "w-9")]);
        assert_eq!(invented.invented, ["w-9"]);
        let repeated = verdict(&[row(1001, "w-1"), row(1002, "w-2"), row(1002, "w-3")]);
        assert_eq!(repeated.repeated_numbers, [1002]);
        let moved = verdict(&[row(1002, "w-1"), row(1001, "w-2")]);
        assert_eq!(moved.lost.len(), 2);
    }

    #[test]
    fn two_answers_to_one_key_contradict() {
        let mut ledger = ledger();
        ledger.ack("w-1", "DAR-001009");
        let rows = [row(1001, "w-1"), row(1002, "w-2")];
        assert_eq!(ledger.judge(&rows, "DAR-").contradicted, ["w-1: DAR-001001 and DAR-001009"]);
    }
}
