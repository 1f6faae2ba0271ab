//! Field: one field of a definition, whatever the format it is written in.
//!
//! The formats differ in where fields stand, hardly in what they say, so one reader knows all
//! members: `nullable` and `required`, `foreignKey` and `references`, `default` in three
//! spellings. What cannot be read is noted and left out; the field itself always loads.

use std::sync::Arc;

use crate::schema::aliases::snake_case;
use crate::schema::formats::members::{self, flag, of_type};
use crate::schema::formats::types::ColumnType;
use crate::schema::formats::{FieldDiagnostics, contradictions, default, reference};
use crate::schema::{Field, FieldType, Rounding};
use crate::sequence::SequenceRule;
use crate::value::{Object, Value};

/// Longest field name, in bytes.
pub(super) const FIELD_NAME_BYTES_MAX: usize = 128;

/// Reads one field under a name already found.
pub(super) fn read(name: &str, doc: &Object, notes: &mut FieldDiagnostics) -> Field {
    notes.problems.extend(members::FIELD.check(doc));
    let mut sized = sized(doc, &mut notes.problems);
    let problems = &mut notes.problems;
    // Sizes before defaults and listed values, which are checked against them.
    contradictions::sizes(doc, &mut sized, problems);
    contradictions::members(doc, sized.kind, problems);
    let primary_key = flag(doc, "primaryKey", problems).unwrap_or(false);
    let required = flag(doc, "required", problems).unwrap_or(false);
    let nullable = flag(doc, "nullable", problems).unwrap_or(true);
    flag(doc, "index", problems);
    let mut field = Field {
        name: name.into(),
        column: column(name, doc, problems),
        kind: sized.kind,
        nullable: nullable && !primary_key && !required,
        primary_key,
        unique: flag(doc, "unique", problems).unwrap_or(false),
        max_length: sized.max_length,
        precision: sized.precision,
        scale: sized.scale,
        default: None,
        allowed: Vec::new(),
        references: None,
        rounding: Rounding::default(),
        sequence: None,
    };
    match rounding(sized.kind, doc) {
        Ok(rounding) => field.rounding = rounding,
        Err(problem) => problems.push(problem),
    }
    match sequence(&field, doc) {
        Ok(sequence) => field.sequence = sequence,
        Err(problem) => problems.push(problem),
    }
    // The listed values before the default, which must be one of them.
    field.allowed = allowed(&field, doc, problems);
    field.default = default::read(&field, doc, problems);
    if let Some(target) = doc.get("references").or_else(|| doc.get("foreignKey"))
        && !target.is_null()
    {
        match reference::read(target, notes) {
            Ok(reference) => field.references = Some(reference),
            Err(problem) => notes.problems.push(problem),
        }
    }
    field
}

/// The type; where none is written, that of the values listed, else any.
fn sized(doc: &Object, problems: &mut Vec<String>) -> ColumnType {
    match doc.get("type") {
        Some(Value::String(text)) => {
            let (read, problem) = ColumnType::read(text);
            problems.extend(problem);
            read
        }
        Some(Value::Null) | None => {
            let values = doc.get("enum").and_then(Value::as_array).unwrap_or_default();
            problems.push(match values {
                [] => "it has no type; give one, such as \"text\" or \"integer\"".to_owned(),
                _ => "its enum has no type; give one, such as \"text\" or \"integer\"".to_owned(),
            });
            let all = |is: fn(&Value) -> bool| !values.is_empty() && values.iter().all(is);
            ColumnType::of(if all(|value| value.as_str().is_some()) {
                FieldType::String
            } else if all(|value| matches!(value, Value::Number(_))) {
                FieldType::Number
            } else {
                FieldType::Opaque
            })
        }
        Some(other) => {
            let shown = other.to_json();
            problems.push(format!("its type is {shown}; a type is text, such as \"text\""));
            ColumnType::of(FieldType::Opaque)
        }
    }
}

/// A field's name: any text people can read, not longer than the limit.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > FIELD_NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(format!(
            "its name is not allowed: 1 to {FIELD_NAME_BYTES_MAX} bytes without control characters"
        ));
    }
    Ok(())
}

/// The column as given, else the snake_case form of a camelCase name. A name in any other style
/// (`ID`, `Patient_Code`) has no such form.
fn column(name: &str, doc: &Object, problems: &mut Vec<String>) -> Arc<str> {
    match doc.get("columnName").or_else(|| doc.get("column")) {
        Some(Value::String(column)) => return column.as_str().into(),
        Some(Value::Null) | None => {}
        Some(other) => {
            problems.push(format!("its columnName is {}; a name is text", other.to_json()));
        }
    }
    if name.starts_with(char::is_lowercase) { snake_case(name).into() } else { name.into() }
}

/// The listed values, read as the field's kind; those of `ENUM('new','paid')` too.
fn allowed(field: &Field, doc: &Object, problems: &mut Vec<String>) -> Vec<Value> {
    let listed = match doc.get("enum") {
        None | Some(Value::Null) => return of_type(doc, problems),
        Some(Value::Array(items)) => items,
        Some(other) => {
            problems.push(format!("enum is {}; it is a list of values", other.to_json()));
            return Vec::new();
        }
    };
    if listed.is_empty() {
        problems.push("enum is empty: no value would be allowed".to_owned());
    }
    let mut values = Vec::with_capacity(listed.len());
    for item in listed.iter() {
        let shown = item.to_json();
        // Read once here, so that a write compares values of one kind.
        let read = if field.kind == FieldType::Json { item.clone() } else { field.coerce(item) };
        if read.is_null() != item.is_null() {
            problems.push(format!("enum lists {shown}, which is no value of its type"));
            continue;
        }
        if values.iter().any(|listed| field.kind.is_same(listed, &read)) {
            problems.push(format!("enum lists {shown} twice"));
            continue;
        }
        if item.is_null() && !field.nullable {
            problems.push("enum lists null, which is no value of it; leave it out".to_owned());
        } else if !item.is_null()
            && let Err(rule) = field.sized(item)
        {
            problems.push(format!("enum lists {shown}, but a value {rule}"));
        }
        values.push(read);
    }
    contradictions::listed(&values, doc, problems);
    values
}

/// How the field's numbers are made: `true` for 1, 2, 3, …, else a rule.
fn sequence(field: &Field, doc: &Object) -> Result<Option<Arc<SequenceRule>>, String> {
    let rule = match doc.get("sequence") {
        None | Some(Value::Null | Value::Bool(false)) => return Ok(None),
        Some(Value::Bool(true)) => SequenceRule::plain(),
        Some(rule @ Value::Object(_)) => SequenceRule::from_request(rule)
            .map_err(|bad| format!("its sequence: {}", bad.problem))?,
        Some(other) => {
            return Err(format!(
                "its sequence is {}; it is true or a rule such as {{\"prefix\": \"INV\"}}",
                other.to_json()
            ));
        }
    };
    rule.check_field(field).map_err(|problem| format!("its sequence cannot be: {problem}"))?;
    Ok(Some(Arc::new(rule)))
}

/// How derived amounts are rounded, as a field of numbers may say.
fn rounding(kind: FieldType, doc: &Object) -> Result<Rounding, String> {
    let problems = match doc.get("rounding") {
        None | Some(Value::Null) => return Ok(Rounding::default()),
        Some(problems) => problems,
    };
    if !matches!(kind, FieldType::Integer | FieldType::Number) {
        return Err("rounding is said of numbers only".to_owned());
    }
    let known = problems.as_str().and_then(Rounding::parse);
    known
        .ok_or_else(|| format!("rounding is {}; known are {}", problems.to_json(), Rounding::NAMES))
}
