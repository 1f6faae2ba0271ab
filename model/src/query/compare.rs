//! Compare: when two values are the same, which is greater, and whether a text has a pattern.
//!
//! Promise: numbers are compared exactly, however many digits they have; the order of sorting is
//! total, so that equal inputs are sorted alike on every replica; a pattern is prepared once, and
//! costs no more than reading the text once for each of its pieces.

use std::cmp::Ordering;

use crate::magnitude::Magnitude;
use crate::query::letters::folded;
use crate::schema::{FieldType, TypedValue};
use crate::value::{Number, Value};

/// The same value of the same type; `1` and `1.0` are one number.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => Magnitude::of(a) == Magnitude::of(b),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

/// The same, or a number and a text that says it.
pub(super) fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(number), Value::String(text))
        | (Value::String(text), Value::Number(number)) => Number::parse(text.trim())
            .is_some_and(|parsed| Magnitude::of(&parsed) == Magnitude::of(number)),
        _ => same(a, b),
    }
}

/// Which is greater: numbers by value, a number and a text that says one too, everything else by
/// its text. `null` is neither greater nor less than anything.
pub(super) fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    if let (Some(a), Some(b)) = (number(a), number(b))
        && (matches!(a, ParsedNumber::Number(_)) || matches!(b, ParsedNumber::Number(_)))
    {
        return Some(Magnitude::of(a.get()).cmp(&Magnitude::of(b.get())));
    }
    Some(text(a)?.cmp(&text(b)?))
}

/// A number, as itself or as the text that says it.
enum ParsedNumber<'a> {
    Number(&'a Number),
    Text(Number),
}

impl ParsedNumber<'_> {
    fn get(&self) -> &Number {
        match self {
            Self::Number(number) => number,
            Self::Text(number) => number,
        }
    }
}

fn number(value: &Value) -> Option<ParsedNumber<'_>> {
    match value {
        Value::Number(number) => Some(ParsedNumber::Number(number)),
        // Clients send numbers as texts, also with spaces around them.
        Value::String(text) => Number::parse(text.trim()).map(ParsedNumber::Text),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A value as text; `None` for `null`.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(_) | Value::Number(_) | Value::Bool(_) => value.key_text().map(str::to_owned),
        Value::Array(_) | Value::Object(_) => Some(value.to_json()),
    }
}

/// The pieces of a pattern, which follow one another in a text that has it. `%` and `_` stand for
/// anything, either end is open, and letters are compared in their folded form.
pub(super) struct LikePattern(Vec<String>);

impl LikePattern {
    /// Reads a pattern; `None` for `null`, which nothing is like. Pieces are folded after they are
    /// cut: a sign that folding turns into `%` stands for itself.
    pub(super) fn new(pattern: &Value) -> Option<Self> {
        let pattern = text(pattern)?;
        Some(Self(pattern.split(['%', '_']).map(|piece| folded(piece).into_owned()).collect()))
    }

    pub(super) fn is_in(&self, value: &Value) -> bool {
        let Some(text) = text(value) else { return false };
        let text = folded(&text);
        // The leftmost place of each piece leaves the most room for those after it.
        let mut rest = &*text;
        self.0.iter().all(|piece| match rest.find(piece.as_str()) {
            Some(place) => {
                rest = &rest[place + piece.len()..];
                true
            }
            None => false,
        })
    }
}

/// Where a value stands in a sorted list: `null` first, then booleans, numbers, times, texts, the
/// rest.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SortKey<'a> {
    /// `null`, or nothing at all.
    Null,
    /// `false` before `true`.
    Boolean(bool),
    /// By value.
    Number(Magnitude),
    /// The earliest first.
    Instant(jiff::Timestamp),
    /// The earliest first.
    Time(jiff::civil::Time),
    /// By its characters; the record's own, because a text may be long and the rows many.
    Text(&'a str),
    /// Lists and objects, by their JSON.
    Other(String),
}

