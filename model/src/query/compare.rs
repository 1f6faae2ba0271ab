//! Compare: when two values are the same, which is greater, and whether a text has a pattern.
//!
//! Promise: numbers are compared exactly, however many digits they have; the order of sorting is
//! total, so that equal inputs are sorted alike on every replica; a pattern is prepared once, and
//! costs no more than reading the text once for each of its pieces.

use std::cmp::Ordering;

use crate::magnitude::Magnitude;
use crate::query::letters::folded;
use crate::read::{Filter, Operator};
use crate::value::{Number, Object, Value};

/// A condition, prepared to be asked of many rows.
pub(crate) struct Condition<'a> {
    filter: &'a Filter,
    /// The pattern, where the operator takes one.
    pattern: Option<Pattern>,
}

impl<'a> Condition<'a> {
    pub(crate) fn new(filter: &'a Filter) -> Self {
        let is_pattern = filter.operator == Operator::Like;
        let pattern = is_pattern.then(|| Pattern::new(&filter.value)).flatten();
        Self { filter, pattern }
    }

    /// Whether it holds for a row; one without the field has `null` there.
    pub(crate) fn holds(&self, record: &Object) -> bool {
        let value = record.get(&self.filter.field).unwrap_or(&Value::Null);
        if self.filter.operator == Operator::Like {
            return self.pattern.as_ref().is_some_and(|pattern| pattern.is_in(value));
        }
        holds(self.filter.operator, value, &self.filter.value)
    }
}

/// Whether a condition holds for a value.
fn holds(operator: Operator, value: &Value, with: &Value) -> bool {
    let ordered = |wanted: fn(Ordering) -> bool| compare(value, with).is_some_and(wanted);
    match operator {
        Operator::Is => same(value, with),
        Operator::Equal => equal(value, with),
        Operator::NotEqual => !equal(value, with),
        Operator::Greater => ordered(Ordering::is_gt),
        Operator::GreaterOrEqual => ordered(Ordering::is_ge),
        Operator::Less => ordered(Ordering::is_lt),
        Operator::LessOrEqual => ordered(Ordering::is_le),
        Operator::In => one_of(value, with),
        Operator::NotIn => !one_of(value, with),
        Operator::Like => Pattern::new(with).is_some_and(|pattern| pattern.is_in(value)),
    }
}

/// The same value of the same type; `1` and `1.0` are one number.
fn same(a: &Value, b: &Value) -> bool {
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
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(number), Value::String(text))
        | (Value::String(text), Value::Number(number)) => Number::parse(text.trim())
            .is_some_and(|said| Magnitude::of(&said) == Magnitude::of(number)),
        _ => same(a, b),
    }
}

fn one_of(value: &Value, list: &Value) -> bool {
    match list.as_array() {
        Some(items) => items.iter().any(|item| equal(value, item)),
        None => equal(value, list),
    }
}

/// Which is greater: numbers by value, a number and a text that says one too, everything else by
/// its text. `null` is neither greater nor less than anything.
fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    if let (Some(a), Some(b)) = (number(a), number(b))
        && (matches!(a, Said::Number(_)) || matches!(b, Said::Number(_)))
    {
        return Some(Magnitude::of(a.get()).cmp(&Magnitude::of(b.get())));
    }
    Some(text(a)?.cmp(&text(b)?))
}

/// A number, as itself or as the text that says it.
enum Said<'a> {
    Number(&'a Number),
    Text(Number),
}

impl Said<'_> {
    fn get(&self) -> &Number {
        match self {
            Self::Number(number) => number,
            Self::Text(number) => number,
        }
    }
}

