//! Events: every subscriber hears the log: in order, each event once, none left out.
//!
//! Promise: what a subscriber hears follows from its first snapshot to the end of the log, over all
//! its connections. A new connection goes on exactly where the last one stopped, or the subscriber
//! is told why it begins again; it never goes back. Every event is the one in the log, and says
//! which of its batch it is. Whoever gathers the evidence lets subscribers hear the end of the log
//! before they leave: one that did not hear it counts as having lost it.

use std::collections::{BTreeMap, HashMap};

use super::Verdict;
use super::history_index::{HistoryIndex, when};
use crate::history::{BranchKey, Cursor, History, LogEvent, ReceivedMessage, SubscriptionMessage};

/// Judges it.
pub(super) fn judge(evidence: &History) -> Verdict {
    let promise = "Every subscriber hears every event once, in order, across reconnections.";
    let mut verdict = Verdict::new("events", promise);
    let book = HistoryIndex::of(evidence);
    let logs: BTreeMap<&BranchKey, LogIndex<'_>> =
        book.logs().map(|(place, log)| (place, LogIndex::of(log))).collect();
    let mut ears: BTreeMap<u32, SubscriberState<'_>> = BTreeMap::new();
    for heard in &evidence.heard {
        let ear = ears.entry(heard.subscriber).or_insert_with(|| SubscriberState::new(heard));
        let wrong = ear.hear(heard, logs.get(&heard.place));
        verdict.check(wrong.map(|why| {
            let (subscriber, connection, node) = (heard.subscriber, heard.connection, heard.node);
            let (place, at) = (heard.place.name(), when(heard.at));
            format!("subscriber {subscriber}.{connection} of node {node}, {place}, {at}: {why}")
        }));
    }
    for (subscriber, ear) in ears {
        let last = logs.get(ear.place).and_then(|shelf| shelf.last);
        let wrong = last.filter(|last| ear.stands < Some(*last)).map(|last| {
            format!("subscriber {subscriber}: heard up to {:?}, the log has {last:?}", ear.stands)
        });
        verdict.check(wrong);
    }
    verdict
}

/// A log, by cursor.
struct LogIndex<'a> {
    events: HashMap<Cursor, (&'a LogEvent, (u32, u32))>,
    last: Option<Cursor>,
}

impl<'a> LogIndex<'a> {
    fn of(log: &'a [LogEvent]) -> Self {
        let mut events = HashMap::new();
        let batches = log.chunk_by(|one, next| one.op.is_some() && one.op == next.op);
        for batch in batches {
            let count = u32::try_from(batch.len()).unwrap_or(u32::MAX);
            for (index, logged) in (1..).zip(batch) {
                events.insert(logged.cursor, (logged, (index, count)));
            }
        }
        Self { events, last: log.last().map(|logged| logged.cursor) }
    }
}

/// One subscriber, so far.
struct SubscriberState<'a> {
    place: &'a BranchKey,
    connection: u32,
    /// Up to where it heard.
    stands: Option<Cursor>,
    /// Whether this connection has said where it begins.
    begun: bool,
}

impl<'a> SubscriberState<'a> {
    fn new(heard: &'a ReceivedMessage) -> Self {
        Self { place: &heard.place, connection: heard.connection, stands: None, begun: false }
    }

    /// Hears a word, and says what is wrong with it.
    fn hear(&mut self, heard: &ReceivedMessage, shelf: Option<&LogIndex<'_>>) -> Option<String> {
        if heard.place != *self.place {
            return Some("a word about another place than the one it follows".to_owned());
        }
        if heard.connection < self.connection {
            return Some(format!("a word of an old connection, after {}", self.connection));
        }
        if heard.connection > self.connection {
            self.connection = heard.connection;
            self.begun = false;
        }
        let (stood, had_begun) = (self.stands, self.begun);
        self.begun = true;
        match &heard.word {
            SubscriptionMessage::Snapshot { cursor, is_told } => {
                self.stands = Some(*cursor);
                snapshot(stood, *cursor, *is_told, shelf)
            }
            SubscriptionMessage::Resumed { cursor } => {
                self.stands = Some(*cursor);
                (stood != Some(*cursor))
                    .then(|| format!("resumed at {cursor:?}, it had heard up to {stood:?}"))
            }
            SubscriptionMessage::Event { cursor, id, op, of_batch } => {
                self.stands = Some(*cursor);
                if !had_begun {
                    return Some(format!("{cursor:?} came before any word of where it begins"));
                }
                let next = stood.map(|it| Cursor { sequence: it.sequence + 1, ..it });
                if next != Some(*cursor) {
                    return Some(format!("heard {cursor:?} after {stood:?}"));
                }
                in_the_log(*cursor, id, op.as_deref(), *of_batch, shelf)
            }
        }
    }
}

