//! Validate: what a strict module accepts in a field, and in which form it is stored.
//!
//! Promise: a value that passes is of the field's kind and within the field's rules; one that does
//! not is refused by [`Reject::Invalid`] naming table, field, rule and value. Nothing is rounded,
//! cut or guessed. Accepted in two spellings, stored in one: a number sent as text, a boolean sent
//! as `1`, `"1"` or `"true"`, JSON sent as its text.

use rust_decimal::Decimal;

use crate::ids::Timestamp;
use crate::reject::Reject;
use crate::schema::spelling::{scalar_text, time};
use crate::schema::{Field, FieldType};
use crate::value::{Number, Value};

impl Field {
    /// The value a strict module stores.
    ///
    /// # Errors
    /// [`Reject::Invalid`] with the first rule the value breaks.
    pub fn validate(&self, table: &str, value: &Value) -> Result<Value, Reject> {
        if value.is_null() {
            let nullable = self.nullable.then_some(Value::Null);
            return nullable.ok_or_else(|| self.invalid(table, "must not be null", value));
        }
        self.stored(value).map_err(|rule| self.invalid(table, rule, value))
    }

    /// A value other than `null` as it is stored, or the first rule of this field that it breaks.
    pub(super) fn stored(&self, value: &Value) -> Result<Value, String> {
        let stored = self.sized(value)?;
        self.check_allowed(&stored)?;
        Ok(stored)
    }

    /// The same, whatever values are listed.
    pub(crate) fn sized(&self, value: &Value) -> Result<Value, String> {
        let stored = self.of_kind(value)?;
        self.check_length(&stored)?;
        Ok(stored)
    }

    /// A refusal of this field.
    pub(super) fn invalid(&self, table: &str, rule: impl Into<String>, value: &Value) -> Reject {
        Reject::Invalid {
            table: table.to_owned(),
            field: self.name.to_string(),
            rule: rule.into(),
            value: Reject::show(value),
        }
    }

    /// A value as this kind of field stores it, if it is one, whatever else the field asks.
    pub(super) fn of_kind(&self, value: &Value) -> Result<Value, String> {
        match self.kind {
            FieldType::String => text(value).map(|_| value.clone()),
            FieldType::Integer => self.integer(value),
            FieldType::Number => self.number(value),
            FieldType::Boolean => boolean(value).ok_or_else(|| "must be true or false".to_owned()),
            FieldType::Json => Ok(json(value)),
            FieldType::Date => instant(value, is_day, "must be a day such as \"2026-11-21\""),
            FieldType::Time => instant(value, is_time, "must be a time of day such as \"18:30\""),
            FieldType::Timestamp => instant(
                value,
                |text| Timestamp::parse(text).is_some(),
                "must be an instant such as \"2026-11-21T18:30:00Z\"",
            ),
            FieldType::Opaque => Ok(value.clone()),
        }
    }

    /// A stored value as this field stores it, where it says the same there: what fits as it is,
    /// and beyond what is taken of clients, a text for what was no text and `1` for `true`. What
    /// cannot be read stays as it is.
    pub(super) fn migrate_value(&self, value: Value) -> Value {
        match self.of_kind(&value) {
            Ok(read) => read,
            Err(_) => self.converted(&value).unwrap_or(value),
        }
    }

    fn converted(&self, value: &Value) -> Option<Value> {
        match (self.kind, value) {
            // What names a record keeps its name: what refers to it still does.
            (FieldType::String, Value::Number(_))
                if self.primary_key || self.unique || self.references.is_some() =>
            {
                value.name_text().map(Value::String)
            }
            (FieldType::String, Value::Number(number)) => Some(number.as_str().into()),
            (FieldType::String, Value::Bool(_) | Value::Array(_) | Value::Object(_)) => {
                Some(value.to_json().into())
            }
            (FieldType::Integer | FieldType::Number, Value::Bool(is)) => {
                self.of_kind(&Value::from(u64::from(*is))).ok()
            }
            _ => None,
        }
    }

    fn integer(&self, value: &Value) -> Result<Value, String> {
        let rule = || "must be a whole number".to_owned();
        let number = number(value).ok_or_else(rule)?;
        // Exactly, not as a double: 2^53 + 1 is a whole number and stays one.
        let decimal = number.to_decimal().ok_or_else(rule)?;
        if !decimal.fract().is_zero() {
            return Err(rule());
        }
        Ok(Value::Number(number))
    }

    fn number(&self, value: &Value) -> Result<Value, String> {
        let number = number(value).ok_or("must be a number")?;
        let decimal = number.to_decimal().ok_or("must be a number of at most 28 digits")?;
        // `1.500` fits two digits after the point: zeros at the end are no digits.
        let exact = decimal.normalize();
        if let Some(scale) = self.scale.or_else(|| self.precision.map(|_| 0))
            && exact.scale() > scale
        {
            return Err(format!("must have at most {scale} digits after the point"));
        }
        if let Some(precision) = self.precision {
            // As SQL counts: precision is all digits, so this many are left before the point.
            let whole = precision.saturating_sub(self.scale.unwrap_or(0));
            if whole_digits(exact) > whole {
                return Err(format!("must have at most {whole} digits before the point"));
            }
        }
        Ok(Value::Number(number))
    }

