//! Registers: the histories of single registers, cut out of the whole evidence.
//!
//! Promise: what happens to one register depends on no other, so each is judged by itself. The log
//! is used for what it can tell of operations nobody knows the outcome of: one that is not in it
//! never happened, one that is in it made the version it shows there.

use std::collections::{BTreeMap, HashMap};

use super::fields;
use super::history_index::Book;
use super::wgl::{Deed, Register, Span};
use crate::history::{Evidence, Intent, Op, Outcome, Place, Seen};

/// The code of a refusal that tells of another version.
const CONFLICT: &str = "version-conflict";

/// One register's history.
#[derive(Debug, Default)]
pub(super) struct History<'a> {
    /// What it was before the first operation.
    pub(super) start: Register,
    /// What was done to it.
    pub(super) spans: Vec<Span>,
    /// The operation of each span.
    pub(super) ops: Vec<&'a Op>,
    /// Reads that were answered with something that is no register.
    pub(super) unread: Vec<&'a Op>,
}

/// All registers' histories, by place and key.
pub(super) fn histories(evidence: &Evidence) -> BTreeMap<(&Place, &str), History<'_>> {
    let book = Book::of(evidence);
    let begun = beginnings(&book);
    let mut found: BTreeMap<(&Place, &str), History<'_>> = BTreeMap::new();
    for op in &evidence.ops {
        let Some(key) = key(&op.intent) else { continue };
        let history = found.entry((&op.place, key)).or_insert_with(|| History {
            start: begun.get(&(&op.place, key)).copied().unwrap_or_default(),
            ..History::default()
        });
        match deed(&book, op) {
            Deeds::One(deed) => {
                let to = (!matches!(op.outcome, Outcome::Unknown { .. })).then_some(op.completed.0);
                history.spans.push(Span { from: op.invoked.0, to, deed });
                history.ops.push(op);
            }
            Deeds::Unread => history.unread.push(op),
            Deeds::None => {}
        }
    }
    found
}

/// What the registers were set to before anything was asked.
fn beginnings<'a>(book: &Book<'a>) -> HashMap<(&'a Place, &'a str), Register> {
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
fn key(intent: &Intent) -> Option<&str> {
    match intent {
        Intent::Put { key, .. } | Intent::Cas { key, .. } | Intent::Get { key } => Some(key),
        Intent::FirstWrite { .. } => Some(fields::FIRST),
        Intent::Append { .. }
        | Intent::ReadLists
        | Intent::Transfer { .. }
        | Intent::ReadBalances
        | Intent::Ticket
        | Intent::Increment { .. }
        | Intent::TakePiece { .. } => None,
    }
}

/// What an operation did to its register.
enum Deeds {
    One(Deed),
    /// An answer that cannot be read.
    Unread,
    /// Nothing, as far as anybody can tell.
    None,
}

fn deed(book: &Book<'_>, op: &Op) -> Deeds {
    let logged = book.rows_of(op).next();
    let version = match &op.outcome {
        Outcome::Refused { code } => return refusal(&op.intent, code),
        Outcome::Unknown { .. } if op.intent.is_read() => return Deeds::None,
        Outcome::Unknown { .. } if logged.is_none() && book.log(&op.place).is_some() => {
            return Deeds::None;
        }
        Outcome::Unknown { .. } => None,
        Outcome::Done(reply) => reply.version,
    };
    let version = version.or_else(|| logged.and_then(fields::version));
    match &op.intent {
        Intent::Put { value, .. } | Intent::FirstWrite { value } => {
            Deeds::One(Deed::Put { value: *value, version })
        }
        Intent::Cas { value, expected, .. } => {
            Deeds::One(Deed::Cas { value: *value, expected: *expected, version })
        }
        Intent::Get { .. } => match op.outcome.reply().map(|reply| &reply.seen) {
            Some(Seen::Register(seen)) => {
                let register =
                    seen.map(|(value, version)| Register { value: Some(value), version });
                Deeds::One(Deed::Get(register.unwrap_or_default()))
            }
            Some(Seen::Nothing | Seen::Lists(_) | Seen::Balances(_) | Seen::Number(_)) | None => {
                Deeds::Unread
            }
        },
        Intent::Append { .. }
        | Intent::ReadLists
        | Intent::Transfer { .. }
        | Intent::ReadBalances
        | Intent::Ticket
        | Intent::Increment { .. }
        | Intent::TakePiece { .. } => Deeds::None,
    }
}

/// A refused guarded write tells of the version too; other refusals tell nothing.
fn refusal(intent: &Intent, code: &str) -> Deeds {
    if let Intent::Cas { expected, .. } = intent
        && code == CONFLICT
    {
        return Deeds::One(Deed::Conflict { expected: *expected });
    }
    Deeds::None
}
