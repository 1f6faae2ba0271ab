//! Numbers: how far each sequence of a branch:module has come, and what was taken of it.
//!
//! A number is taken on the plan's copy, so a refused command takes none. Promise: the numbers of
//! one field never go back, but where a reset of a lenient module says so; a number whose text is
//! already some record's key is passed over.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::{OrdMap, Vector};
use serde::{Deserialize, Serialize};

use crate::definition::Definition;
use crate::ids::{CommandId, RecordKey, TableName, Timestamp};
use crate::limits::RESERVATIONS_KEPT;
use crate::module::Module;
use crate::module::plan::{Plan, is_empty};
use crate::reject::Reject;
use crate::schema::{Field, Kind, Table};
use crate::sequence::{Counters, SequenceRule};
use crate::value::{Number, Object, Value};

/// The sequences of one branch:module.
#[derive(Debug, Clone, Default)]
pub(crate) struct Numbers {
    /// The last numbers taken.
    pub(crate) counters: Counters,
    /// Rules made by a reservation for a field that had none.
    pub(crate) made: OrdMap<TableName, Arc<BTreeMap<String, SequenceRule>>>,
    /// The newest reservations, oldest first.
    pub(crate) reservations: Vector<Reservation>,
}

/// A number taken without a record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reservation {
    /// The canonical table.
    pub table: TableName,
    /// The field.
    pub field: String,
    /// The number.
    pub value: u64,
    /// The number as its rule wrote it.
    pub text: String,
    /// When.
    pub at: Timestamp,
    /// By which command.
    pub command: CommandId,
    /// The user the client named.
    pub user: Option<String>,
}

impl Numbers {
    pub(crate) fn reserve(&mut self, reservation: Reservation) {
        if self.reservations.len() == RESERVATIONS_KEPT {
            self.reservations.pop_front();
        }
        self.reservations.push_back(reservation);
    }

    /// The rule of a field: the definition's, else one made here.
    pub(crate) fn rule<'a>(
        &'a self,
        definition: &'a Definition,
        table: &TableName,
        field: &str,
    ) -> Option<&'a SequenceRule> {
        let defined = definition.sequences.get(table).and_then(|fields| fields.get(field));
        defined.or_else(|| self.made.get(table)?.get(field))
    }

    pub(crate) fn make(&mut self, table: &TableName, field: &str, rule: SequenceRule) {
        let fields = self.made.entry(table.clone()).or_default();
        Arc::make_mut(fields).insert(field.to_owned(), rule);
    }

    /// How many rules were made here.
    pub(crate) fn made_count(&self) -> usize {
        self.made.values().map(|fields| fields.len()).sum()
    }

    /// Moves each sequence past the highest number among the records there are. Never back.
    pub(crate) fn pass_records(&mut self, definition: &Definition, module: &Module) {
        for (table, fields) in &definition.sequences {
            for (field, rule) in fields {
                self.pass(table, field, rule, module);
            }
        }
    }

    /// Lets every sequence begin again; the rules stay. What only a reset of a lenient module does.
    pub(crate) fn begin_again(&mut self) {
        self.counters = Counters::default();
    }

    /// As [`Self::pass_records`], for the rules that were made here.
    pub(crate) fn pass_made(&mut self, module: &Module) {
        for (table, fields) in self.made.clone() {
            for (field, rule) in fields.iter() {
                self.pass(&table, field, rule, module);
            }
        }
    }

    pub(crate) fn pass(
        &mut self,
        table: &TableName,
        field: &str,
        rule: &SequenceRule,
        module: &Module,
    ) {
        let Some(rows) = module.rows(table) else { return };
        let texts = rows.iter().filter_map(|(_, row)| row.record.get(field)?.key_text());
        if let Some(highest) = texts.filter_map(|text| rule.parse(text)).max() {
            self.counters.take(table, field, highest);
        }
    }
}

/// A number just taken.
pub(super) struct Taken {
    pub(super) value: u64,
    pub(super) text: String,
}

