//! Sequence: another rule for a field's numbers, or another place for its counter (decision 0018).
//!
//! Both are told by one event of the module's log: who looks for why a number was given finds it
//! there. Promise: a counter goes back only where that is asked for; context what is already so
//! makes no event.

use std::sync::Arc;

use crate::command::{CounterAt, RuleChange, SetSequence};
use crate::definition::Validation;
use crate::delta::BulkOperation;
use crate::limits::{RULES_MADE_MAX, SEQUENCE_NUMBER_MAX};
use crate::module::plan::Plan;
use crate::reject::Reject;
use crate::schema::Table;
use crate::sequence::SequenceRule;
use crate::value::{Object, Value};

/// Longest name of a field that the schema does not know, in bytes.
const FIELD_BYTES_MAX: usize = 128;

impl Plan<'_> {
    pub(crate) fn set_sequence(&mut self, set: &SetSequence) -> Result<(), Reject> {
        let table = Arc::clone(self.table(&set.table)?);
        let field = self.sequence_field(&table, &set.field)?;
        let before = self.numbers().counters.last(&table.name, &field);
        let old = self.rule(&table, &field).cloned();
        match &set.rule {
            RuleChange::Keep => {}
            RuleChange::Set(rule) => self.set_rule(&table, &field, rule)?,
            RuleChange::Remove => self.remove_rule(&table, &field),
        }
        let rule = self.rule(&table, &field).cloned();
        match (&rule, set.counter) {
            (Some(rule), Some(counter)) => {
                self.set_counter(&table, &field, rule, counter, set.allow_reuse)?;
            }
            // Of a rule that a request set, none may be left.
            (None, _) if old.is_none() => {
                let right = "it has no rule; PUT one, or name a sequence that GET shows".to_owned();
                return Err(bad(&table, &field, right));
            }
            (Some(_) | None, _) => {}
        }
        let last = self.numbers().counters.last(&table.name, &field);
        if old == rule && before == last {
            return Ok(());
        }
        let next = |rule| self.numbers().counters.next(&table.name, &field, rule).ok();
        let next = rule.as_ref().and_then(next);
        // Under one name: a client must not take it for a change of a record of the table.
        let numbering: Object = [
            ("table", Value::from(table.name.as_str())),
            ("field", field.as_str().into()),
            ("rule", rule.map(|rule| rule.source).into()),
            ("lastBefore", before.into()),
            ("last", last.into()),
            ("next", next.into()),
        ]
        .into_iter()
        .collect();
        let details = [
            ("numbering", Value::from(numbering)),
            ("reason", set.reason.clone().into()),
            ("requestedBy", set.requested_by.clone().into()),
        ];
        let (details, revision) = (details.into_iter().collect(), self.revision());
        self.draft_operation(BulkOperation::Sequence, details, Vec::new(), revision);
        Ok(())
    }

    /// The field's own name. Strict wants it to be one of the schema.
    fn sequence_field(&self, table: &Table, sent: &str) -> Result<String, Reject> {
        if let Some(field) = table.field(sent) {
            return Ok(field.name.to_string());
        }
        let known = self.rule(table, sent).is_some();
        match self.validation() {
            Validation::Lenient if known || (1..=FIELD_BYTES_MAX).contains(&sent.len()) => {
                Ok(sent.to_owned())
            }
            Validation::Lenient | Validation::Strict => {
                Err(bad(table, sent, format!("{} has no field {sent:?}", table.name)))
            }
        }
    }

    fn set_rule(&mut self, table: &Table, field: &str, rule: &SequenceRule) -> Result<(), Reject> {
        if let Some(counter) = rule.counter_field.as_deref().filter(|n| table.field(n).is_none()) {
            let problem = format!("counterField is {counter:?}; {} has no such field", table.name);
            return Err(bad(table, field, problem));
        }
        if let Some(known) = table.field(field) {
            rule.check_field(known).map_err(|problem| bad(table, field, problem))?;
            if self.validation() == Validation::Strict {
                rule.check_first(known).map_err(|problem| bad(table, field, problem))?;
            }
        }
        let is_new = self.numbers().set.get(&table.name).is_none_or(|own| !own.contains_key(field));
        if is_new && self.numbers().own_count() >= RULES_MADE_MAX {
            let problem = format!("this module has {RULES_MADE_MAX} sequences of its own already");
            return Err(bad(table, field, problem));
        }
        let (definition, at) = (self.definition(), self.at());
        let (module, numbers) = self.module_and_numbers();
        numbers.set(&table.name, field, rule.clone());
        // Records may carry numbers of the new rule already.
        numbers.pass(definition, (&table.name, field), rule, module, at);
        Ok(())
    }

    /// Lets the definition's rule hold again, past the numbers that its records carry already.
    fn remove_rule(&mut self, table: &Table, field: &str) {
        self.numbers_mut().unset(&table.name, field);
        let Some(rule) = self.rule(table, field).cloned() else { return };
        let (definition, at) = (self.definition(), self.at());
        let (module, numbers) = self.module_and_numbers();
        numbers.pass(definition, (&table.name, field), &rule, module, at);
    }

    fn set_counter(
        &mut self,
        table: &Table,
        field: &str,
        rule: &SequenceRule,
        counter: CounterAt,
        allow_reuse: bool,
    ) -> Result<(), Reject> {
        let (CounterAt::Last(named) | CounterAt::Next(named)) = counter;
        if named > SEQUENCE_NUMBER_MAX {
            return Err(bad(table, field, format!("{named} has more than 15 digits")));
        }
        let last = match counter {
            CounterAt::Last(last) => Some(last),
            CounterAt::Next(next) if next == rule.start => None,
            CounterAt::Next(next) if next < rule.start => {
                let problem = format!("next is {next}; its numbers start at {}", rule.start);
                return Err(bad(table, field, problem));
            }
            CounterAt::Next(next) => match next.checked_sub(rule.increment) {
                Some(last) => Some(last),
                None => {
                    let step = rule.increment;
                    let problem = format!("next is {next}; after its start it is at least {step}");
                    return Err(bad(table, field, problem));
                }
            },
        };
        let highest = self.numbers().counters.last(&table.name, field);
        if let Some(highest) = highest.filter(|highest| last.unwrap_or(0) < *highest)
            && !allow_reuse
        {
            return Err(Reject::WouldRepeat {
                table: table.name.to_string(),
                field: field.to_owned(),
                highest,
                asked: last.unwrap_or(0),
            });
        }
        let numbers = self.numbers_mut();
        numbers.counters.reset(&table.name, field, last);
        // Whoever sets a counter has seen what was told of it.
        numbers.leaps.remove(&(table.name.clone(), Arc::from(field)));
        Ok(())
    }
}

