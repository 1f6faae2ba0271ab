//! Numbers: how far each sequence of a branch:module has come, and what was taken of it.
//!
//! A number is taken on the plan's copy, so a refused command takes none. Promise: the numbers of
//! one field never go back, but where a reset of a lenient module or a mending says so; a number
//! whose text is already some record's key is passed over.
//!
//! A sequence follows the numbers of records it did not number itself (imported ones, those with an
//! id of their own): only what its rule would write, of at most 15 digits, and at most a million
//! over its counter. What is further away is noted and told, and does not end numbering.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::{OrdMap, Vector};
use serde::{Deserialize, Serialize};

use crate::definition::Definition;
use crate::ids::{CommandId, TableName, Timestamp};
use crate::limits::{RESERVATIONS_KEPT, SEQUENCE_LEAP_MAX, SEQUENCE_NUMBER_MAX};
use crate::module::Module;
use crate::schema::FieldType;
use crate::sequence::{SequenceCounters, SequenceRule};
use crate::value::Value;

/// The sequences of one branch:module.
#[derive(Debug, Clone, Default)]
pub(crate) struct Numbers {
    /// The last numbers taken.
    pub(crate) counters: SequenceCounters,
    /// Rules set by a request, which hold instead of the definition's.
    pub(crate) set: OrdMap<TableName, Arc<BTreeMap<String, SequenceRule>>>,
    /// Rules made by a reservation for a field that had none.
    pub(crate) made: OrdMap<TableName, Arc<BTreeMap<String, SequenceRule>>>,
    /// The newest reservations, oldest first.
    pub(crate) reservations: Vector<Reservation>,
    /// Numbers that are too far over their counters to be followed, one for each sequence.
    pub(crate) leaps: OrdMap<(TableName, Arc<str>), Arc<IgnoredLeap>>,
}

/// A number in a record that its sequence does not follow: one absurd value must not end numbering.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IgnoredLeap {
    /// The canonical table.
    pub table: TableName,
    /// The field.
    pub field: String,
    /// The number as the record has it, `DAR-5000000`.
    pub text: String,
    /// The number.
    pub number: u64,
    /// Where the counter stood.
    pub counter: u64,
    /// When it was seen.
    pub at: Timestamp,
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

    /// The rule of a field: one set by a request, else the definition's, else one made here.
    pub(crate) fn rule<'a>(
        &'a self,
        definition: &'a Definition,
        table: &TableName,
        field: &str,
    ) -> Option<&'a SequenceRule> {
        let set = self.set.get(table).and_then(|fields| fields.get(field));
        let defined = || definition.sequences.get(table).and_then(|fields| fields.get(field));
        set.or_else(defined).or_else(|| self.made.get(table)?.get(field))
    }

    pub(crate) fn make(&mut self, table: &TableName, field: &str, rule: SequenceRule) {
        let fields = self.made.entry(table.clone()).or_default();
        Arc::make_mut(fields).insert(field.to_owned(), rule);
    }

    pub(crate) fn set(&mut self, table: &TableName, field: &str, rule: SequenceRule) {
        let fields = self.set.entry(table.clone()).or_default();
        Arc::make_mut(fields).insert(field.to_owned(), rule);
    }

    /// Lets the definition's rule hold again.
    pub(crate) fn unset(&mut self, table: &TableName, field: &str) {
        let Some(fields) = self.set.get_mut(table) else { return };
        Arc::make_mut(fields).remove(field);
        if fields.is_empty() {
            self.set.remove(table);
        }
    }

    /// How many rules were made and set here.
    pub(crate) fn own_count(&self) -> usize {
        self.made.values().chain(self.set.values()).map(|fields| fields.len()).sum()
    }

    /// Every sequence there is, by table and field, under the rule in force and who made it.
    pub(crate) fn all<'a>(
        &'a self,
        definition: &'a Definition,
    ) -> BTreeMap<(&'a TableName, &'a str), (&'a SequenceRule, RuleSource)> {
        let mut found = BTreeMap::new();
        let made = self.made.iter().map(|(table, rules)| (table, &**rules, RuleSource::Made));
        let defined = definition.sequences.iter();
        let defined = defined.map(|(table, rules)| (table, rules, RuleSource::Defined));
        let set = self.set.iter().map(|(table, rules)| (table, &**rules, RuleSource::Set));
        // A later one holds instead of an earlier one.
        for (table, rules, source) in made.chain(defined).chain(set) {
            for (field, rule) in rules {
                found.insert((table, field.as_str()), (rule, source));
            }
        }
        found
    }

    /// Whether a table has a sequence.
    pub(crate) fn has_rules(&self, definition: &Definition, table: &TableName) -> bool {
        definition.sequences.contains_key(table)
            || self.made.contains_key(table)
            || self.set.contains_key(table)
    }

    /// Moves each sequence past the numbers among the records there are. Never back, and past no
    /// number that is too far over its counter.
    pub(crate) fn pass_records(&mut self, definition: &Definition, module: &Module, at: Timestamp) {
        let all: Vec<_> = self.all(definition).into_iter().map(owned).collect();
        for (table, field, rule) in all {
            self.pass(definition, (&table, &field), &rule, module, at);
        }
    }

    /// Lets every sequence begin again; the rules stay. What only a reset of a lenient module does.
    pub(crate) fn begin_again(&mut self) {
        self.counters = SequenceCounters::default();
        self.leaps = OrdMap::new();
    }

    pub(crate) fn pass(
        &mut self,
        definition: &Definition,
        (table, field): (&TableName, &str),
        rule: &SequenceRule,
        module: &Module,
        at: Timestamp,
    ) {
        // What is not among the records any more is told no longer.
        self.leaps.remove(&(table.clone(), Arc::from(field)));
        let Some(rows) = module.rows(table) else { return };
        let kind = kind_of(definition, table, field);
        let last = self.counters.last(table, field);
        let found = rows.iter().filter_map(|(_, row)| {
            let number = number_in(rule, kind, row.record.get(field)?)?;
            last.is_none_or(|last| number > last).then_some(number)
        });
        let mut found: Vec<u64> = found.collect();
        // From below, so that many numbers in a row are followed however many they are.
        found.sort_unstable();
        self.follow((table, field), rule, &found, at);
    }

    /// Follows numbers that records carry, lowest first, up to the first one too far away.
    pub(super) fn follow(
        &mut self,
        (table, field): (&TableName, &str),
        rule: &SequenceRule,
        numbers: &[u64],
        at: Timestamp,
    ) {
        for number in numbers {
            let last = self.counters.last(table, field).unwrap_or(0);
            let counter = last.max(rule.start.saturating_sub(1));
            let leaps = number.saturating_sub(counter) > SEQUENCE_LEAP_MAX;
            if *number <= SEQUENCE_NUMBER_MAX && !leaps {
                self.counters.take(table, field, *number);
                continue;
            }
            let highest = numbers.last().copied().unwrap_or(*number);
            let leap = IgnoredLeap {
                table: table.clone(),
                field: field.to_owned(),
                text: rule.render(highest),
                number: highest,
                counter,
                at,
            };
            self.leaps.insert((table.clone(), Arc::from(field)), Arc::new(leap));
            return;
        }
    }

    /// The leaps that are new since an earlier state.
    pub(crate) fn new_leaps(&self, before: &Self) -> Vec<Arc<IgnoredLeap>> {
        let is_new = |leap: &&Arc<IgnoredLeap>| {
            let key = (leap.table.clone(), Arc::from(leap.field.as_str()));
            before.leaps.get(&key).is_none_or(|known| known.number != leap.number)
        };
        self.leaps.values().filter(is_new).cloned().collect()
    }
}

