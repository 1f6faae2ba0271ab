//! Examples: histories written by hand, in few words, for the tests of the properties.

use crate::checker::Judge;
use crate::history::{
    Attempt, Cursor, Evidence, Fault, Heard, Intent, Logged, Moment, NodeId, Op, Outcome, Place,
    Replica, Reply, Seen, Word,
};

/// The place all examples play at, unless they say another.
pub(super) fn place() -> Place {
    Place { branch: "b".to_owned(), module: "m".to_owned() }
}

/// A cursor of the first life of a log.
pub(super) fn at(sequence: u64) -> Cursor {
    Cursor { epoch: 1, sequence }
}

/// Acknowledged as the event with this sequence.
pub(super) fn done(sequence: u64) -> Outcome {
    Outcome::Done(Reply { cursor: Some(at(sequence)), ..Reply::default() })
}

/// Acknowledged as this event, with this version.
pub(super) fn done_as(sequence: u64, version: u64) -> Outcome {
    let cursor = Some(at(sequence));
    Outcome::Done(Reply { cursor, version: Some(version), seen: Seen::Nothing })
}

/// A read that saw this.
pub(super) fn saw(seen: Seen) -> Outcome {
    Outcome::Done(Reply { cursor: None, version: None, seen })
}

/// A read of a register that saw this value and version.
pub(super) fn saw_register(value: u64, version: u64) -> Outcome {
    saw(Seen::Register(Some((value, version))))
}

/// Refused because of the version.
pub(super) fn refused() -> Outcome {
    Outcome::Refused { code: "version-conflict".to_owned() }
}

/// Nobody knows.
pub(super) fn unknown() -> Outcome {
    Outcome::Unknown { why: "timeout".to_owned() }
}

/// An operation asked of node 1.
pub(super) fn op(id: &str, intent: Intent, from: u64, to: u64, outcome: Outcome) -> Op {
    Op {
        id: id.to_owned(),
        client: 1,
        place: place(),
        intent,
        attempts: vec![Attempt { node: 1, at: Moment(from) }],
        invoked: Moment(from),
        completed: Moment(to),
        outcome,
    }
}

/// A put to the register `r`.
pub(super) fn put(value: u64) -> Intent {
    Intent::Put { key: "r".to_owned(), value }
}

/// A guarded put to the register `r`.
pub(super) fn cas(value: u64, expected: u64) -> Intent {
    Intent::Cas { key: "r".to_owned(), value, expected }
}

/// A read of the register `r`.
pub(super) fn get() -> Intent {
    Intent::Get { key: "r".to_owned() }
}

/// An append to these lists.
pub(super) fn append(lists: &[&str], element: u64) -> Intent {
    Intent::Append { lists: lists.iter().map(|list| (*list).to_owned()).collect(), element }
}

/// A transfer.
pub(super) fn transfer(from: &str, to: &str, amount: i64) -> Intent {
    Intent::Transfer { from: from.to_owned(), to: to.to_owned(), amount }
}

/// An event; its id is `e` and its sequence.
pub(super) fn row(sequence: u64, table: &str, key: &str, op: Option<&str>, row: &str) -> Logged {
    Logged {
        cursor: at(sequence),
        id: format!("e{sequence}"),
        table: table.to_owned(),
        key: key.to_owned(),
        op: op.map(str::to_owned),
        row: Some(serde_json::from_str(row).unwrap()),
    }
}

/// The event of a write to the register `r`.
pub(super) fn written(sequence: u64, op: &str, value: u64, version: u64) -> Logged {
    let fields = format!(r#"{{"value":{value},"version":{version}}}"#);
    row(sequence, super::fields::REGISTERS, "r", Some(op), &fields)
}

/// The event of an element.
pub(super) fn element(sequence: u64, op: &str, list: &str, element: u64) -> Logged {
    let fields = format!(r#"{{"list":"{list}","element":{element}}}"#);
    row(sequence, super::fields::ELEMENTS, &format!("{list}-{element}"), Some(op), &fields)
}

/// These operations, and this log read from nodes 1 and 2.
pub(super) fn evidence(ops: Vec<Op>, log: Vec<Logged>) -> Evidence {
    let logs = vec![(1, place(), log.clone()), (2, place(), log)];
    Evidence { ops, logs, ..Evidence::default() }
}

/// What subscriber 1 was told over a connection to node 1.
pub(super) fn heard(connection: u32, word: Word) -> Heard {
    Heard { subscriber: 1, connection, node: 1, at: Moment(0), place: place(), word }
}

/// A replica whose chain holds.
pub(super) fn replica(node: NodeId, partition: u16, applied: u64, hash: &str) -> Replica {
    Replica { node, partition, applied, state_hash: hash.to_owned(), broken_chain: None }
}

/// A fault that leaves a majority everywhere.
pub(super) fn fault(kind: &str, nodes: &[NodeId], from: u64, until: u64) -> Fault {
    Fault {
        kind: kind.to_owned(),
        nodes: nodes.to_vec(),
        from: Moment(from),
        until: Moment(until),
        words: String::new(),
        minority: Vec::new(),
        minority_from: Moment(from),
    }
}

/// Nothing speaks against it, and so many facts were checked.
pub(super) fn assert_holds(judge: Judge, evidence: &Evidence, checked: u64) {
    let verdict = judge(evidence);
    assert!(verdict.holds(), "{verdict:#?}");
    assert_eq!(verdict.checked, checked, "{verdict:#?}");
}

/// One fact is wrong, and what is shown of it says this.
pub(super) fn assert_wrong(judge: Judge, evidence: &Evidence, says: &str) {
    let verdict = judge(evidence);
    assert_eq!(verdict.violations, 1, "{verdict:#?}");
    assert!(verdict.shown[0].contains(says), "{says:?} is not said: {verdict:#?}");
}
