//! Field: one field of a definition, whatever the format it is written in.
//!
//! The formats differ in where fields stand, hardly in what they say, so one reader knows all
//! members: `nullable` and `required`, `foreignKey` and `references`, `default` in three
//! spellings. Unknown members (`comment`, `layout`, …) are passed over.

use std::sync::Arc;

use crate::schema::aliases::snake_case;
use crate::schema::formats::types::Type;
use crate::schema::formats::{default, reference};
use crate::schema::{Field, Kind, Rounding};
use crate::sequence::SequenceRule;
use crate::value::{Object, Value};

/// Longest field name, in bytes.
pub(super) const FIELD_NAME_BYTES_MAX: usize = 128;

/// Reads one field under a name already found.
pub(super) fn read(name: &str, doc: &Object) -> Result<Field, String> {
    let sized = match doc.get("type") {
        Some(Value::String(text)) => Type::read(text)?,
        Some(other) => {
            return Err(format!(
                "its type is {}; a type is text, such as \"text\"",
                other.to_json()
            ));
        }
        None => return Err("it has no type; give one, such as \"text\" or \"integer\"".to_owned()),
    };
    let primary_key = flag(doc, "primaryKey")?.unwrap_or(false);
    let required = flag(doc, "required")?.unwrap_or(false);
    let nullable = flag(doc, "nullable")?.unwrap_or(true);
    let mut field = Field {
        name: name.into(),
        column: column(name, doc)?,
        kind: sized.kind,
        nullable: nullable && !primary_key && !required,
        primary_key,
        unique: flag(doc, "unique")?.unwrap_or(false),
        max_length: count(doc, "maxLength")?.or(sized.max_length),
        precision: count(doc, "precision")?.or(sized.precision),
        scale: count(doc, "scale")?.or(sized.scale),
        default: None,
        allowed: Vec::new(),
        references: None,
        rounding: rounding(sized.kind, doc)?,
        sequence: None,
    };
    field.sequence = sequence(&field, doc)?;
    field.default = default::read(&field, doc)?;
    field.allowed = allowed(&field, doc)?;
    if let Some(target) = doc.get("references").or_else(|| doc.get("foreignKey")) {
        field.references = Some(reference::read(target)?);
    }
    Ok(field)
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

/// The column as given, else the snake_case twin of a camelCase name. A name in any other style
/// (`ID`, `Patient_Code`) has no twin.
fn column(name: &str, doc: &Object) -> Result<Arc<str>, String> {
    match doc.get("columnName").or_else(|| doc.get("column")) {
        Some(Value::String(column)) => Ok(column.as_str().into()),
        Some(other) => Err(format!("its columnName is {}; a name is text", other.to_json())),
        None if name.starts_with(char::is_lowercase) => Ok(snake_case(name).into()),
        None => Ok(name.into()),
    }
}

/// The listed values, read as the field's kind.
fn allowed(field: &Field, doc: &Object) -> Result<Vec<Value>, String> {
    let Some(list) = doc.get("enum") else { return Ok(Vec::new()) };
    let wrong = || format!("enum is {}; it is a list of values", list.to_json());
    let items = list.as_array().ok_or_else(wrong)?;
    let read =
        |item: &Value| if field.kind == Kind::Json { item.clone() } else { field.coerce(item) };
    Ok(items.iter().map(read).collect())
}

/// How the field's numbers are made: `true` for 1, 2, 3, …, else a rule.
fn sequence(field: &Field, doc: &Object) -> Result<Option<Arc<SequenceRule>>, String> {
    let rule = match doc.get("sequence") {
        None | Some(Value::Null | Value::Bool(false)) => return Ok(None),
        Some(Value::Bool(true)) => SequenceRule::plain(),
        Some(rule @ Value::Object(_)) => {
            SequenceRule::asked(rule).map_err(|bad| format!("its sequence: {}", bad.problem))?
        }
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
fn rounding(kind: Kind, doc: &Object) -> Result<Rounding, String> {
    let said = match doc.get("rounding") {
        None | Some(Value::Null) => return Ok(Rounding::default()),
        Some(said) => said,
    };
    match kind {
        Kind::Integer | Kind::Number => {}
        Kind::String
        | Kind::Boolean
        | Kind::Json
        | Kind::Date
        | Kind::Time
        | Kind::Timestamp
        | Kind::Opaque => return Err("rounding is said of numbers only".to_owned()),
    }
    let known = said.as_str().and_then(Rounding::parse);
    known.ok_or_else(|| format!("rounding is {}; known are {}", said.to_json(), Rounding::NAMES))
}

/// A member that is `true` or `false`.
pub(super) fn flag(doc: &Object, name: &str) -> Result<Option<bool>, String> {
    match doc.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(*value)),
        Some(other) => Err(format!("{name} is {}; it is true or false", other.to_json())),
    }
}

fn count(doc: &Object, name: &str) -> Result<Option<u32>, String> {
    match doc.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64().and_then(|count| u32::try_from(count).ok()) {
            Some(count) => Ok(Some(count)),
            None => Err(format!("{name} is {}; it is a whole number", value.to_json())),
        },
    }
}
