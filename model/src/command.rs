//! Command: all that may be asked of a branch, as it stands in the log.
//!
//! A command is shaped by a gateway, given an id once, and from then on never changes: the leader
//! adds time and chance around it (`Batch`), every replica plans and commits it alike.
//! Append-only: variants and fields are added at the end; `level.rs` says which level they need.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::codec::{self, EntryError};
use crate::definition::Definition;
use crate::ids::{BranchKey, CommandId, Timestamp};
use crate::predicate::ChangeCondition;
use crate::sequence::SequenceRule;
use crate::value::{Object, Value};

/// One question to one branch:module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// Its name for ever; see [`CommandId`].
    pub id: CommandId,
    /// Whom it asks.
    pub key: BranchKey,
    /// Who asked, as the event will show it.
    pub origin: Arc<Origin>,
    /// What is asked.
    pub request: Request,
}

/// What an event tells about where it came from. Nothing here decides anything but what is shown,
/// except `client`, which fills a `clientId` field at insert (docs/original/schemas.md#defaults).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// JSON `source`: `ws-client`, `rest-crud`, `rest-save`, … or the client's own word.
    pub source: Option<String>,
    /// JSON `clientMeta`: the publish's `meta`, as sent.
    pub client_meta: Option<Value>,
    /// The client's own event id, used instead of `evt-<uuid>`.
    pub event_id: Option<String>,
    /// The socket's id, if the command came over one.
    pub client: Option<String>,
    /// The user the client named.
    pub user: Option<String>,
    /// Whether event and ack carry the record.
    pub include_record: bool,
    /// Whether the event carries a snapshot of the module.
    pub include_snapshot: bool,
    /// The publish state the client sent, merged into the one shown.
    pub publish_state: Option<Value>,
}

/// What may be asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Change records: all mutations or none.
    Transaction(Transaction),
    /// Take this definition from now on. Sent by the leader, out of the catalogue, before the
    /// first command that needs it.
    Define(Arc<Definition>),
    /// Fill the module's empty tables. Sent by the leader after `Define`. Makes no event: seeds
    /// are the state at offset 0.
    Seed(Arc<Seed>),
    /// Take one number of a sequence without a record.
    Reserve(Reserve),
    /// Run a stored procedure.
    Call(ProcedureCall),
    /// Empty tables into the history.
    Purge(Purge),
    /// Bring records back out of the history.
    Restore(Restore),
    /// Begin again from the seed; the rest goes into the history.
    Reset(Reset),
    /// Replace whole tables by a client's.
    Replace(Replace),
    /// Give a sequence another rule, or set its counter.
    SetSequence(Box<SetSequence>),
    /// Take this definition from now on, and bring the records up to it. Sent as `Define` is.
    Fill(Arc<Definition>),
    /// Bring the branch's commit time back to the present, where a wrong clock set it ahead.
    MendClock(MendClock),
    /// As [`Request::Reserve`], in a way that a build of level 1 cannot read.
    #[cfg(feature = "next-level")]
    ReserveAtNextLevel(Reserve),
}

impl Request {
    /// Whether it may add to what a branch holds. Deleting, emptying and counting do not; a merge
    /// may make a record longer. What a branch remembers of any command is bounded by itself.
    pub fn adds(&self) -> bool {
        match self {
            Self::Transaction(transaction) => {
                let deletes = |mutation: &Mutation| matches!(mutation, Mutation::Record(record) if record.action == Action::Delete);
                !transaction.mutations.iter().all(deletes)
            }
            Self::Call(_) | Self::Replace(_) | Self::Restore(_) | Self::Seed(_) => true,
            Self::Purge(_)
            | Self::Reset(_)
            | Self::Reserve(_)
            | Self::SetSequence(_)
            | Self::MendClock(_)
            | Self::Define(_)
            | Self::Fill(_) => false,
            #[cfg(feature = "next-level")]
            Self::ReserveAtNextLevel(_) => false,
        }
    }
}

/// One or more mutations that succeed together or not at all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transaction {
    /// In order; a later mutation sees what an earlier one did.
    pub mutations: Vec<Mutation>,
    /// What must hold of the log and of the day before anything is changed, checked in order.
    /// Conditions on a record belong to its mutation; here they are refused (`bad-command`).
    pub preconditions: Vec<Precondition>,
}

impl Transaction {
    /// These mutations, all or none, under no condition but their own.
    pub fn of<M: Into<Mutation>>(mutations: impl IntoIterator<Item = M>) -> Self {
        let mutations = mutations.into_iter().map(Into::into).collect();
        Self { mutations, preconditions: Vec::new() }
    }
}

/// One step of a transaction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Mutation {
    /// Change one record.
    Record(RecordMutation),
    /// Make these rows the children of a record: all of them, and no others.
    ReplaceChildren(ReplaceChildren),
}

