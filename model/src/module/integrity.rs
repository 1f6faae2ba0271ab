//! Integrity: what must hold between records when a command ends (decision 23).
//!
//! Only what the command changed is looked at: data that broke a rule before the rule came stays
//! as it is until somebody changes that very value. Between the mutations of one command anything
//! may be true, so an order and its lines may be inserted, or removed, in any order.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ids::{RecordKey, TableName};
use crate::module::index::{names, values_text};
use crate::module::plan::RecordDiff;
use crate::module::plan::{Draft, Plan};
use crate::module::relations::{Link, TableRelations};
use crate::reject::Reject;
use crate::value::{Object, Value};

/// A record before the command and after it.
type Change<'a> = (Option<&'a Object>, Option<&'a Object>);

impl Plan<'_> {
    /// Checks uniqueness and foreign keys over everything the command changed.
    pub(super) fn check_integrity(&self) -> Result<(), Reject> {
        for ((table, key), (before, after)) in self.net_changes() {
            let Some(relations) = self.relations().table(table) else { continue };
            if let Some(after) = after {
                self.check_unique(table, key, relations, (before, Some(after)))?;
                for link in &relations.outgoing {
                    self.check_points_somewhere(link, (before, Some(after)))?;
                }
            }
            for link in &relations.incoming {
                self.check_not_pointed_at(link, (before, after))?;
            }
        }
        Ok(())
    }

    /// Each record touched, once: what it was before the command and what it is after it.
    fn net_changes(&self) -> BTreeMap<(&TableName, &RecordKey), Change<'_>> {
        let mut changes: BTreeMap<_, Change<'_>> = BTreeMap::new();
        let drafts = self.drafts().iter().map(|Draft { table, key, before, after, .. }| {
            (table, key, before.as_deref(), after.as_deref())
        });
        let diffs = self.diffs().iter().map(|RecordDiff { table, key, before, after }| {
            (table, key, before.as_deref(), after.as_deref())
        });
        for (table, key, before, after) in drafts.chain(diffs) {
            changes.entry((table, key)).or_insert((before, after)).1 = after;
        }
        changes
    }

    fn check_unique(
        &self,
        table: &TableName,
        key: &RecordKey,
        relations: &TableRelations,
        (before, after): Change<'_>,
    ) -> Result<(), Reject> {
        for &place in &relations.unique {
            let fields = &self.relations().indexes(table)[place];
            let text = |record: Option<&Object>| record.and_then(|r| values_text(r, fields));
            let Some(now) = text(after).filter(|now| text(before).as_ref() != Some(now)) else {
                continue;
            };
            let rows = self.module().rows(table);
            let index = rows.and_then(|rows| rows.index_at(place));
            if let Some(other) = index.and_then(|index| index.find(&now, Some(key))) {
                let after = after.expect("a record without values has no text");
                let values = fields.iter().map(|f| after.get(&f.name).cloned().unwrap_or_default());
                return Err(Reject::NotUnique {
                    table: table.to_string(),
                    fields: names(fields),
                    value: match fields.len() {
                        1 => Reject::show(&values.collect::<Vec<_>>()[0]),
                        _ => Reject::show(&Value::Array(values.collect())),
                    },
                    key: other.clone(),
                });
            }
        }
        Ok(())
    }

    fn check_points_somewhere(
        &self,
        link: &Link,
        (before, after): Change<'_>,
    ) -> Result<(), Reject> {
        let value = after.and_then(|record| record.get(&link.near_field));
        let Some(text) = value.and_then(|value| link.text(value)) else { return Ok(()) };
        let was = before.and_then(|record| link.text(record.get(&link.near_field)?));
        if was.as_ref() == Some(&text) || self.exists(link, &text) {
            return Ok(());
        }
        Err(Reject::ForeignKey {
            table: link.near.to_string(),
            field: link.near_field.to_string(),
            message: format!(
                "{}.{} = {} points at no record: there is none with this {} in {}",
                link.near,
                link.near_field,
                Reject::show(value.expect("a text has a value")),
                link.far_field,
                link.far
            ),
        })
    }

    fn check_not_pointed_at(&self, link: &Link, (before, after): Change<'_>) -> Result<(), Reject> {
        let value = before.and_then(|record| record.get(&link.far_field));
        let Some(text) = value.and_then(|value| link.text(value)) else { return Ok(()) };
        let now = after.and_then(|record| link.text(record.get(&link.far_field)?));
        if now.as_ref() == Some(&text) || self.exists(link, &text) {
            return Ok(());
        }
        let near = self.module().rows(&link.near);
        let index = near.and_then(|rows| rows.index_at(link.near_index));
        let Some(referrer) = index.and_then(|index| index.find(&text, None)) else {
            return Ok(());
        };
        Err(Reject::ForeignKey {
            table: link.near.to_string(),
            field: link.near_field.to_string(),
            message: format!(
                "{}.{} = {} cannot go: record \"{referrer}\" of {} still points at it with {}",
                link.far,
                link.far_field,
                Reject::show(value.expect("a text has a value")),
                link.near,
                link.near_field
            ),
        })
    }

    /// Whether the far table has a record with this value.
    pub(super) fn exists(&self, link: &Link, text: &Arc<str>) -> bool {
        let Some(far) = self.module().rows(&link.far) else { return false };
        match link.far_index {
            None => far.get(&RecordKey(Arc::clone(text))).is_some(),
            Some(place) => {
                far.index_at(place).is_some_and(|index| index.find(text, None).is_some())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Shop;

    #[test]
    fn what_was_wrong_before_the_rule_stays_until_it_is_touched() {
        // A seed is taken as it is.
        let mut shop = Shop::strict();
        let seed = r#"{"dishes":[{"id":"1","code":"tea"},{"id":"2","code":"tea"}],
            "order_line":[{"id":"l","orderId":"ghost"}]}"#;
        shop.seed(seed).unwrap();
        shop.merge("order_line", r#"{"id":"l","n":2,"version":1}"#).unwrap();
        shop.merge("dishes", r#"{"id":"2","kitchen":"bar"}"#).unwrap();
        shop.delete("dishes", r#"{"id":"1"}"#).unwrap();
        assert!(shop.insert("dishes", r#"{"id":"3","code":"tea"}"#).is_err());
    }

    /// Days keyed by an instant, and visits that point at them, unique by what they cost.
    fn diary(mut shop: Shop) -> Shop {
        let doc = r#"[
            {"name":"days","fields":[{"name":"at","type":"timestamp","primaryKey":true},
                {"name":"note","type":"text"}]},
            {"name":"visits","fields":[{"name":"id","type":"text","primaryKey":true},
                {"name":"day","type":"timestamp",
                    "references":{"table":"days","column":"at","onDelete":"CASCADE"}},
                {"name":"paid","type":"boolean"},{"name":"sum","type":"decimal"}],
             "indexes":[{"name":"one","columns":["paid","sum"],"unique":true}]}]"#;
        let doc = crate::Value::from_json(doc.as_bytes()).unwrap();
        let schema = crate::testing::conventional(&doc);
        shop.redefine(|definition| definition.schema = schema.into()).unwrap();
        shop
    }

    #[test]
    fn keys_and_references_are_the_same_in_any_spelling() {
        let mut shop = diary(Shop::strict());
        shop.insert("days", r#"{"at":"2026-01-01T10:00:00Z","note":"a"}"#).unwrap();
        for at in ["2026-01-01T10:00:00.000Z", "2026-01-01T12:00:00+02:00"] {
            let reject = shop.insert("days", &format!(r#"{{"at":"{at}"}}"#)).unwrap_err();
            assert_eq!(reject.code(), "duplicate-key", "{at}");
            let visit = format!(r#"{{"id":"{at}","day":"{at}"}}"#);
            shop.insert("visits", &visit).unwrap();
        }
        let first = r#"{"at":"2026-01-01T13:00:00+03:00"}"#;
        assert_eq!(shop.delete("days", first).unwrap_err().code(), "foreign-key");
        let moved = r#"{"id":"2026-01-01T10:00:00.000Z","day":"2026-01-01T11:00:00+01:00"}"#;
        let reject = shop.insert("visits", moved).unwrap_err();
        assert_eq!(reject.code(), "duplicate-key", "of the same day, so it is no other's part");
        for at in ["2026-01-01T10:00:00.000Z", "2026-01-01T12:00:00+02:00"] {
            shop.delete("visits", &format!(r#"{{"id":"{at}"}}"#)).unwrap();
        }
        let event = shop.delete("days", first).unwrap();
        let gone = event.record().unwrap();
        assert_eq!(gone.key.as_str(), "2026-01-01T10:00:00.000Z");
        let at = gone.record.get("at").unwrap().as_str();
        assert_eq!(at, Some("2026-01-01T10:00:00Z"), "stored as it was sent");
    }

    #[test]
    fn a_unique_set_is_taken_in_any_spelling() {
        let mut shop = diary(Shop::strict());
        shop.insert("visits", r#"{"id":"a","paid":true,"sum":1.50}"#).unwrap();
        let again = r#"{"id":"b","paid":"1","sum":"1.5"}"#;
        assert_eq!(shop.insert("visits", again).unwrap_err().code(), "not-unique");
    }

    #[test]
    fn a_seed_and_a_lenient_merge_know_a_record_in_any_spelling_too() {
        let mut shop = diary(Shop::lenient());
        let seed = r#"{"days":[{"at":"2026-01-01T10:00:00Z"},{"at":"2026-01-01T12:00:00+02:00"},
            {"at":"some day"}]}"#;
        shop.seed(seed).unwrap();
        assert_eq!(shop.branch().head().rows, 2);
        let event = shop.merge("days", r#"{"at":"2026-01-01T10:00:00.0Z","note":"b"}"#).unwrap();
        let merged = event.record().unwrap();
        assert_eq!(merged.key.as_str(), "2026-01-01T10:00:00.000Z");
        let event = shop.merge("days", r#"{"at":"some day","note":"c"}"#).unwrap();
        assert_eq!(event.record().unwrap().key.as_str(), "some day");
        assert_eq!(shop.branch().head().rows, 2);
    }
}