impl<'a> SortKey<'a> {
    /// The rank of a value of some kind, in whatever spelling.
    pub(crate) fn of(kind: FieldType, value: Option<&'a Value>) -> Self {
        match value.and_then(|value| kind.typed(value)) {
            Some(TypedValue::Boolean(boolean)) => return Self::Boolean(boolean),
            Some(TypedValue::Number(number)) => return Self::Number(Magnitude::of(&number)),
            Some(TypedValue::Instant(at)) => return Self::Instant(at),
            Some(TypedValue::Time(time)) => return Self::Time(time),
            Some(TypedValue::Json(_)) | None => {}
        }
        match value {
            None | Some(Value::Null) => Self::Null,
            Some(Value::Bool(boolean)) => Self::Boolean(*boolean),
            Some(Value::Number(number)) => Self::Number(Magnitude::of(number)),
            Some(Value::String(text)) => Self::Text(text),
            Some(other @ (Value::Array(_) | Value::Object(_))) => Self::Other(other.to_json()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(json: &str) -> Value {
        Value::from_json(json.as_bytes()).unwrap()
    }

    #[test]
    fn a_pattern_is_open_at_both_ends_and_blind_to_forms() {
        let like = |text: &str, pattern: &str| {
            LikePattern::new(&Value::from(pattern)).unwrap().is_in(&Value::from(text))
        };
        assert!(like("Grilled Fish", "fish") && like("Grilled Fish", "g%F") && like("x", ""));
        assert!(like("ab", "a_b"), "as in the original, _ stands for any number of letters");
        assert!(!like("ba", "a%b") && !like("aab", "b%a"));
        assert!(like("شوربة عدس", "عدس"));
        assert!(like("ΦΑΣΟΛΙΑ ΜΕΡΟΣ Α", "ΦΑΣ") && like("ΦΑΣΟΛΙΑ ΜΕΡΟΣ Α", "μερος"));
        assert!(like("أحمد علي", "احمد") && like("احمد", "أَحْمَد") && like("شقة ١٢", "شقه 12"));
        assert!(like("Straße", "STRASSE") && like("ﬁsh", "FI%H") && like("ＡＢＣ", "b"));
        assert!(like("50％ off", "50％ off") && !like("50 percent off", "50％off"));
        assert!(LikePattern::new(&"١٢".into()).unwrap().is_in(&value("125")));
        assert!(like("a.c", ".") && !like("abc", "a.c"), "nothing else is special");
        assert!(LikePattern::new(&"2".into()).unwrap().is_in(&value("125")));
        assert!(!LikePattern::new(&"%".into()).unwrap().is_in(&Value::Null));
        assert!(LikePattern::new(&Value::Null).is_none());
        let (text, pattern) = ("a".repeat(100_000), "a%".repeat(20_000) + "b");
        assert!(!like(&text, &pattern), "and in no time");
    }

    proptest! {
        #[test]
        fn numbers_are_ordered_as_they_are(
            a in -1_000_i64..1_000,
            b in -1_000_i64..1_000,
            e in 0_u32..4,
        ) {
            let shown = |n: i64| Number::parse(&format!("{}e-{e}", n * 10_i64.pow(e))).unwrap();
            let plain = |n: i64| Number::parse(&format!("{n}.0")).unwrap();
            let (one, two) = (Magnitude::of(&shown(a)), Magnitude::of(&plain(b)));
            prop_assert_eq!(one.cmp(&two), a.cmp(&b));
            prop_assert_eq!(one == two, a == b);
        }

        #[test]
        fn a_pattern_made_of_pieces_of_a_text_is_found(
            text in "[a-d]{0,12}",
            cuts in prop::collection::vec(0_usize..12, 0..4),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut <= text.len()).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts {
                pieces.push(&text[from..cut]);
                from = cut;
            }
            let pattern = Value::from(pieces.join("%"));
            prop_assert!(LikePattern::new(&pattern).unwrap().is_in(&Value::from(text.as_str())));
        }
    }
}
