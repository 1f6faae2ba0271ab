//! Tables follow logs: the rows that a node shows are those that the log of the branch makes.
//!
//! Promise: every table that was read is compared, row by row, with what the log's events leave
//! of it: a row that is missing, one too many and one with other fields are each a violation.
//! Refused: a table of a branch whose log was not read counts as a violation.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Verdict;
use super::history_index::HistoryIndex;
use crate::{History, LogEvent, TableReading};

/// Checks `tables-follow-logs`.
pub(super) fn check(history: &History) -> Verdict {
    let promise = "The rows that a node shows are those that the log makes.";
    let mut verdict = Verdict::new("tables-follow-logs", promise);
    let index = HistoryIndex::new(history);
    for reading in &history.tables {
        let at = |why: String| {
            let (branch_key, table) = (reading.branch_key.name(), &reading.table);
            format!("{branch_key} {table} from node {}: {why}", reading.node)
        };
        let Some(log) = index.log(&reading.branch_key) else {
            verdict.record(Some(at("no log of its branch was read".to_owned())));
            continue;
        };
        let logged = rows_of(log, &reading.table);
        let keys: BTreeSet<&str> =
            logged.keys().copied().chain(reading.rows.keys().map(String::as_str)).collect();
        // A table without rows is a fact too.
        verdict.record(None);
        for key in keys {
            verdict.record(difference(key, &logged, reading).map(at));
        }
    }
    verdict
}

/// The rows of a table after all events of a log.
fn rows_of<'a>(log: &'a [LogEvent], table: &str) -> BTreeMap<&'a str, &'a Value> {
    let mut rows = BTreeMap::new();
    for event in log.iter().filter(|event| event.table == table) {
        match &event.row {
            Some(row) => drop(rows.insert(event.key.as_str(), row)),
            None => drop(rows.remove(event.key.as_str())),
        }
    }
    rows
}

/// How a row that was read differs from the log.
fn difference(
    key: &str,
    logged: &BTreeMap<&str, &Value>,
    reading: &TableReading,
) -> Option<String> {
    match (logged.get(key), reading.rows.get(key)) {
        (Some(logged), Some(read)) if *logged == read => None,
        (Some(logged), Some(read)) => Some(format!("{key} is {read}, the log has {logged}")),
        (Some(logged), None) => Some(format!("{key} is missing, the log has {logged}")),
        (None, Some(read)) => Some(format!("{key} is {read}, the log has no such row")),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::examples::*;
    use crate::checker::fields;

    fn history_with(rows: &[(&str, &str)]) -> History {
        let rows = rows
            .iter()
            .map(|(key, row)| ((*key).to_owned(), serde_json::from_str(row).unwrap()))
            .collect();
        let (branch_key, table) = (branch_key(), fields::COUNTERS.to_owned());
        let mut deleted = log_event(3, fields::COUNTERS, "d", None, "{}");
        deleted.row = None;
        let log = vec![
            log_event(1, fields::COUNTERS, "c", None, r#"{"value":1}"#),
            log_event(2, fields::COUNTERS, "d", None, r#"{"value":1}"#),
            deleted,
            log_event(4, fields::COUNTERS, "c", None, r#"{"value":2}"#),
            log_event(5, fields::STOCK, "s", None, r#"{"left":2}"#),
        ];
        let tables = vec![TableReading { node: 2, branch_key, table, rows }];
        History { tables, ..history_of(vec![], log) }
    }

    #[test]
    fn the_rows_that_the_log_makes_hold() {
        assert_holds(check, &history_with(&[("c", r#"{"value":2}"#)]), 2);
    }

    #[test]
    fn a_missing_extra_or_other_row_is_a_violation() {
        assert_violation(check, &history_with(&[]), "from node 2: c is missing");
        let old = history_with(&[("c", r#"{"value":1}"#)]);
        assert_violation(check, &old, r#"c is {"value":1}, the log has {"value":2}"#);
        let deleted = history_with(&[("c", r#"{"value":2}"#), ("d", r#"{"value":1}"#)]);
        assert_violation(check, &deleted, "the log has no such row");
    }

    #[test]
    fn a_table_without_a_log_is_a_violation() {
        let unread = History { logs: vec![], ..history_with(&[]) };
        assert_violation(check, &unread, "no log of its branch was read");
    }
}