/// Who made a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RuleSource {
    /// A request: it holds instead of the definition's.
    Set,
    /// The module's definition, or the numbering rules of the cluster.
    Defined,
    /// A reservation, for a field that had no rule.
    Made,
}

fn owned(
    ((table, field), (rule, _)): ((&TableName, &str), (&SequenceRule, RuleSource)),
) -> (TableName, String, SequenceRule) {
    (table.clone(), field.to_owned(), rule.clone())
}

fn kind_of(definition: &Definition, table: &TableName, field: &str) -> Option<FieldType> {
    let table = definition.schema.table(table.as_str())?;
    table.fields.iter().find(|known| *known.name == *field).map(|field| field.kind)
}

/// The number that a value carries, if its sequence would write just this value.
pub(super) fn number_in(
    rule: &SequenceRule,
    kind: Option<FieldType>,
    value: &Value,
) -> Option<u64> {
    let number = match kind {
        // In any spelling: an imported row may bring `"2"` or `2.0`.
        Some(kind @ (FieldType::Integer | FieldType::Number)) => {
            kind.name_text(value)?.parse().ok()
        }
        Some(_) | None => rule.parse(value.key_text()?),
    };
    // In steps of ten from 1000 it writes no 1005, and nothing below its start.
    let is_of_rule = |number: &u64| {
        number.checked_sub(rule.start).is_some_and(|on| on % rule.increment.max(1) == 0)
    };
    number.filter(is_of_rule)
}

#[cfg(test)]
mod tests {
    use crate::command::Action;
    use crate::testing::{Shop, mutation, rule};

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
    fn the_field_gets_the_text_and_the_counter_field_the_number() {
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
        let mutations = vec![
            mutation(Action::Insert, "tickets", "{}"),
            mutation(Action::Insert, "tickets", "{}"),
            mutation(Action::Merge, "tickets", r#"{"id":"ghost"}"#),
        ];
        shop.write(mutations).unwrap_err();
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
