//! Table: one table of a definition: its fields, its key, what is unique, what it refers to.
//!
//! What cannot be is left out and noted, so that the rest loads: an index on a field the table does
//! not have, a key of such fields, a foreign key of none, a field without a name.

use std::sync::Arc;

use crate::ids::TableName;
use crate::reject::Reject;
use crate::schema::formats::{
    Diagnostic, FieldDiagnostics, contradictions, field, members, reference,
};
use crate::schema::{Field, Table};
use crate::value::{Object, Value};

/// Reads one table under a name already found; whether its records carry a version where it does
/// not say is the caller's to know.
///
/// # Errors
/// What leaves no table: a name outside the rules, no field.
pub(super) fn read(
    name: &str,
    doc: &Object,
    is_versioned: bool,
    notes: &mut Vec<Diagnostic>,
) -> Result<Table, Diagnostic> {
    let table_name = TableName::parse(name).map_err(|error| Diagnostic::new(error.to_string()))?;
    notes.extend(members::TABLE.check(doc).map(Diagnostic::new));
    let mut fields = fields(doc, notes)?;
    shared_names(&fields, notes);
    foreign_keys(doc, &mut fields, notes);
    let key = key(doc, &mut fields, notes);
    let unique = unique_sets(doc, &fields, notes);
    let mut problems = Vec::new();
    let versioned = members::flag(doc, "versioned", &mut problems);
    notes.extend(problems.into_iter().map(Diagnostic::new));
    let label = doc.get("label").or_else(|| doc.get("title")).and_then(Value::as_str);
    let table = Table {
        label: label.unwrap_or(name).to_owned(),
        key,
        versioned: versioned.unwrap_or(is_versioned),
        name: table_name,
        fields,
        unique,
    };
    notes.extend(contradictions::table(doc, &table));
    Ok(table)
}

fn fields(doc: &Object, notes: &mut Vec<Diagnostic>) -> Result<Vec<Field>, Diagnostic> {
    let is_many = |value: &&Value| matches!(value, Value::Array(_) | Value::Object(_));
    let (fields, columns) = (doc.get("fields"), doc.get("columns"));
    if fields.filter(is_many).is_some() && columns.filter(is_many).is_some() {
        let problem =
            "it has both \"fields\" and \"columns\": which are meant? give it one of them";
        return Err(Diagnostic::new(problem));
    }
    let mut read: Vec<Field> = Vec::new();
    match fields.filter(is_many).or_else(|| columns.filter(is_many)) {
        Some(Value::Array(items)) => {
            for (place, item) in items.iter().enumerate() {
                match item.get("name").and_then(Value::as_str) {
                    Some(name) => add(&mut read, name, item, notes),
                    None => {
                        let (place, shown) = (place + 1, Reject::show(item));
                        let problem =
                            format!("field {place} is {shown}; a field has a name and a type");
                        notes.push(Diagnostic::new(problem));
                    }
                }
            }
        }
        Some(Value::Object(members)) => {
            for (name, item) in members.iter() {
                add(&mut read, name, item, notes);
            }
        }
        Some(_) | None => {}
    }
    match notes.first() {
        _ if !read.is_empty() => Ok(read),
        Some(first) => Err(first.clone()),
        None => Err(Diagnostic::new("it has no fields; give it \"fields\" or \"columns\"")),
    }
}

fn add(fields: &mut Vec<Field>, name: &str, doc: &Value, notes: &mut Vec<Diagnostic>) {
    let Some(doc) = doc.as_object() else {
        let problem = format!("it is {}; a field is an object with a type", doc.to_json());
        return notes.push(Diagnostic::in_field(name, problem));
    };
    if let Err(problem) = field::check_name(name) {
        return notes.push(Diagnostic::in_field(name, problem));
    }
    let mut found = FieldDiagnostics::default();
    let field = field::read(name, doc, &mut found);
    notes.extend(found.problems.into_iter().map(|problem| Diagnostic::in_field(name, problem)));
    notes.extend(
        found.advice.into_iter().map(|found| Diagnostic::in_field(name, found).into_advice()),
    );
    match fields.iter_mut().find(|earlier| &*earlier.name == name) {
        // As of tables: the last one wins, in the first one's place.
        Some(earlier) => {
            notes.push(Diagnostic::in_field(name, "it is written twice; once is right".to_owned()));
            *earlier = field;
        }
        None => fields.push(field),
    }
}

