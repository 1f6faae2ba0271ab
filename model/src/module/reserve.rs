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
use crate::outcome::Reserved;
use crate::reject::Reject;
use crate::schema::Table;
use crate::sequence::SequenceRule;

impl Plan<'_> {
    pub(crate) fn reserve(
        &mut self,
        reserve: &Reserve,
        command: &CommandId,
        user: Option<&str>,
    ) -> Result<Reserved, Reject> {
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
        Ok(Reserved { table: table.name.clone(), field, value, text, rule })
    }

    fn make_rule(&mut self, table: &Table, field: &str) -> Result<SequenceRule, Reject> {
        if self.numbers().made_count() >= RULES_MADE_MAX {
            return Err(Reject::Sequence {
                message: format!("this module made {RULES_MADE_MAX} sequences already"),
            });
        }
        let rule = SequenceRule::plain();
        let (module, numbers) = self.module_and_numbers();
        numbers.make(&table.name, field, rule.clone());
        numbers.pass(&table.name, field, &rule, module);
        Ok(rule)
    }
}