    fn check_length(&self, value: &Value) -> Result<(), String> {
        let (Some(max), Some(text)) = (self.max_length, value.as_str()) else { return Ok(()) };
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        // Most texts are short enough in bytes already; only the others are counted.
        if text.len() <= max || text.chars().count() <= max {
            return Ok(());
        }
        Err(format!("must be at most {max} characters"))
    }

    fn check_allowed(&self, value: &Value) -> Result<(), String> {
        // In any spelling: `18:30` is listed where `18:30:00` is.
        let is_it = |allowed: &Value| self.kind.is_same(allowed, value);
        if self.allowed.is_empty() || self.allowed.iter().any(is_it) {
            return Ok(());
        }
        let list: Vec<String> = self.allowed.iter().map(Value::to_json).collect();
        Err(format!("must be one of {}", list.join(", ")))
    }
}

fn whole_digits(number: Decimal) -> u32 {
    let whole = number.trunc().abs();
    if whole.is_zero() { 0 } else { whole.mantissa().ilog10() + 1 }
}

fn text(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| "must be text".to_owned())
}

fn number(value: &Value) -> Option<Number> {
    match value {
        Value::Number(number) => Some(number.clone()),
        Value::String(text) => Number::parse(text),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn boolean(value: &Value) -> Option<Value> {
    let text = scalar_text(value)?;
    let is = |words: [&str; 2]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    if is(["true", "1"]) {
        Some(Value::Bool(true))
    } else {
        is(["false", "0"]).then_some(Value::Bool(false))
    }
}

/// The text of an object or array is read; any other text is JSON as it stands.
fn json(value: &Value) -> Value {
    let read = value.as_str().and_then(|text| Value::from_json(text.as_bytes()).ok());
    match read {
        Some(read @ (Value::Array(_) | Value::Object(_))) => read,
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) | None => {
            value.clone()
        }
    }
}

fn instant(value: &Value, is: fn(&str) -> bool, rule: &str) -> Result<Value, String> {
    value.as_str().filter(|text| is(text)).map(|_| value.clone()).ok_or_else(|| rule.to_owned())
}

fn is_day(text: &str) -> bool {
    text.parse::<jiff::civil::Date>().is_ok() || Timestamp::parse(text).is_some()
}

fn is_time(text: &str) -> bool {
    time(text).is_some()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::schema::Schema;

    fn field(members: &str) -> Field {
        let doc = format!(r#"[{{"name":"t","fields":[{{"name":"f",{members}}}]}}]"#);
        let schema =
            Schema::from_definition("m", &Value::from_json(doc.as_bytes()).unwrap()).unwrap();
        schema.tables[0].fields[0].clone()
    }

    fn stored(members: &str, sent: &str) -> Result<String, String> {
        match field(members).validate("t", &Value::from_json(sent.as_bytes()).unwrap()) {
            Ok(value) => Ok(value.to_json()),
            Err(Reject::Invalid { rule, .. }) => Err(rule),
            Err(other) => Err(other.to_string()),
        }
    }

    #[test]
    fn what_is_right_is_stored_in_one_spelling() {
        for (members, sent, kept) in [
            (r#""type":"NVARCHAR(3)""#, r#""سلا""#, r#""سلا""#),
            (r#""type":"text""#, r#""""#, r#""""#),
            (r#""type":"text""#, "null", "null"),
            (r#""type":"int""#, r#""12""#, "12"),
            (r#""type":"int""#, "1e2", "1e2"),
            (r#""type":"int""#, "5.0", "5.0"),
            (r#""type":"DECIMAL(5,2)""#, r#""999.99""#, "999.99"),
            (r#""type":"DECIMAL(5,2)""#, "-999.990", "-999.990"),
            (r#""type":"DECIMAL(2,2)""#, "0.99", "0.99"),
            (r#""type":"decimal""#, "1234567890123456.789", "1234567890123456.789"),
            (r#""type":"bool""#, r#""TRUE""#, "true"),
            (r#""type":"bool""#, "0", "false"),
            (r#""type":"bool""#, "1.0", "true"),
            (r#""type":"json""#, r#""{\"a\":1}""#, r#"{"a":1}"#),
            (r#""type":"json""#, r#""words""#, r#""words""#),
            (r#""type":"date""#, r#""2026-11-21""#, r#""2026-11-21""#),
            (r#""type":"time""#, r#""18:30""#, r#""18:30""#),
            (
                r#""type":"timestamp""#,
                r#""2026-11-21T18:30:00+02:00""#,
                r#""2026-11-21T18:30:00+02:00""#,
            ),
            (r#""type":"uuid""#, "7", "7"),
            (r#""type":"text","enum":["a","b"]"#, r#""b""#, r#""b""#),
            (r#""type":"int","enum":[1,2]"#, "2.0", "2.0"),
        ] {
            assert_eq!(stored(members, sent), Ok(kept.to_owned()), "{members} {sent}");
        }
    }

    #[test]
    fn a_value_that_is_listed_is_taken_in_any_spelling() {
        for (members, sent) in [
            (r#""type":"time","enum":["18:30","19:00"]"#, r#""18:30:00""#),
            (r#""type":"time","enum":["18:30:00.000"]"#, r#""18:30""#),
            (r#""type":"date","enum":["2026-11-21"]"#, r#""2026-11-21T00:00:00Z""#),
            (
                r#""type":"timestamp","enum":["2026-11-21T10:00:00Z"]"#,
                r#""2026-11-21T12:00:00+02:00""#,
            ),
            (r#""type":"json","enum":[{"a":1,"b":2}]"#, r#"{"b":2.0,"a":1}"#),
            (r#""type":"json","enum":["{\"a\":1}"]"#, r#"{"a":1}"#),
            (r#""type":"bool","enum":["true"]"#, "1"),
            (r#""type":"decimal","enum":["1.50"]"#, "1.5"),
            (r#""type":"integer","enum":[100]"#, "1e2"),
            (r#""type":"any","enum":[1]"#, "1.0"),
        ] {
            assert!(stored(members, sent).is_ok(), "{members} {sent}");
            let default = format!(r#"{members},"defaultValue":{sent}"#);
            let doc = format!(r#"[{{"name":"t","fields":[{{"name":"f",{default}}}]}}]"#);
            let doc = Value::from_json(doc.as_bytes()).unwrap();
            let notes = Schema::read("m", &doc).unwrap().notes;
            assert!(notes.is_empty(), "{notes:?} for {default}");
        }
        for (members, sent) in [
            (r#""type":"time","enum":["18:30"]"#, r#""18:31""#),
            (r#""type":"text","enum":["1.0"]"#, r#""1""#),
            (r#""type":"any","enum":["1"]"#, "1"),
            (r#""type":"json","enum":["a"]"#, r#""b""#),
            (r#""type":"json","enum":[[1,2]]"#, "[2,1]"),
            (r#""type":"json","enum":[true]"#, "1"),
        ] {
            let refused = stored(members, sent).unwrap_err();
            assert!(refused.starts_with("must be one of"), "{members} {sent}: {refused}");
        }
    }

    #[test]
    fn what_is_wrong_is_refused_with_its_rule() {
        for (members, sent, rule) in [
            (r#""type":"text","nullable":false"#, "null", "must not be null"),
            (r#""type":"text""#, "7", "must be text"),
            (r#""type":"NVARCHAR(3)""#, r#""سلام""#, "must be at most 3 characters"),
            (r#""type":"int""#, "1.5", "must be a whole number"),
            (r#""type":"int""#, r#""x""#, "must be a whole number"),
            (r#""type":"decimal""#, r#""1,5""#, "must be a number"),
            (r#""type":"decimal""#, "1e40", "must be a number of at most 28 digits"),
            (r#""type":"DECIMAL(5,2)""#, "1.005", "must have at most 2 digits after the point"),
            (r#""type":"DECIMAL(5,2)""#, "1000", "must have at most 3 digits before the point"),
            (r#""type":"DECIMAL(5)""#, "1.5", "must have at most 0 digits after the point"),
            (r#""type":"bool""#, r#""yes""#, "must be true or false"),
            (r#""type":"date""#, r#""soon""#, "must be a day such as \"2026-11-21\""),
            (
                r#""type":"time""#,
                r#""2026-11-21T18:30:00""#,
                "must be a time of day such as \"18:30\"",
            ),
            (r#""type":"time""#, r#""25:00""#, "must be a time of day such as \"18:30\""),
            (
                r#""type":"timestamp""#,
                "1795220377740",
                "must be an instant such as \"2026-11-21T18:30:00Z\"",
            ),
            (r#""type":"text","enum":["a","b"]"#, r#""c""#, r#"must be one of "a", "b""#),
        ] {
            assert_eq!(stored(members, sent), Err(rule.to_owned()), "{members} {sent}");
        }
        let refused = field(r#""type":"int""#).validate("t", &Value::from("x")).unwrap_err();
        assert_eq!(refused.to_string(), "t.f must be a whole number, but was \"x\"");
        assert_eq!(refused.code(), "invalid-field");
    }

    proptest! {
        #[test]
        fn money_within_its_precision_keeps_every_digit(cents in -9_999_999_i64..=9_999_999) {
            let sign = if cents < 0 { "-" } else { "" };
            let sent = format!("{sign}{}.{:02}", cents.abs() / 100, cents.abs() % 100);
            let field = field(r#""type":"DECIMAL(7,2)""#);
            for value in [Value::from(sent.as_str()), Value::Number(Number::parse(&sent).unwrap())] {
                let kept = field.validate("t", &value).unwrap();
                prop_assert_eq!(kept.to_json(), sent.clone());
                prop_assert_eq!(field.validate("t", &kept).unwrap(), kept);
            }
        }
    }
}
