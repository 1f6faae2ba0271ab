//! Restore: bring records back out of the history (docs/original/rest.md#management). The entry
//! stays there.
//!
//! The definition may be another one than when they were taken away. A strict module takes none
//! that does not satisfy it: they are brought up to it where that is asked for.

use std::sync::Arc;

use crate::command::{Restore, RestoreMode};
use crate::definition::Validation;
use crate::delta::BulkOperation;
use crate::limits::VIOLATIONS_SHOWN;
use crate::module::fit;
use crate::module::operation::number;
use crate::module::plan::{Plan, RecordDiff};
use crate::module::version;
use crate::read::{ArchivedTable, Violation};
use crate::reject::Reject;
use crate::schema::Table;
use crate::value::{Object, Value};

/// How many of a table's records came back, met their like, or have no place any more.
#[derive(Default)]
struct RestoreCounts {
    restored: usize,
    duplicates: usize,
    skipped: usize,
}

impl Plan<'_> {
    pub(crate) fn restore(&mut self, restore: &Restore) -> Result<(), Reject> {
        let unknown = || Reject::NoHistory { entry: restore.entry.clone() };
        let entry = Arc::clone(self.archive().get(&restore.entry).ok_or_else(unknown)?);
        let before = self.module().clone();
        let schema = &self.definition().schema;
        let (mut shown, mut total) = (Vec::new(), 0);
        let mut tables: Vec<&Arc<Table>> = Vec::new();
        for kept in &entry.tables {
            let counts = match schema.table(kept.table.as_str()) {
                Some(table) => {
                    tables.push(table);
                    self.restore_table(table, kept, restore)
                }
                None => RestoreCounts { skipped: kept.records.len(), ..RestoreCounts::default() },
            };
            total += counts.restored;
            shown.push(show(kept, restore.mode, &counts));
        }
        self.settle(&before, &tables);
        let definition = self.definition();
        let at = self.at();
        let (module, numbers) = self.module_and_numbers();
        numbers.pass_records(definition, module, at);
        let meta: Object = [
            ("reason", Value::from(restore.reason.clone())),
            ("requestedBy", restore.requested_by.clone().into()),
            ("historyEntryId", entry.id.as_str().into()),
            ("mode", restore.mode.wire_name().into()),
        ]
        .into_iter()
        .collect();
        let details = [
            ("restored", Value::Array(shown)),
            ("totalRestored", number(total)),
            ("entryId", entry.id.as_str().into()),
            ("meta", meta.into()),
        ];
        let diffs = self.touched(&before, &tables);
        self.refuse_misfits(&diffs)?;
        let same = diffs.is_empty();
        let revision = if same { self.revision() } else { self.next_revision() };
        self.draft_operation(
            BulkOperation::Restore,
            details.into_iter().collect(),
            diffs,
            revision,
        );
        self.check_integrity()
    }

    /// What comes back into a strict module is what it would take now.
    fn refuse_misfits(&self, diffs: &[RecordDiff]) -> Result<(), Reject> {
        let definition = self.definition();
        match definition.validation {
            Validation::Lenient => return Ok(()),
            Validation::Strict => {}
        }
        let found = diffs.iter().filter_map(|diff| Some((diff, diff.after.as_deref()?)));
        let found = found.flat_map(|(diff, record)| {
            let table = definition.schema.table(diff.table.as_str());
            let problems = table.map(|table| fit::problems(table, record, Validation::Strict));
            problems.unwrap_or_default().into_iter().map(|problem| Violation {
                table: diff.table.to_string(),
                key: diff.key.clone(),
                problem,
            })
        });
        let found: Vec<Violation> = found.take(VIOLATIONS_SHOWN).collect();
        if found.is_empty() { Ok(()) } else { Err(fit::refusal(&found)) }
    }

    /// The record brought up to the present definition, which is a change where it was not.
    fn filled(&mut self, table: &Table, stored: &Object) -> Object {
        let mut record = table.project_fill(stored, &mut self.insert_context());
        let version = version::stored(stored);
        let same = version::is_same(stored, &record);
        self.lock(table).set(&mut record, if same { version } else { version::risen(version) });
        record
    }

    fn restore_table(
        &mut self,
        table: &Table,
        kept: &ArchivedTable,
        restore: &Restore,
    ) -> RestoreCounts {
        match restore.mode {
            RestoreMode::Append => {}
            RestoreMode::Replace => self.empty(table),
        }
        let mut counts = RestoreCounts::default();
        let relations = self.relations();
        for record in &kept.records {
            let record = match restore.fill {
                true => Arc::new(self.filled(table, record)),
                false => Arc::clone(record),
            };
            // The key may have changed since, and the record may have none now.
            let Ok(key) = table.key_of(&record) else {
                counts.skipped += 1;
                continue;
            };
            if self.has(table, &key) {
                counts.duplicates += 1;
                continue;
            }
            self.module_mut().put(&table.name, key, record, relations);
            counts.restored += 1;
        }
        counts
    }
}

