//! Outcome: what was decided about a command. The same on every replica and for every retry.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::delta::Delta;
use crate::ids::TableName;
use crate::reject::Reject;
use crate::sequence::SequenceRule;

/// What was decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// It happened.
    Accepted(Acceptance),
    /// It was refused and changed nothing.
    Rejected(Reject),
}

/// What an accepted command did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Acceptance {
    /// Its events. For a repeated command they are the first time's, read back from the log.
    pub delta: Arc<Delta>,
    /// The number taken, for `Reserve`.
    pub reserved: Option<ReservedNumber>,
    /// Whether the command had already been decided and this is the remembered answer.
    pub repeated: bool,
}

/// A number taken without a record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReservedNumber {
    /// The canonical table.
    pub table: TableName,
    /// The field.
    pub field: String,
    /// The number.
    pub value: u64,
    /// The number as the rule writes it, `DAR-001020`.
    pub text: String,
    /// The rule it was taken under.
    pub rule: SequenceRule,
}

crate::versioned!(ReservedNumber => DedupReservation);
