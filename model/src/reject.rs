//! Reject: every polite "no". Deterministic, replicated, part of the outcome.
//!
//! Append-only: a variant's place is part of the format. `code()` is public and stable.

use serde::{Deserialize, Serialize};

use crate::ids::RecordKey;
use crate::limits::RECORD_KEY_BYTES_MAX;
use crate::value::{Object, Value};

/// Why a command was refused. Nothing changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
pub enum Reject {
    /// The command names no table.
    #[error("Missing table name for module event")]
    MissingTable,
    /// The table is not registered in the module.
    #[error("Table \"{table}\" not registered in module \"{module}\"")]
    UnknownTable {
        /// As sent.
        table: String,
        /// The module asked.
        module: String,
    },
    /// The record lacks a part of its key.
    #[error("Missing primary key field \"{field}\" for table \"{table}\"")]
    MissingKey {
        /// Canonical.
        table: String,
        /// The missing part.
        field: String,
    },
    /// There is no such record.
    #[error("Record not found in table \"{table}\".")]
    NotFound {
        /// As sent.
        table: String,
        /// The key looked for.
        key: RecordKey,
    },
    /// The version sent is not the one required (docs/original/rules.md#versions).
    #[error("{message}")]
    VersionConflict {
        /// As sent.
        table: String,
        /// The record.
        key: RecordKey,
        /// The version sent, if there was one.
        expected: Option<u64>,
        /// The version stored.
        current: u64,
        /// The original's words.
        message: String,
    },
    /// Strict: a record with this key exists.
    #[error("a record with key \"{key}\" already exists in table \"{table}\"")]
    DuplicateKey {
        /// Canonical.
        table: String,
        /// The key.
        key: RecordKey,
    },
    /// Strict: a field breaks a rule of the schema.
    #[error("{table}.{field} {rule}, but was {value}")]
    Invalid {
        /// Canonical.
        table: String,
        /// The field.
        field: String,
        /// The rule, as a sentence's middle: `must be at most 10 characters`.
        rule: String,
        /// The value sent, as JSON, cut at 200 characters.
        value: String,
    },
    /// Strict: another record has the same value in a unique field or set of fields.
    #[error("{table}: another record already has {fields} = {value}")]
    NotUnique {
        /// Canonical.
        table: String,
        /// The fields, joined by `, `.
        fields: String,
        /// Their values, as JSON, cut at 200 characters.
        value: String,
        /// The record that has it.
        key: RecordKey,
    },
    /// Strict: a foreign key points at nothing, or something still points at the removed record.
    #[error("{message}")]
    ForeignKey {
        /// Canonical.
        table: String,
        /// The referencing field.
        field: String,
        /// What is wrong, naming both ends.
        message: String,
    },
    /// A precondition does not hold.
    #[error("the record does not meet the condition \"{code}\"")]
    Precondition {
        /// The public code: `snapshot-mismatch`, `concurrent-update`, …
        code: String,
        /// Members of the wire's `details`, besides `code`.
        details: Object,
    },
    /// The same command id came with another payload.
    #[error("this idempotency key was already used for a different request")]
    KeyReused,
    /// As many outcomes are remembered as may be, and none is old enough to give way.
    #[error(
        "this module remembers outcomes of {max_bytes} bytes, its bound, and none of them may go \
         yet; retry later"
    )]
    DedupFull {
        /// The bound.
        max_bytes: u64,
        /// When the oldest may go, in milliseconds of log uptime from now.
        retry_after_ms: u64,
    },
    /// The branch has no definition yet: the leader sends it and asks again.
    #[error("this module has no definition yet")]
    Undefined,
    /// No sequence can be taken: the field is unknown, or its numbers are used up.
    #[error("{message}")]
    Sequence {
        /// What is wrong.
        message: String,
    },
    /// The definition itself is wrong.
    #[error("{message}")]
    BadDefinition {
        /// The public code, such as `cross-module-reference`.
        code: String,
        /// What is wrong, naming table and field.
        message: String,
    },
    /// A command that does nothing, or more than is allowed at once.
    #[error("{message}")]
    BadCommand {
        /// What is wrong.
        message: String,
    },
    /// `plan` panicked: a defect of ours, the same on every replica. Nothing changed.
    #[error("this request ran into a defect of the store and changed nothing")]
    Defect,
    /// A record needs a reference that is insisted on.
    #[error("{table} needs \"{field}\"")]
    MissingField {
        /// Canonical.
        table: String,
        /// The field.
        field: String,
    },
    /// One of several mutations was refused, and so all of them are.
    #[error("{reject}")]
    AtMutation {
        /// Its place, from 0.
        index: u32,
        /// Why.
        reject: Box<Reject>,
    },
    /// The log has gone on since the event the client names as the last.
    #[error("the last event of this module is another than the one named")]
    LastEvent {
        /// The log's last event, if there is one.
        expected: Option<String>,
        /// What the client named.
        received: Option<String>,
    },
    /// What a stored procedure refuses.
    #[error("{message}")]
    Procedure {
        /// The public code.
        code: String,
        /// What is wrong.
        message: String,
        /// Members of the wire's `details`, besides `code`.
        details: Object,
    },
    /// A client's tables cannot replace ours (docs/original/rest.md#sync).
    #[error("Incoming snapshot violates insert-only policy.")]
    Replace {
        /// `version-regression`, `duplicate-primary-key`, …
        reason: String,
        /// Members of the wire's `details`, besides `reason`.
        details: Object,
    },
    /// There is no such entry in the history.
    #[error("History entry not found")]
    NoHistory {
        /// The id asked for.
        entry: String,
    },
    /// A repeat of a command that was refused so long ago that only the code is still known.
    #[error("this request was refused before, as {code}; its details are no longer kept")]
    Earlier {
        /// The code it was refused with.
        code: String,
    },
    /// A part that was sent is stored as a part of another record, which would lose it.
    #[error(
        "{table} \"{key}\" is a part of {parent} \"{holder}\"; a part is not taken from another \
         record: send it under an id of its own"
    )]
    PartOfAnother {
        /// The part's table, canonical.
        table: String,
        /// The part.
        key: RecordKey,
        /// The table of the record that holds it.
        parent: String,
        /// The key of the record that holds it.
        holder: String,
    },
    /// A sequence cannot have this rule or counter.
    #[error("the sequence of {table}.{field}: {problem}")]
    BadSequence {
        /// Canonical.
        table: String,
        /// The field.
        field: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A counter would be lowered, so that numbers would be given a second time.
    #[error(
        "the sequence of {table}.{field} stands at {highest}; a lower counter would give numbers a \
         second time: send \"allowReuse\": true if that is meant"
    )]
    WouldRepeat {
        /// Canonical.
        table: String,
        /// The field.
        field: String,
        /// The highest number used.
        highest: u64,
        /// The last number as asked for.
        asked: u64,
    },
    /// Two parts of one record were sent under one key.
    #[error("two parts of {table} were sent as \"{key}\"; each needs an id of its own")]
    DuplicatePart {
        /// The parts' table, canonical.
        table: String,
        /// The key of both.
        key: RecordKey,
    },
    /// A version of a record that is none, or that cannot be counted on from.
    #[error("the version of {table} \"{key}\" {rule}, but was {value}")]
    BadVersion {
        /// Canonical.
        table: String,
        /// The record; empty where it was not named.
        key: RecordKey,
        /// What a version must be, as a sentence's middle.
        rule: String,
        /// The value sent or stored, as JSON, cut at 200 characters.
        value: String,
    },
    /// This build has no procedure of this name.
    #[error("there is no procedure \"{procedure}\"")]
    UnknownProcedure {
        /// As called.
        procedure: String,
    },
    /// A query asks for more than one query may.
    #[error("{message}")]
    QueryTooLarge {
        /// What there is too much of, and how much would be right.
        message: String,
    },
    /// A record's key is longer than a key may be.
    #[error(
        "the key of a record of {table} has {bytes} bytes; at most {RECORD_KEY_BYTES_MAX} are \
         taken, all its fields together"
    )]
    KeyTooLong {
        /// Canonical.
        table: String,
        /// How long it is.
        bytes: u64,
    },
    /// A read was ended because it took too long.
    #[error(
        "the read was ended after {after_ms} ms: ask for less at once, or retry later if the node \
         has much to do"
    )]
    ReadTimeout {
        /// How long it may take, in milliseconds.
        after_ms: u64,
    },
}

