//! Numbering: how a plan takes numbers and follows those that records bring.

use std::sync::Arc;

use crate::ids::RecordKey;
use crate::limits::NUMBERS_PASSED_MAX;
use crate::module::numbers::number_in;
use crate::module::plan::{Plan, is_empty};
use crate::reject::Reject;
use crate::schema::{Field, FieldType, Table};
use crate::sequence::SequenceRule;
use crate::value::{Number, Object, Value};

/// A number just taken.
pub(super) struct TakenNumber {
    pub(super) value: u64,
    pub(super) text: String,
}

impl Plan<'_> {
    pub(crate) fn rule(&self, table: &Table, field: &str) -> Option<&SequenceRule> {
        self.numbers().rule(self.definition(), &table.name, field)
    }

    /// Takes the next number of a field.
    pub(super) fn take_number(
        &mut self,
        table: &Table,
        field: &str,
        rule: &SequenceRule,
    ) -> Result<TakenNumber, Reject> {
        let is_key = table.key.len() == 1 && &*table.key[0] == field;
        for _ in 0..NUMBERS_PASSED_MAX {
            let value = self.numbers().counters.next(&table.name, field, rule)?;
            self.numbers_mut().counters.take(&table.name, field, value);
            let text = rule.render(value);
            let taken = || table.key_named(&text).is_some_and(|key| self.has(table, &key));
            if !is_key || !taken() {
                return Ok(TakenNumber { value, text });
            }
        }
        let message = format!(
            "the next {NUMBERS_PASSED_MAX} numbers of {}.{field} are keys of records already; set \
             its counter higher",
            table.name
        );
        Err(Reject::Sequence { message })
    }

    /// Lets the sequences of a table follow the numbers that a record brings of its own.
    pub(super) fn learn_numbers(&mut self, table: &Table, record: &Object) {
        if !self.numbers().has_rules(self.definition(), &table.name) {
            return;
        }
        for field in &table.fields {
            let Some(rule) = self.rule(table, &field.name) else { continue };
            let number = record.get(&field.name);
            let number = number.and_then(|value| number_in(rule, Some(field.kind), value));
            let last = self.numbers().counters.last(&table.name, &field.name);
            let Some(number) = number.filter(|number| last.is_none_or(|last| *number > last))
            else {
                continue;
            };
            let (rule, at) = (rule.clone(), self.at());
            self.numbers_mut().follow((&table.name, &field.name), &rule, &[number], at);
        }
    }

    /// Lets the sequences of a table follow the numbers that many records bring, lowest first.
    pub(super) fn learn_all(&mut self, table: &Table, records: &[&Object]) {
        if !self.numbers().has_rules(self.definition(), &table.name) {
            return;
        }
        for field in &table.fields {
            let Some(rule) = self.rule(table, &field.name).cloned() else { continue };
            let last = self.numbers().counters.last(&table.name, &field.name);
            let found = records.iter().filter_map(|record| {
                let value = table.sent_value(record, field)?;
                let number = number_in(&rule, Some(field.kind), &value)?;
                last.is_none_or(|last| number > last).then_some(number)
            });
            let mut found: Vec<u64> = found.collect();
            found.sort_unstable();
            let at = self.at();
            self.numbers_mut().follow((&table.name, &field.name), &rule, &found, at);
        }
    }

    /// Fills the empty fields of a record that have a sequence, and the fields for their numbers.
    /// A field that `keeps` has a value in is left: its number is the record's already.
    pub(super) fn number(
        &mut self,
        table: &Table,
        record: &mut Object,
        keeps: Option<&Object>,
    ) -> Result<(), Reject> {
        if !self.numbers().has_rules(self.definition(), &table.name) {
            return Ok(());
        }
        for field in &table.fields {
            let Some(rule) = self.rule(table, &field.name) else { continue };
            let kept = keeps.is_some_and(|kept| !is_empty(kept.get(&field.name)));
            if kept || !is_empty(table.sent_value(record, field).as_ref()) {
                continue;
            }
            let rule = rule.clone();
            self.give(table, field, &rule, record)?;
        }
        Ok(())
    }

    /// Takes the next number of a field and puts it into a record, and into the field for it.
    pub(crate) fn give(
        &mut self,
        table: &Table,
        field: &Field,
        rule: &SequenceRule,
        record: &mut Object,
    ) -> Result<u64, Reject> {
        let taken = self.take_number(table, &field.name, rule)?;
        record.insert(Arc::clone(&field.name), as_kind(field.kind, &taken));
        let counter = rule.counter_field.as_deref().and_then(|name| table.field(name));
        if let Some(counter) = counter {
            let value = SequenceRule::counter_value(taken.value);
            record.insert(Arc::clone(&counter.name), value);
        }
        Ok(taken.value)
    }

    /// Whether there is a record with this key.
    pub(super) fn has(&self, table: &Table, key: &RecordKey) -> bool {
        self.module().get(&table.name, key).is_some()
    }
}

/// A number as a field of this kind holds it.
fn as_kind(kind: FieldType, taken: &TakenNumber) -> Value {
    match kind {
        FieldType::Integer | FieldType::Number => {
            Number::parse(&taken.text).map_or_else(|| Value::from(taken.value), Value::Number)
        }
        FieldType::String
        | FieldType::Boolean
        | FieldType::Json
        | FieldType::Date
        | FieldType::Time
        | FieldType::Timestamp
        | FieldType::Opaque => Value::String(taken.text.clone()),
    }
}
