//! Default: what a definition says stands in where nothing was sent.
//!
//! Three spellings: `defaultValue` is the value itself; `default` may also be SQL (`getdate()`,
//! `newid()`, `'ar'`, `((0))`); `defaultFn` names a function. A value is read as the field's kind
//! once, here, so that a record never has to.

use crate::schema::{Default, Field, Kind};
use crate::value::{Object, Value};

/// Reads a field's default; `field` has its kind already.
pub(super) fn read(field: &Field, doc: &Object) -> Result<Option<Default>, String> {
    if let Some(function) = doc.get("defaultFn") {
        let wrong =
            || format!("defaultFn {} is not known; NOW_ISO and UUID are", function.to_json());
        let name = function.as_str().ok_or_else(wrong)?;
        return self::function(name).map(Some).ok_or_else(wrong);
    }
    if let Some(value) = doc.get("defaultValue") {
        return literal(field, value).map(Some);
    }
    match doc.get("default") {
        Some(Value::String(text)) => sql(field, text).map(Some),
        Some(value) => literal(field, value).map(Some),
        None => Ok(None),
    }
}

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

fn sql(field: &Field, text: &str) -> Result<Default, String> {
    let mut text = text.trim();
    while let Some(inner) = text.strip_prefix('(').and_then(|t| t.strip_suffix(')')) {
        text = inner.trim();
    }
    if let Some(quoted) = quoted(text) {
        return literal(field, &Value::from(quoted));
    }
    // A text field may well default to the word "now": only a call is a function there.
    let called = text.ends_with("()") || field.kind != Kind::String;
    match called.then(|| function(text)).flatten() {
        Some(default) => Ok(default),
        None if text.eq_ignore_ascii_case("null") => Ok(Default::Value(Value::Null)),
        None => literal(field, &Value::from(text)),
    }
}

/// The text inside `'…'` or `N'…'`, doubled quotes made single.
fn quoted(text: &str) -> Option<String> {
    let text = text.strip_prefix(['N', 'n']).filter(|t| t.starts_with('\'')).unwrap_or(text);
    let inner = text.strip_prefix('\'')?.strip_suffix('\'')?;
    Some(inner.replace("''", "'"))
}

/// A JSON default stays as it is, even where it is text.
fn literal(field: &Field, value: &Value) -> Result<Default, String> {
    let read = if field.kind == Kind::Json { value.clone() } else { field.coerce(value) };
    if read.is_null() && !value.is_null() {
        return Err(format!("the default {} is not a number", value.to_json()));
    }
    if let Value::Number(number) = &read {
        // Nobody sends a default: it is derived, and fits its field.
        let fitted = field.fitted_default(number);
        let too_long = || format!("the default {} has more than 28 digits", value.to_json());
        return fitted.map(|number| Default::Value(Value::Number(number))).ok_or_else(too_long);
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
            .and_then(crate::schema::ReadSchema::strict)
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