crate::versioned!(Reject => DedupRejection);

impl Reject {
    /// The public code: stable, kebab-case, the wire's `error` or `details.code`.
    pub fn code(&self) -> &str {
        match self {
            Self::MissingTable => "missing-table-name",
            Self::UnknownTable { .. } => "table-not-found",
            Self::MissingKey { .. } => "missing-record-key",
            Self::NotFound { .. } => "record-not-found",
            Self::VersionConflict { .. } => "version-conflict",
            Self::DuplicateKey { .. } => "duplicate-key",
            Self::Invalid { .. } | Self::BadVersion { .. } => "invalid-field",
            Self::NotUnique { .. } => "not-unique",
            Self::ForeignKey { .. } => "foreign-key",
            Self::Precondition { code, .. }
            | Self::BadDefinition { code, .. }
            | Self::Procedure { code, .. } => code,
            Self::KeyReused => "idempotency-key-reused",
            Self::DedupFull { .. } => "outcomes-full",
            Self::Undefined => "module-not-defined",
            Self::Sequence { .. } => "sequence-allocation-failed",
            Self::BadCommand { .. } => "bad-command",
            Self::Defect => "defect",
            Self::MissingField { .. } => "missing-field",
            Self::AtMutation { reject, .. } => reject.code(),
            Self::LastEvent { .. } => "last-ack-mismatch",
            Self::Replace { .. } => "insert-only-violation",
            Self::NoHistory { .. } => "history-entry-not-found",
            Self::Earlier { code } => code,
            Self::PartOfAnother { .. } => "part-of-another-record",
            Self::BadSequence { .. } => "invalid-sequence",
            Self::WouldRepeat { .. } => "sequence-would-repeat",
            Self::DuplicatePart { .. } => "duplicate-part",
            Self::UnknownProcedure { .. } => "procedure-not-found",
            Self::QueryTooLarge { .. } => "query-too-large",
            Self::KeyTooLong { .. } => "key-too-long",
            Self::ReadTimeout { .. } => "read-timeout",
        }
    }

    /// A value as a message shows it: its JSON, cut at 200 characters.
    pub fn show(value: &Value) -> String {
        let json = value.to_json();
        match json.char_indices().nth(200) {
            Some((cut, _)) => format!("{}…", &json[..cut]),
            None => json,
        }
    }
}