/// Notes fields that share a name: whoever sends it may mean either.
fn shared_names(fields: &[Field], notes: &mut Vec<Diagnostic>) {
    for (place, field) in fields.iter().enumerate() {
        let twin = fields.iter().enumerate().find(|(other, twin)| {
            *other != place
                && (twin.name == field.column || (*other < place && twin.column == field.column))
        });
        if let Some((_, twin)) = twin {
            let problem = format!(
                "its column {:?} is also a name of field {:?}; each name belongs to one field",
                field.column, twin.name
            );
            notes.push(Diagnostic::in_field(&field.name, problem));
        }
    }
}

/// The field a definition means: by its column, else by its name.
fn meant<'a>(fields: &'a [Field], name: &str) -> Option<&'a Field> {
    fields
        .iter()
        .find(|field| &*field.column == name)
        .or_else(|| fields.iter().find(|field| &*field.name == name))
}

/// `foreignKeys: [{field, references, referencesField}]`, beside the fields.
fn foreign_keys(doc: &Object, fields: &mut [Field], notes: &mut Vec<Diagnostic>) {
    let list = match doc.get("foreignKeys") {
        None | Some(Value::Null) => return,
        Some(Value::Array(list)) => list,
        Some(other) => {
            let shown = Reject::show(other);
            let problem = format!("foreignKeys is {shown}; it is a list of foreign keys");
            return notes.push(Diagnostic::new(problem));
        }
    };
    for item in list.iter() {
        if let Some(doc) = item.as_object() {
            notes.extend(members::FOREIGN_KEY.check(doc).map(Diagnostic::new));
        }
        let name = item.get("field").or_else(|| item.get("column")).and_then(Value::as_str);
        let name = name.unwrap_or_default();
        let named = |field: &&mut Field| &*field.name == name || &*field.column == name;
        let Some(field) = fields.iter_mut().find(named) else {
            let shown = item.to_json();
            let problem = format!("the foreign key {shown} names no field of this table");
            notes.push(Diagnostic::new(problem));
            continue;
        };
        let mut found = FieldDiagnostics::default();
        let target = item.get("references").unwrap_or(&Value::Null);
        if let Some(doc) = item.as_object() {
            reference::note_actions(doc, &mut found);
        }
        match reference::read(target, &mut found) {
            Ok(mut read) => {
                if let Some(target_field) = item.get("referencesField").and_then(Value::as_str) {
                    target_field.clone_into(&mut read.field);
                }
                if let Some(module) = item.get("module").and_then(Value::as_str) {
                    read.module = Some(module.to_owned());
                }
                read.cascades |= item.as_object().is_some_and(reference::cascades);
                if let Some(before) = &field.references
                    && !contradictions::same_table(before, &read)
                {
                    found.problems.push(format!(
                        "it refers to {:?} and, in foreignKeys, to {:?}; it refers to one",
                        before.table, read.table
                    ));
                }
                field.references = Some(read);
            }
            Err(problem) => found.problems.push(problem),
        }
        notes.extend(found.problems.into_iter().map(|problem| Diagnostic::in_field(name, problem)));
        notes.extend(
            found.advice.into_iter().map(|found| Diagnostic::in_field(name, found).into_advice()),
        );
    }
}

