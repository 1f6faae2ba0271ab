//! LogFollower: turns "this log, after this offset" into a gapless stream of deltas. Live where it
//! keeps up, from the log where it does not; nothing else in this crate mends a gap.
//!
//! Promise: every delta after the cursor is given once and in order, or the stream gives a `Resync`
//! and goes on from there. A slow follower costs nobody but itself.

use std::collections::VecDeque;
use std::sync::Arc;

use model::{Answer, BranchKey, Delta, Event, Offset, Read, ReadLevel};

use super::cursor_of;
use super::live::{LiveSource, LiveUpdate};
use crate::client::Reads;
use crate::limits::{CATCH_UP_EVENTS, RETRY_PAUSE};
use crate::shares::Requester;
use crate::store::{Cursor, FollowItem, SharedDelta};

/// One follower's way along the log of a branch:module.
pub(crate) struct LogFollower<S> {
    reads: Reads,
    key: BranchKey,
    /// The last event given.
    cursor: Cursor,
    source: S,
    /// Read from the log and not given yet.
    backlog: VecDeque<FollowItem>,
    /// Whether the log may hold events after the cursor that the source will not bring.
    is_behind: bool,
    /// The furthest the log is known to reach: a replica that has less is not asked.
    known: Offset,
}

impl<S: LiveSource> LogFollower<S> {
    /// Continues after `cursor`, where the state at the cursor was read after `source` was opened.
    pub(super) fn new(reads: Reads, key: BranchKey, cursor: Cursor, source: S) -> Self {
        let backlog = VecDeque::new();
        Self { reads, key, cursor, source, backlog, is_behind: false, known: cursor.offset }
    }

    /// Continues after `cursor`, wherever the log is now.
    pub(super) fn behind(reads: Reads, key: BranchKey, cursor: Cursor, source: S) -> Self {
        Self { is_behind: true, ..Self::new(reads, key, cursor, source) }
    }

    /// The next item. Cancel-safe: the cursor moves with what is returned and no sooner. `None`:
    /// the branch can no longer be followed from here.
    pub(super) async fn next_item(&mut self) -> Option<FollowItem> {
        loop {
            // What was read from the log comes before what is live: it is older.
            if let Some(item) = self.backlog.pop_front() {
                self.advance(&item);
                return Some(item);
            }
            if self.is_behind {
                self.read_log().await?;
                continue;
            }
            match self.source.next().await {
                LiveUpdate::Delta(shared) => {
                    if let Some(item) = self.place(shared) {
                        self.advance(&item);
                        return Some(item);
                    }
                }
                LiveUpdate::Position(offset) => {
                    self.known = self.known.max(offset);
                    self.is_behind = self.cursor.offset < offset;
                }
                LiveUpdate::Gap => self.is_behind = true,
                LiveUpdate::Ended => return None,
            }
        }
    }

    /// A live delta: the next one, one already given, or one after a gap.
    fn place(&mut self, shared: Arc<SharedDelta>) -> Option<FollowItem> {
        let (first, last) = (shared.delta.events.first()?.offset, shared.delta.last()?);
        let next = self.cursor.offset.next();
        let is_same_log = shared.delta.incarnation == self.cursor.incarnation;
        if is_same_log && first == next {
            return Some(FollowItem::Delta(shared));
        }
        // Of a delta that begins within what was given, its end may still be new: the log has it
        // in pieces that fit. The delta itself is dropped, here as after a gap, since what is read
        // now includes it.
        self.is_behind = !is_same_log || last >= next;
        if is_same_log {
            self.known = self.known.max(last);
        }
        None
    }

    /// The last event given.
    pub(super) fn cursor(&self) -> Cursor {
        self.cursor
    }

    fn advance(&mut self, item: &FollowItem) {
        match item {
            FollowItem::Delta(shared) => {
                self.cursor.offset = shared.delta.last().unwrap_or(self.cursor.offset);
            }
            FollowItem::Resync(snapshot) => self.cursor = cursor_of(snapshot),
        }
    }

    /// Reads what comes after the cursor from the log. `None`: there is no such branch any more.
    async fn read_log(&mut self) -> Option<()> {
        let read = Read::Events { after: self.cursor.offset, limit: CATCH_UP_EVENTS };
        // The replica that is nearest will do, if it has what is known to be there: one that lags
        // would answer that nothing is missing.
        let level = ReadLevel::Session(self.known);
        let answer = self.reads.read(Requester::default(), self.key.clone(), read, level).await;
        match answer {
            Ok(Answer::Events(found)) if found.incarnation == self.cursor.incarnation => {
                match found.events {
                    Some(events) => {
                        let read_to = events.last().map_or(self.cursor.offset, |e| e.offset);
                        self.is_behind = read_to < found.last;
                        self.backlog.extend(self.deltas(events));
                    }
                    // The log no longer holds the event after the cursor.
                    None => self.resync().await,
                }
            }
            // The log was replaced by another: its offsets have nothing to do with this cursor.
            Ok(_) => self.resync().await,
            // Between two leaders, or with all replicas away: the follower waits as long as that
            // takes. Whoever consumes the stream notices only the delay: nothing is lost.
            Err(error) if error.is_temporary() => tokio::time::sleep(RETRY_PAUSE).await,
            Err(_) => return None,
        }
        Some(())
    }

    /// Begins again from the state of now.
    async fn resync(&mut self) {
        let level = ReadLevel::Session(self.known);
        let answer =
            self.reads.read(Requester::default(), self.key.clone(), Read::Snapshot, level).await;
        match answer {
            Ok(Answer::Snapshot(snapshot)) => {
                self.is_behind = false;
                self.backlog.push_back(FollowItem::Resync(snapshot));
            }
            // The log is read again, which tells whether there still is such a branch.
            Ok(_) | Err(_) => tokio::time::sleep(RETRY_PAUSE).await,
        }
    }

    /// Events read from the log, one delta for each command. The log does not hold what the
    /// records were before.
    fn deltas(&self, events: Vec<Arc<Event>>) -> Vec<FollowItem> {
        let is_same_command = |a: &Arc<Event>, b: &Arc<Event>| a.command == b.command;
        events
            .chunk_by(is_same_command)
            .map(|events| {
                let delta = Delta {
                    key: self.key.clone(),
                    incarnation: self.cursor.incarnation,
                    events: events.to_vec(),
                };
                FollowItem::Delta(Arc::new(SharedDelta::new(Arc::new(delta))))
            })
            .collect()
    }
}
