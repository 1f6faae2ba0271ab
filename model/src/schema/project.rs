//! Project: from what a client sent to the record that is stored.
//!
//! Promise: an inserted record has exactly the schema's fields, in the schema's order, whatever
//! order or spelling (field name or its column) was sent. A merge changes only what was
//! sent, and never the key. Lenient drops what the schema does not know, strict refuses it.
//!
//! Versions are the caller's: a `version` the schema does not declare is passed over here, by
//! strict too; one the schema declares is a field like any other.

use std::sync::Arc;

use crate::definition::Validation;
use crate::entropy::Entropy;
use crate::ids::{BranchId, Timestamp};
use crate::reject::Reject;
use crate::schema::{Field, FieldType, Table};
use crate::value::{Object, Value};

/// Fields that a refusal of an unknown one names.
const FIELDS_NAMED: usize = 16;

/// What an insert may draw on besides the record sent.
#[derive(Debug)]
pub struct InsertContext<'a> {
    /// How much is enforced.
    pub validation: Validation,
    /// Fills a `branchId` field.
    pub branch: &'a BranchId,
    /// The socket's id, fills a `clientId` field.
    pub client: Option<&'a str>,
    /// The commit time.
    pub at: Timestamp,
    /// Fills a missing key.
    pub entropy: &'a mut Entropy,
}

impl Table {
    /// The record an insert stores: every field of the schema, in order, defaults filled in.
    ///
    /// # Errors
    /// Strict only: [`Reject::Invalid`], naming the field and the rule it breaks.
    pub fn project_insert(
        &self,
        sent: &Object,
        ctx: &mut InsertContext<'_>,
    ) -> Result<Object, Reject> {
        if ctx.validation == Validation::Strict {
            self.refuse_unknown(sent)?;
        }
        // One more than the schema has: a strict record's version comes behind its fields.
        let mut record = Object::with_capacity(self.fields.len() + 1);
        for field in &self.fields {
            // In the schema's order, whatever order was sent: records of a table look alike, and
            // equal inserts give equal bytes.
            let sent = self.sent_value(sent, field);
            let value = match ctx.validation {
                Validation::Lenient => match sent {
                    Some(value) if !is_nothing(&value) => field.coerce(&value),
                    Some(_) | None => self.default_of(field, ctx)?,
                },
                Validation::Strict => {
                    let value = match sent {
                        Some(value) if field.keeps(&value) => value,
                        Some(_) | None => self.default_of(field, ctx)?,
                    };
                    field.validate(self.name.as_str(), &value)?
                }
            };
            record.push(field.name.clone(), value);
        }
        Ok(record)
    }

    /// The record a merge stores: the current one with the fields sent changed. Shallow: a JSON
    /// field is replaced. `updatedAt` is stamped unless it was sent.
    ///
    /// # Errors
    /// Strict only: [`Reject::Invalid`], naming the field and the rule it breaks.
    pub fn project_merge(
        &self,
        current: &Object,
        patch: &Object,
        validation: Validation,
        at: Timestamp,
    ) -> Result<Object, Reject> {
        let strict = validation == Validation::Strict;
        if strict {
            self.refuse_unknown(patch)?;
        }
        // From the stored record, not from the patch: what was not sent stays, in its place.
        let mut record = current.clone();
        for field in &self.fields {
            if self.key.contains(&field.name) {
                continue; // It is equal as text; the stored spelling stays.
            }
            match self.patched_value(patch, field) {
                Some(value) if strict => {
                    let value = field.validate(self.name.as_str(), &value)?;
                    record.insert(field.name.clone(), value);
                }
                Some(value) => {
                    record.insert(field.name.clone(), field.coerce(&value));
                }
                // Only where it was not sent: a client that syncs late keeps its own time.
                None if field.is_update_time() => {
                    record.insert(field.name.clone(), at.to_iso().into());
                }
                None => {}
            }
        }
        Ok(record)
    }

