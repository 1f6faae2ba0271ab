//! Contradictions: statements of a definition that cannot both be true, or that no record can keep.
//!
//! Promise: each is noted once, where it is written. The rest loads as if nobody had looked, but
//! for a size that cannot be and a second index. What only says one thing twice is no
//! contradiction.

use std::sync::Arc;

use crate::schema::formats::members::{count, of_type};
use crate::schema::formats::types::ColumnType;
use crate::schema::formats::{Diagnostic, FieldDiagnostics, reference};
use crate::schema::{Default, Field, FieldType, Reference, Table};
use crate::value::{Object, Value};

/// Most digits of a decimal.
const DIGITS_MAX: u64 = 28;

/// Members of one field of this kind that contradict each other, or say nothing of it.
pub(super) fn members(doc: &Object, kind: FieldType, problems: &mut Vec<String>) {
    if is_true(doc, "nullable") {
        // Of a key it says less to say that it is required.
        if is_true(doc, "primaryKey") {
            problems.push(NULLABLE_KEY.to_owned());
        } else if is_true(doc, "required") {
            let problem =
                "it is required and nullable; a required field has no null, leave one out";
            problems.push(problem.to_owned());
        }
    }
    for (name, part) in [("maxLength", "texts"), ("precision", "decimals"), ("scale", "decimals")] {
        if let Some(problem) = size_without_effect(doc, kind, name, part) {
            problems.push(problem);
        }
    }
    let text = |name: &str| doc.get(name).and_then(Value::as_str);
    if let (Some(one), Some(other)) = (text("columnName"), text("column"))
        && one != other
    {
        problems.push(format!("its columnName is {one:?} and its column {other:?}; it has one"));
    }
    let read = |name: &str| {
        let target = doc.get(name).filter(|target| !target.is_null())?;
        reference::read(target, &mut FieldDiagnostics::default()).ok()
    };
    if let (Some(one), Some(other)) = (read("references"), read("foreignKey"))
        && !same_table(&one, &other)
    {
        let problem = "its references and its foreignKey name different tables; it refers to one";
        problems.push(problem.to_owned());
    }
}

/// What is said of a size that a field of this kind does not have. No digits after the point is
/// true of a whole number.
fn size_without_effect(doc: &Object, kind: FieldType, name: &str, part: &str) -> Option<String> {
    let declared = doc.get(name).filter(|size| !size.is_null())?;
    let has_it = match kind {
        FieldType::Number => name != "maxLength",
        FieldType::Integer => name == "scale" && declared.as_u64() == Some(0),
        FieldType::String
        | FieldType::Opaque
        | FieldType::Date
        | FieldType::Time
        | FieldType::Timestamp
        | FieldType::Json => name == "maxLength",
        FieldType::Boolean => false,
    };
    (!has_it).then(|| format!("its {name} is without effect: only {part} have one; leave it out"))
}

/// What is said of a field that may be null and is part of the key.
pub(super) const NULLABLE_KEY: &str =
    "it is part of the key and nullable; a key has no null, leave nullable out";

fn is_true(doc: &Object, name: &str) -> bool {
    doc.get(name).and_then(Value::as_bool) == Some(true)
}

/// Whether two references, as written, may mean one table: of `a.b` either name may be it.
pub(super) fn same_table(one: &Reference, other: &Reference) -> bool {
    let other = other.table.to_lowercase();
    one.table.to_lowercase().split('.').any(|name| other.split('.').any(|part| part == name))
}

/// The sizes of a field: its members, else what its type says. A size that cannot be goes.
pub(super) fn sizes(doc: &Object, sized: &mut ColumnType, problems: &mut Vec<String>) {
    for (name, declared) in [("precision", sized.precision), ("scale", sized.scale)] {
        let declared = doc.get(name).and_then(Value::as_u64).or_else(|| declared.map(u64::from));
        if sized.kind == FieldType::Number && declared.is_some_and(|digits| digits > DIGITS_MAX) {
            let digits = declared.unwrap_or_default();
            problems
                .push(format!("its {name} is {digits}; a decimal has at most {DIGITS_MAX} digits"));
        }
    }
    let mut size = |name: &str, least: u32, of_type: Option<u32>| {
        size_of(doc, (name, least), of_type, problems)
    };
    sized.max_length = size("maxLength", 1, sized.max_length);
    sized.precision = size("precision", 1, sized.precision);
    sized.scale = size("scale", 0, sized.scale);
    if let (Some(precision), Some(scale)) = (sized.precision, sized.scale)
        && scale > precision
    {
        problems.push(format!(
            "its scale {scale} is more than its precision {precision}, which counts all digits, \
             those after the point too"
        ));
        sized.precision = None;
    }
}

