//! Coerce: what a value that was sent becomes in a field of some kind
//! (docs/original/schemas.md#types).
//!
//! Lenient is the original's way: nothing is refused, what cannot be read becomes `null` (a
//! number), `false` (a boolean) or `{}` (JSON). Numbers are never computed with: a text that is a
//! number becomes that number, digit for digit. Two of the original's accidents are not repeated:
//! an array is never a number, and a number too big for a client becomes `null` at once.

use crate::schema::spelling::boolean;
use crate::schema::{Field, FieldType};
use crate::value::{Number, Object, Value};

impl Field {
    /// The value a lenient module stores. `null` stays `null`.
    pub fn coerce(&self, value: &Value) -> Value {
        self.kind.coerced(value)
    }
}

impl FieldType {
    /// What a value becomes in a lenient field of this kind.
    pub(super) fn coerced(self, value: &Value) -> Value {
        if value.is_null() {
            return Value::Null;
        }
        match self {
            Self::Integer | Self::Number => number(value).map_or(Value::Null, Value::Number),
            Self::Boolean => Value::Bool(boolean(value) == Some(true)),
            Self::Json => json(value),
            Self::String | Self::Date | Self::Time | Self::Timestamp | Self::Opaque => {
                value.clone()
            }
        }
    }
}

fn number(value: &Value) -> Option<Number> {
    match value {
        Value::Number(number) => finite(number.clone()),
        Value::String(text) => number_in(text.trim()),
        Value::Bool(true) => Some(Number::from(1_u64)),
        Value::Bool(false) => Some(Number::from(0_u64)),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// What JavaScript's `Number(text)` reads, but exactly: `7.50`, `+5`, `.5`, `5.`, `007`, `0x1f`;
/// an empty text is 0.
fn number_in(text: &str) -> Option<Number> {
    if text.is_empty() {
        return Some(Number::from(0_u64));
    }
    // Its own spelling where it is JSON already: `1.50` stays `1.50`.
    if let Some(number) = Number::parse(text) {
        return finite(number);
    }
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        let digits = !hex.is_empty() && hex.bytes().all(|b| b.is_ascii_hexdigit());
        return digits.then(|| u64::from_str_radix(hex, 16).ok().map(Number::from)).flatten();
    }
    finite(Number::parse(&as_json(text)?)?)
}

/// A decimal as JSON writes it: no plus, no leading zeros, a digit on both sides of the point.
fn as_json(text: &str) -> Option<String> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let sign = if text.starts_with('-') { "-" } else { "" };
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(place) => unsigned.split_at(place),
        None => (unsigned, ""),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) {
        return None;
    }
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    let point = if fraction.is_empty() { "" } else { "." };
    Some(format!("{sign}{whole}{point}{fraction}{exponent}"))
}

/// Clients read numbers as doubles: one beyond them is no number to anybody.
fn finite(number: Number) -> Option<Number> {
    number.as_str().parse::<f64>().is_ok_and(f64::is_finite).then_some(number)
}

fn json(value: &Value) -> Value {
    match value {
        Value::String(text) => {
            Value::from_json(text.as_bytes()).unwrap_or_else(|_| Value::Object(Object::new()))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            value.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::schema::Schema;

    fn field(kind: &str) -> Field {
        let doc = format!(r#"[{{"name":"t","fields":[{{"name":"f","type":"{kind}"}}]}}]"#);
        let schema =
            Schema::from_definition("m", &Value::from_json(doc.as_bytes()).unwrap()).unwrap();
        schema.tables[0].fields[0].clone()
    }

    #[test]
    fn a_lenient_number_is_what_javascript_reads_digit_for_digit() {
        let field = field("decimal");
        for (sent, stored) in [
            (r#""7.50""#, "7.50"),
            ("7.50", "7.50"),
            (r#""12345678901234567890.123""#, "12345678901234567890.123"),
            (r#"" 5 ""#, "5"),
            (r#""+5""#, "5"),
            (r#""-.5""#, "-0.5"),
            (r#""5.""#, "5"),
            (r#""007""#, "7"),
            (r#""1e3""#, "1e3"),
            (r#""0x1f""#, "31"),
            (r#""""#, "0"),
            ("true", "1"),
            (r#""abc""#, "null"),
            (r#""1e999""#, "null"),
            (r#""Infinity""#, "null"),
            (r#"".""#, "null"),
            (r#""+-5""#, "null"),
            (r#""1 2""#, "null"),
            ("[5]", "null"),
        ] {
            let sent = Value::from_json(sent.as_bytes()).unwrap();
            assert_eq!(field.coerce(&sent).to_json(), stored, "{}", sent.to_json());
        }
    }

    #[test]
    fn lenient_booleans_json_and_texts_read_as_in_the_original() {
        for (kind, sent, stored) in [
            ("boolean", r#""Yes""#, "true"),
            ("boolean", "1", "true"),
            ("boolean", "1.0", "true"),
            ("boolean", r#""no""#, "false"),
            ("boolean", "{}", "false"),
            ("json", r#""{\"a\":1}""#, r#"{"a":1}"#),
            ("json", r#""not-json""#, "{}"),
            ("json", "[1]", "[1]"),
            ("string", "1", "1"),
            ("timestamp", r#""garbage""#, r#""garbage""#),
            ("uuid", "[]", "[]"),
            ("boolean", "null", "null"),
        ] {
            let sent = Value::from_json(sent.as_bytes()).unwrap();
            assert_eq!(field(kind).coerce(&sent).to_json(), stored, "{kind}");
        }
    }

    proptest! {
        #[test]
        fn what_was_coerced_once_is_not_changed_again(text in "[ -~]{0,12}", kind in 0..9_usize) {
            let kinds = ["text", "integer", "decimal", "bool", "date", "time", "timestamp",
                "uuid", "json"];
            let field = field(kinds[kind]);
            let once = field.coerce(&Value::from(text));
            // JSON text of a text is the one exception: it may itself be JSON text.
            prop_assume!(field.kind != FieldType::Json || once.as_str().is_none());
            prop_assert_eq!(field.coerce(&once), once);
        }

        #[test]
        fn a_number_keeps_its_digits(number in r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?") {
            let stored = field("decimal").coerce(&Value::from(number.as_str()));
            prop_assert_eq!(stored.to_json(), number);
        }
    }
}