fn snapshot(
    stood: Option<Cursor>,
    cursor: Cursor,
    is_told: bool,
    shelf: Option<&LogIndex<'_>>,
) -> Option<String> {
    if let Some(stood) = stood {
        if !is_told {
            return Some(format!("began again at {cursor:?} without being told, after {stood:?}"));
        }
        if cursor < stood {
            return Some(format!("went back to {cursor:?}, it had heard up to {stood:?}"));
        }
    }
    let last = shelf.and_then(|shelf| shelf.last);
    let is_beyond = cursor.sequence > 0 && last < Some(cursor);
    is_beyond.then(|| format!("a snapshot at {cursor:?}, the log has {last:?}"))
}

fn in_the_log(
    cursor: Cursor,
    id: &str,
    op: Option<&str>,
    of_batch: (u32, u32),
    shelf: Option<&LogIndex<'_>>,
) -> Option<String> {
    let Some((logged, place)) = shelf.and_then(|shelf| shelf.events.get(&cursor)) else {
        return Some(format!("heard {cursor:?} ({id}), which is not in the log"));
    };
    if logged.id != id || logged.op.as_deref() != op {
        let (other, by) = (&logged.id, &logged.op);
        return Some(format!("{cursor:?} was {id} of {op:?}, in the log it is {other} of {by:?}"));
    }
    // What prepares a place may come in batches that the log does not tell.
    (logged.op.is_some() && *place != of_batch)
        .then(|| format!("{cursor:?} is {of_batch:?} of its batch, in the log it is {place:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::examples::*;

    fn log() -> Vec<LogEvent> {
        vec![
            written(1, "a", 7, 1),
            element(2, "b", "x", 9),
            element(3, "b", "y", 9),
            written(4, "c", 8, 2),
        ]
    }

    fn story(words: Vec<ReceivedMessage>) -> History {
        History { heard: words, ..evidence(vec![], log()) }
    }

    fn snapshot(connection: u32, sequence: u64, is_told: bool) -> ReceivedMessage {
        heard(connection, SubscriptionMessage::Snapshot { cursor: at(sequence), is_told })
    }

    fn resumed(connection: u32, sequence: u64) -> ReceivedMessage {
        heard(connection, SubscriptionMessage::Resumed { cursor: at(sequence) })
    }

    fn event(connection: u32, sequence: u64) -> ReceivedMessage {
        let (op, of_batch) = match sequence {
            1 => ("a", (1, 1)),
            2 => ("b", (1, 2)),
            3 => ("b", (2, 2)),
            _ => ("c", (1, 1)),
        };
        let (cursor, id) = (at(sequence), format!("e{sequence}"));
        heard(
            connection,
            SubscriptionMessage::Event { cursor, id, op: Some(op.to_owned()), of_batch },
        )
    }

    #[test]
    fn everything_once_and_in_order_holds() {
        let words = vec![snapshot(1, 0, false), event(1, 1), event(1, 2), event(1, 3), event(1, 4)];
        assert_holds(judge, &story(words), 6);
        let late = vec![snapshot(1, 4, false)];
        assert_holds(judge, &story(late), 2);
        let nothing_is_there = History { heard: vec![snapshot(1, 0, false)], ..story(vec![]) };
        let empty = History { logs: vec![(1, place(), vec![])], ..nothing_is_there };
        assert_holds(judge, &empty, 2);
    }

    #[test]
    fn going_on_where_it_stopped_holds_also_inside_a_batch() {
        let words = vec![
            snapshot(1, 1, false),
            event(1, 2),
            resumed(2, 2),
            resumed(3, 2),
            event(3, 3),
            snapshot(4, 4, true),
        ];
        assert_holds(judge, &story(words), 7);
    }

    #[test]
    fn an_event_left_out_or_told_twice_or_in_another_order_is_wrong() {
        let gap = vec![snapshot(1, 0, false), event(1, 1), event(1, 3), event(1, 4)];
        assert_wrong(judge, &story(gap), "heard Cursor { epoch: 1, sequence: 3 } after");
        let twice = vec![snapshot(1, 3, false), event(1, 4), event(1, 4)];
        assert_wrong(
            judge,
            &story(twice),
            "sequence: 4 } after Some(Cursor { epoch: 1, sequence: 4",
        );
        let again = vec![snapshot(1, 4, false), event(1, 4)];
        assert_wrong(
            judge,
            &story(again),
            "sequence: 4 } after Some(Cursor { epoch: 1, sequence: 4",
        );
        let swapped = vec![snapshot(1, 2, false), event(1, 4), event(1, 3)];
        assert_eq!(judge(&story(swapped)).violations, 3, "two words, and the end");
    }

    #[test]
    fn resuming_elsewhere_is_wrong() {
        let back = vec![snapshot(1, 4, false), resumed(2, 3), event(2, 4)];
        assert_wrong(judge, &story(back), "it had heard up to");
        let ahead = vec![snapshot(1, 2, false), resumed(2, 4)];
        assert_wrong(judge, &story(ahead), "it had heard up to");
        let from_nothing = vec![resumed(1, 4)];
        assert_wrong(judge, &story(from_nothing), "it had heard up to None");
    }

    #[test]
    fn a_connection_says_first_where_it_begins() {
        let first = vec![event(1, 1), event(1, 2), event(1, 3), event(1, 4)];
        assert_wrong(judge, &story(first), "before any word of where it begins");
        let second = vec![snapshot(1, 3, false), event(2, 4)];
        assert_wrong(judge, &story(second), "before any word of where it begins");
        let old = vec![snapshot(2, 4, false), resumed(1, 4)];
        assert_wrong(judge, &story(old), "a word of an old connection");
    }

    #[test]
    fn beginning_again_is_told_and_never_goes_back() {
        let untold = vec![snapshot(1, 3, false), snapshot(2, 4, false)];
        assert_wrong(judge, &story(untold), "without being told");
        let back = vec![snapshot(1, 4, false), snapshot(2, 3, true), event(2, 4)];
        assert_wrong(judge, &story(back), "went back to");
        let beyond = vec![snapshot(1, 5, false)];
        assert_wrong(judge, &story(beyond), "a snapshot at");
    }

    #[test]
    fn an_event_is_the_one_in_the_log() {
        let told = |id: &str, op: &str, of_batch| {
            let word = SubscriptionMessage::Event {
                cursor: at(4),
                id: id.to_owned(),
                op: Some(op.to_owned()),
                of_batch,
            };
            story(vec![snapshot(1, 3, false), heard(1, word)])
        };
        assert_wrong(judge, &told("e9", "c", (1, 1)), "in the log it is e4");
        assert_wrong(judge, &told("e4", "x", (1, 1)), "in the log it is e4");
        assert_wrong(judge, &told("e4", "c", (1, 2)), "(1, 2) of its batch");
        let beyond = vec![snapshot(1, 4, false), event(1, 5)];
        assert_wrong(judge, &story(beyond), "which is not in the log");
    }

    #[test]
    fn the_end_is_heard_by_all() {
        let words = vec![snapshot(1, 1, false), event(1, 2)];
        assert_wrong(judge, &story(words), "subscriber 1: heard up to");
    }

    #[test]
    fn a_subscriber_follows_one_place() {
        let mut elsewhere = snapshot(1, 4, false);
        elsewhere.place.branch = "other".to_owned();
        let words = vec![snapshot(1, 4, false), elsewhere];
        assert_wrong(judge, &story(words), "another place");
    }
}
