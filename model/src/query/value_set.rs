//! Value set: the values that `in` and `not in` name, found without comparing each of them.
//!
//! Promise: a value is in the set exactly where it equals one of its values as `=` has it (a law
//! says so); a look costs the same for one value and for a thousand, but for lists, objects and
//! JSON, which have no order and are compared one by one.

use std::collections::BTreeSet;

use crate::magnitude::Magnitude;
use crate::query::compare::same;
use crate::schema::{FieldType, TypedValue};
use crate::value::{Number, Value};

/// The values of one list.
pub(super) struct ValueSet {
    kind: FieldType,
    /// By the one spelling of the field's kind.
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
            typed: BTreeSet::new(),
            all: PlainValues::default(),
            untyped: PlainValues::default(),
        };
        for value in values {
            match kind.typed(&value) {
                Some(typed) => drop(set.typed.insert(typed.name(kind))),
                None => set.untyped.insert(&value),
            }
            set.all.insert(&value);
        }
        set
    }

    /// Whether a stored value equals one of them.
    pub(super) fn contains(&self, value: &Value, typed: Option<&TypedValue>) -> bool {
        match typed {
            Some(typed) => {
                self.typed.contains(&typed.name(self.kind)) || self.untyped.contains(value)
            }
            None => self.all.contains(value),
        }
    }
}

/// Values of no kind, by what they can equal.
#[derive(Default)]
struct PlainValues {
    numbers: BTreeSet<Magnitude>,
    texts: BTreeSet<String>,
    /// Texts that say a number: a stored number equals them.
    numbers_in_texts: BTreeSet<Magnitude>,
    others: Vec<Value>,
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
                // `null` a thousand times is one value.
                if !self.others.contains(value) {
                    self.others.push(value.clone());
                }
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
                self.others.iter().any(|other| same(other, value))
            }
        }
    }
}
