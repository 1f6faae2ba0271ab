//! Value set: the values that `in` and `not in` name, found without comparing each of them.
//!
//! Promise: a value is in the set exactly where it equals one of its values as `=` has it (a law
//! says so), and a look costs about the same for one value and for a thousand.

use std::collections::BTreeSet;

use crate::magnitude::Magnitude;
use crate::schema::{FieldType, TypedValue};
use crate::value::{Number, Value};

/// The values of one list.
pub(super) struct ValueSet {
    kind: FieldType,
    /// Numbers of the field's kind.
    numbers: BTreeSet<Magnitude>,
    /// Other values of its kind, by its one spelling.
    typed: BTreeSet<String>,
    /// All of them, as they stand: what is stored otherwise than its kind is compared so.
    all: PlainValues,
    /// Those that are not of the kind: what is stored as its kind is compared so with these only.
    untyped: PlainValues,
}

impl ValueSet {
    /// A set of values as they were sent.
    pub(super) fn new(kind: FieldType, values: impl Iterator<Item = Value>) -> Self {
        let mut set = Self {
            kind,
            numbers: BTreeSet::new(),
            typed: BTreeSet::new(),
            all: PlainValues::default(),
            untyped: PlainValues::default(),
        };
        for value in values {
            match kind.typed(&value) {
                Some(TypedValue::Number(number)) => {
                    set.numbers.insert(Magnitude::of(&number));
                }
                Some(typed) => drop(set.typed.insert(typed.name(kind))),
                None => set.untyped.insert(&value),
            }
            set.all.insert(&value);
        }
        set
    }

    /// Whether a stored value equals one of them.
    pub(super) fn contains(&self, value: &Value, typed: Option<&TypedValue>) -> bool {
        let is_typed = match typed {
            None => return self.all.contains(value),
            Some(TypedValue::Number(number)) => self.numbers.contains(&Magnitude::of(number)),
            Some(typed) => self.typed.contains(&typed.name(self.kind)),
        };
        is_typed || self.untyped.contains(value)
    }
}

/// Values of no kind, by what they can equal.
#[derive(Default)]
struct PlainValues {
    numbers: BTreeSet<Magnitude>,
    texts: BTreeSet<String>,
    /// Texts that say a number: a stored number equals them.
    numbers_in_texts: BTreeSet<Magnitude>,
    /// Lists, objects, `null` and booleans, by their one spelling.
    others: BTreeSet<String>,
}

impl PlainValues {
    fn insert(&mut self, value: &Value) {
        match value {
            Value::Number(number) => drop(self.numbers.insert(Magnitude::of(number))),
            Value::String(text) => {
                if let Some(number) = Number::parse(text.trim()) {
                    self.numbers_in_texts.insert(Magnitude::of(&number));
                }
                self.texts.insert(text.clone());
            }
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
                self.others.insert(value.spelled().to_json());
            }
        }
    }

    fn contains(&self, value: &Value) -> bool {
        match value {
            Value::Number(number) => {
                let number = Magnitude::of(number);
                self.numbers.contains(&number) || self.numbers_in_texts.contains(&number)
            }
            Value::String(text) => {
                let says = |number| self.numbers.contains(&Magnitude::of(&number));
                self.texts.contains(text) || Number::parse(text.trim()).is_some_and(says)
            }
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
                !self.others.is_empty() && self.others.contains(&value.spelled().to_json())
            }
        }
    }
}
