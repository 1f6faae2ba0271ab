//! Sequence: the counters people read, such as order numbers `DAR-001020`.
//!
//! A number is taken in the same commit as the record that carries it: a refused write takes none,
//! so the numbers are gapless.

use serde::{Deserialize, Serialize};

/// How one field's numbers are made; normalised from the three formats of contract.md 4.6.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SequenceRule {
    /// The first number.
    pub start: u64,
    /// How far apart two numbers are; at least 1.
    pub increment: u64,
    /// The text around the number, in order.
    pub pattern: Vec<Piece>,
    /// A field that gets the number itself, if the schema has it.
    pub counter_field: Option<String>,
    /// The rule as it was written, for `POST …/sequences` to show.
    pub shown: crate::value::Value,
}

/// One piece of a sequence's text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Piece {
    /// This text.
    Text(String),
    /// The number, padded on the left to `width` with `pad`.
    Number {
        /// At least this many characters.
        width: u32,
        /// What fills them.
        pad: char,
    },
}

/// The numbering rules of all branches and modules.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SequenceRules {}

impl SequenceRules {
    /// The rules of one branch:module.
    pub fn rules_for(
        &self,
        branch: &crate::ids::BranchId,
        module: &crate::ids::ModuleId,
    ) -> std::collections::BTreeMap<
        crate::ids::TableName,
        std::collections::BTreeMap<String, SequenceRule>,
    > {
        let _ = (branch, module);
        std::collections::BTreeMap::new()
    }
}
