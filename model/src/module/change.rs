//! Change: conditions over a record as it was and as it is about to be.
//!
//! Promise: they are asked of the very record that is stored, with its version, its defaults and
//! its numbers, and before it is written. Refused: a change that is none of those allowed, under
//! the condition's own code; and, whatever is stored, a condition that names a field the table
//! does not have, compares with a value the field cannot say, or makes more comparisons than are
//! read (`bad-command`).

use crate::command::{Precondition, RecordMutation};
use crate::limits::CHANGE_COMPARISONS_MAX;
use crate::module::plan::Plan;
use crate::module::version::Lock;
use crate::predicate::{
    ChangeComparison, ChangeCondition, ChangeOperand, ChangeSide, ChangedField, Filter,
};
use crate::query::condition::{Condition, stored_as};
use crate::reject::Reject;
use crate::schema::Table;
use crate::value::{Object, Value};

impl Plan<'_> {
    /// Refuses comparisons that cannot be made in this table.
    pub(super) fn check_comparisons(
        &self,
        table: &Table,
        mutation: &RecordMutation,
    ) -> Result<(), Reject> {
        let clauses = || conditions(mutation).flat_map(|condition| &condition.clauses);
        // A clause without comparisons counts too: so no list of them is without bound.
        let asked: usize = clauses().map(|clause| clause.len().max(1)).sum();
        if asked > CHANGE_COMPARISONS_MAX {
            let message = format!(
                "conditions of {asked} comparisons over one change; at most \
                 {CHANGE_COMPARISONS_MAX} are made"
            );
            return Err(Reject::BadCommand { message });
        }
        clauses().flatten().try_for_each(|comparison| self.check_comparison(table, comparison))
    }

    fn check_comparison(&self, table: &Table, comparison: &ChangeComparison) -> Result<(), Reject> {
        let ChangeComparison { left, operator, right } = comparison;
        let named = |field: &ChangedField| -> Result<(), Reject> {
            // A strict record has a version that its schema need not name.
            let is_version = field.field == "version" && self.lock(table) != Lock::None;
            if is_version || table.field(&field.field).is_some() {
                return Ok(());
            }
            let message = format!("{} has no field \"{}\"", table.name, field.field);
            Err(Reject::BadCommand { message })
        };
        named(left)?;
        match right {
            ChangeOperand::Field(field) => named(field),
            ChangeOperand::Value(value) => {
                let filter = filter(left, *operator, value.clone());
                let misread = filter.misread(table, self.validation());
                misread.map_or(Ok(()), |message| Err(Reject::BadCommand { message }))
            }
        }
    }

    /// Checks a mutation's conditions over its change; the first that does not hold refuses the
    /// command.
    pub(super) fn check_change(
        &self,
        table: &Table,
        mutation: &RecordMutation,
        before: Option<&Object>,
        after: Option<&Object>,
    ) -> Result<(), Reject> {
        for condition in conditions(mutation) {
            let holds = |comparison: &ChangeComparison| holds(table, comparison, (before, after));
            let failed = condition.clauses.iter().find(|clause| !clause.iter().any(holds));
            let Some(failed) = failed else { continue };
            let key = before.or(after).and_then(|record| table.key_of(record).ok());
            let details = [
                ("table", table.name.as_str().into()),
                ("key", key.map(|key| key.to_string()).into()),
                ("fields", names(failed)),
            ];
            let details = details.into_iter().collect();
            return Err(Reject::Precondition { code: condition.code.clone(), details });
        }
        Ok(())
    }
}

/// A mutation's conditions over its change.
fn conditions(mutation: &RecordMutation) -> impl Iterator<Item = &ChangeCondition> {
    mutation.preconditions.iter().filter_map(|precondition| match precondition {
        Precondition::Change(condition) => Some(condition),
        Precondition::MustExist
        | Precondition::VersionIs(_)
        | Precondition::Field(_)
        | Precondition::UnmodifiedSince(_)
        | Precondition::LastKnown(_)
        | Precondition::CommitDay { .. }
        | Precondition::LastEvent(_) => None,
    })
}

/// A comparison as a query makes it, so that both read values alike.
fn filter(left: &ChangedField, operator: crate::predicate::Operator, value: Value) -> Filter {
    Filter { field: left.field.clone(), operator, value }
}

fn holds(
    table: &Table,
    comparison: &ChangeComparison,
    (before, after): (Option<&Object>, Option<&Object>),
) -> bool {
    let record = |field: &ChangedField| match field.side {
        ChangeSide::Before => before,
        ChangeSide::After => after,
    };
    let value = match &comparison.right {
        ChangeOperand::Value(value) => value.clone(),
        ChangeOperand::Field(field) => {
            let (name, _) = stored_as(table, &field.field);
            record(field).and_then(|record| record.get(name)).cloned().unwrap_or_default()
        }
    };
    let filter = filter(&comparison.left, comparison.operator, value);
    // A record that is not there says nothing in any field.
    let nothing = Object::new();
    Condition::new(&filter, table).holds(record(&comparison.left).unwrap_or(&nothing))
}

/// The fields that a clause looks at, each once: `before.state`, `after.state`.
fn names(clause: &[ChangeComparison]) -> Value {
    let mut names: Vec<Value> = Vec::new();
    for comparison in clause {
        let right = match &comparison.right {
            ChangeOperand::Field(field) => Some(field),
            ChangeOperand::Value(_) => None,
        };
        for ChangedField { side, field } in [Some(&comparison.left), right].into_iter().flatten() {
            let side = match side {
                ChangeSide::Before => "before",
                ChangeSide::After => "after",
            };
            let name = Value::from(format!("{side}.{field}"));
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    Value::Array(names)
}

#[cfg(test)]
mod tests;
