//! Registers: the histories of single registers, cut out of the whole evidence.
//!
//! Promise: what happens to one register depends on no other, so each is judged by itself. The log
//! is used for what it can tell of operations nobody knows the outcome of: one that is not in it
//! never happened, one that is in it made the version it shows there.

use std::collections::{BTreeMap, HashMap};

use super::fields;
use super::history_index::HistoryIndex;
use super::wgl::{Register, RegisterOperation, TimedOperation};
use crate::history::{BranchKey, Completion, History, Invocation, Operation, ReturnValue};

/// The code of a refusal that tells of another version.
const CONFLICT: &str = "version-conflict";

/// One register's history.
#[derive(Debug, Default)]
pub(super) struct RegisterHistory<'a> {
    /// What it was before the first operation.
    pub(super) start: Register,
    /// What was done to it.
    pub(super) spans: Vec<TimedOperation>,
    /// The operation of each span.
    pub(super) ops: Vec<&'a Operation>,
    /// Reads that were answered with something that is no register.
    pub(super) unread: Vec<&'a Operation>,
}

/// All registers' histories, by place and key.
pub(super) fn histories(evidence: &History) -> BTreeMap<(&BranchKey, &str), RegisterHistory<'_>> {
    let book = HistoryIndex::of(evidence);
    let begun = beginnings(&book);
    let mut found: BTreeMap<(&BranchKey, &str), RegisterHistory<'_>> = BTreeMap::new();
    for op in &evidence.ops {
        let Some(key) = key(&op.intent) else { continue };
        let history = found.entry((&op.place, key)).or_insert_with(|| RegisterHistory {
            start: begun.get(&(&op.place, key)).copied().unwrap_or_default(),
            ..RegisterHistory::default()
        });
        match deed(&book, op) {
            RegisterEffect::One(deed) => {
                let to = (!matches!(op.outcome, Completion::Info { .. })).then_some(op.completed.0);
                history.spans.push(TimedOperation { from: op.invoked.0, to, deed });
                history.ops.push(op);
            }
            RegisterEffect::Unread => history.unread.push(op),
            RegisterEffect::None => {}
        }
    }
    found
}

/// What the registers were set to before anything was asked.
fn beginnings<'a>(book: &HistoryIndex<'a>) -> HashMap<(&'a BranchKey, &'a str), Register> {
    let mut begun = HashMap::new();
    for (place, log) in book.logs() {
        let prepared = log.iter().take_while(|logged| logged.op.is_none());
        for logged in prepared.filter(|logged| logged.table == fields::REGISTERS) {
            let value =
                fields::number(logged, fields::VALUE).and_then(|value| value.try_into().ok());
            let version = fields::version(logged).unwrap_or(1);
            begun.insert((place, logged.key.as_str()), Register { value, version });
        }
    }
    begun
}

/// The register an operation is about.
fn key(intent: &Invocation) -> Option<&str> {
    match intent {
        Invocation::Put { key, .. } | Invocation::Cas { key, .. } | Invocation::Get { key } => {
            Some(key)
        }
        Invocation::FirstWrite { .. } => Some(fields::FIRST),
        Invocation::Append { .. }
        | Invocation::ReadLists
        | Invocation::Transfer { .. }
        | Invocation::ReadBalances
        | Invocation::Ticket
        | Invocation::Increment { .. }
        | Invocation::TakePiece { .. } => None,
    }
}

/// What an operation did to its register.
enum RegisterEffect {
    One(RegisterOperation),
    /// An answer that cannot be read.
    Unread,
    /// Nothing, as far as anybody can tell.
    None,
}

fn deed(book: &HistoryIndex<'_>, op: &Operation) -> RegisterEffect {
    let logged = book.rows_of(op).next();
    let version = match &op.outcome {
        Completion::Fail { code } => return refusal(&op.intent, code),
        Completion::Info { .. } if op.intent.is_read() => return RegisterEffect::None,
        Completion::Info { .. } if logged.is_none() && book.log(&op.place).is_some() => {
            return RegisterEffect::None;
        }
        Completion::Info { .. } => None,
        Completion::Ok(reply) => reply.version,
    };
    let version = version.or_else(|| logged.and_then(fields::version));
    match &op.intent {
        Invocation::Put { value, .. } | Invocation::FirstWrite { value } => {
            RegisterEffect::One(RegisterOperation::Put { value: *value, version })
        }
        Invocation::Cas { value, expected, .. } => RegisterEffect::One(RegisterOperation::Cas {
            value: *value,
            expected: *expected,
            version,
        }),
        Invocation::Get { .. } => match op.outcome.reply().map(|reply| &reply.seen) {
            Some(ReturnValue::Register(seen)) => {
                let register =
                    seen.map(|(value, version)| Register { value: Some(value), version });
                RegisterEffect::One(RegisterOperation::Get(register.unwrap_or_default()))
            }
            Some(
                ReturnValue::Nothing
                | ReturnValue::Lists(_)
                | ReturnValue::Balances(_)
                | ReturnValue::Number(_),
            )
            | None => RegisterEffect::Unread,
        },
        Invocation::Append { .. }
        | Invocation::ReadLists
        | Invocation::Transfer { .. }
        | Invocation::ReadBalances
        | Invocation::Ticket
        | Invocation::Increment { .. }
        | Invocation::TakePiece { .. } => RegisterEffect::None,
    }
}

/// A refused guarded write tells of the version too; other refusals tell nothing.
fn refusal(intent: &Invocation, code: &str) -> RegisterEffect {
    if let Invocation::Cas { expected, .. } = intent
        && code == CONFLICT
    {
        return RegisterEffect::One(RegisterOperation::Conflict { expected: *expected });
    }
    RegisterEffect::None
}
