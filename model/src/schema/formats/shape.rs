//! Shape: where in a definition its tables stand, found by what the parts are and not by what they
//! are called: tables and fields may be named `tables`, `columns`, `fields`, `schema`, `name`,
//! `type`.
//!
//! A part is taken for a table if it has fields: a list of objects with names, or an object some of
//! whose members have a type. Where tables stand in two places the definition is refused in words.
//! Where none is found the likeliest place is read, so that the complaint names what is wrong
//! there.

use crate::reject::Reject;
use crate::schema::formats::{Diagnostic, members};
use crate::value::{Object, Value};

/// The tables a definition lists, with their names, and what was left out of it.
pub(super) struct TableList<'a> {
    pub(super) tables: Vec<(String, &'a Object)>,
    pub(super) notes: Vec<Diagnostic>,
}

/// The tables of a definition, whatever its shape.
pub(super) fn listed(doc: &Value) -> Result<TableList<'_>, String> {
    let mut listed = TableList { tables: Vec::new(), notes: Vec::new() };
    match doc {
        Value::Array(items) => listed.in_list(items),
        Value::Object(members) => listed.in_object(members)?,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    match listed.notes.first() {
        _ if !listed.tables.is_empty() => Ok(listed),
        Some(note) => Err(note.problem.clone()),
        None => Err(format!("there are no tables in it; {}", known_shapes())),
    }
}

impl<'a> TableList<'a> {
    fn note(&mut self, problem: String) {
        self.notes.push(Diagnostic::new(problem));
    }

    fn in_object(&mut self, members: &'a Object) -> Result<(), String> {
        let wrapped = members.get("schema").is_some_and(is_document);
        let listed = members.get("tables").is_some_and(is_tables);
        let named = members.iter().any(|(_, member)| has_fields(member));
        let places: Vec<&str> = [
            (wrapped, "under \"schema\""),
            (listed, "under \"tables\""),
            (named, "as members of the definition itself"),
        ]
        .into_iter()
        .filter_map(|(there, place)| there.then_some(place))
        .collect();
        // Reading one of them would lose the other's tables without a word.
        if places.len() > 1 {
            let places = places.join(" and ");
            return Err(format!("tables stand {places}: which are meant? put all in one place"));
        }
        match (members.get("schema"), members.get("tables")) {
            (Some(inner), _) if wrapped || (places.is_empty() && is_wrapper(inner)) => {
                self.note_unknown(members, "schema");
                match inner {
                    Value::Array(items) => self.in_list(items),
                    Value::Object(inner) => self.in_object(inner)?,
                    Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
                }
            }
            (_, Some(Value::Array(items))) if !named => {
                self.note_unknown(members, "tables");
                self.in_list(items);
            }
            (_, Some(Value::Object(tables))) if listed || (!named && !is_table(tables)) => {
                self.note_unknown(members, "tables");
                self.by_name(tables, false);
            }
            _ => self.by_name(members, true),
        }
        Ok(())
    }

    fn in_list(&mut self, items: &'a [Value]) {
        for (place, item) in items.iter().enumerate() {
            let doc = item.as_object();
            match (doc, item.get("name").and_then(Value::as_str)) {
                (Some(doc), Some(name)) => self.tables.push((name.to_owned(), doc)),
                (None | Some(_), _) => self.note(format!(
                    "table {} of the list is {}; a table is an object with a name and fields",
                    place + 1,
                    Reject::show(item)
                )),
            }
        }
    }

    /// Tables under their names; beside them, `version`, `description` and the like, where the
    /// object is the definition itself.
    fn by_name(&mut self, members: &'a Object, is_whole: bool) {
        for (name, member) in members.iter() {
            match member {
                Value::Object(doc) if is_table(doc) => self.tables.push((name.to_string(), doc)),
                _ if is_whole && members::DOCUMENT.has(name) => {}
                Value::Object(_) | Value::Array(_) => {
                    self.note(format!(
                        "{name:?} has neither fields nor columns; {}",
                        known_shapes()
                    ));
                }
                _ if is_whole => self.note(members::DOCUMENT.unknown(name)),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                    self.note(format!(
                        "table {name:?} is {}; a table is an object with fields",
                        member.to_json()
                    ));
                }
            }
        }
    }

    fn note_unknown(&mut self, members: &Object, but: &str) {
        for (name, _) in members.iter().filter(|(name, _)| &***name != but) {
            if !members::DOCUMENT.has(name) {
                self.note(members::DOCUMENT.unknown(name));
            }
        }
    }
}

/// Whether it is, or wraps, tables.
fn is_document(value: &Value) -> bool {
    match value {
        Value::Array(items) => is_list(items),
        Value::Object(members) => {
            members.get("tables").is_some_and(is_tables)
                || members.get("schema").is_some_and(is_document)
                || members.iter().any(|(_, member)| has_fields(member))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Whether it may be meant to wrap tables, though none was found in it.
fn is_wrapper(value: &Value) -> bool {
    match value {
        Value::Array(_) => true,
        Value::Object(inner) => !is_table(inner),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Whether it is a list of tables, or tables by name.
fn is_tables(value: &Value) -> bool {
    match value {
        Value::Array(items) => is_list(items),
        Value::Object(tables) => tables.iter().any(|(_, table)| has_fields(table)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn is_list(items: &[Value]) -> bool {
    items.iter().any(is_named)
}

fn is_named(value: &Value) -> bool {
    value.as_object().is_some() && value.get("name").is_some_and(|name| name.as_str().is_some())
}

/// Whether it is a table beyond doubt: some of its fields say what they are.
fn has_fields(value: &Value) -> bool {
    let Some(doc) = value.as_object() else { return false };
    ["fields", "columns"].iter().any(|name| match doc.get(name) {
        Some(Value::Array(items)) => items.iter().any(is_named),
        Some(Value::Object(fields)) => fields
            .iter()
            .any(|(_, field)| field.get("type").is_some_and(|kind| kind.as_str().is_some())),
        _ => false,
    })
}

/// Whether it may be a table: it has fields, and they are many.
pub(super) fn is_table(doc: &Object) -> bool {
    let fields = doc.get("fields").or_else(|| doc.get("columns"));
    matches!(fields, Some(Value::Array(_) | Value::Object(_)))
}

fn known_shapes() -> &'static str {
    "known are {\"schema\": {\"tables\": [table, …]}}, {\"tables\": [table, …]}, \
     {\"tables\": {name: table, …}}, {name: table, …} and [table, …], where a table has \
     \"fields\" or \"columns\""
}
