//! Reset: begin again from the seed (docs/original/rules.md#purge-and-reset). What was there goes
//! into the history; the event log goes on, and so do the sequences, unless a lenient module is
//! asked otherwise.
//!
//! Seed rows are taken as they were at the beginning: a seed that was good enough to begin with is
//! good enough to begin again with.

use std::sync::Arc;

use crate::command::Reset;
use crate::definition::Validation;
use crate::delta::BulkOperation;
use crate::ids::Revision;
use crate::module::operation::{emptied, number};
use crate::module::plan::Plan;
use crate::reject::Reject;
use crate::schema::Table;
use crate::value::{Object, Value};

impl Plan<'_> {
    pub(crate) fn reset(&mut self, reset: &Reset) -> Result<(), Reject> {
        let before = self.module().clone();
        let definition = self.definition();
        let tables: Vec<&Arc<Table>> = definition.schema.tables.iter().collect();
        let entry = self.keep(&tables, &reset.reason, reset.requested_by.as_ref());
        let removed: usize = tables.iter().map(|table| self.count(table)).sum();
        let shown = tables.iter().map(|table| emptied(table, self.count(table))).collect();
        for table in &tables {
            self.empty(table);
        }
        let begins_again = reset.numbers
            && match definition.validation {
                Validation::Lenient => true,
                Validation::Strict => false,
            };
        if begins_again {
            self.numbers_mut().begin_again();
        }
        if let Some(seed) = &reset.seed {
            self.seed(seed)?;
        }
        self.settle(&before, &tables);
        let meta: Object = [
            ("reason", Value::from(reset.reason.as_str())),
            ("requestedBy", reset.requested_by.clone().into()),
            ("historyEntryId", entry.into()),
            ("purgedTables", Value::Array(shown)),
            ("totalPurged", number(removed)),
        ]
        .into_iter()
        .collect();
        let details = [("meta", Value::from(meta))].into_iter().collect();
        let diffs = self.touched(&before, &tables);
        self.draft_operation(BulkOperation::Reset, details, diffs, Revision(1));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Request, Seed};
    use crate::delta::Event;
    use crate::testing::{Shop, module_change, object};

    const SEED: &str = r#"{"dishes":[{"id":"d1","extra":1},{"code":"no id"}]}"#;

    fn reset(shop: &mut Shop, seed: Option<&str>, numbers: bool) -> Arc<Event> {
        let seed = seed.map(|json| Arc::new(Seed { tables: object(json) }));
        let reason = "daily-reset".to_owned();
        let reset = Reset { seed, reason, requested_by: Some("me".to_owned()), numbers };
        shop.operation(Request::Reset(reset)).unwrap().expect("a reset always makes an event")
    }

    #[test]
    fn the_module_begins_again_from_its_seed_at_revision_one() {
        let mut shop = Shop::lenient();
        shop.seed(SEED).unwrap();
        shop.insert("tickets", r#"{"id":"t"}"#).unwrap();
        shop.merge("dishes", r#"{"id":"d1","code":"changed"}"#).unwrap();
        let event = reset(&mut shop, Some(SEED), false);
        let head = shop.branch().head();
        assert_eq!((head.offset.0, head.revision.0, head.rows), (3, 1, 2));
        assert_eq!((event.offset, event.revision.0), (head.offset, 1));
        let rows = shop.rows("dishes");
        assert!(rows[0].contains(r#""code":null"#) && rows[0].contains(r#""extra":1"#), "{rows:?}");
        assert!(rows[1].contains("no id") && shop.rows("tickets").is_empty());
        let archive = shop.archive();
        let counts: Vec<_> = archive[0].tables.iter().map(|t| t.records.len()).collect();
        assert_eq!(counts, [0, 0, 2, 1], "all tables, empty ones too");
        let details = Value::Object(module_change(&event).details.clone()).to_json();
        assert_eq!(
            details,
            format!(
                r#"{{"meta":{{"reason":"daily-reset","requestedBy":"me","historyEntryId":"{}","purgedTables":[{{"table":"order_header","status":"empty","removed":0}},{{"table":"order_line","status":"empty","removed":0}},{{"table":"dishes","status":"cleared","removed":2}},{{"table":"tickets","status":"cleared","removed":1}}],"totalPurged":3}}}}"#,
                archive[0].id
            )
        );
        shop.insert("tickets", r#"{"id":"t"}"#).unwrap();
        let head = shop.branch().head();
        assert_eq!((head.offset.0, head.revision.0), (4, 2), "the log goes on");
    }

    #[test]
    fn a_sequence_without_a_configured_rule_begins_again_too() {
        let mut shop = Shop::lenient();
        assert_eq!(shop.reserve("tickets", "number").unwrap(), "1");
        reset(&mut shop, Some(r#"{"tickets":[{"id":"a","number":"7"}]}"#), true);
        assert_eq!(shop.reserve("tickets", "number").unwrap(), "8");
        reset(&mut shop, None, true);
        assert_eq!(shop.reserve("tickets", "number").unwrap(), "1");
    }

    #[test]
    fn an_empty_module_is_reset_and_told_too() {
        let mut shop = Shop::lenient();
        let event = reset(&mut shop, None, false);
        assert_eq!((event.revision.0, shop.archive().len()), (1, 1));
        assert_eq!(shop.branch().head().last_updated_at, event.at);
    }
}
