//! Events: every subscriber receives the log in order, each event once, none left out.
//!
//! Promise: over all its connections a subscriber receives every event from its first snapshot to
//! the end of the log. A new connection resumes exactly where the last one stopped, or the node
//! announces a resync and sends a snapshot, which never goes back. Every event equals the one in
//! the log and has its position in its batch.
//! Refused: a subscriber that left early. It must stay until the end of the log, or the rest counts
//! as lost.

use std::collections::{BTreeMap, HashMap};

use super::Verdict;
use super::history_index::{HistoryIndex, format_time};
use crate::{BranchModule, History, LogEvent, LogPosition, ReceivedMessage, SubscriptionMessage};

/// Checks `events`.
pub(super) fn check(history: &History) -> Verdict {
    let promise = "Every subscriber receives every event once, in order, across reconnections.";
    let mut verdict = Verdict::new("events", promise);
    let index = HistoryIndex::new(history);
    let logs: BTreeMap<&BranchModule, LogIndex<'_>> =
        index.logs().map(|(branch_key, log)| (branch_key, LogIndex::new(log))).collect();
    let mut subscribers: BTreeMap<u32, SubscriberState<'_>> = BTreeMap::new();
    for received in &history.received {
        let state = subscribers
            .entry(received.subscriber)
            .or_insert_with(|| SubscriberState::new(received));
        let violation = state.receive(received, logs.get(&received.branch_key));
        verdict.record(violation.map(|why| {
            let (subscriber, connection, node) =
                (received.subscriber, received.connection, received.node);
            let (branch_key, at) = (received.branch_key.name(), format_time(received.at));
            format!(
                "subscriber {subscriber}.{connection} of node {node}, {branch_key}, {at}: {why}"
            )
        }));
    }
    for (subscriber, state) in subscribers {
        let last = logs.get(state.branch_key).and_then(|log_index| log_index.last);
        let violation = last.filter(|last| state.position < Some(*last)).map(|last| {
            format!(
                "subscriber {subscriber}: received up to {:?}, the log ends at {last:?}",
                state.position
            )
        });
        verdict.record(violation);
    }
    verdict
}

/// A log by cursor: each event with its position in its batch.
struct LogIndex<'a> {
    events: HashMap<LogPosition, (&'a LogEvent, (u32, u32))>,
    last: Option<LogPosition>,
}

impl<'a> LogIndex<'a> {
    fn new(log: &'a [LogEvent]) -> Self {
        let mut events = HashMap::new();
        // The log does not show batches. Events of one operation in a row are one: an operation
        // makes one batch at most.
        let batches = log.chunk_by(|one, next| one.op.is_some() && one.op == next.op);
        for batch in batches {
            let count = u32::try_from(batch.len()).unwrap_or(u32::MAX);
            for (index, log_event) in (1..).zip(batch) {
                events.insert(log_event.cursor, (log_event, (index, count)));
            }
        }
        Self { events, last: log.last().map(|log_event| log_event.cursor) }
    }
}

/// The state of one subscriber after a message.
struct SubscriberState<'a> {
    branch_key: &'a BranchModule,
    connection: u32,
    /// The cursor up to which it has received the log.
    position: Option<LogPosition>,
    /// Whether this connection has had a first message.
    has_started: bool,
}

impl<'a> SubscriberState<'a> {
    fn new(received: &'a ReceivedMessage) -> Self {
        Self {
            branch_key: &received.branch_key,
            connection: received.connection,
            position: None,
            has_started: false,
        }
    }

    /// Applies a message, and returns what is wrong with it.
    fn receive(
        &mut self,
        received: &ReceivedMessage,
        log_index: Option<&LogIndex<'_>>,
    ) -> Option<String> {
        if received.branch_key != *self.branch_key {
            return Some("a message about another branch than the one it follows".to_owned());
        }
        if received.connection < self.connection {
            return Some(format!("a message of an old connection, after {}", self.connection));
        }
        if received.connection > self.connection {
            self.connection = received.connection;
            self.has_started = false;
        }
        // The position moves with every message, also a wrong one: each violation is counted once.
        let (previous, had_started) = (self.position, self.has_started);
        self.has_started = true;
        match &received.message {
            SubscriptionMessage::Snapshot { cursor, is_resync } => {
                self.position = Some(*cursor);
                snapshot_violation(previous, *cursor, *is_resync, log_index)
            }
            SubscriptionMessage::Resumed { cursor } => {
                self.position = Some(*cursor);
                (previous != Some(*cursor))
                    .then(|| format!("resumed at {cursor:?}, it had received up to {previous:?}"))
            }
            SubscriptionMessage::Event { cursor, id, op, batch_position } => {
                self.position = Some(*cursor);
                if !had_started {
                    return Some(format!("{cursor:?} arrived before a snapshot or a resumption"));
                }
                let next = previous.map(|it| LogPosition { sequence: it.sequence + 1, ..it });
                if next != Some(*cursor) {
                    return Some(format!("received {cursor:?} after {previous:?}"));
                }
                event_violation(*cursor, id, op.as_deref(), *batch_position, log_index)
            }
        }
    }
}

