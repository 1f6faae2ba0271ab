//! Default: what a definition says stands in where nothing was sent.
//!
//! Three spellings: `defaultValue` is the value itself; `default` may also be SQL (`getdate()`,
//! `newid()`, `'ar'`, `((0))`); `defaultFn` names a function. A value is read as the field's kind
//! once, here, so that a record never has to.

use crate::ids::Timestamp;
use crate::schema::{Default, Field, FieldType};
use crate::value::{Object, Value};

/// Reads a field's default; `field` has its kind, its sizes and its listed values already. A
/// default that the field's own rules refuse is noted and taken: lenient uses it.
pub(super) fn read(field: &Field, doc: &Object, problems: &mut Vec<String>) -> Option<Default> {
    let mut first: Option<(&str, Default)> = None;
    // All are read, though the first counts: a second that says something else is a mistake that
    // nobody would find later.
    for (name, reader) in SPELLINGS {
        let Some(value) = doc.get(name) else { continue };
        let mut noted = Vec::new();
        match (reader(field, value, &mut noted), &first) {
            (Ok(default), None) => {
                problems.append(&mut noted);
                first = Some((name, default));
            }
            (Err(problem), None) => {
                problems.push(problem);
                return None;
            }
            (Ok(other), Some((before, default))) if !value.is_null() && other != *default => {
                problems.push(format!(
                    "its {before} and its {name} say different things; one of them is right"
                ));
            }
            (Ok(_) | Err(_), Some(_)) => {}
        }
    }
    first.map(|(_, default)| default)
}

/// The members a default may stand in, the one that counts first, and how each is read.
const SPELLINGS: [(&str, DefaultReader); 3] =
    [("defaultFn", named), ("defaultValue", literal), ("default", written)];

/// Reads one member; what it notes is wrong and taken all the same.
type DefaultReader = fn(&Field, &Value, &mut Vec<String>) -> Result<Default, String>;

fn named(field: &Field, value: &Value, problems: &mut Vec<String>) -> Result<Default, String> {
    let wrong = || format!("defaultFn {} is not known; NOW_ISO and UUID are", value.to_json());
    let default = value.as_str().and_then(function).ok_or_else(wrong)?;
    problems.extend(violation(field, &default));
    Ok(default)
}

fn written(field: &Field, value: &Value, problems: &mut Vec<String>) -> Result<Default, String> {
    match value {
        Value::String(text) => sql(field, text, problems),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            literal(field, value, problems)
        }
    }
}

/// What of a value that is made at each insert its field does not allow, whenever that is.
fn violation(field: &Field, default: &Default) -> Option<String> {
    let (what, value) = match default {
        Default::Value(_) => return None,
        Default::Now => ("the time of the insert", field.commit_time(SOME_TIME)),
        Default::Uuid => ("a new uuid", Value::from(SOME_UUID)),
    };
    field.stored(&value).err().map(|rule| format!("its default, {what}, {rule}"))
}

/// As long as any other of this century.
const SOME_TIME: Timestamp = Timestamp(1_795_220_377_740);
const SOME_UUID: &str = "00000000-0000-4000-8000-000000000000";

fn function(name: &str) -> Option<Default> {
    let name = name.to_ascii_lowercase();
    match name.strip_suffix("()").unwrap_or(&name) {
        "now_iso" | "now" | "getdate" | "getutcdate" | "sysdatetime" | "sysutcdatetime"
        | "current_timestamp" | "curdate" | "current_date" => Some(Default::Now),
        "uuid" | "newid" | "newsequentialid" | "gen_random_uuid" | "uuid_generate_v4" => {
            Some(Default::Uuid)
        }
        _ => None,
    }
}

fn sql(field: &Field, text: &str, problems: &mut Vec<String>) -> Result<Default, String> {
    // SQL Server writes a default back in parentheses, `((0))`.
    let mut text = text.trim();
    while let Some(inner) = text.strip_prefix('(').and_then(|t| t.strip_suffix(')')) {
        text = inner.trim();
    }
    if let Some(quoted) = quoted(text) {
        return literal(field, &Value::from(quoted), problems);
    }
    // A text field may well default to the word "now": only a call is a function there.
    let called = text.ends_with("()") || field.kind != FieldType::String;
    match called.then(|| function(text)).flatten() {
        Some(default) => {
            problems.extend(violation(field, &default));
            Ok(default)
        }
        None if text.eq_ignore_ascii_case("null") => {
            if !field.nullable {
                let problem = "its default is NULL, which is no value of it; leave the default out";
                problems.push(problem.to_owned());
            }
            Ok(Default::Value(Value::Null))
        }
        None => literal(field, &Value::from(text), problems),
    }
}

