//! Condition: what a query asks of a field, read as the field's type.
//!
//! Promise: a value finds what a write of the same spelling names, in any spelling it is stored in
//! (decision 17). What cannot be read as the field's kind is compared as it stands: a lenient
//! module may hold such values too.

use std::borrow::Cow;
use std::cmp::Ordering;

use crate::definition::Validation;
use crate::predicate::{Filter, Operator};
use crate::query::compare::{LikePattern, compare, equal, same};
use crate::query::value_set::ValueSet;
use crate::schema::{Field, FieldType, Table, TypedValue};
use crate::value::{Object, Value};

/// The field that every strict record has, also where the definition does not name it.
const VERSION: &str = "version";

/// The name a field is stored under, and the kind its values are read as: it may be named by its
/// column too.
pub(crate) fn stored_as<'a>(table: &'a Table, name: &'a str) -> (&'a str, FieldType) {
    match table.field(name) {
        Some(field) => (&field.name, field.kind),
        None if name == VERSION => (name, FieldType::Integer),
        None => (name, FieldType::Opaque),
    }
}

/// A condition, prepared to be asked of many rows.
pub(crate) struct Condition<'a> {
    pub(super) field: &'a str,
    kind: FieldType,
    /// The field, where it points at a record.
    reference: Option<&'a Field>,
    pub(super) operator: Operator,
    with: Comparand,
}

/// What a field is compared with.
enum Comparand {
    /// The only value.
    Value(Operand),
    /// For `In` and `NotIn`: any of several.
    Set(ValueSet),
    /// None where nothing can be like it.
    Pattern(Option<LikePattern>),
}

/// A value, and what it says as one of the field's kind.
struct Operand {
    value: Value,
    typed: Option<TypedValue>,
}

impl<'a> Condition<'a> {
    /// Reads a condition on a table.
    pub(crate) fn new(filter: &'a Filter, table: &'a Table) -> Self {
        let (field, kind) = stored_as(table, &filter.field);
        let reference = table.field(field).filter(|field| field.references.is_some());
        // Read as the field's kind once for all rows.
        let sent = |value: &Value| reduced(reference, value).into_owned();
        let with = match filter.operator {
            Operator::Like => Comparand::Pattern(LikePattern::new(&filter.value)),
            Operator::In | Operator::NotIn => {
                Comparand::Set(ValueSet::new(kind, values(filter).iter().map(sent)))
            }
            Operator::Is
            | Operator::Equal
            | Operator::NotEqual
            | Operator::Greater
            | Operator::GreaterOrEqual
            | Operator::Less
            | Operator::LessOrEqual => {
                let value = sent(&filter.value);
                Comparand::Value(Operand { typed: kind.typed(&value), value })
            }
        };
        Self { field, kind, reference, operator: filter.operator, with }
    }

    /// Whether it holds for a row; one without the field has `null` there.
    pub(crate) fn holds(&self, record: &Object) -> bool {
        let value = record.get(self.field).unwrap_or(&Value::Null);
        if let Comparand::Pattern(pattern) = &self.with {
            return pattern.as_ref().is_some_and(|pattern| pattern.is_in(value));
        }
        let value = &*reduced(self.reference, value);
        let typed = self.kind.typed(value);
        let stored = (value, typed.as_ref());
        let with = match &self.with {
            Comparand::Value(with) => with,
            Comparand::Set(set) => {
                let is_listed = set.contains(value, typed.as_ref());
                return is_listed == (self.operator == Operator::In);
            }
            // Answered above, before its value is read as the field's kind.
            Comparand::Pattern(_) => return false,
        };
        let ordered =
            |wanted: fn(Ordering) -> bool| with.compared(stored, self.kind).is_some_and(wanted);
        match self.operator {
            Operator::Is => with.is(stored, same),
            Operator::Equal => with.is(stored, equal),
            Operator::NotEqual => !with.is(stored, equal),
            Operator::Greater => ordered(Ordering::is_gt),
            Operator::GreaterOrEqual => ordered(Ordering::is_ge),
            Operator::Less => ordered(Ordering::is_lt),
            Operator::LessOrEqual => ordered(Ordering::is_le),
            // Their comparands are a set and a pattern.
            Operator::In | Operator::NotIn | Operator::Like => false,
        }
    }