fn size_of(
    doc: &Object,
    (name, least): (&str, u32),
    of_type: Option<u32>,
    problems: &mut Vec<String>,
) -> Option<u32> {
    let declared = count(doc, name, least, problems);
    if let (Some(declared), Some(of_type)) = (declared, of_type)
        && declared != of_type
    {
        problems
            .push(format!("its {name} is {declared}, and its type says {of_type}; say it once"));
    }
    if declared.is_none() && of_type.is_some_and(|size| size < least) {
        problems.push(format!("its type says that its {name} is 0; it is at least {least}"));
    }
    declared.or(of_type).filter(|size| *size >= least)
}

/// Values listed by the type and by `enum`.
pub(super) fn listed(values: &[Value], doc: &Object, problems: &mut Vec<String>) {
    let of_type = of_type(doc, &mut Vec::new());
    let differ = |some: &[Value], others: &[Value]| some.iter().any(|one| !others.contains(one));
    if !of_type.is_empty() && (differ(&of_type, values) || differ(values, &of_type)) {
        problems.push("its type and its enum list different values; list them once".to_owned());
    }
}

/// What a whole table says that cannot be: of its fields, its key and its versions.
pub(super) fn table(doc: &Object, table: &Table) -> Vec<Diagnostic> {
    let mut notes = Vec::new();
    for field in &table.fields {
        let mut declared = sequence(table, field);
        declared.extend(member(doc, &field.name).and_then(|member| left_out(field, member)));
        declared.extend(alike(table, field));
        notes
            .extend(declared.into_iter().map(|problem| Diagnostic::in_field(&field.name, problem)));
    }
    notes.extend(key(doc, table));
    let version = table.fields.iter().find(|field| &*field.name == "version");
    if let Some(field) = version.filter(|_| is_true(doc, "versioned")) {
        if !matches!(field.kind, FieldType::Integer | FieldType::Number) {
            let problem =
                "the table is versioned, and a version is a whole number: make it an integer";
            notes.push(Diagnostic::in_field(&field.name, problem.to_owned()));
        }
        notes.extend(kept_version(field).map(|problem| Diagnostic::in_field(&field.name, problem)));
    }
    notes
}

/// What a version cannot be besides: the store makes them, 1 for a new record.
fn kept_version(field: &Field) -> Option<String> {
    let default = match &field.default {
        None | Some(Default::Value(Value::Null)) => false,
        Some(Default::Value(value)) => value.as_u64() != Some(1),
        Some(Default::Now | Default::Uuid) => true,
    };
    let declared = [
        ("default", default),
        ("sequence", field.sequence.is_some()),
        ("unique", field.unique),
        ("enum", !field.allowed.is_empty()),
    ];
    let declared: Vec<&str> =
        declared.iter().filter(|(_, is)| *is).map(|(name, _)| *name).collect();
    (!declared.is_empty()).then(|| {
        format!(
            "the table is versioned, and the store makes its versions, 1 for a new record: leave \
             out {}",
            declared.join(", ")
        )
    })
}

/// What contradicts that a field need not be sent.
fn left_out(field: &Field, doc: &Object) -> Option<String> {
    let is_false = |name: &str| doc.get(name).and_then(Value::as_bool) == Some(false);
    let is_filled = field.sequence.is_some() || field.is_filled();
    (is_false("required") && is_false("nullable") && !is_filled).then(|| {
        "it is not required and not nullable, but what is left out is null; say one of them, or \
         give it a default"
            .to_owned()
    })
}

/// What contradicts that no two records have the same value.
fn alike(table: &Table, field: &Field) -> Option<String> {
    let alone = |set: &Vec<Arc<str>>| matches!(&set[..], [only] if *only == field.name);
    let is_unique = field.unique || table.unique.iter().any(alone);
    let is_key = matches!(&table.key[..], [only] if *only == field.name);
    let is_constant = matches!(&field.default, Some(Default::Value(value)) if !value.is_null());
    (is_unique && is_constant && !is_key).then(|| {
        "it is unique and has a default, but no two records have the same; leave one of them out"
            .to_owned()
    })
}