fn show(kept: &ArchivedTable, mode: RestoreMode, counts: &RestoreCounts) -> Value {
    let shown: Object = [
        ("table", Value::from(kept.table.as_str())),
        ("mode", mode.wire_name().into()),
        ("restored", number(counts.restored)),
        ("duplicates", number(counts.duplicates)),
        ("skipped", number(counts.skipped)),
    ]
    .into_iter()
    .collect();
    shown.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Purge, Request};
    use crate::delta::Event;
    use crate::testing::{Shop, module_change, table};

    /// A shop whose dishes a, b and c were purged; `b` is there anew.
    fn shop() -> (Shop, String) {
        let mut shop = Shop::lenient();
        for id in ["a", "b", "c"] {
            shop.insert("dishes", &format!(r#"{{"id":"{id}","code":"old"}}"#)).unwrap();
        }
        shop.insert("tickets", r#"{"id":"t"}"#).unwrap();
        purge(&mut shop, &["dishes", "tickets"]);
        shop.insert("dishes", r#"{"id":"b","code":"new"}"#).unwrap();
        shop.insert("dishes", r#"{"id":"z"}"#).unwrap();
        let entry = shop.archive()[0].id.clone();
        (shop, entry)
    }

    fn purge(shop: &mut Shop, tables: &[&str]) {
        let tables = tables.iter().map(|name| (*name).to_owned()).collect();
        let reason = "end of day".to_owned();
        let purge = Purge { tables, reason, requested_by: None, reset_events: false };
        shop.operation(Request::Purge(purge)).unwrap();
    }

    fn restore(shop: &mut Shop, entry: &str, mode: RestoreMode) -> Result<Arc<Event>, Reject> {
        let request = Restore {
            entry: entry.to_owned(),
            mode,
            fill: false,
            reason: Some("oops".to_owned()),
            requested_by: None,
        };
        Ok(shop.operation(Request::Restore(request))?.expect("a restore always makes an event"))
    }

    fn keys(shop: &Shop) -> Vec<String> {
        let name = crate::TableName::parse("dishes").unwrap();
        let rows = shop.branch().module.rows(&name).unwrap();
        rows.iter().map(|(_, row)| row.key.to_string()).collect()
    }

    fn shown(event: &Event) -> (String, u64) {
        let details = &module_change(event).details;
        let total = details.get("totalRestored").unwrap().as_u64().unwrap();
        (details.get("restored").unwrap().to_json(), total)
    }

    #[test]
    fn append_puts_records_beside_those_that_are_there() {
        let (mut shop, entry) = shop();
        let before = shop.branch().head();
        let event = restore(&mut shop, &entry, RestoreMode::Append).unwrap();
        let (restored, total) = shown(&event);
        assert_eq!(
            restored,
            r#"[{"table":"dishes","mode":"append","restored":2,"duplicates":1,"skipped":0},{"table":"tickets","mode":"append","restored":1,"duplicates":0,"skipped":0}]"#
        );
        assert_eq!(total, 3);
        let details = &module_change(&event).details;
        assert_eq!(details.get("entryId").unwrap().as_str(), Some(entry.as_str()));
        assert_eq!(
            details.get("meta").unwrap().to_json(),
            format!(
                r#"{{"reason":"oops","requestedBy":null,"historyEntryId":"{entry}","mode":"append"}}"#
            )
        );
        assert_eq!(keys(&shop), ["b", "z", "a", "c"]);
        assert!(shop.rows("dishes")[0].contains("new"));
        let head = shop.branch().head();
        assert_eq!((head.rows, head.revision.0), (5, before.revision.0 + 1));
        assert_eq!(shop.archive().len(), 1, "the entry stays");
    }

    #[test]
    fn a_second_append_brings_nothing_is_told_and_changes_nothing() {
        let (mut shop, entry) = shop();
        restore(&mut shop, &entry, RestoreMode::Append).unwrap();
        let before = shop.branch().head();
        let event = restore(&mut shop, &entry, RestoreMode::Append).unwrap();
        assert_eq!(shown(&event).1, 0);
        assert!(module_change(&event).records.is_empty());
        let head = shop.branch().head();
        assert_eq!(head.offset, before.offset.next());
        assert_eq!((head.revision, event.revision), (before.revision, before.revision));
        assert_eq!(head.last_updated_at, before.last_updated_at);
    }

    #[test]
    fn replace_makes_the_tables_what_they_were() {
        let (mut shop, entry) = shop();
        let event = restore(&mut shop, &entry, RestoreMode::Replace).unwrap();
        assert_eq!(shown(&event).1, 4);
        assert_eq!(keys(&shop), ["a", "b", "c"]);
        assert!(shop.rows("dishes")[1].contains("old"));
        let change = module_change(&event);
        let records: Vec<_> = change
            .records
            .iter()
            .map(|(table, key, record)| (table.as_str(), key.to_string(), record.is_some()))
            .collect();
        let gone_and_back = [
            ("dishes", "z".to_owned(), false),
            ("dishes", "a".to_owned(), true),
            ("dishes", "b".to_owned(), true),
            ("dishes", "c".to_owned(), true),
            ("tickets", "t".to_owned(), true),
        ];
        assert_eq!(records, gone_and_back);
        assert_eq!(shop.branch().head().rows, 4);
    }

    #[test]
    fn records_without_a_table_or_a_key_are_skipped() {
        let mut shop = Shop::lenient();
        shop.insert("dishes", r#"{"id":"a","code":"tea"}"#).unwrap();
        shop.insert("dishes", r#"{"id":"b"}"#).unwrap();
        shop.insert("tickets", r#"{"id":"t"}"#).unwrap();
        purge(&mut shop, &["dishes", "tickets"]);
        shop.redefine(|definition| {
            let mut schema = (*definition.schema).clone();
            schema.tables.retain(|table| table.name.as_str() != "tickets");
            let mut dishes = table("dishes", &["id", "code", "kitchen", "place"]);
            dishes.key = [Arc::from("code")].into();
            schema.tables[2] = Arc::new(dishes);
            definition.schema = Arc::new(schema);
        })
        .unwrap();
        let entry = shop.archive()[0].id.clone();
        let event = restore(&mut shop, &entry, RestoreMode::Append).unwrap();
        assert_eq!(
            shown(&event).0,
            r#"[{"table":"dishes","mode":"append","restored":1,"duplicates":0,"skipped":1},{"table":"tickets","mode":"append","restored":0,"duplicates":0,"skipped":1}]"#
        );
        assert_eq!(keys(&shop), ["tea"]);
    }

    #[test]
    fn an_unknown_entry_is_refused() {
        let (mut shop, _) = shop();
        let reject = restore(&mut shop, "purge-none", RestoreMode::Append).unwrap_err();
        assert_eq!(reject, Reject::NoHistory { entry: "purge-none".to_owned() });
    }

    #[test]
    fn strict_checks_what_comes_back() {
        let mut shop = Shop::strict();
        shop.insert("dishes", r#"{"id":"a","code":"tea"}"#).unwrap();
        purge(&mut shop, &["dishes"]);
        shop.insert("dishes", r#"{"id":"b","code":"tea"}"#).unwrap();
        let entry = shop.archive()[0].id.clone();
        let reject = restore(&mut shop, &entry, RestoreMode::Append).unwrap_err();
        assert_eq!(reject.code(), "not-unique");
        restore(&mut shop, &entry, RestoreMode::Replace).unwrap();
        assert_eq!(keys(&shop), ["a"]);
    }

    #[test]
    fn restored_records_satisfy_the_definition_of_now() {
        let mut shop = Shop::strict();
        shop.insert("dishes", r#"{"id":"a","code":"x"}"#).unwrap();
        purge(&mut shop, &["dishes"]);
        let entry = shop.archive()[0].id.clone();
        shop.redefine(|definition| {
            let mut schema = (*definition.schema).clone();
            let dishes = schema.tables.iter_mut().find(|table| table.name.as_str() == "dishes");
            let mut tier = table("t", &["id", "tier"]).fields.remove(1);
            tier.nullable = false;
            tier.default = Some(crate::schema::Default::Value("gold".into()));
            Arc::make_mut(dishes.unwrap()).fields.push(tier);
            definition.schema = Arc::new(schema);
        })
        .unwrap();
        let restore = |fill| {
            let (mode, reason) = (RestoreMode::Append, None);
            Request::Restore(Restore {
                entry: entry.clone(),
                mode,
                fill,
                reason,
                requested_by: None,
            })
        };
        let refused = shop.operation(restore(false)).unwrap_err();
        assert_eq!(refused.code(), "records-do-not-fit");
        assert!(refused.to_string().contains("tier is missing"), "{refused}");
        shop.operation(restore(true)).unwrap();
        assert!(shop.rows("dishes")[0].contains(r#""tier":"gold""#));
    }
}
