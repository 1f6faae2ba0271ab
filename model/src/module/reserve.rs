//! Reserve: take one number without a record: logged and listed, and gone if nobody uses it.
//!
//! A field without a rule gets one that counts from 1, kept with this branch:module. Strict wants
//! the field to be one of the schema; the original's clients also number fields of their own.

use std::sync::Arc;

use crate::command::Reserve;
use crate::definition::Validation;
use crate::ids::CommandId;
use crate::limits::RULES_MADE_MAX;
use crate::module::numbers::Reservation;
use crate::module::plan::Plan;
use crate::outcome::ReservedNumber;
use crate::reject::Reject;
use crate::schema::Table;
use crate::sequence::SequenceRule;

impl Plan<'_> {
    pub(crate) fn reserve(
        &mut self,
        reserve: &Reserve,
        command: &CommandId,
        user: Option<&str>,
    ) -> Result<ReservedNumber, Reject> {
        let table = Arc::clone(self.table(&reserve.table)?);
        let field = table.field(&reserve.field).map(|field| field.name.to_string());
        let field = match (field, self.validation()) {
            (Some(name), _) => name,
            (None, Validation::Lenient) if !reserve.field.is_empty() => reserve.field.clone(),
            (None, _) => {
                return Err(Reject::Sequence {
                    message: format!("{} has no field \"{}\"", table.name, reserve.field),
                });
            }
        };
        let rule = match self.rule(&table, &field) {
            Some(rule) => rule.clone(),
            None => self.make_rule(&table, &field)?,
        };
        let taken = self.take_number(&table, &field, &rule)?;
        let at = self.at();
        self.numbers_mut().reserve(Reservation {
            table: table.name.clone(),
            field: field.clone(),
            value: taken.value,
            text: taken.text.clone(),
            at,
            command: command.clone(),
            user: user.map(str::to_owned),
        });
        let (value, text) = (taken.value, taken.text);
        Ok(ReservedNumber { table: table.name.clone(), field, value, text, rule })
    }

    fn make_rule(&mut self, table: &Table, field: &str) -> Result<SequenceRule, Reject> {
        if self.numbers().own_count() >= RULES_MADE_MAX {
            return Err(Reject::Sequence {
                message: format!("this module made {RULES_MADE_MAX} sequences already"),
            });
        }
        let rule = SequenceRule::plain();
        let (definition, at) = (self.definition(), self.at());
        let (module, numbers) = self.module_and_numbers();
        numbers.make(&table.name, field, rule.clone());
        numbers.pass(definition, (&table.name, field), &rule, module, at);
        Ok(rule)
    }
}

#[cfg(test)]
mod tests {
    use crate::limits::{RESERVATIONS_KEPT, RULES_MADE_MAX};
    use crate::testing::Shop;

    #[test]
    fn reservations_are_listed_the_newest_last() {
        let mut shop = Shop::lenient();
        for _ in 0..RESERVATIONS_KEPT + 3 {
            shop.elapsed_ms = 1_000;
            shop.reserve("tickets", "number").unwrap();
        }
        let values: Vec<u64> = shop.branch().reservations().map(|taken| taken.value).collect();
        assert_eq!(values.len(), RESERVATIONS_KEPT);
        assert_eq!((values[0], values[RESERVATIONS_KEPT - 1]), (4, 1_003));
    }

    #[test]
    fn strict_numbers_only_fields_it_knows_and_lenient_only_so_many() {
        let mut shop = Shop::strict();
        assert_eq!(shop.reserve("tickets", "number").unwrap(), "1");
        let reject = shop.reserve("tickets", "jobNo").unwrap_err();
        assert_eq!(reject.to_string(), r#"tickets has no field "jobNo""#);
        let mut shop = Shop::lenient();
        for n in 0..RULES_MADE_MAX {
            shop.reserve("tickets", &format!("f{n}")).unwrap();
        }
        assert_eq!(
            shop.reserve("tickets", "one more").unwrap_err().code(),
            "sequence-allocation-failed"
        );
        assert_eq!(shop.reserve("tickets", "f0").unwrap(), "2");
    }
}
