//! Parts: the rows that belong to an order, saved with it.
//!
//! Promise: an order's save changes parts of that order and no other's. A part stored with another
//! order is refused, naming the order that holds it; so are two parts sent under one key, of which
//! one would be lost.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{HEADER, LINE, LINE_STATUS_LOG, OF_LINE, Saved, SavedPart};
use crate::command::{Action, Mutation, Precondition};
use crate::definition::Validation;
use crate::ids::RecordKey;
use crate::module::operation::RecordDiff;
use crate::module::plan::{Plan, is_empty};
use crate::module::relations::{ORDER, ORDER_PARTS};
use crate::module::version;
use crate::reject::Reject;
use crate::schema::{Field, FieldType, Table};
use crate::value::{Object, Value};

impl Plan<'_> {
    /// Saves the rows of one kind and deletes those of the order that were not sent. The rows as
    /// stored; none where the module has no such table.
    pub(super) fn replace_parts(
        &mut self,
        name: &str,
        sent: Vec<Object>,
        saved: &Saved,
    ) -> Result<Vec<SavedPart>, Reject> {
        let Some(table) = self.definition().schema.table(name).cloned() else {
            return Ok(Vec::new());
        };
        let before = self.parts(name, &saved.id);
        let (kept, stored) = self.save_parts(&table, sent, saved)?;
        self.take_parts(&table, before.into_iter().filter(|key| !kept.contains(key)));
        Ok(stored)
    }

    /// Saves rows of one kind and deletes none. Their keys, and the rows as stored.
    pub(super) fn save_parts(
        &mut self,
        table: &Table,
        mut sent: Vec<Object>,
        saved: &Saved,
    ) -> Result<(BTreeSet<RecordKey>, Vec<SavedPart>), Reject> {
        // First, for the order's id may be a part of the row's key.
        if let Some(field) = table.field(ORDER) {
            for row in &mut sent {
                row.remove(&field.column);
                row.insert(Arc::clone(&field.name), saved.id.clone());
            }
        }
        refuse_same_keys(table, &sent)?;
        for row in &sent {
            self.refuse_part_of_another(table, row, ORDER, (HEADER, &saved.id))?;
        }
        let (mut kept, mut stored) = (BTreeSet::new(), Vec::new());
        for mut row in sent {
            if table.name.as_str() == LINE {
                self.begin_line(table, &mut row);
                self.add_total(table, &mut row)?;
            }
            let preconditions = self.as_stored(table, &row);
            self.mutation(&Mutation {
                preconditions,
                ..Mutation::new(Action::Save, table.name.as_str(), row)
            })?;
            let draft = self.drafts().last().expect("a save drafts its event");
            let record = Arc::clone(draft.after.as_ref().expect("a save leaves a record"));
            kept.insert(draft.key.clone());
            stored.push(SavedPart { before: draft.before.clone(), record });
        }
        Ok((kept, stored))
    }

    /// Deletes these rows of one kind.
    pub(super) fn take_parts(&mut self, table: &Table, keys: impl Iterator<Item = RecordKey>) {
        for key in keys {
            self.take(
                table,
                &Mutation::new(Action::Delete, table.name.as_str(), Object::new()),
                key,
            );
        }
    }

    /// Refuses a row that is stored as a part of another record than `parent`, by the field that
    /// names its record. A part nobody holds may be taken.
    pub(super) fn refuse_part_of_another(
        &self,
        table: &Table,
        row: &Object,
        field: &str,
        (parent, id): (&str, &Value),
    ) -> Result<(), Reject> {
        // A row without a key gets one of its own.
        let Ok(key) = table.key_of(row) else { return Ok(()) };
        let stored = self.module().get(&table.name, &key);
        let holder = stored.and_then(|stored| stored.get(field));
        let Some(holder) = holder.filter(|holder| !is_empty(Some(holder))) else { return Ok(()) };
        let kind = self.kind_named(table, field, parent);
        let (holder, own) = (kind.name_text(holder).unwrap_or_default(), kind.name_text(id));
        if own.as_ref() == Some(&holder) {
            return Ok(());
        }
        Err(Reject::PartOfAnother {
            table: table.name.to_string(),
            key,
            parent: parent.to_owned(),
            holder,
        })
    }

    /// What the values of a field that names its record are read as: that of the field pointed at,
    /// else of that table's key, as a record is named by its id.
    fn kind_named(&self, table: &Table, field: &str, parent: &str) -> FieldType {
        let schema = &self.definition().schema;
        let own = table.field(field);
        let to = own.and_then(|own| own.references.as_ref());
        let far = to.and_then(|to| schema.table(&to.table)?.field(&to.field));
        let by_key = || schema.table(parent).map(|parent| parent.name_kind());
        let kind = far.map(|far| far.kind).or_else(by_key);
        kind.or_else(|| own.map(|own| own.kind)).unwrap_or(FieldType::Opaque)
    }

    /// Refuses to insert or save a part over one that another record holds: who sends it means a
    /// new one, and numbers its parts anew for each parent. A merge moves the part, as it says.
    ///
    /// The original's clients move parts by a save, and insert links over links: a lenient module
    /// refuses only an insert of a part of an order.
    pub(in crate::module) fn refuse_taken_part(
        &self,
        table: &Table,
        action: Action,
        sent: &Object,
    ) -> Result<(), Reject> {
        for (field, parent) in self.parents(table, action == Action::Insert) {
            if let Some(id) = table.sent_value(sent, field).filter(|id| !is_empty(Some(id))) {
                self.refuse_part_of_another(table, sent, &field.name, (parent, &id))?;
            }
        }
        Ok(())
    }

    /// The fields that say of what records a table's are parts, and the tables of those. A lenient
    /// module only knows orders, where it asks for them.
    fn parents<'t>(&self, table: &'t Table, orders: bool) -> Vec<(&'t Field, &'t str)> {
        let is_part = ORDER_PARTS.contains(&table.name.as_str());
        let order = table.field(ORDER).filter(|_| is_part).map(|field| (field, HEADER));
        let parent = match self.validation() {
            Validation::Strict => order.or_else(|| table.parent()),
            Validation::Lenient => order.filter(|_| orders),
        };
        // A line's log is a part of its line, and of the order through that.
        let of_line = parent.filter(|_| table.name.as_str() == LINE_STATUS_LOG);
        let of_line = of_line.and_then(|_| table.field(OF_LINE)).map(|field| (field, LINE));
        parent.into_iter().chain(of_line).collect()
    }

    /// Refuses that a replacement makes a strict module's record a part of another one than it was,
    /// as a save would, unless what held it is itself gone.
    pub(in crate::module) fn refuse_moved_parts(&self, diffs: &[RecordDiff]) -> Result<(), Reject> {
        for RecordDiff { table, key, before, after } in diffs {
            let (Some(before), Some(after)) = (before, after) else { continue };
            let Some(table) = self.definition().schema.table(table.as_str()) else { continue };
            for (field, parent) in self.parents(table, false) {
                let kind = self.kind_named(table, &field.name, parent);
                let named = |record: &Object| {
                    let value = record.get(&field.name).filter(|value| !is_empty(Some(value)))?;
                    kind.name_text(value)
                };
                let (Some(holder), Some(now)) = (named(before), named(after)) else { continue };
                if holder != now && self.holds(table, field, parent, &holder) {
                    return Err(Reject::PartOfAnother {
                        table: table.name.to_string(),
                        key: key.clone(),
                        parent: parent.to_owned(),
                        holder,
                    });
                }
            }
        }
        Ok(())
    }

    /// Whether the record is there that a part's field names.
    fn holds(&self, table: &Table, field: &Field, parent: &str, holder: &str) -> bool {
        let holder: Arc<str> = holder.into();
        let links = self.relations().table(&table.name).map_or(&[][..], |own| &own.outgoing);
        let by_link = links.iter().find(|link| link.near_field == field.name);
        if let Some(link) = by_link.filter(|link| link.far.as_str() == parent) {
            return self.exists(link, &holder);
        }
        let parent = self.definition().schema.table(parent);
        parent.is_some_and(|parent| self.has(parent, &RecordKey(holder)))
    }

    /// The keys of an order's rows of one kind, in key order.
    pub(super) fn parts(&self, name: &str, id: &Value) -> Vec<RecordKey> {
        let table = self.definition().schema.table(name);
        let found = table.and_then(|table| {
            let (place, kind) = self.relations().by_order(&table.name)?;
            let index = self.module().rows(&table.name)?.index_at(place)?;
            let text: Arc<str> = kind.name_text(id)?.into();
            Some(index.all(text).cloned().collect())
        });
        found.unwrap_or_default()
    }

    /// The condition that says the version of a row sent without one.
    fn as_stored(&self, table: &Table, row: &Object) -> Vec<Precondition> {
        let known = table.key_of(row).ok().and_then(|key| self.module().get(&table.name, &key));
        match known.filter(|_| table.versioned && version::sent(row).is_none()) {
            Some(stored) => vec![Precondition::VersionIs(version::stored(stored))],
            None => Vec::new(),
        }
    }
}

/// Refuses rows of which two have one key.
pub(super) fn refuse_same_keys(table: &Table, rows: &[Object]) -> Result<(), Reject> {
    let mut seen = BTreeSet::new();
    let keys = rows.iter().filter_map(|row| table.key_of(row).ok());
    for key in keys {
        if !seen.insert(key.clone()) {
            return Err(Reject::DuplicatePart { table: table.name.to_string(), key });
        }
    }
    Ok(())
}