/// What contradicts that a field gets the next number where nothing is sent.
fn sequence(table: &Table, field: &Field) -> Vec<String> {
    let mut problems = Vec::new();
    let Some(rule) = &field.sequence else { return problems };
    if !matches!(field.default, None | Some(Default::Value(Value::Null))) {
        let problem = "it has a sequence and a default; what is left empty gets the next number";
        problems.push(problem.to_owned());
    }
    if let Some(reference) = &field.references {
        problems.push(format!(
            "it has a sequence, and refers to {:?}, where no record has a number that is new",
            reference.table
        ));
    }
    if !field.allowed.is_empty() {
        let problem = "it has a sequence and an enum, which would end the numbers; leave one out";
        problems.push(problem.to_owned());
    }
    problems.extend(
        rule.check_first(field).map_err(|problem| format!("of its sequence, {problem}")).err(),
    );
    if let Some(name) = rule.counter_field.as_deref() {
        let what = format!("its sequence's counterField is {name:?}; ");
        problems.extend(match table.field(name).map(|counter| counter.sized(&rule.start.into())) {
            None => Some(format!("{what}the table has no such field")),
            Some(Err(refused)) => Some(format!("{what}its first number {} {refused}", rule.start)),
            Some(Ok(_)) => None,
        });
    }
    problems
}

/// What contradicts that the key names one record.
fn key(doc: &Object, table: &Table) -> Vec<Diagnostic> {
    let mut notes = Vec::new();
    let is_listed = doc.get("primaryKey").is_some_and(|key| !key.is_null());
    let names: Vec<String> = table.key.iter().map(|name| format!("{name:?}")).collect();
    for field in &table.fields {
        let in_key = table.key.contains(&field.name);
        let member = member(doc, &field.name);
        let marked = member.is_some_and(|member| is_true(member, "primaryKey"));
        let nullable = member.is_some_and(|member| is_true(member, "nullable"));
        if is_listed && marked && !in_key {
            let problem = format!(
                "it is marked primaryKey, but the table's primaryKey is {}; say it once",
                names.join(", ")
            );
            notes.push(Diagnostic::in_field(&field.name, problem));
        }
        if is_listed && in_key && nullable && !marked {
            notes.push(Diagnostic::in_field(&field.name, NULLABLE_KEY.to_owned()));
        }
        let is_constant = matches!(&field.default, Some(Default::Value(value)) if !value.is_null());
        if field.primary_key && in_key && table.key.len() == 1 && is_constant {
            let problem = "it is the key and has a default, but no two records have the same key";
            notes.push(Diagnostic::in_field(&field.name, problem.to_owned()));
        }
    }
    notes
}

/// How a field of this name is written.
fn member<'a>(table: &'a Object, name: &str) -> Option<&'a Object> {
    let fields = ["fields", "columns"].into_iter().filter_map(|many| table.get(many));
    let found = fields.filter_map(|fields| match fields {
        Value::Array(items) => items.iter().rev().find(|item| {
            item.get("name").and_then(Value::as_str).is_some_and(|written| written == name)
        }),
        Value::Object(members) => members.get(name),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    });
    found.filter_map(Value::as_object).next()
}

/// What an index says that one before it says, or says otherwise.
pub(super) struct UniqueIndexes {
    names: Vec<String>,
    sets: Vec<Vec<Arc<str>>>,
}

impl UniqueIndexes {
    /// None yet.
    pub(super) fn new() -> Self {
        Self { names: Vec::new(), sets: Vec::new() }
    }

    /// Whether an index of this name may still be: of two with one name the first is taken.
    pub(super) fn named(&mut self, name: Option<&str>) -> Result<(), String> {
        let Some(name) = name else { return Ok(()) };
        if self.names.iter().any(|earlier| earlier == name) {
            return Err(format!("two indexes are called {name:?}; the first is taken"));
        }
        self.names.push(name.to_owned());
        Ok(())
    }

    /// Takes the fields of a unique index, unless one before it has the same.
    pub(super) fn take(&mut self, what: &str, set: Vec<Arc<str>>) -> Result<(), String> {
        let same = |earlier: &Vec<Arc<str>>| {
            earlier.len() == set.len() && earlier.iter().all(|field| set.contains(field))
        };
        if self.sets.iter().any(same) {
            return Err(format!("{what} has the same fields as one before it; say it once"));
        }
        self.sets.push(set);
        Ok(())
    }

    /// The sets taken.
    pub(super) fn into_sets(self) -> Vec<Vec<Arc<str>>> {
        self.sets
    }
}

#[cfg(test)]
mod tests;
