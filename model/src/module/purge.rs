//! Purge: empty tables into the history (docs/original/rest.md#management,
//! rules.md#purge-and-reset). The event log and the sequences go on as if nothing had happened:
//! only the records are gone.

use std::sync::Arc;

use crate::command::Purge;
use crate::delta::BulkOperation;
use crate::module::operation::{distinct, emptied, number};
use crate::module::plan::Plan;
use crate::reject::Reject;
use crate::schema::Table;
use crate::value::{Object, Value};

impl Plan<'_> {
    pub(crate) fn purge(&mut self, purge: &Purge) -> Result<(), Reject> {
        let before = self.module().clone();
        let schema = &self.definition().schema;
        let (mut shown, mut tables): (Vec<Value>, Vec<&Arc<Table>>) = (Vec::new(), Vec::new());
        for name in distinct(purge.tables.iter().map(String::as_str))? {
            match schema.purge_table(name) {
                Some(table) if tables.iter().any(|known| known.name == table.name) => {}
                Some(table) => {
                    shown.push(emptied(table, self.count(table)));
                    tables.push(table);
                }
                None => shown.push(skipped(name)),
            }
        }
        let removed: usize = tables.iter().map(|table| self.count(table)).sum();
        if removed == 0 {
            return Ok(());
        }
        let entry = self.keep(&tables, &purge.reason, purge.requested_by.as_ref());
        for table in &tables {
            self.empty(table);
        }
        let meta: Object = [
            ("reason", Value::from(purge.reason.as_str())),
            ("requestedBy", purge.requested_by.clone().into()),
            ("resetEvents", purge.reset_events.into()),
            ("historyEntryId", entry.into()),
            ("eventMetaReset", purge.reset_events.into()),
        ]
        .into_iter()
        .collect();
        let details = [
            ("tables", Value::Array(shown)),
            ("totalRemoved", number(removed)),
            ("meta", meta.into()),
        ];
        let diffs = self.touched(&before, &tables);
        let details = details.into_iter().collect();
        self.draft_operation(BulkOperation::Purge, details, diffs, self.next_revision());
        self.check_integrity()
    }
}

fn skipped(name: &str) -> Value {
    let shown: Object = [
        ("table", Value::from(name)),
        ("status", "skipped".into()),
        ("reason", "table-not-registered".into()),
    ]
    .into_iter()
    .collect();
    shown.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Request;
    use crate::delta::Event;
    use crate::testing::{Shop, module_change};

    fn purge(shop: &mut Shop, tables: &[&str]) -> Result<Option<Arc<Event>>, Reject> {
        shop.operation(Request::Purge(Purge {
            tables: tables.iter().map(|name| (*name).to_owned()).collect(),
            reason: "end of day".to_owned(),
            requested_by: Some("me".to_owned()),
            reset_events: true,
        }))
    }

    fn shop() -> Shop {
        let mut shop = Shop::lenient();
        for id in ["o1", "o2"] {
            shop.insert("order_header", &format!(r#"{{"id":"{id}"}}"#)).unwrap();
        }
        shop.insert("dishes", r#"{"id":"d"}"#).unwrap();
        shop
    }

    #[test]
    fn tables_are_emptied_into_the_history_by_one_event() {
        let mut shop = shop();
        let before = shop.branch().head();
        let event = purge(&mut shop, &["zzz", "orders", "tickets", "order", "zzz"]).unwrap();
        let event = event.unwrap();
        let change = module_change(&event);
        let entry = shop.archive()[0].id.clone();
        assert!(entry.starts_with("purge-") && entry.len() == 42, "{entry}");
        assert_eq!(
            Value::Object(change.details.clone()).to_json(),
            format!(
                r#"{{"tables":[{{"table":"zzz","status":"skipped","reason":"table-not-registered"}},{{"table":"order_header","status":"cleared","removed":2}},{{"table":"tickets","status":"empty","removed":0}}],"totalRemoved":2,"meta":{{"reason":"end of day","requestedBy":"me","resetEvents":true,"historyEntryId":"{entry}","eventMetaReset":true}}}}"#
            )
        );
        let gone: Vec<_> = change
            .records
            .iter()
            .map(|(_, key, record)| (key.as_str(), record.is_none()))
            .collect();
        assert_eq!(gone, [("o1", true), ("o2", true)]);
        let head = shop.branch().head();
        assert_eq!((head.offset.0, head.revision.0), (before.offset.0 + 1, before.revision.0 + 1));
        assert_eq!((event.offset, event.revision, head.rows), (head.offset, head.revision, 1));
        assert_eq!(head.last_updated_at, event.at);
        assert_eq!(shop.rows("order_header").len(), 0);
    }

    #[test]
    fn an_entry_tells_what_when_why_and_who() {
        let mut shop = shop();
        let revision = shop.branch().head().revision;
        let event = purge(&mut shop, &["tickets", "order_header"]).unwrap().unwrap();
        let archive = shop.archive();
        let entry = &archive[0];
        assert_eq!((entry.at, entry.revision), (event.at, revision));
        assert_eq!(
            (entry.reason.as_str(), entry.requested_by.as_deref()),
            ("end of day", Some("me"))
        );
        let shown: Vec<_> =
            entry.tables.iter().map(|t| (t.table.as_str(), t.records.len())).collect();
        assert_eq!(shown, [("tickets", 0), ("order_header", 2)], "empty tables too");
        purge(&mut shop, &["dishes"]).unwrap();
        assert_eq!(shop.archive()[1].id, entry.id, "the newest comes first");
        let read = |id: &str| {
            let read = crate::Read::Archive { entry: Some(id.to_owned()) };
            match shop.branch().read(&read) {
                Ok(crate::Answer::Archive(entries)) => entries,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(read(&entry.id), archive);
        assert!(read("purge-none").is_empty());
    }

    #[test]
    fn the_log_sequences_and_places_go_on_after_a_purge() {
        let mut shop = Shop::lenient();
        assert_eq!(shop.reserve("tickets", "number").unwrap(), "1");
        shop.insert("tickets", r#"{"id":"a"}"#).unwrap();
        purge(&mut shop, &["tickets"]).unwrap();
        let event = shop.insert("tickets", r#"{"id":"b"}"#).unwrap();
        assert_eq!((event.offset.0, event.revision.0), (3, 4));
        assert_eq!(event.record().unwrap().record.get("number").unwrap().as_str(), Some("3"));
        let table = crate::TableName::parse("tickets").unwrap();
        assert_eq!(
            shop.branch().module.rows(&table).unwrap().ordinal(&crate::RecordKey("b".into())),
            Some(1)
        );
    }

    #[test]
    fn more_tables_than_any_module_has_are_refused() {
        let names: Vec<String> = (0..300).map(|n| n.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(purge(&mut shop(), &names).unwrap_err().code(), "bad-command");
    }
}