/// What is wrong with a snapshot.
fn snapshot_violation(
    previous: Option<LogPosition>,
    cursor: LogPosition,
    is_resync: bool,
    log_index: Option<&LogIndex<'_>>,
) -> Option<String> {
    if let Some(previous) = previous {
        if !is_resync {
            return Some(format!("a snapshot at {cursor:?} without a resync, after {previous:?}"));
        }
        if cursor < previous {
            return Some(format!("went back to {cursor:?}, it had received up to {previous:?}"));
        }
    }
    let last = log_index.and_then(|log_index| log_index.last);
    // A snapshot of an empty branch has sequence 0, and such a branch has no log.
    let is_beyond = cursor.sequence > 0 && last < Some(cursor);
    is_beyond.then(|| format!("a snapshot at {cursor:?}, the log ends at {last:?}"))
}

/// What is wrong with an event compared with the log.
fn event_violation(
    cursor: LogPosition,
    id: &str,
    op: Option<&str>,
    batch_position: (u32, u32),
    log_index: Option<&LogIndex<'_>>,
) -> Option<String> {
    let Some((log_event, logged_position)) =
        log_index.and_then(|log_index| log_index.events.get(&cursor))
    else {
        return Some(format!("received {cursor:?} ({id}), which is not in the log"));
    };
    if log_event.id != id || log_event.op.as_deref() != op {
        let (other, by) = (&log_event.id, &log_event.op);
        return Some(format!("{cursor:?} was {id} of {op:?}, in the log it is {other} of {by:?}"));
    }
    // The setup writes batches without an operation, which the log cannot show.
    (log_event.op.is_some() && *logged_position != batch_position).then(|| {
        format!(
            "{cursor:?} is {batch_position:?} of its batch, in the log it is {logged_position:?}"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::examples::*;

    fn log() -> Vec<LogEvent> {
        vec![
            register_event(1, "a", 7, 1),
            element_event(2, "b", "x", 9),
            element_event(3, "b", "y", 9),
            register_event(4, "c", 8, 2),
        ]
    }

    fn history_with(messages: Vec<ReceivedMessage>) -> History {
        History { received: messages, ..history_of(vec![], log()) }
    }

    fn snapshot(connection: u32, sequence: u64, is_resync: bool) -> ReceivedMessage {
        received(
            connection,
            SubscriptionMessage::Snapshot { cursor: cursor_at(sequence), is_resync },
        )
    }

    fn resumed(connection: u32, sequence: u64) -> ReceivedMessage {
        received(connection, SubscriptionMessage::Resumed { cursor: cursor_at(sequence) })
    }

    fn event(connection: u32, sequence: u64) -> ReceivedMessage {
        let (op, batch_position) = match sequence {
            1 => ("a", (1, 1)),
            2 => ("b", (1, 2)),
            3 => ("b", (2, 2)),
            _ => ("c", (1, 1)),
        };
        let (cursor, id) = (cursor_at(sequence), format!("e{sequence}"));
        received(
            connection,
            SubscriptionMessage::Event { cursor, id, op: Some(op.to_owned()), batch_position },
        )
    }

    #[test]
    fn every_event_once_and_in_order_holds() {
        let messages =
            vec![snapshot(1, 0, false), event(1, 1), event(1, 2), event(1, 3), event(1, 4)];
        assert_holds(check, &history_with(messages), 6);
        let late = vec![snapshot(1, 4, false)];
        assert_holds(check, &history_with(late), 2);
        let nothing_is_there =
            History { received: vec![snapshot(1, 0, false)], ..history_with(vec![]) };
        let empty = History { logs: vec![(1, branch_key(), vec![])], ..nothing_is_there };
        assert_holds(check, &empty, 2);
    }

    #[test]
    fn resuming_inside_a_batch_holds() {
        let messages = vec![
            snapshot(1, 1, false),
            event(1, 2),
            resumed(2, 2),
            resumed(3, 2),
            event(3, 3),
            snapshot(4, 4, true),
        ];
        assert_holds(check, &history_with(messages), 7);
    }

    #[test]
    fn a_missing_repeated_or_reordered_event_is_a_violation() {
        let gap = vec![snapshot(1, 0, false), event(1, 1), event(1, 3), event(1, 4)];
        assert_violation(
            check,
            &history_with(gap),
            "received LogPosition { epoch: 1, sequence: 3 } after",
        );
        let twice = vec![snapshot(1, 3, false), event(1, 4), event(1, 4)];
        assert_violation(
            check,
            &history_with(twice),
            "sequence: 4 } after Some(LogPosition { epoch: 1, sequence: 4",
        );
        let again = vec![snapshot(1, 4, false), event(1, 4)];
        assert_violation(
            check,
            &history_with(again),
            "sequence: 4 } after Some(LogPosition { epoch: 1, sequence: 4",
        );
        let swapped = vec![snapshot(1, 2, false), event(1, 4), event(1, 3)];
        assert_eq!(check(&history_with(swapped)).violations, 3, "two messages, and the end");
    }

    #[test]
    fn resuming_at_another_cursor_is_a_violation() {
        let back = vec![snapshot(1, 4, false), resumed(2, 3), event(2, 4)];
        assert_violation(check, &history_with(back), "it had received up to");
        let ahead = vec![snapshot(1, 2, false), resumed(2, 4)];
        assert_violation(check, &history_with(ahead), "it had received up to");
        let from_nothing = vec![resumed(1, 4)];
        assert_violation(check, &history_with(from_nothing), "it had received up to None");
    }

    #[test]
    fn a_connection_first_announces_its_position() {
        let first = vec![event(1, 1), event(1, 2), event(1, 3), event(1, 4)];
        assert_violation(check, &history_with(first), "before a snapshot or a resumption");
        let second = vec![snapshot(1, 3, false), event(2, 4)];
        assert_violation(check, &history_with(second), "before a snapshot or a resumption");
        let old = vec![snapshot(2, 4, false), resumed(1, 4)];
        assert_violation(check, &history_with(old), "a message of an old connection");
    }

    #[test]
    fn a_new_snapshot_needs_a_resync_and_never_goes_back() {
        let without_resync = vec![snapshot(1, 3, false), snapshot(2, 4, false)];
        assert_violation(check, &history_with(without_resync), "without a resync");
        let back = vec![snapshot(1, 4, false), snapshot(2, 3, true), event(2, 4)];
        assert_violation(check, &history_with(back), "went back to");
        let beyond = vec![snapshot(1, 5, false)];
        assert_violation(check, &history_with(beyond), "a snapshot at");
    }

    #[test]
    fn an_event_equals_the_one_in_the_log() {
        let event_as = |id: &str, op: &str, batch_position| {
            let message = SubscriptionMessage::Event {
                cursor: cursor_at(4),
                id: id.to_owned(),
                op: Some(op.to_owned()),
                batch_position,
            };
            history_with(vec![snapshot(1, 3, false), received(1, message)])
        };
        assert_violation(check, &event_as("e9", "c", (1, 1)), "in the log it is e4");
        assert_violation(check, &event_as("e4", "x", (1, 1)), "in the log it is e4");
        assert_violation(check, &event_as("e4", "c", (1, 2)), "(1, 2) of its batch");
        let beyond = vec![snapshot(1, 4, false), event(1, 5)];
        assert_violation(check, &history_with(beyond), "which is not in the log");
    }

    #[test]
    fn every_subscriber_receives_the_end_of_the_log() {
        let messages = vec![snapshot(1, 1, false), event(1, 2)];
        assert_violation(check, &history_with(messages), "subscriber 1: received up to");
    }

    #[test]
    fn a_subscriber_follows_one_branch() {
        let mut elsewhere = snapshot(1, 4, false);
        elsewhere.branch_key.branch = "other".to_owned();
        let messages = vec![snapshot(1, 4, false), elsewhere];
        assert_violation(check, &history_with(messages), "another branch");
    }
}