fn number(value: &Value) -> Option<Said<'_>> {
    match value {
        Value::Number(number) => Some(Said::Number(number)),
        Value::String(text) => Number::parse(text.trim()).map(Said::Text),
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
struct Pattern(Vec<String>);

impl Pattern {
    /// Reads a pattern; `None` for `null`, which nothing is like. Pieces are folded after they are
    /// cut: a sign that folding turns into `%` stands for itself.
    fn new(pattern: &Value) -> Option<Self> {
        let pattern = text(pattern)?;
        Some(Self(pattern.split(['%', '_']).map(|piece| folded(piece).into_owned()).collect()))
    }

    fn is_in(&self, value: &Value) -> bool {
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

/// Where a value stands in a sorted list: `null` first, then truth, numbers, texts, the rest.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// `null`, or nothing at all.
    Nothing,
    /// `false` before `true`.
    Truth(bool),
    /// By value.
    Number(Magnitude),
    /// By its characters.
    Text(String),
    /// Lists and objects, by their JSON.
    Other(String),
}

impl Rank {
    pub(crate) fn of(value: Option<&Value>) -> Self {
        match value {
            None | Some(Value::Null) => Self::Nothing,
            Some(Value::Bool(truth)) => Self::Truth(*truth),
            Some(Value::Number(number)) => Self::Number(Magnitude::of(number)),
            Some(Value::String(text)) => Self::Text(text.clone()),
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

    fn ask(operator: Operator, left: &str, right: &str) -> bool {
        holds(operator, &value(left), &value(right))
    }

    #[test]
    fn the_same_is_stricter_than_equal() {
        use Operator::{Equal, Is, NotEqual};
        assert!(ask(Is, "1", "1.0") && !ask(Is, "1", r#""1""#) && ask(Is, "null", "null"));
        assert!(ask(Equal, "1", r#""1.00""#) && ask(Equal, r#"" 5 ""#, "5"));
        assert!(!ask(Equal, "1", "true") && !ask(Equal, "0", "null") && !ask(Equal, "0", r#""""#));
        assert!(ask(NotEqual, "1", "2") && !ask(NotEqual, r#""2""#, "2"));
        assert!(ask(Is, r#"{"a":[1]}"#, r#"{"a":[1.0]}"#) && !ask(Is, "[1]", "[1,2]"));
    }

    #[test]
    fn numbers_are_ordered_by_value_and_texts_by_their_letters() {
        use Operator::{Greater, GreaterOrEqual, Less, LessOrEqual};
        assert!(ask(Greater, "10", "9") && ask(Greater, r#""10""#, "9") && ask(Less, "-2", "-1"));
        assert!(ask(Less, r#""10""#, r#""9""#), "two texts are texts");
        assert!(ask(Greater, r#""2026-11-22""#, r#""2026-11-21T00:00""#));
        assert!(ask(GreaterOrEqual, "1.0", "1") && ask(LessOrEqual, "1", "1.0"));
        assert!(ask(
            Greater,
            "1234567890123456789012345678901.5",
            "1234567890123456789012345678901"
        ));
        assert!(!ask(Less, "null", "1") && !ask(Greater, "1", "null"));
    }

    #[test]
    fn a_list_holds_what_is_equal_to_one_of_it() {
        use Operator::{In, NotIn};
        assert!(ask(In, "2", r#"["1","2"]"#) && !ask(In, "3", "[1,2]") && ask(In, "3", "3"));
        assert!(ask(NotIn, "3", "[1,2]") && !ask(NotIn, "null", "[null]") && !ask(In, "3", "[]"));
    }

    #[test]
    fn a_pattern_is_open_at_both_ends_and_blind_to_forms() {
        let like = |text: &str, pattern: &str| {
            holds(Operator::Like, &Value::from(text), &Value::from(pattern))
        };
        assert!(like("Grilled Fish", "fish") && like("Grilled Fish", "g%F") && like("x", ""));
        assert!(like("ab", "a_b"), "as in the original, _ stands for any number of letters");
        assert!(!like("ba", "a%b") && !like("aab", "b%a"));
        assert!(like("شوربة عدس", "عدس"));
        assert!(like("ΦΑΣΟΛΙΑ ΜΕΡΟΣ Α", "ΦΑΣ") && like("ΦΑΣΟΛΙΑ ΜΕΡΟΣ Α", "μερος"));
        assert!(like("أحمد علي", "احمد") && like("احمد", "أَحْمَد") && like("شقة ١٢", "شقه 12"));
        assert!(like("Straße", "STRASSE") && like("ﬁsh", "FI%H") && like("ＡＢＣ", "b"));
        assert!(like("50％ off", "50％ off") && !like("50 percent off", "50％off"));
        assert!(holds(Operator::Like, &value("125"), &Value::from("١٢")));
        assert!(like("a.c", ".") && !like("abc", "a.c"), "nothing else is special");
        assert!(holds(Operator::Like, &value("125"), &Value::from("2")));
        assert!(!holds(Operator::Like, &Value::Null, &Value::from("%")));
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
            prop_assert!(holds(Operator::Like, &Value::from(text.as_str()), &pattern));
        }
    }
}