    /// The text of the only value that it lets through, if there is one.
    pub(super) fn only(&self) -> Option<&Value> {
        match (self.operator, &self.with) {
            (Operator::Is, Comparand::Value(one)) if one.value.key_text().is_some() => {
                Some(&one.value)
            }
            _ => None,
        }
    }
}

impl Operand {
    /// Whether a stored value is this one; `plain` compares what is not of the kind.
    fn is(
        &self,
        (value, typed): (&Value, Option<&TypedValue>),
        plain: fn(&Value, &Value) -> bool,
    ) -> bool {
        match (typed, &self.typed) {
            (Some(stored), Some(asked)) => stored.is_same(asked),
            _ => plain(value, &self.value),
        }
    }

    /// How a stored value stands to this one.
    fn compared(
        &self,
        (value, typed): (&Value, Option<&TypedValue>),
        kind: FieldType,
    ) -> Option<Ordering> {
        match (typed, &self.typed) {
            // JSON has no order of its own: its text is compared.
            (Some(TypedValue::Json(_)), _) | (_, Some(TypedValue::Json(_))) => {
                compare(value, &self.value)
            }
            (Some(stored), Some(asked)) => stored.compare(asked),
            // A number is neither greater nor less than what is none.
            _ if matches!(kind, FieldType::Integer | FieldType::Number | FieldType::Boolean) => {
                None
            }
            _ => compare(value, &self.value),
        }
    }
}

/// A record that a reference was sent or stored with, as its id.
fn reduced<'a>(reference: Option<&Field>, value: &'a Value) -> Cow<'a, Value> {
    match (reference, value) {
        (Some(field), Value::Object(_)) => Cow::Owned(field.reduced(value)),
        _ => Cow::Borrowed(value),
    }
}

/// The values a condition compares with.
pub(super) fn values(filter: &Filter) -> &[Value] {
    // A list with another operator is one value: a JSON field may hold lists.
    let takes_list = matches!(filter.operator, Operator::In | Operator::NotIn);
    let list = filter.value.as_array().filter(|_| takes_list);
    list.unwrap_or_else(|| std::slice::from_ref(&filter.value))
}

impl Filter {
    /// What is wrong with the value it compares with, for people: the first that cannot be of the
    /// field's kind, however it is spelled. In a lenient module, whose fields hold whatever text
    /// was sent, only numbers and booleans can be judged.
    pub fn misread(&self, table: &Table, validation: Validation) -> Option<String> {
        let of_kind = self.operator != Operator::Like;
        let Some(field) = table.field(&self.field) else {
            let (_, kind) = stored_as(table, &self.field);
            let mut values = values(self).iter().filter(|value| !value.is_null());
            let is_odd = |value: &&Value| {
                of_kind && kind != FieldType::Opaque && kind.typed(value).is_none()
            };
            let odd = values.find(is_odd)?;
            let (name, shown) = (&self.field, crate::reject::Reject::show(odd));
            return Some(format!("{name} must be a number, but the condition says {shown}"));
        };
        let may_be = |value: &Value| match validation {
            Validation::Strict => false,
            Validation::Lenient => {
                let is_read = matches!(
                    field.kind,
                    FieldType::Integer | FieldType::Number | FieldType::Boolean
                );
                !is_read || field.kind.typed(value).is_some()
            }
        };
        let mut refused = values(self).iter().filter(|value| of_kind && !may_be(value));
        refused.find_map(|value| misread(table, field, value))
    }
}

fn misread(table: &Table, field: &Field, value: &Value) -> Option<String> {
    let rule = field.misread(&field.reduced(value))?;
    let shown = crate::reject::Reject::show(value);
    Some(format!("{}.{} {rule}, but the condition says {shown}", table.name, field.name))
}

#[cfg(test)]
mod tests;