/// The table's `primaryKey`, else all fields that are primary keys, else `id`, else the first.
fn key(doc: &Object, fields: &mut [Field], notes: &mut Vec<Diagnostic>) -> Arc<[Arc<str>]> {
    let names: Vec<&Value> = match doc.get("primaryKey") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(names)) => names.iter().collect(),
        Some(name) => vec![name],
    };
    let mut key: Vec<Arc<str>> = Vec::new();
    for name in names {
        match name.as_str().and_then(|name| meant(fields, name)) {
            Some(field) if !key.contains(&field.name) => key.push(Arc::clone(&field.name)),
            Some(field) => {
                notes.push(Diagnostic::new(format!(
                    "its primaryKey names {:?} twice",
                    &*field.name
                )));
            }
            None => {
                let shown = name.to_json();
                let problem = format!("its primaryKey names {shown}, which is no field of it");
                notes.push(Diagnostic::new(problem));
            }
        }
    }
    // What the table says of its key holds for the field too, or an insert would not fill it.
    for field in fields.iter_mut().filter(|field| key.contains(&field.name)) {
        (field.primary_key, field.nullable) = (true, false);
    }
    if key.is_empty() {
        key = fields.iter().filter(|f| f.primary_key).map(|f| f.name.clone()).collect();
    }
    if key.is_empty() {
        // Something must name a record: a table without any key could not be merged into.
        let id = fields.iter().find(|field| &*field.name == "id").unwrap_or(&fields[0]);
        key.push(Arc::clone(&id.name));
    }
    key.into()
}

/// Unique indexes, as sets of field names. Others say nothing that is kept, yet must be right.
fn unique_sets(doc: &Object, fields: &[Field], notes: &mut Vec<Diagnostic>) -> Vec<Vec<Arc<str>>> {
    let list = match doc.get("indexes") {
        None | Some(Value::Null) => return Vec::new(),
        Some(Value::Array(list)) => list,
        Some(other) => {
            let shown = Reject::show(other);
            notes.push(Diagnostic::new(format!("indexes is {shown}; it is a list of indexes")));
            return Vec::new();
        }
    };
    let mut indexes = contradictions::UniqueIndexes::new();
    for index in list.iter() {
        let Some(index) = index.as_object() else {
            let shown = index.to_json();
            notes.push(Diagnostic::new(format!("the index {shown} is not an object with columns")));
            continue;
        };
        notes.extend(members::INDEX.check(index).map(Diagnostic::new));
        let mut problems = Vec::new();
        let unique = members::flag(index, "unique", &mut problems) == Some(true);
        let name = index.get("name").and_then(Value::as_str);
        if let Err(problem) = indexes.named(name) {
            problems.push(problem);
        } else {
            let what = index_called(name, unique);
            let set = index_fields(index, &what, fields, &mut problems);
            // An index that lost a column would say more than was meant: it goes as a whole.
            if let Some(set) = set.filter(|_| unique) {
                problems.extend(indexes.take(&what, set).err());
            }
        }
        notes.extend(problems.into_iter().map(Diagnostic::new));
    }
    indexes.into_sets()
}

/// What an index is called in a note.
fn index_called(name: Option<&str>, unique: bool) -> String {
    match (unique, name) {
        (true, Some(name)) => format!("unique index {name:?}"),
        (true, None) => "a unique index".to_owned(),
        (false, Some(name)) => format!("index {name:?}"),
        (false, None) => "an index".to_owned(),
    }
}

/// The fields of one index; `None` where one of them is missing.
fn index_fields(
    index: &Object,
    what: &str,
    fields: &[Field],
    problems: &mut Vec<String>,
) -> Option<Vec<Arc<str>>> {
    if let (Some(columns), Some(fields)) = (index.get("columns"), index.get("fields"))
        && columns != fields
    {
        problems.push(format!("{what} has both \"fields\" and \"columns\"; give it one of them"));
    }
    let names: Vec<&Value> = match index.get("columns").or_else(|| index.get("fields")) {
        Some(Value::Array(names)) => names.iter().collect(),
        Some(name @ Value::String(_)) => vec![name],
        Some(_) | None => Vec::new(),
    };
    if names.is_empty() {
        problems.push(format!("{what} names no columns; give it \"columns\", a list of names"));
        return None;
    }
    let (mut set, mut is_whole) = (Vec::with_capacity(names.len()), true);
    for name in names {
        let shown = name.to_json();
        match name.as_str().and_then(|name| meant(fields, name)) {
            Some(field) if set.contains(&field.name) => {
                problems.push(format!("{what} names {shown} twice"));
            }
            Some(field) => set.push(Arc::clone(&field.name)),
            None => {
                problems.push(format!("{what} names {shown}, which is no column of it"));
                is_whole = false;
            }
        }
    }
    is_whole.then_some(set)
}
