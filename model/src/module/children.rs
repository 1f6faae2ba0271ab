//! Children: rows that belong to a record and are kept with it.
//!
//! Promise: replacing the children of a record changes children of that record and of no other. A
//! row stored as a child of another record is refused, naming the record that holds it; so are two
//! rows sent under one key, of which one would be lost.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::command::{Action, Precondition, RecordMutation, ReplaceChildren};
use crate::definition::Validation;
use crate::ids::RecordKey;
use crate::module::plan::RecordDiff;
use crate::module::plan::{Plan, is_empty};
use crate::module::version;
use crate::reject::Reject;
use crate::schema::{ChildLink, Field, FieldType, Table};
use crate::value::{Object, Value};

impl Plan<'_> {
    /// Makes these rows the children of a record: saves them, and deletes the stored children that
    /// are not among them. What became of the rows, in their order.
    pub(crate) fn replace_children(
        &mut self,
        sent: &ReplaceChildren,
    ) -> Result<Vec<RecordDiff>, Reject> {
        let table = Arc::clone(self.table(&sent.table)?);
        let field = table.field(&sent.parent_field).ok_or_else(|| Reject::BadCommand {
            message: format!("{} has no field \"{}\"", table.name, sent.parent_field),
        })?;
        let before = self.children(&table, field, &sent.parent);
        let mut rows = sent.rows.clone();
        self.claim_children(&table, field, &sent.parent, &mut rows)?;
        let saved = self.save_as_stored(&table, rows)?;
        let kept: BTreeSet<&RecordKey> = saved.iter().map(|diff| &diff.key).collect();
        self.remove(&table, before.into_iter().filter(|key| !kept.contains(key)));
        Ok(saved)
    }

    /// Writes the parent into rows that become its children. Refuses two rows under one key, and a
    /// row that is a child of another record.
    pub(crate) fn claim_children(
        &self,
        table: &Table,
        field: &Field,
        parent: &Value,
        rows: &mut [Object],
    ) -> Result<(), Reject> {
        // First, for the parent may be a part of the row's key.
        for row in &mut *rows {
            row.remove(&field.column);
            row.insert(Arc::clone(&field.name), parent.clone());
        }
        refuse_same_keys(table, rows)?;
        let of = self.parent_table(table, field);
        for row in rows {
            self.refuse_child_of_another(table, row, &field.name, (of, parent))?;
        }
        Ok(())
    }

    /// Saves rows and deletes none; a row sent without a version has the one that is stored.
    pub(crate) fn save_as_stored(
        &mut self,
        table: &Table,
        rows: Vec<Object>,
    ) -> Result<Vec<RecordDiff>, Reject> {
        let mut saved = Vec::with_capacity(rows.len());
        for row in rows {
            let preconditions = self.as_stored(table, &row);
            self.mutation(&RecordMutation {
                preconditions,
                ..RecordMutation::new(Action::Save, table.name.as_str(), row)
            })?;
            saved.push(self.last_diff());
        }
        Ok(saved)
    }

    /// Deletes records; those that are not there are passed over.
    pub(crate) fn remove(&mut self, table: &Table, keys: impl IntoIterator<Item = RecordKey>) {
        let none = RecordMutation::new(Action::Delete, table.name.as_str(), Object::new());
        for key in keys {
            self.take(table, &none, key);
        }
    }

    /// Refuses a row that is stored as a child of another record than `parent`, by the field that
    /// names its record. A row that is nobody's child may be taken.
    pub(crate) fn refuse_child_of_another(
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

    /// Refuses to insert or save a child over one that another record holds: who sends it means a
    /// new one, and numbers its children anew for each parent. A merge moves the child, as it says.
    ///
    /// The original's clients move parts by a save, and insert links over links: a lenient module
    /// refuses only an insert of what is a part by convention.
    pub(in crate::module) fn refuse_taken_child(
        &self,
        table: &Table,
        action: Action,
        sent: &Object,
    ) -> Result<(), Reject> {
        for (field, parent) in self.parents(table, action == Action::Insert) {
            if let Some(id) = table.sent_value(sent, field).filter(|id| !is_empty(Some(id))) {
                self.refuse_child_of_another(table, sent, &field.name, (parent, &id))?;
            }
        }
        Ok(())
    }

    /// The fields that say of what records a table's are children, and the tables of those. A
    /// lenient module only knows those of its conventions, where it asks for them.
    fn parents<'t>(&'t self, table: &'t Table, conventional: bool) -> Vec<(&'t Field, &'t str)> {
        let schema = &self.definition().schema;
        let mut known = schema.conventions.children_of(table.name.as_str());
        let named = |link: &'t ChildLink| Some((table.field(&link.field)?, link.parent.as_str()));
        let first = known.next().and_then(named);
        let first: Option<(&Field, &str)> = match self.validation() {
            Validation::Strict => first.or_else(|| table.parent()),
            Validation::Lenient => first.filter(|_| conventional),
        };
        let others = known.filter(|_| first.is_some()).filter_map(named);
        first.into_iter().chain(others).collect()
    }

    /// Refuses that a replacement makes a strict module's record a child of another one than it
    /// was, as a save would, unless what held it is itself gone.
    pub(in crate::module) fn refuse_moved_children(
        &self,
        diffs: &[RecordDiff],
    ) -> Result<(), Reject> {
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

    /// Whether the record is there that a child's field names.
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

    /// The keys of a record's children in one table, in key order.
    pub(crate) fn children(&self, table: &Table, field: &Field, parent: &Value) -> Vec<RecordKey> {
        let Some(rows) = self.module().rows(&table.name) else { return Vec::new() };
        let indexed = self.relations().by_field(&table.name, &field.name);
        if let Some((place, kind)) = indexed
            && let Some(index) = rows.index_at(place)
        {
            let Some(text) = kind.name_text(parent) else { return Vec::new() };
            return index.all(text.into()).cloned().collect();
        }
        // Without an index of this field: only a lenient module, whose references are not enforced.
        let kind = self.kind_named(table, &field.name, self.parent_table(table, field));
        let Some(named) = kind.name_text(parent) else { return Vec::new() };
        let is_child = |record: &Object| {
            record.get(&field.name).and_then(|value| kind.name_text(value)).as_ref() == Some(&named)
        };
        let found = rows.iter().filter(|(_, row)| is_child(&row.record));
        let mut keys: Vec<RecordKey> = found.map(|(_, row)| row.key.clone()).collect();
        keys.sort();
        keys
    }

    /// The table of the records a field of children names; the field's own name where neither the
    /// definition nor a convention says.
    fn parent_table<'t>(&'t self, table: &Table, field: &'t Field) -> &'t str {
        let mut known = self.definition().schema.conventions.children_of(table.name.as_str());
        let known = known.find(|link| *link.field == *field.name).map(|link| link.parent.as_str());
        let referenced = || field.references.as_ref().map(|to| to.table.as_str());
        known.or_else(referenced).unwrap_or(&field.name)
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
pub(crate) fn refuse_same_keys(table: &Table, rows: &[Object]) -> Result<(), Reject> {
    let mut seen = BTreeSet::new();
    let keys = rows.iter().filter_map(|row| table.key_of(row).ok());
    for key in keys {
        if !seen.insert(key.clone()) {
            return Err(Reject::DuplicatePart { table: table.name.to_string(), key });
        }
    }
    Ok(())
}