impl From<RecordMutation> for Mutation {
    fn from(mutation: RecordMutation) -> Self {
        Self::Record(mutation)
    }
}

impl From<ReplaceChildren> for Mutation {
    fn from(children: ReplaceChildren) -> Self {
        Self::ReplaceChildren(children)
    }
}

/// The children of one record in one table, replaced as a whole: the rows sent are saved, the
/// stored children that are not among them are deleted. A row that is stored as a child of another
/// record is refused (`part-of-another-record`), and so are two rows under one key
/// (`duplicate-part`). A row sent without a version changes the row there is, whatever its version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReplaceChildren {
    /// The children's table as the client named it.
    pub table: String,
    /// The field of a child that names its parent.
    pub parent_field: String,
    /// What names the parent; each row gets it in `parent_field`.
    pub parent: Value,
    /// The children, in the order in which they are saved.
    pub rows: Vec<Object>,
}

/// One change of one record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordMutation {
    /// What to do.
    pub action: Action,
    /// The table as the client named it: a canonical name or an alias
    /// (docs/original/schemas.md#aliases).
    pub table: String,
    /// The record as sent.
    pub record: Object,
    /// What must hold of the record: of the stored one in order, then what is said of its change;
    /// the first failure wins.
    pub preconditions: Vec<Precondition>,
    /// Where this mutation came from, if it tells more than the command's own: its event shows it.
    pub origin: Option<Arc<Origin>>,
}

impl RecordMutation {
    /// A mutation without conditions, from wherever its command comes.
    pub fn new(action: Action, table: impl Into<String>, record: Object) -> Self {
        Self { action, table: table.into(), record, preconditions: Vec::new(), origin: None }
    }
}

/// The four mutations of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Add a record.
    Insert,
    /// Change the fields sent of an existing record. JSON also `module:update`.
    Merge,
    /// Insert where the key is new, change where it exists.
    Save,
    /// Remove a record.
    Delete,
}

impl Action {
    /// Reads `module:insert`, `insert`, `module:update`, …; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix("module:").unwrap_or(text) {
            "insert" => Some(Self::Insert),
            "merge" | "update" => Some(Self::Merge),
            "save" => Some(Self::Save),
            "delete" => Some(Self::Delete),
            _ => None,
        }
    }

    /// The wire's name, `module:insert` and so on.
    pub fn wire_name(self) -> &'static str {
        match self {
            Self::Insert => "module:insert",
            Self::Merge => "module:merge",
            Self::Save => "module:save",
            Self::Delete => "module:delete",
        }
    }
}

/// What must hold before a change, or of the change itself. The record it speaks of is the one with
/// the mutation's key, else the one `LastKnown` names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Precondition {
    /// The record must exist (`record-not-found`).
    MustExist,
    /// The record must have exactly this version (`version-conflict`), whatever the version rule.
    VersionIs(u64),
    /// A field of the record must say what is listed, or not (the condition's own code).
    Field(FieldCondition),
    /// The record must not have changed after this time (`concurrent-update`).
    UnmodifiedSince(Timestamp),
    /// The cursor the client last knew must name an existing record (`stale-cursor`).
    LastKnown(Value),
    /// The day of the commit must be this one (`snapshot-mismatch`).
    CommitDay {
        /// The day the client believes in, `2026-11-21`; `None` never matches.
        expected: Option<String>,
    },
    /// The id of the log's last event must be this one (`last-ack-mismatch`); `None` for a log
    /// without events.
    LastEvent(Option<String>),
    /// The change must be one of these: a predicate over the record before it and the record after
    /// it (the condition's own code). It is asked when the mutation's record is worked out and not
    /// yet written, so after all other conditions; a cursor's record is none of its two. No client
    /// can send it yet.
    Change(ChangeCondition),
}

/// A condition on what a record says in a field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FieldCondition {
    /// The fields looked at, in order: the first that holds a text or a number that is not empty
    /// is what the record says.
    pub fields: Vec<String>,
    /// The values listed.
    pub values: Vec<String>,
    /// When the condition holds.
    pub holds: Holds,
    /// The public code of the refusal.
    pub code: String,
    /// The member of the refusal's details that shows the values, beside `actual`.
    pub member: String,
}

/// When a condition on a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Holds {
    /// The record says one of the values.
    Listed,
    /// It says none of them, or there is no record.
    NotListed,
    /// It says one of them, or there is no record.
    ListedOrAbsent,
}

/// Rows for empty tables, as a seed file holds them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Seed {
    /// The seed file's `tables`: names are matched loosely (docs/original/schemas.md#seeds), a
    /// value is an array of rows or a single row.
    pub tables: Object,
}

