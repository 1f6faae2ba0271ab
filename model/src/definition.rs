//! Definition: everything a branch:module knows about itself that did not come from its data.
//!
//! The catalogue (group 0) holds the current one; the partition's leader copies it into the
//! partition's log as a command, so that `plan` sees nothing outside the partition's own state.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::hash::Hash;
use crate::ids::TableName;
use crate::limits::DEDUP_ENTRY_BYTES;
use crate::schema::Schema;
use crate::sequence::SequenceRule;

/// One module's rules within one branch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Definition {
    /// The tables. Shared by all branches of a module.
    pub schema: Arc<Schema>,
    /// How much is enforced.
    pub validation: Validation,
    /// Which version a client sends.
    pub version_rule: VersionRule,
    /// By table and field.
    pub sequences: BTreeMap<TableName, BTreeMap<String, SequenceRule>>,
    /// How much is remembered of what was decided.
    pub dedup: DedupLimits,
}

impl Definition {
    /// Names this content: two definitions with the same hash are the same.
    pub fn hash(&self) -> Hash {
        Hash(*blake3::hash(&crate::codec::bare(self)).as_bytes())
    }
}

/// How much is enforced (decision 23).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Validation {
    /// What the schema says: nullability, enum, length, precision, unique, keys.
    #[default]
    Strict,
    /// As the original: coerced, never refused.
    Lenient,
}

/// Which version a client sends (decision 23).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VersionRule {
    /// The version it read.
    #[default]
    Read,
    /// The version it read plus one, with the replace-on-1 rule of docs/original/rules.md#versions.
    Next,
}

/// How much a branch:module remembers of what it decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DedupLimits {
    /// Most bytes the decisions may take, at 48 an entry; new commands are refused with
    /// `outcomes-full` (429) when nothing may give way.
    pub bytes_max: u64,
    /// How long what a client named is kept at least, in milliseconds of log uptime.
    pub keep_ms: u64,
}

impl Default for DedupLimits {
    /// Four million entries, 24 hours.
    fn default() -> Self {
        Self { bytes_max: 4_000_000 * DEDUP_ENTRY_BYTES as u64, keep_ms: 24 * 3600 * 1000 }
    }
}