    /// The record brought up to this table: missing fields get their defaults, values are read as
    /// their field's type where nothing is lost, and what strict does not know is left out. What
    /// cannot be brought up stays as it is.
    pub(crate) fn project_fill(&self, stored: &Object, ctx: &mut InsertContext<'_>) -> Object {
        let strict = ctx.validation == Validation::Strict;
        // Where nothing says what a field holds, a lenient insert makes something up.
        let mut strict_context = InsertContext {
            validation: Validation::Strict,
            branch: ctx.branch,
            client: ctx.client,
            at: ctx.at,
            entropy: ctx.entropy,
        };
        let mut record = Object::with_capacity(stored.len() + self.fields.len());
        for field in &self.fields {
            let had = stored.get(&field.name).cloned().or_else(|| self.sent_value(stored, field));
            let value = match had {
                Some(value) if value.is_null() && (field.nullable || !strict) => Some(value),
                Some(value) if !value.is_null() => Some(field.migrate_value(value)),
                Some(_) | None => self.default_of(field, &mut strict_context).ok(),
            };
            if let Some(value) = value {
                record.push(field.name.clone(), value);
            }
        }
        // A column's old value was taken up under its new name above; it would stand twice.
        let renamed = |name: &str| self.fields.iter().any(|field| *field.column == *name);
        let stays = |name: &str| name == "version" || (!strict && !renamed(name));
        for (name, value) in stored.iter().filter(|(name, _)| stays(name)) {
            if record.get(name).is_none() {
                record.push(Arc::clone(name), value.clone());
            }
        }
        record
    }

    /// The names of its fields, the first of them where they are many.
    fn field_names(&self) -> String {
        let shown = self.fields.iter().take(FIELDS_NAMED).map(|field| &*field.name);
        let names = shown.collect::<Vec<_>>().join(", ");
        if self.fields.len() > FIELDS_NAMED { format!("{names}, …") } else { names }
    }

    fn refuse_unknown(&self, sent: &Object) -> Result<(), Reject> {
        let own_version = |name: &str| name == "version";
        match sent.iter().find(|(name, _)| self.field(name).is_none() && !own_version(name)) {
            None => Ok(()),
            Some((name, value)) => Err(Reject::Invalid {
                table: self.name.to_string(),
                field: name.to_string(),
                rule: format!("is not a field of this table, which has {}", self.field_names()),
                value: Reject::show(value),
            }),
        }
    }
}

impl Field {
    /// Whether strict takes a sent value as it is rather than looking for a default: `null` only
    /// where it is a value, empty text only where text is one.
    fn keeps(&self, value: &Value) -> bool {
        if value.is_null() {
            return self.nullable;
        }
        !(self.primary_key && is_nothing(value))
    }

    fn is_update_time(&self) -> bool {
        matches!(&*self.name, "updatedAt" | "updated_at") && self.kind == FieldType::Timestamp
    }
}