fn bad(table: &Table, field: &str, problem: String) -> Reject {
    Reject::BadSequence { table: table.name.to_string(), field: field.to_owned(), problem }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Replace, Request};
    use crate::testing::{Shop, module_change, object};

    fn set(shop: &mut Shop, set: SetSequence) -> Result<Option<Object>, Reject> {
        let event = shop.operation(Request::SetSequence(Box::new(set)))?;
        Ok(event.map(|event| module_change(&event).details.clone()))
    }

    fn asked(rule: Option<&str>, counter: Option<CounterAt>, allow_reuse: bool) -> SetSequence {
        let rule = rule.map_or(RuleChange::Keep, |rule| {
            RuleChange::Set(SequenceRule::from_request(&Value::Object(object(rule))).unwrap())
        });
        SetSequence {
            table: "ticket".to_owned(),
            field: "id".to_owned(),
            rule,
            counter,
            allow_reuse,
            reason: None,
            requested_by: Some("me".to_owned()),
        }
    }

    fn next(shop: &mut Shop) -> String {
        shop.insert("tickets", "{}").unwrap().record().unwrap().key.as_str().to_owned()
    }

    #[test]
    fn one_absurd_id_does_not_end_numbering() {
        for absurd in ["T-18446744073709551615", "T-9999999999999999", "T-5000000"] {
            let mut shop = Shop::lenient().numbered();
            shop.insert("tickets", &format!(r#"{{"id":"{absurd}"}}"#)).unwrap();
            assert_eq!(next(&mut shop), "T-5", "inserted");
            let rows = format!(r#"{{"tickets":[{{"id":"{absurd}"}},{{"id":"T-7"}}]}}"#);
            let replace = Replace { tables: object(&rows).into(), revision: None };
            shop.operation(Request::Replace(replace)).unwrap();
            assert_eq!(next(&mut shop), "T-8", "replaced");
            let leaps: Vec<_> = shop.branch().ignored_leaps().collect();
            assert_eq!((leaps.len(), &*leaps[0].text, leaps[0].counter), (1, absurd, 7));
        }
        let mut shop = Shop::lenient();
        shop.insert("tickets", r#"{"id":"T-18446744073709551615"}"#).unwrap();
        let mut shop = shop.numbered();
        assert_eq!(next(&mut shop), "T-5", "there before the rule");
    }

    #[test]
    fn a_sequence_follows_ids_its_rule_would_write() {
        let mut shop = Shop::lenient().numbered();
        for (id, follows) in [("T-40", "T-41"), ("T-0090", "T-42"), ("X-80", "T-43")] {
            shop.insert("tickets", &format!(r#"{{"id":"{id}"}}"#)).unwrap();
            assert_eq!(next(&mut shop), follows, "{id}");
        }
        let far: Vec<String> =
            (1..=3).map(|n| format!(r#"{{"id":"T-{}"}}"#, n * 900_000)).collect();
        let rows = format!(r#"{{"tickets":[{}]}}"#, far.join(","));
        shop.operation(Request::Replace(Replace { tables: object(&rows).into(), revision: None }))
            .unwrap();
        assert_eq!(next(&mut shop), "T-2700001", "each is less than a million on");
        assert_eq!(shop.branch().ignored_leaps().count(), 0);
    }

    #[test]
    fn a_counter_is_mended_by_an_event_and_lowered_only_when_asked() {
        let mut shop = Shop::strict().numbered();
        shop.insert("tickets", r#"{"id":"T-900000"}"#).unwrap();
        let last = |last| Some(CounterAt::Last(last));
        let refused = set(&mut shop, asked(None, last(20), false)).unwrap_err();
        assert_eq!(refused.code(), "sequence-would-repeat");
        assert!(refused.to_string().contains("900000"), "{refused}");
        let shown = set(&mut shop, asked(None, last(20), true)).unwrap().unwrap();
        assert_eq!(
            Value::from(shown).to_json(),
            concat!(
                r#"{"numbering":{"table":"tickets","field":"id","rule":{"start":1,"prefix":"","#,
                r#""suffix":"","delimiter":"","padding":0},"lastBefore":900000,"last":20,"#,
                r#""next":21},"reason":null,"requestedBy":"me"}"#,
            )
        );
        assert_eq!(next(&mut shop), "T-21");
        assert_eq!(set(&mut shop, asked(None, last(21), false)).unwrap(), None, "it is so");
        set(&mut shop, asked(None, Some(CounterAt::Next(50)), false)).unwrap();
        assert_eq!(next(&mut shop), "T-50");
        set(&mut shop, asked(None, Some(CounterAt::Next(5)), true)).unwrap();
        assert_eq!(next(&mut shop), "T-5", "the start again");
        for (counter, word) in [
            (CounterAt::Last(1_000_000_000_000_000), "15 digits"),
            (CounterAt::Next(4), "start at 5"),
        ] {
            let refused = set(&mut shop, asked(None, Some(counter), true)).unwrap_err();
            assert!(refused.to_string().contains(word), "{refused}");
        }
    }

    #[test]
    fn a_rule_that_was_set_holds_instead_of_the_definitions() {
        let mut shop = Shop::strict().numbered();
        next(&mut shop);
        let own = r#"{"prefix":"N","start":100,"format":"{prefix}/{number:04d}"}"#;
        set(&mut shop, asked(Some(own), None, false)).unwrap();
        assert_eq!(next(&mut shop), "N/0100");
        let mut shop = shop.numbered();
        assert_eq!(next(&mut shop), "N/0101", "a new definition does not undo it");
        assert_eq!(shop.branch().sequences().len(), 1);
        let refused = set(&mut shop, asked(Some(r#"{"counterField":"x"}"#), None, false));
        assert_eq!(refused.unwrap_err().code(), "invalid-sequence");
        let remove = SetSequence { rule: RuleChange::Remove, ..asked(None, None, false) };
        let shown = set(&mut shop, remove.clone()).unwrap().unwrap();
        assert!(Value::from(shown).to_json().contains(r#""rule":{"start":"#));
        assert_eq!(next(&mut shop), "T-102", "the definition's again; the counter goes on");
        assert_eq!(set(&mut shop, remove).unwrap(), None, "there is none of its own any more");
    }

    #[test]
    fn a_strict_field_has_room_for_the_first_number_of_its_rule() {
        let doc = r#"{"tables":{"ticket":{"fields":{"id":{"type":"text","primaryKey":true},
            "no":{"type":"decimal(3,0)"}}}}}"#;
        let doc = Value::from_json(doc.as_bytes()).unwrap();
        let schema = Arc::new(crate::testing::conventional(&doc));
        for (mut shop, refuses) in [(Shop::strict(), true), (Shop::lenient(), false)] {
            shop.redefine(|definition| definition.schema = Arc::clone(&schema)).unwrap();
            let rule = |start| SetSequence {
                field: "no".to_owned(),
                ..asked(Some(&format!(r#"{{"start":{start}}}"#)), None, false)
            };
            let refused = set(&mut shop, rule(5000));
            assert_eq!(refused.is_err(), refuses, "{refused:?}");
            set(&mut shop, rule(500)).unwrap();
        }
    }

    #[test]
    fn a_rule_that_holds_again_gives_no_number_twice() {
        let mut shop = Shop::strict().numbered();
        let numbers: Vec<String> = (0..3).map(|_| next(&mut shop)).collect();
        assert_eq!(numbers, ["T-5", "T-6", "T-7"]);
        let own = asked(Some(r#"{"prefix":"X"}"#), Some(CounterAt::Next(1)), true);
        set(&mut shop, own).unwrap();
        assert_eq!(next(&mut shop), "X-1");
        set(&mut shop, SetSequence { rule: RuleChange::Remove, ..asked(None, None, false) })
            .unwrap();
        assert_eq!(next(&mut shop), "T-8");
    }
}