impl Plan<'_> {
    pub(super) fn rule(&self, table: &Table, field: &str) -> Option<&SequenceRule> {
        self.numbers().rule(self.definition(), &table.name, field)
    }

    /// Takes the next number of a field.
    pub(super) fn take_number(
        &mut self,
        table: &Table,
        field: &str,
        rule: &SequenceRule,
    ) -> Result<Taken, Reject> {
        let is_key = table.key.len() == 1 && &*table.key[0] == field;
        loop {
            let value = self.numbers().counters.next(&table.name, field, rule)?;
            self.numbers_mut().counters.take(&table.name, field, value);
            let text = rule.render(value);
            let taken = || table.key_named(&text).is_some_and(|key| self.has(table, &key));
            if !is_key || !taken() {
                return Ok(Taken { value, text });
            }
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
        let defined = self.definition().sequences.contains_key(&table.name);
        if !defined && !self.numbers().made.contains_key(&table.name) {
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
    pub(super) fn give(
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
fn as_kind(kind: Kind, taken: &Taken) -> Value {
    match kind {
        Kind::Integer | Kind::Number => {
            Number::parse(&taken.text).map_or_else(|| Value::from(taken.value), Value::Number)
        }
        Kind::String
        | Kind::Boolean
        | Kind::Json
        | Kind::Date
        | Kind::Time
        | Kind::Timestamp
        | Kind::Opaque => Value::String(taken.text.clone()),
    }
}

#[cfg(test)]
mod tests {
    use crate::command::Action;
    use crate::testing::{Shop, rule, verb};

    /// A lenient shop whose tickets are numbered `T-5`, `T-6`, …, with the number in `n`.
    fn shop() -> Shop {
        numbered(5)
    }

    fn numbered(start: u64) -> Shop {
        let mut shop = Shop::lenient();
        start_at(&mut shop, start);
        shop
    }

    fn start_at(shop: &mut Shop, start: u64) {
        shop.redefine(|definition| {
            let table = crate::TableName::parse("tickets").unwrap();
            let mut rule = rule("T-", start);
            rule.counter_field = Some("n".to_owned());
            definition.sequences.insert(table, [("id".to_owned(), rule)].into());
        })
        .unwrap();
    }

    #[test]
    fn an_empty_field_gets_the_text_and_the_counter_field_the_number() {
        let mut shop = shop();
        for (sent, row) in [
            ("{}", r#"{"id":"T-5","number":null,"n":5}"#),
            (r#"{"id":""}"#, r#"{"id":"T-6","number":null,"n":6}"#),
            (r#"{"id":"mine"}"#, r#"{"id":"mine","number":null,"n":null}"#),
        ] {
            shop.insert("tickets", sent).unwrap();
            assert_eq!(shop.rows("tickets").last().unwrap(), row);
        }
        assert_eq!(
            shop.save("ticket", "{}").unwrap().record().unwrap().key.as_str(),
            "T-7",
            "by an alias too"
        );
    }

    #[test]
    fn a_refused_write_takes_no_number() {
        let mut shop = shop();
        let verbs = vec![
            verb(Action::Insert, "tickets", "{}"),
            verb(Action::Insert, "tickets", "{}"),
            verb(Action::Merge, "tickets", r#"{"id":"ghost"}"#),
        ];
        shop.write(verbs).unwrap_err();
        assert_eq!(shop.insert("tickets", "{}").unwrap().record().unwrap().key.as_str(), "T-5");
    }

    #[test]
    fn a_number_that_is_some_records_key_is_passed_over() {
        let mut shop = shop();
        shop.insert("tickets", r#"{"id":"T-5"}"#).unwrap();
        shop.insert("tickets", r#"{"id":"T-6"}"#).unwrap();
        assert_eq!(shop.insert("tickets", "{}").unwrap().record().unwrap().key.as_str(), "T-7");
    }

    #[test]
    fn a_new_rule_starts_after_the_highest_and_never_goes_back() {
        let mut shop = Shop::lenient();
        shop.insert("tickets", r#"{"id":"T-40"}"#).unwrap();
        shop.insert("tickets", r#"{"id":"T-x"}"#).unwrap();
        start_at(&mut shop, 5);
        assert_eq!(shop.insert("tickets", "{}").unwrap().record().unwrap().key.as_str(), "T-41");
        start_at(&mut shop, 5);
        assert_eq!(shop.insert("tickets", "{}").unwrap().record().unwrap().key.as_str(), "T-42");
        start_at(&mut shop, 100);
        assert_eq!(shop.insert("tickets", "{}").unwrap().record().unwrap().key.as_str(), "T-100");
    }

    #[test]
    fn a_merge_fills_what_is_still_empty() {
        let mut shop = Shop::lenient();
        shop.insert("tickets", r#"{"id":"a"}"#).unwrap();
        shop.insert("tickets", r#"{"id":"b","number":"old"}"#).unwrap();
        shop.redefine(|definition| {
            let table = crate::TableName::parse("tickets").unwrap();
            definition.sequences.insert(table, [("number".to_owned(), rule("#", 1))].into());
        })
        .unwrap();
        shop.merge("tickets", r#"{"id":"b","n":1}"#).unwrap();
        shop.merge("tickets", r#"{"id":"a","n":1}"#).unwrap();
        assert_eq!(
            shop.rows("tickets"),
            [r##"{"id":"a","number":"#1","n":1}"##, r#"{"id":"b","number":"old","n":1}"#]
        );
    }
}
