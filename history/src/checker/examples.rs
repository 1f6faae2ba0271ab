//! Examples: short functions for histories written by hand, for the tests of the checkers.

use crate::checker::Checker;
use crate::{
    Attempt, BranchModule, Completion, Fault, History, Invocation, LogEvent, LogPosition,
    MonotonicTime, NodeId, Operation, ReceivedMessage, ReplicaReading, Response, ReturnValue,
    SubscriptionMessage,
};

/// The branch of all examples that name no other.
pub(super) fn branch_key() -> BranchModule {
    BranchModule { branch: "b".to_owned(), module: "m".to_owned() }
}

/// A cursor in the first epoch of a log.
pub(super) fn cursor_at(sequence: u64) -> LogPosition {
    LogPosition { epoch: 1, sequence }
}

/// Acknowledged, as the event with this sequence number.
pub(super) fn ok(sequence: u64) -> Completion {
    Completion::Ok(Response { cursor: Some(cursor_at(sequence)), ..Response::default() })
}

/// Acknowledged, as the event with this sequence number and with this version.
pub(super) fn ok_with_version(sequence: u64, version: u64) -> Completion {
    let cursor = Some(cursor_at(sequence));
    Completion::Ok(Response { cursor, version: Some(version), return_value: ReturnValue::Nothing })
}

/// A read that returned this value.
pub(super) fn returned(return_value: ReturnValue) -> Completion {
    Completion::Ok(Response { cursor: None, version: None, return_value })
}

/// A read of a register that returned this value and version.
pub(super) fn returned_register(value: u64, version: u64) -> Completion {
    returned(ReturnValue::Register(Some((value, version))))
}

/// Refused because of the version.
pub(super) fn fail() -> Completion {
    Completion::Fail { code: "version-conflict".to_owned() }
}

/// Unknown.
pub(super) fn info() -> Completion {
    Completion::Info { why: "timeout".to_owned() }
}

/// An operation with one attempt at node 1.
pub(super) fn operation(
    id: &str,
    invocation: Invocation,
    from: u64,
    to: u64,
    completion: Completion,
) -> Operation {
    Operation {
        id: id.to_owned(),
        client: 1,
        branch_key: branch_key(),
        invocation,
        attempts: vec![Attempt { node: 1, at: MonotonicTime(from), completion: None }],
        invoked: MonotonicTime(from),
        completed: MonotonicTime(to),
        completion,
    }
}

/// A put to the register `r`.
pub(super) fn put(value: u64) -> Invocation {
    Invocation::Put { key: "r".to_owned(), value }
}

/// A compare-and-set of the register `r`.
pub(super) fn cas(value: u64, expected: u64) -> Invocation {
    Invocation::Cas { key: "r".to_owned(), value, expected }
}

/// A read of the register `r`.
pub(super) fn get() -> Invocation {
    Invocation::Get { key: "r".to_owned() }
}

/// An append to these lists.
pub(super) fn append(lists: &[&str], element: u64) -> Invocation {
    Invocation::Append { lists: lists.iter().map(|list| (*list).to_owned()).collect(), element }
}

/// A transfer.
pub(super) fn transfer(from: &str, to: &str, amount: i64) -> Invocation {
    Invocation::Transfer { from: from.to_owned(), to: to.to_owned(), amount }
}

/// An event; its id is `e` and its sequence number.
pub(super) fn log_event(
    sequence: u64,
    table: &str,
    key: &str,
    op: Option<&str>,
    row: &str,
) -> LogEvent {
    LogEvent {
        cursor: cursor_at(sequence),
        id: format!("e{sequence}"),
        table: table.to_owned(),
        key: key.to_owned(),
        op: op.map(str::to_owned),
        row: Some(serde_json::from_str(row).unwrap()),
        previous: None,
        hash: None,
    }
}

/// The event of a write to the register `r`.
pub(super) fn register_event(sequence: u64, op: &str, value: u64, version: u64) -> LogEvent {
    let fields = format!(r#"{{"value":{value},"version":{version}}}"#);
    log_event(sequence, super::fields::REGISTERS, "r", Some(op), &fields)
}

/// The event of an appended element.
pub(super) fn element_event(sequence: u64, op: &str, list: &str, element: u64) -> LogEvent {
    let fields = format!(r#"{{"list":"{list}","element":{element}}}"#);
    log_event(sequence, super::fields::ELEMENTS, &format!("{list}-{element}"), Some(op), &fields)
}

/// A history of these operations, with this log as read from nodes 1 and 2.
pub(super) fn history_of(operations: Vec<Operation>, log: Vec<LogEvent>) -> History {
    let logs = vec![(1, branch_key(), log.clone()), (2, branch_key(), log)];
    History { operations, logs, ..History::default() }
}

/// A message that subscriber 1 received over a connection to node 1.
pub(super) fn received(connection: u32, message: SubscriptionMessage) -> ReceivedMessage {
    ReceivedMessage {
        subscriber: 1,
        connection,
        node: 1,
        at: MonotonicTime(0),
        branch_key: branch_key(),
        message,
    }
}

/// A replica with an intact chain.
pub(super) fn replica(node: NodeId, partition: u16, applied: u64, hash: &str) -> ReplicaReading {
    ReplicaReading { node, partition, applied, state_hash: hash.to_owned(), broken_chain: None }
}

/// A fault without a minority.
pub(super) fn fault(kind: &str, nodes: &[NodeId], from: u64, until: u64) -> Fault {
    Fault {
        kind: kind.to_owned(),
        nodes: nodes.to_vec(),
        from: MonotonicTime(from),
        until: MonotonicTime(until),
        description: String::new(),
        minority: Vec::new(),
        minority_from: MonotonicTime(from),
    }
}

/// Asserts that there is no violation, and how many facts were checked.
pub(super) fn assert_holds(check: Checker, history: &History, checked: u64) {
    let verdict = check(history);
    assert!(verdict.holds(), "{verdict:#?}");
    assert_eq!(verdict.checked, checked, "{verdict:#?}");
}

/// Asserts that there is one violation, and that its description contains a text.
pub(super) fn assert_violation(check: Checker, history: &History, expected: &str) {
    let verdict = check(history);
    assert_eq!(verdict.violations, 1, "{verdict:#?}");
    assert!(verdict.details[0].contains(expected), "{expected:?} is not in it: {verdict:#?}");
}