/// One number of one sequence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reserve {
    /// The table as the client named it.
    pub table: String,
    /// The field whose sequence it is.
    pub field: String,
}

/// Brings a branch's commit time back to the present. It does nothing where that is not ahead.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MendClock {
    /// Why. Shown in the event.
    pub reason: String,
    /// Who asks. Shown in the event.
    pub requested_by: Option<String>,
}

/// Another rule for a sequence, or none of its own any more, or another place for its counter; at
/// least one of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SetSequence {
    /// The table as the client named it.
    pub table: String,
    /// The field whose sequence it is.
    pub field: String,
    /// What becomes of the rule.
    pub rule: RuleChange,
    /// Where the counter is set; `None` leaves it where it is.
    pub counter: Option<CounterAt>,
    /// Whether the counter may be set lower, so that numbers may be given a second time.
    pub allow_reuse: bool,
    /// Shown in the event.
    pub reason: Option<String>,
    /// Shown in the event.
    pub requested_by: Option<String>,
}

/// What a request makes of a sequence's rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum RuleChange {
    /// The one there is stays.
    Keep,
    /// This one from now on, instead of the definition's.
    Set(SequenceRule),
    /// One that a request set goes: the definition's holds again, if it has one.
    Remove,
}

/// Where a counter is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CounterAt {
    /// This was the last number taken.
    Last(u64),
    /// This is the next number.
    Next(u64),
}

/// A call of a stored procedure ([`Procedure`](crate::Procedure)).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcedureCall {
    /// The procedure's name.
    pub procedure: String,
    /// Its arguments, in an envelope of their own version.
    #[serde(with = "serde_bytes")]
    pub arguments: Vec<u8>,
}

/// Empty tables into the history (docs/original/rest.md#management).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Purge {
    /// As the client named them; those that are not registered are skipped.
    pub tables: Vec<String>,
    /// Shown in event and history.
    pub reason: String,
    /// Shown in event and history.
    pub requested_by: Option<String>,
    /// Shown in the event: the original forgot its log then, ours never does.
    pub reset_events: bool,
}

/// Bring records back out of the history (docs/original/rest.md#management).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Restore {
    /// The history entry's id.
    pub entry: String,
    /// What happens to the records that are there.
    pub mode: RestoreMode,
    /// Whether records of an earlier definition are brought up to the present one.
    pub fill: bool,
    /// Shown in the event.
    pub reason: Option<String>,
    /// Shown in the event.
    pub requested_by: Option<String>,
}

/// How records come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RestoreMode {
    /// Beside those that are there; a record whose key is taken stays in the history.
    Append,
    /// Instead of those that are there.
    Replace,
}

impl RestoreMode {
    /// The wire's name.
    pub fn wire_name(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Replace => "replace",
        }
    }
}

/// Begin again from the seed (docs/original/rules.md#purge-and-reset).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reset {
    /// What the empty tables are filled with; the asker takes it out of the catalogue.
    pub seed: Option<Arc<Seed>>,
    /// Shown in event and history.
    pub reason: String,
    /// Shown in event and history.
    pub requested_by: Option<String>,
    /// Whether sequences begin again too. Under `strict` a number is never given twice, so this
    /// only has an effect under `lenient` (decision 23).
    pub numbers: bool,
}

/// Replace whole tables by a client's (docs/original/rest.md#sync). Without tables it changes
/// nothing, and its id is taken all the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Replace {
    /// By table: an array of records. Tables that are not named stay as they are. Shared, as a
    /// command is copied for each attempt and this may be many megabytes.
    pub tables: Arc<Object>,
    /// The revision the client's state has; below the module's it is refused.
    pub revision: Option<u64>,
}

/// What the leader adds, once, before the log (decision 21): one Raft entry of a partition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// The level the cluster had agreed on. It stands in front of the entry and is read first: a
    /// replica of an older build stops there (decision 6).
    #[serde(skip)]
    pub level: u16,
    /// The leader's clock when the batch was made.
    pub stamped: Timestamp,
    /// Milliseconds of the leader's monotonic clock since its previous batch, 0 for its first:
    /// advances the partition's log uptime (decision 13).
    pub elapsed_ms: u64,
    /// Chance for this batch; each command draws its own from it and its place.
    #[serde(with = "serde_bytes")]
    pub entropy: [u8; 16],
    /// In order.
    pub commands: Vec<Command>,
}

crate::versioned!(Batch => Batch);

impl Batch {
    /// The bytes of the log entry.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode_entry(self.level, self)
    }

    /// Reads a log entry.
    ///
    /// # Errors
    /// [`EntryError`]: this build must not apply it, or cannot read it.
    pub fn decode(entry: &[u8]) -> Result<Self, EntryError> {
        let (level, batch) = codec::decode_entry(entry)?;
        Ok(Self { level, ..batch })
    }
}
