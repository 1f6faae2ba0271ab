//! The model: what a branch is and how it changes. No runtime, no disk, no clock, no random
//! source: time and randomness come with the log entry.
//!
//! A command goes in through the log and comes out through the branch; nothing calls backwards.
//!
//! Laws, each with a property test:
//! - replaying the log gives the live state; two replicas of one log are equal;
//! - what is encoded decodes to itself; golden bytes pin the formats;
//! - a command id is decided once; a repeat changes nothing and gets the same answer;
//! - a refused command changes nothing, and takes no number of a sequence.

mod archive;
mod batch_piece;
pub mod branch;
mod canonical;
pub mod checkpoint;
pub mod cluster;
pub mod codec;
pub mod command;
mod dedup;
pub mod definition;
pub mod delta;
pub mod entropy;
mod event_log;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod hash;
pub mod ids;
mod level;
pub mod limits;
mod magnitude;
mod module;
pub mod mutant;
pub mod outcome;
pub mod partition;
pub mod predicate;
mod procedure;
mod query;
pub mod read;
pub mod reject;
pub mod schema;
#[cfg(test)]
mod scripts;
pub mod sequence;
pub mod store;
#[cfg(test)]
mod testing;
pub mod value;

pub use batch_piece::{BatchPiece, PartitionEntry};
pub use branch::{Branch, IgnoredLeap, Reservation, RuleSource};
pub use canonical::hash as canonical_hash;
pub use cluster::{
    BranchConfig, BranchPattern, Catalogue, CatalogueChange, CatalogueEntry, CatalogueError,
    CatalogueKind, CatalogueUse, FullSyncFlag, ModuleConfig, ModuleSettings, NodeRecord, Placement,
};
pub use command::{
    Action, Batch, Command, CounterAt, FieldCondition, Holds, MendClock, Mutation, Origin,
    Precondition, ProcedureCall, Purge, RecordMutation, Replace, ReplaceChildren, Request, Reserve,
    Reset, Restore, RestoreMode, RuleChange, Seed, SetSequence, Transaction,
};
pub use dedup::DedupUse;
pub use definition::{DedupLimits, Definition, Validation, VersionRule};
pub use delta::{
    BulkOperation, Delta, Effect, Event, EventChange, ModuleChange, Part, PriorRecords,
    RecordChange,
};
pub use entropy::Entropy;
pub use event_log::chain::{BrokenChain, EventChain};
pub use hash::Hash;
pub use ids::{
    BadName, BranchId, BranchKey, CommandId, Incarnation, ModuleId, NodeId, Offset, PartitionId,
    PlacementEpoch, RecordKey, ReplicaId, Revision, SERVER_SESSION, TableName, Timestamp,
};
pub use level::LevelNotAgreed;
pub use module::RecordDiff;
pub use outcome::{Acceptance, Outcome, ReservedNumber};
pub use partition::long::{LongCommand, LongOutcome};
pub use partition::{AppliedCommand, Partition};
pub use predicate::{
    ChangeComparison, ChangeCondition, ChangeOperand, ChangeSide, ChangedField, Filter, Operator,
};
pub use procedure::{
    Procedure, ProcedureContext, ProcedureView, Procedures, sent_version, stored_version,
};
pub use query::{folded, saved_at, updated_at};
pub use read::{
    Answer, ArchiveEntry, ArchivedTable, BranchReadError, CursorStatus, DefinitionCheck, Events,
    Head, LogCursor, LogHead, ModuleSnapshot, OrderBy, Page, PageCursor, PageQuery, Query,
    QueryPage, Read, ReadLevel, RowPosition, SequenceState, StillWanted, SyncDelta, SyncQuery,
    TableDelta, Violation,
};
pub use reject::Reject;
pub use schema::{
    Alias, BadSchema, ChildLink, Conventions, Field, FieldType, InsertContext, Reference, Rounding,
    Schema, SkippedRows, Table,
};
pub use sequence::{BadRule, PatternPart, SequenceCounters, SequenceRule, SequenceRules};
pub use value::{BadJson, Number, Object, Value};
