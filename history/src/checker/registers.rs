//! Registers: the history of each single register, taken from the whole history.
//!
//! Promise: registers are independent, so each is checked by itself. The log decides about
//! operations with an unknown result: one that is not in the log never happened, one that is in the
//! log made the version that it has there.

use std::collections::{BTreeMap, HashMap};

use super::fields;
use super::history_index::HistoryIndex;
use super::wgl::{Register, RegisterOperation, TimedOperation};
use crate::{BranchModule, Completion, History, Invocation, Operation, ReturnValue};

/// The code of a refusal because of another version.
const CONFLICT_CODE: &str = "version-conflict";

/// The history of one register.
#[derive(Debug, Default)]
pub(super) struct RegisterHistory<'a> {
    /// Its state before the first operation.
    pub(super) initial: Register,
    /// Its operations, as the search takes them.
    pub(super) operations: Vec<TimedOperation>,
    /// The operation of the whole history for each of them.
    pub(super) sources: Vec<&'a Operation>,
    /// Reads whose response contains no register.
    pub(super) unreadable: Vec<&'a Operation>,
}

/// The histories of all registers, by branch and key.
pub(super) fn register_histories(
    history: &History,
) -> BTreeMap<(&BranchModule, &str), RegisterHistory<'_>> {
    let index = HistoryIndex::new(history);
    let initial = initial_registers(&index);
    let mut histories: BTreeMap<(&BranchModule, &str), RegisterHistory<'_>> = BTreeMap::new();
    for op in &history.operations {
        let Some(key) = key(&op.invocation) else { continue };
        let register = histories.entry((&op.branch_key, key)).or_insert_with(|| RegisterHistory {
            initial: initial.get(&(&op.branch_key, key)).copied().unwrap_or_default(),
            ..RegisterHistory::default()
        });
        match effect(&index, op) {
            RegisterEffect::Operation(operation) => {
                // Unknown: it may take effect at any time after its invocation.
                let completed =
                    (!matches!(op.completion, Completion::Info { .. })).then_some(op.completed.0);
                register.operations.push(TimedOperation {
                    invoked: op.invoked.0,
                    completed,
                    operation,
                });
                register.sources.push(op);
            }
            RegisterEffect::Unreadable => register.unreadable.push(op),
            RegisterEffect::None => {}
        }
    }
    histories
}

/// The states of the registers that the setup wrote.
fn initial_registers<'a>(
    index: &HistoryIndex<'a>,
) -> HashMap<(&'a BranchModule, &'a str), Register> {
    let mut initial = HashMap::new();
    for (branch_key, log) in index.logs() {
        // The setup precedes all operations of a branch: its events end at the first one with an
        // operation.
        let setup_events = log.iter().take_while(|event| event.op.is_none());
        for event in setup_events.filter(|event| event.table == fields::REGISTERS) {
            let value =
                fields::number(event, fields::VALUE).and_then(|value| value.try_into().ok());
            let version = fields::version(event).unwrap_or(1);
            initial.insert((branch_key, event.key.as_str()), Register { value, version });
        }
    }
    initial
}

/// The key of the register that an operation reads or writes.
fn key(invocation: &Invocation) -> Option<&str> {
    match invocation {
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
        | Invocation::TakePiece { .. }
        | Invocation::ReadHead => None,
    }
}

/// What is known of an operation's effect on its register.
enum RegisterEffect {
    /// It happened, or may have happened.
    Operation(RegisterOperation),
    /// Its response contains no register.
    Unreadable,
    /// It had none, or none that restricts the others.
    None,
}

/// The effect of an operation, from its completion and from the log.
fn effect(index: &HistoryIndex<'_>, op: &Operation) -> RegisterEffect {
    let event = index.branch_events_of(op).next();
    let version = match &op.completion {
        Completion::Fail { code } => return refusal_effect(&op.invocation, code),
        Completion::Info { .. } if op.invocation.is_read() => return RegisterEffect::None,
        // A log was read and has no event of it: it never happened. Without a log it may have.
        Completion::Info { .. } if event.is_none() && index.log(&op.branch_key).is_some() => {
            return RegisterEffect::None;
        }
        Completion::Info { .. } => None,
        Completion::Ok(response) => response.version,
    };
    // The version in the log helps the search also where the response had none.
    let version = version.or_else(|| event.and_then(fields::version));
    match &op.invocation {
        Invocation::Put { value, .. } | Invocation::FirstWrite { value } => {
            RegisterEffect::Operation(RegisterOperation::Put { value: *value, version })
        }
        Invocation::Cas { value, expected, .. } => {
            RegisterEffect::Operation(RegisterOperation::Cas {
                value: *value,
                expected: *expected,
                version,
            })
        }
        Invocation::Get { .. } => {
            match op.completion.response().map(|response| &response.return_value) {
                Some(ReturnValue::Register(read)) => {
                    let register =
                        read.map(|(value, version)| Register { value: Some(value), version });
                    RegisterEffect::Operation(RegisterOperation::Get(register.unwrap_or_default()))
                }
                Some(
                    ReturnValue::Nothing
                    | ReturnValue::Lists(_)
                    | ReturnValue::Balances(_)
                    | ReturnValue::Number(_),
                )
                | None => RegisterEffect::Unreadable,
            }
        }
        Invocation::Append { .. }
        | Invocation::ReadLists
        | Invocation::Transfer { .. }
        | Invocation::ReadBalances
        | Invocation::Ticket
        | Invocation::Increment { .. }
        | Invocation::TakePiece { .. }
        | Invocation::ReadHead => RegisterEffect::None,
    }
}

/// The effect of a refused operation: a version conflict of a compare-and-set shows that the
/// register had another version; other refusals show nothing.
fn refusal_effect(invocation: &Invocation, code: &str) -> RegisterEffect {
    if let Invocation::Cas { expected, .. } = invocation
        && code == CONFLICT_CODE
    {
        return RegisterEffect::Operation(RegisterOperation::Conflict { expected: *expected });
    }
    RegisterEffect::None
}
