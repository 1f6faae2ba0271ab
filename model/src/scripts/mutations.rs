//! Mutations and preconditions, as scripts say them:
//!
//! ```text
//! insert dishes {"id":"d"}
//! merge order_header {"id":"o"} if version is 1 and if it exists
//! save order_header {"id":"o"} if paymentState says open or paid, else wrong-state
//! merge order_header {"id":"o"} if after.n > before.n or after.n is null; after.x = 1, else code
//! replace order_line where orderId is "o" [{"id":"l"}]
//! if the last event is evt-1
//! ```

use std::sync::Arc;

use super::json;
use crate::command::{
    Action, FieldCondition, Holds, Mutation, Origin, Precondition, RecordMutation, ReplaceChildren,
};
use crate::ids::Timestamp;
use crate::predicate::{
    ChangeComparison, ChangeCondition, ChangeOperand, ChangeSide, ChangedField, Operator,
};
use crate::testing::object;

/// One mutation.
pub(super) fn read(line: &str) -> Mutation {
    let (action, rest) = line.split_once(' ').unwrap_or_else(|| panic!("{line:?} asks nothing"));
    let (table, rest) = rest.split_once(' ').unwrap_or((rest, "{}"));
    if action == "replace" {
        return replace_children(table, rest).into();
    }
    let action = Action::parse(action).unwrap_or_else(|| panic!("{line:?} is no mutation"));
    let (rest, event) = match rest.split_once(" called ") {
        Some((rest, event)) => (rest, Some(event.to_owned())),
        None => (rest, None),
    };
    let (record, conditions) = rest.split_once(" if ").unwrap_or((rest, ""));
    let conditions = conditions.split(" and if ").filter(|text| !text.is_empty());
    let origin = event.map(|id| Origin { event_id: Some(id), ..Origin::default() });
    Mutation::Record(RecordMutation {
        preconditions: conditions.map(of_the_record).collect(),
        origin: origin.map(Arc::new),
        ..RecordMutation::new(action, table, object(record))
    })
}

/// `where orderId is "o" [rows]`.
fn replace_children(table: &str, text: &str) -> ReplaceChildren {
    let text = text.strip_prefix("where ").unwrap();
    let (parent_field, text) = text.split_once(" is ").unwrap();
    let (parent, rows) = text.split_once(' ').unwrap();
    let rows = json(rows);
    let rows = rows.as_array().unwrap().iter().map(|row| row.as_object().unwrap().clone());
    ReplaceChildren {
        table: table.to_owned(),
        parent_field: parent_field.to_owned(),
        parent: json(parent),
        rows: rows.collect(),
    }
}

/// A condition of the whole transaction.
pub(super) fn of_the_log(text: &str) -> Precondition {
    if let Some(event) = text.strip_prefix("the last event is ") {
        return Precondition::LastEvent((event != "none").then(|| event.to_owned()));
    }
    let day = text.strip_prefix("the day is ").unwrap_or_else(|| panic!("{text:?}?"));
    Precondition::CommitDay { expected: Some(day.to_owned()) }
}

fn of_the_record(text: &str) -> Precondition {
    if text == "it exists" {
        return Precondition::MustExist;
    }
    if let Some(version) = text.strip_prefix("version is ") {
        return Precondition::VersionIs(version.parse().unwrap());
    }
    if let Some(time) = text.strip_prefix("unchanged since ") {
        return Precondition::UnmodifiedSince(Timestamp::parse(time).unwrap());
    }
    let (text, code) = text.split_once(", else ").unwrap_or_else(|| panic!("{text:?} has no code"));
    let code = code.to_owned();
    if text.starts_with("before.") || text.starts_with("after.") {
        let clause = |text: &str| text.split(" or ").map(comparison).collect();
        let clauses = text.split("; ").map(clause).collect();
        return Precondition::Change(ChangeCondition { clauses, code });
    }
    let says = |(field, values): (&str, &str), holds| {
        Precondition::Field(FieldCondition {
            fields: vec![field.to_owned()],
            values: values.split(" or ").map(str::to_owned).collect(),
            holds,
            code: code.clone(),
            member: "wanted".to_owned(),
        })
    };
    match text.split_once(" never says ") {
        Some(parts) => says(parts, Holds::NotListed),
        None => says(text.split_once(" says ").unwrap(), Holds::Listed),
    }
}

/// `before.n <= after.n`, `after.note is "x"`.
fn comparison(text: &str) -> ChangeComparison {
    let (left, rest) = text.split_once(' ').unwrap();
    let (operator, right) = rest.split_once(' ').unwrap();
    let operator = match operator {
        "is" => Operator::Is,
        "=" => Operator::Equal,
        "!=" => Operator::NotEqual,
        ">" => Operator::Greater,
        ">=" => Operator::GreaterOrEqual,
        "<" => Operator::Less,
        "<=" => Operator::LessOrEqual,
        "in" => Operator::In,
        _ => panic!("nothing is compared by {operator:?}"),
    };
    let right = match field(right) {
        Some(field) => ChangeOperand::Field(field),
        None => ChangeOperand::Value(json(right)),
    };
    ChangeComparison { left: field(left).unwrap(), operator, right }
}

fn field(text: &str) -> Option<ChangedField> {
    let (side, field) = text.split_once('.')?;
    let side = match side {
        "before" => ChangeSide::Before,
        "after" => ChangeSide::After,
        _ => return None,
    };
    Some(ChangedField { side, field: field.to_owned() })
}
