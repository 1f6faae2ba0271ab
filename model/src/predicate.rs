//! Predicate: what may be asked of the fields of a record, by a query of the stored one and by a
//! condition over a change of the one before and the one after.
//!
//! Both compare alike (`query/condition.rs`), so that what a query finds and what a change is
//! allowed cannot differ by how a value is spelled.

use serde::{Deserialize, Serialize};

use crate::value::Value;

/// One condition on one field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Filter {
    /// The field; a row without it has `null` there.
    pub field: String,
    /// How it is compared.
    pub operator: Operator,
    /// What with; a list for `In` and `NotIn`.
    pub value: Value,
}

/// How a field is compared. Append-only: a condition over a change holds it in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operator {
    /// The same value of the same type.
    Is,
    /// Equal, a number and its text counting as equal.
    Equal,
    /// Not `Equal`.
    NotEqual,
    /// Greater: numbers by value, everything else by its text.
    Greater,
    /// Greater or equal.
    GreaterOrEqual,
    /// Less.
    Less,
    /// Less or equal.
    LessOrEqual,
    /// Equal to one of a list.
    In,
    /// Equal to none of a list.
    NotIn,
    /// Contains a pattern, in which `%` and `_` stand for anything; upper and lower case are one,
    /// and so are the spellings of an Arabic word (`query/letters`).
    Like,
}

/// A predicate over the record before a change and the record after it.
///
/// It is in conjunctive normal form: every clause must hold, and a clause holds where one of its
/// comparisons does. So "what is paid is not opened again" is one clause, `before.state != paid` or
/// `after.state = paid`. Two levels are all there are, so that no command can nest deeper than a
/// replica can follow; of all clauses of a mutation at most
/// [`CHANGE_COMPARISONS_MAX`](crate::limits::CHANGE_COMPARISONS_MAX) are read. Without clauses it
/// holds; a clause without comparisons never does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChangeCondition {
    /// All of them must hold.
    pub clauses: Vec<Vec<ChangeComparison>>,
    /// The public code of the refusal.
    pub code: String,
}

/// One comparison of a field before or after a change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChangeComparison {
    /// What is compared, read as the field's type.
    pub left: ChangedField,
    /// How.
    pub operator: Operator,
    /// What with.
    pub right: ChangeOperand,
}

/// What a field is compared with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ChangeOperand {
    /// This value; a list for `In` and `NotIn`.
    Value(Value),
    /// What another field says, or the same one on the other side of the change.
    Field(ChangedField),
}

/// A field of the record on one side of a change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChangedField {
    /// Which record.
    pub side: ChangeSide,
    /// The field. One that the table does not have is refused by name (`bad-command`).
    pub field: String,
}

/// A record before its change or after it. One that is not there says `null` in every field: before
/// an insert, and after a delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChangeSide {
    /// As it is stored.
    Before,
    /// As it is about to be stored, with its version, its defaults and its numbers.
    After,
}