/// What the original takes for nothing at insert.
fn is_nothing(value: &Value) -> bool {
    value.is_null() || value.as_str() == Some("")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::schema::Schema;

    const AT: Timestamp = Timestamp(1_795_220_377_740);
    const ISO: &str = "2026-11-21T00:19:37.740Z";

    fn table(name: &str) -> std::sync::Arc<Table> {
        let doc = r#"{"tables":[
        {"name":"order_header","fields":[
            {"name":"id","type":"string","primaryKey":true,"nullable":false,"maxLength":64},
            {"name":"branchId","columnName":"branch_id","type":"string","nullable":false},
            {"name":"shiftId","columnName":"shift_id","type":"string","nullable":true,
             "references":{"table":"pos_shift","column":"shift_id"}},
            {"name":"guests","type":"integer","nullable":false,"defaultValue":1},
            {"name":"total","type":"decimal","precision":10,"scale":2,"nullable":true},
            {"name":"paid","type":"boolean","nullable":true},
            {"name":"openedAt","type":"timestamp","nullable":false},
            {"name":"closedAt","type":"timestamp","nullable":true},
            {"name":"clientId","type":"string","nullable":true},
            {"name":"notes","type":"json","nullable":false,"defaultValue":[]},
            {"name":"updatedAt","type":"timestamp","nullable":true}]},
        {"name":"lenient","fields":[
            {"name":"id","type":"uuid","primaryKey":true},
            {"name":"text","type":"text","nullable":false},
            {"name":"maybe","type":"text"},
            {"name":"count","type":"integer","nullable":false},
            {"name":"flag","type":"boolean","nullable":false},
            {"name":"meta","type":"json"},
            {"name":"seenAt","type":"timestamp","nullable":true},
            {"name":"seen","type":"timestamp"},
            {"name":"day","type":"date"},
            {"name":"time","type":"time"},
            {"name":"blob","type":"blob"},
            {"name":"made","type":"DATETIME","default":"getdate()"}]},
        {"name":"pair","fields":[
            {"name":"left","type":"text","primaryKey":true,"references":"lenient(id)"},
            {"name":"right","type":"text","primaryKey":true},
            {"name":"needed","type":"text","required":true}]}]}"#;
        let doc = Value::from_json(doc.as_bytes()).unwrap();
        Schema::from_definition("m", &doc).unwrap().table(name).unwrap().clone()
    }

    fn object(json: &str) -> Object {
        Value::from_json(json.as_bytes()).unwrap().as_object().unwrap().clone()
    }

    fn insert(name: &str, validation: Validation, sent: &Object) -> Result<Object, Reject> {
        let branch = BranchId::parse("dar").unwrap();
        let mut entropy = Entropy::new([1; 16], 2);
        let client = Some("ws-1");
        let mut ctx =
            InsertContext { validation, branch: &branch, client, at: AT, entropy: &mut entropy };
        table(name).project_insert(sent, &mut ctx)
    }

    fn inserted(name: &str, validation: Validation, sent: &str) -> Result<String, String> {
        insert(name, validation, &object(sent))
            .map(|record| Value::from(record).to_json())
            .map_err(|reject| reject.to_string())
    }

    fn merged(validation: Validation, current: &str, patch: &str) -> Result<String, String> {
        table("order_header")
            .project_merge(&object(current), &object(patch), validation, AT)
            .map(|record| Value::from(record).to_json())
            .map_err(|reject| reject.to_string())
    }

    #[test]
    fn a_lenient_insert_fills_everything_in_schema_order() {
        let record = inserted(
            "order_header",
            Validation::Lenient,
            r#"{"total":"7.50","shift_id":{"id":"s","name":"n"},"guests":"","odd":1,"version":4}"#,
        );
        assert_eq!(
            record.unwrap(),
            format!(
                r#"{{"id":"id-29070613-dc94-487a-8edf-dbb68349093c","branchId":"dar","shiftId":"s","guests":1,"total":7.50,"paid":null,"openedAt":"{ISO}","closedAt":"{ISO}","clientId":"ws-1","notes":[],"updatedAt":"{ISO}"}}"#
            )
        );
    }

    #[test]
    fn a_lenient_insert_ends_with_a_value_of_the_kind() {
        let record = inserted("lenient", Validation::Lenient, r#"{"id":"1"}"#).unwrap();
        assert_eq!(
            record,
            format!(
                r#"{{"id":"1","text":"","maybe":null,"count":0,"flag":false,"meta":{{}},"seenAt":"{ISO}","seen":"{ISO}","day":"2026-11-21","time":null,"blob":null,"made":"{ISO}"}}"#
            )
        );
    }

    #[test]
    fn a_strict_insert_stops_where_the_schema_says_nothing() {
        let record = inserted("order_header", Validation::Strict, r#"{"id":"","total":"7.50"}"#);
        assert_eq!(
            record.unwrap(),
            format!(
                r#"{{"id":"id-29070613-dc94-487a-8edf-dbb68349093c","branchId":"dar","shiftId":null,"guests":1,"total":7.50,"paid":null,"openedAt":"{ISO}","closedAt":null,"clientId":"ws-1","notes":[],"updatedAt":"{ISO}"}}"#
            )
        );
        for (name, sent, error) in [
            ("lenient", r#"{"id":"1"}"#, "lenient.text is required, but was missing"),
            ("pair", r#"{"right":"r"}"#, "pair.left is required, but was missing"),
            ("pair", r#"{"left":"l","needed":null}"#, "pair.needed is required, but was missing"),
            (
                "pair",
                r#"{"odd":1}"#,
                "pair.odd is not a field of this table, which has left, right, needed, but was 1",
            ),
            (
                "order_header",
                r#"{"total":1.005}"#,
                "order_header.total must have at most 2 digits after the point, but was 1.005",
            ),
        ] {
            assert_eq!(inserted(name, Validation::Strict, sent), Err(error.to_owned()));
        }
        let kept = inserted("order_header", Validation::Strict, r#"{"version":3,"clientId":null}"#);
        assert!(kept.unwrap().contains(r#""clientId":null"#), "a version is the caller's");
        let text = inserted("pair", Validation::Strict, r#"{"left":"l","right":"r","needed":""}"#);
        assert_eq!(text.unwrap(), r#"{"left":"l","right":"r","needed":""}"#);
    }

    #[test]
    fn a_merge_changes_what_was_sent_and_stamps_the_time() {
        let current = r#"{"id":"1","shiftId":"s","total":1,"updatedAt":"old","version":2,"x":1}"#;
        let patch = r#"{"id":1,"shift_id":{"id":"t"},"total":"2.50","odd":1,"version":9}"#;
        assert_eq!(
            merged(Validation::Lenient, current, patch).unwrap(),
            format!(
                r#"{{"id":"1","shiftId":"t","total":2.50,"updatedAt":"{ISO}","version":2,"x":1}}"#
            )
        );
        let patch = r#"{"id":"1","total":"","updatedAt":null,"shiftId":null}"#;
        assert_eq!(
            merged(Validation::Lenient, current, patch).unwrap(),
            r#"{"id":"1","shiftId":null,"total":0,"updatedAt":null,"version":2,"x":1}"#
        );
    }

    #[test]
    fn a_strict_merge_refuses_what_the_schema_does_not_allow() {
        let current = r#"{"id":"1"}"#;
        for (patch, error) in [
            (
                r#"{"odd":1}"#,
                "order_header.odd is not a field of this table, which has id, branchId, shiftId, \
                 guests, total, paid, openedAt, closedAt, clientId, notes, updatedAt, but was 1",
            ),
            (r#"{"guests":null}"#, "order_header.guests must not be null, but was null"),
            (r#"{"guests":1.5}"#, "order_header.guests must be a whole number, but was 1.5"),
            (r#"{"total":""}"#, "order_header.total must be a number, but was \"\""),
        ] {
            assert_eq!(merged(Validation::Strict, current, patch), Err(error.to_owned()));
        }
        assert!(merged(Validation::Strict, current, r#"{"id":"1","version":3}"#).is_ok());
    }

    proptest! {
        #[test]
        fn what_was_projected_once_is_not_changed_again(
            total in "-?[0-9]{1,8}(\\.[0-9]{1,2})?",
            guests in any::<i32>(),
            shift in "[a-z]{0,4}",
            strict: bool,
        ) {
            let validation = if strict { Validation::Strict } else { Validation::Lenient };
            let mut sent = object(r#"{"id":"1","closedAt":"2026-11-21"}"#);
            sent.insert("total", total.trim_start_matches('0').into());
            sent.insert("guests", guests.to_string().into());
            sent.insert("shift_id", shift.into());
            if let Ok(once) = insert("order_header", validation, &sent) {
                prop_assert_eq!(insert("order_header", validation, &once), Ok(once));
            }
        }
    }
}