/// The text inside `'…'` or `N'…'`, doubled quotes made single.
fn quoted(text: &str) -> Option<String> {
    let text = text.strip_prefix(['N', 'n']).filter(|t| t.starts_with('\'')).unwrap_or(text);
    let inner = text.strip_prefix('\'')?.strip_suffix('\'')?;
    Some(inner.replace("''", "'"))
}

/// A JSON default stays as it is, even where it is text.
fn literal(field: &Field, value: &Value, problems: &mut Vec<String>) -> Result<Default, String> {
    if value.is_null() {
        return Ok(Default::Value(Value::Null));
    }
    let mut read = if field.kind == FieldType::Json { value.clone() } else { field.coerce(value) };
    if read.is_null() {
        return Err(format!("the default {} is not a number", value.to_json()));
    }
    if let Value::Number(number) = &read {
        // Nobody sends a default: it is derived, and fits its field.
        let too_long = || format!("the default {} has more than 28 digits", value.to_json());
        read = Value::Number(field.fitted_default(number).ok_or_else(too_long)?);
    }
    // What is no number may be read as something that was not meant: as sent, it says more.
    let asked = if matches!(read, Value::Number(_)) { &read } else { value };
    if let Err(rule) = field.stored(asked) {
        problems.push(format!("its default {} {rule}", value.to_json()));
    }
    Ok(Default::Value(read))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Schema;

    fn default(field: &str) -> Result<Option<Default>, String> {
        let doc = format!(r#"[{{"name":"t","fields":[{{"name":"f",{field}}}]}}]"#);
        let doc = Value::from_json(doc.as_bytes()).unwrap();
        Schema::read("m", &doc)
            .and_then(crate::schema::ParsedSchema::strict)
            .map(|schema| schema.tables[0].fields[0].default.clone())
            .map_err(|error| error.to_string())
    }

    fn value(json: &str) -> Result<Option<Default>, String> {
        Ok(Some(Default::Value(Value::from_json(json.as_bytes()).unwrap())))
    }

    #[test]
    fn defaults_are_read_in_all_spellings() {
        assert_eq!(default(r#""type":"text""#), Ok(None));
        assert_eq!(default(r#""type":"DATETIME","default":"getdate()""#), Ok(Some(Default::Now)));
        assert_eq!(default(r#""type":"CHAR(36)","default":"newid()""#), Ok(Some(Default::Uuid)));
        assert_eq!(default(r#""type":"TEXT","defaultFn":"NOW_ISO""#), Ok(Some(Default::Now)));
        assert_eq!(default(r#""type":"TEXT","defaultFn":"UUID""#), Ok(Some(Default::Uuid)));
        assert_eq!(default(r#""type":"BIT","default":"1""#), value("true"));
        assert_eq!(default(r#""type":"BIT","default":"((0))""#), value("false"));
        assert_eq!(default(r#""type":"CHAR(2)","default":"'ar'""#), value(r#""ar""#));
        assert_eq!(default(r#""type":"NVARCHAR(9)","default":"N'it''s'""#), value(r#""it's""#));
        assert_eq!(default(r#""type":"TEXT","default":"now""#), value(r#""now""#));
        assert_eq!(default(r#""type":"DECIMAL(10,2)","default":"0.50""#), value("0.50"));
        assert_eq!(default(r#""type":"INT","default":"NULL""#), value("null"));
        assert_eq!(default(r#""type":"json","defaultValue":[]"#), value("[]"));
        assert_eq!(default(r#""type":"integer","defaultValue":"5""#), value("5"));
    }

    #[test]
    fn a_default_that_cannot_be_is_refused() {
        let error = default(r#""type":"INT","default":"many""#).unwrap_err();
        assert_eq!(
            error,
            "definition of module \"m\", table \"t\", field \"f\": \
             the default \"many\" is not a number"
        );
        let error = default(r#""type":"TEXT","defaultFn":"RANDOM""#).unwrap_err();
        assert!(error.ends_with("defaultFn \"RANDOM\" is not known; NOW_ISO and UUID are"));
    }
}
