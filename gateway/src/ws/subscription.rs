//! Subscription: what a session knows of one branch:module that it follows, as a value. It has no
//! word of frames or JSON, and this is the only place that decides how a follow begins, resumes
//! and begins again.
//!
//! ```text
//!             started with a state              the barrier passes
//!   Opening ────────────────────────▶ Started ────────────────────────▶ Live
//!      │      the log goes on after the cursor                          ▲  │
//!      ├────────────────────────────▶ Resumed ─────────────────────────▶┤  │ refresh
//!      │      no snapshot shows the module, or it goes on after         │  ▼
//!      ├───────────── the session's own cursor ────────────────────────▶┤ Refreshing
//!      ◀──────────────── retry: a failure, or the stream ended ─────────┤  ▼
//!                                                                       └ Refreshed
//! ```
//!
//! The barrier: a snapshot shows all modules of a branch's list, so the first ones that are there
//! wait for the last. A module is ready in every state but `Opening` and `Refreshing`, and its
//! owner passes the barrier (`pass_barrier`) once all are.
//!
//! Promises, whatever the order of answers, deltas, resyncs and failures: events that may be sent
//! follow one on the other, none is given twice, and a snapshot holds all that was sent before it.
//! Refused: a delta that leaves a gap, a state that is older than what was sent, one of another
//! incarnation; the module is then followed anew.

use std::sync::Arc;
use std::time::Duration;

use actors::Cursor;
use model::{Incarnation, ModuleSnapshot, Offset, ReadLevel};

use crate::limits::{FOLLOW_AGAIN_AFTER, FOLLOW_AGAIN_AFTER_MAX};

/// Names one call of a session to its socket: a follow and its stream, a read, a listening.
pub(crate) type CallId = u64;

/// Where a follow begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FollowFrom {
    /// With a snapshot of now.
    Snapshot,
    /// After an event this session has seen.
    After(Cursor),
    /// After an event the client says it has seen: the log is asked first whether it goes on from
    /// there.
    Resume(Cursor),
    /// With what happens from now on.
    Tail,
}

/// What a follow began with.
#[derive(Default)]
pub(crate) struct FollowStart {
    /// For `FollowFrom::Snapshot`, and where the log no longer holds what comes after a cursor.
    pub(crate) snapshot: Option<Arc<ModuleSnapshot>>,
    /// For `FollowFrom::Resume` and `FollowFrom::Tail`: where the log ends.
    pub(crate) log: Option<LogEnd>,
}

/// Where a log ends, seen from a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogEnd {
    pub(crate) incarnation: Incarnation,
    /// Its last event.
    pub(crate) last: Offset,
    /// Whether the log still has every event after the cursor.
    pub(crate) is_retained: bool,
}

/// What a session knows of one module it follows.
pub(crate) struct Subscription {
    /// The follow whose answers and items count; those of any other are of the past.
    call: CallId,
    /// Whether the module is of the branch's list, and so part of every snapshot.
    listed: bool,
    /// Whether its events are sent; else only topics are fed from it.
    sends_events: bool,
    state: State,
    /// The last event that came, or the snapshot's.
    cursor: Option<Cursor>,
    /// The last event a snapshot held, or the client said it had: later ones are sent.
    delivered: Offset,
    /// How often in a row it could not be followed or read.
    tries: u32,
}

enum State {
    /// The follow is asked for.
    Opening,
    /// It began with this state; waits at the barrier.
    Started(Arc<ModuleSnapshot>),
    /// It goes on from the client's cursor, and what is missed reaches to here; waits at the
    /// barrier.
    Resumed(Offset),
    /// Its stream is open, and a state for the next snapshot is being read by this call.
    Refreshing(CallId),
    /// Its stream is open; waits at the barrier.
    Refreshed(Arc<ModuleSnapshot>),
    /// Its events come.
    Live,
}

/// Why a module cannot go on after the cursor its client came with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResyncReason {
    /// The cursor is of another incarnation of the log.
    OtherIncarnation,
    /// The log does not reach so far.
    Ahead,
    /// The log no longer has the events after it.
    TooOld,
    /// It is no cursor.
    InvalidCursor,
    /// The branch does not have the module.
    NotInBranch,
}

/// What follows from a follow's answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// Open the stream: nothing waits for it.
    Live,
    /// It has the state for a snapshot: see that one is being put together.
    Snapshot,
    /// It waits for the other modules.
    Resumed,
    /// It cannot go on after the client's cursor, for this reason: follow anew with a snapshot.
    Broken(ResyncReason),
}

/// How a module that is followed comes into the next snapshot.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refresh {
    /// Its state is there already.
    Waits,
    /// By reading its state, at least as new as this.
    Read(ReadLevel),
    /// Only by following it anew.
    Follow,
}

/// What of a delta is new.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// Its events from this one on.
    From(Offset),
    /// The same, after a gap that no snapshot will fill: only topics are fed, or one client's
    /// publishes to a module outside the list are shown.
    AfterGap(Offset),
    /// Nothing: it leaves a gap, and the module begins again with a snapshot.
    Restart,
}

/// What a module brings into a snapshot.
pub(crate) enum Passage {
    /// Its state, and whether its stream is to be opened now.
    Snapshot(Arc<ModuleSnapshot>, bool),
    /// The events after this cursor, up to this offset: its stream is to be opened now.
    Resumed(Cursor, Offset),
    /// Nothing: it did not wait.
    Nothing,
}

impl Subscription {
    /// A module whose follow is asked for by this call. `listed` ones are part of snapshots.
    pub(crate) fn new(call: CallId, from: FollowFrom, listed: bool) -> Self {
        let cursor = match from {
            FollowFrom::Resume(cursor) | FollowFrom::After(cursor) => Some(cursor),
            FollowFrom::Snapshot | FollowFrom::Tail => None,
        };
        let sends_events = from != FollowFrom::Tail;
        let (state, delivered, tries) = (State::Opening, Offset(0), 0);
        Self { call, listed, sends_events, state, cursor, delivered, tries }
    }

    /// The follow whose items count.
    pub(crate) fn call(&self) -> CallId {
        self.call
    }

    /// Whether it is part of every snapshot.
    pub(crate) fn is_listed(&self) -> bool {
        self.listed
    }

    /// Whether its events are sent.
    pub(crate) fn sends_events(&self) -> bool {
        self.sends_events
    }

    /// The last event that came.
    pub(crate) fn cursor(&self) -> Option<Cursor> {
        self.cursor
    }

    /// The last event the client has, by itself or in a snapshot, or that came for it.
    pub(crate) fn known(&self) -> Offset {
        self.cursor.map_or(self.delivered, |cursor| cursor.offset.max(self.delivered))
    }

    /// Whether an event is to be sent: no snapshot held it, and the client did not say it had it.
    pub(crate) fn is_undelivered(&self, offset: Offset) -> bool {
        offset > self.delivered
    }

    /// Whether its follow was asked for and not answered yet.
    pub(crate) fn is_new(&self) -> bool {
        matches!(self.state, State::Opening) && self.tries == 0
    }

    /// Whether its stream is open.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.state, State::Live) || self.is_refreshing()
    }

    /// Whether a state is read for a snapshot that must hold all that was sent before it: until it
    /// is sent, nothing is pulled from any stream.
    pub(crate) fn is_refreshing(&self) -> bool {
        matches!(self.state, State::Refreshing(_) | State::Refreshed(_))
    }

    /// Whether this call reads its state.
    pub(crate) fn is_refreshed_by(&self, call: CallId) -> bool {
        matches!(self.state, State::Refreshing(own) if own == call)
    }

    /// Whether a snapshot need not wait for it.
    pub(crate) fn is_ready(&self) -> bool {
        !matches!(self.state, State::Opening | State::Refreshing(_))
    }

    /// Whether only a publish waits for its first events: who cannot follow it may give up on both.
    pub(crate) fn is_for_publishes_only(&self) -> bool {
        self.sends_events && !self.listed && self.cursor.is_none()
    }

    /// Whether it failed to be followed or read since it last succeeded.
    pub(crate) fn has_failed(&self) -> bool {
        self.tries > 0
    }

    /// Its follow was answered.
    pub(crate) fn on_started(&mut self, start: FollowStart) -> Start {
        self.tries = 0;
        if let Some(log) = start.log {
            return self.on_log_end(log);
        }
        if let Some(snapshot) = start.snapshot {
            // Also after a cursor: then the log no longer holds what comes after it.
            self.cursor = Some(cursor_of(&snapshot));
            self.delivered = snapshot.head.offset;
            if self.listed {
                self.state = State::Started(snapshot);
                return Start::Snapshot;
            }
        }
        self.state = State::Live;
        Start::Live
    }

    fn on_log_end(&mut self, log: LogEnd) -> Start {
        let Some(from) = self.cursor else {
            // Only topics are fed from it: what happens from now on is enough.
            self.cursor = Some(Cursor { incarnation: log.incarnation, offset: log.last });
            self.delivered = log.last;
            self.state = State::Live;
            return Start::Live;
        };
        if let Some(reason) = broken_by(from, log) {
            return Start::Broken(reason);
        }
        // The client said that it has all up to here, whatever this session sent before.
        self.delivered = from.offset;
        self.state = State::Resumed(log.last);
        Start::Resumed
    }

    /// Follows again by this call, from where it is, after the wait that is returned. `resuming`:
    /// a snapshot is being put together for a client that came with its cursors.
    pub(crate) fn retry(&mut self, call: CallId, resuming: bool) -> (FollowFrom, Duration) {
        let from = match self.cursor {
            // The cursor is still the client's word: the log has to be asked about it again.
            Some(cursor) if resuming && self.listed => FollowFrom::Resume(cursor),
            Some(cursor) => FollowFrom::After(cursor),
            None if self.sends_events => FollowFrom::Snapshot,
            None => FollowFrom::Tail,
        };
        let wait = pause(self.tries);
        self.tries += 1;
        (self.call, self.state) = (call, State::Opening);
        (from, wait)
    }

    /// Takes it into the next snapshot. Where its state is to be read, `call` is to read it.
    /// `level` is how new the snapshot has to be.
    pub(crate) fn refresh(&mut self, call: CallId, level: ReadLevel) -> Refresh {
        match (&self.state, self.cursor) {
            (State::Started(_), _) => {
                (self.listed, self.sends_events) = (true, true);
                Refresh::Waits
            }
            (State::Live | State::Refreshing(_) | State::Refreshed(_), Some(_)) => {
                (self.listed, self.sends_events) = (true, true);
                self.state = State::Refreshing(call);
                Refresh::Read(match level {
                    ReadLevel::Linearizable => level,
                    // An older state would not hold what was sent already.
                    ReadLevel::Session(_) | ReadLevel::Stale => ReadLevel::Session(self.known()),
                })
            }
            // An answer under way begins somewhere else than a new client may want, and a stream
            // with a gap in it has no cursor.
            (State::Opening | State::Resumed(_), _)
            | (State::Live | State::Refreshing(_) | State::Refreshed(_), None) => Refresh::Follow,
        }
    }

    /// The state that was read for a snapshot came. Returns whether it can be shown: it is no
    /// older than what was sent, and of the same incarnation.
    pub(crate) fn on_state(&mut self, snapshot: Arc<ModuleSnapshot>) -> bool {
        self.tries = 0;
        let head = &snapshot.head;
        let incarnation = self.cursor.map(|cursor| cursor.incarnation);
        let fits = incarnation == Some(head.incarnation) && self.known() <= head.offset;
        if fits {
            self.state = State::Refreshed(snapshot);
        }
        fits
    }

    /// The state could not be read: `call` is to read it after the wait that is returned.
    pub(crate) fn on_state_failed(&mut self, call: CallId) -> Duration {
        let wait = pause(self.tries);
        self.tries += 1;
        self.state = State::Refreshing(call);
        wait
    }

    /// Its stream fell too far behind and goes on from this state.
    pub(crate) fn on_resync(&mut self, snapshot: &ModuleSnapshot) {
        self.cursor = Some(cursor_of(snapshot));
        self.delivered = snapshot.head.offset;
    }

    /// Events from `first` to `last` of this incarnation came.
    pub(crate) fn on_delta(
        &mut self,
        incarnation: Incarnation,
        first: Offset,
        last: Offset,
    ) -> Delivery {
        let next = self
            .cursor
            .filter(|cursor| cursor.incarnation == incarnation)
            .map(|cursor| cursor.offset.next())
            .filter(|next| first <= *next);
        let Some(next) = next else {
            if self.listed {
                // Without a cursor the next refresh follows anew.
                self.cursor = None;
                return Delivery::Restart;
            }
            self.cursor = Some(Cursor { incarnation, offset: last });
            self.delivered = Offset(first.0.saturating_sub(1));
            return Delivery::AfterGap(first);
        };
        // A delta that came before, or in part, must not move the cursor back.
        let offset = last.max(Offset(next.0.saturating_sub(1)));
        self.cursor = Some(Cursor { incarnation, offset });
        Delivery::From(next)
    }

    /// Has its events sent from now on, also where only topics were fed from it. Returns whether
    /// they can be: else it has to be followed anew.
    pub(crate) fn send_events(&mut self) -> bool {
        if self.sends_events {
            return true;
        }
        let Some(cursor) = self.cursor else { return false };
        (self.sends_events, self.delivered) = (true, cursor.offset);
        true
    }

    /// Leaves the snapshots and sends no more events; topics are still fed. Returns whether its
    /// stream is to be opened now, as it waited at a barrier that will not be passed.
    pub(crate) fn release(&mut self) -> bool {
        (self.listed, self.sends_events) = (false, false);
        match self.state {
            State::Refreshing(_) | State::Refreshed(_) => {
                self.state = State::Live;
                false
            }
            State::Started(_) | State::Resumed(_) => {
                self.state = State::Live;
                true
            }
            State::Opening | State::Live => false,
        }
    }

    /// A snapshot is sent, or the word that modules go on: what it brings into it.
    pub(crate) fn pass_barrier(&mut self) -> Passage {
        match std::mem::replace(&mut self.state, State::Live) {
            State::Started(snapshot) => {
                self.delivered = snapshot.head.offset;
                Passage::Snapshot(snapshot, true)
            }
            State::Refreshed(snapshot) => {
                // The stream may be behind the state: what comes of it until then is not sent.
                self.delivered = snapshot.head.offset;
                Passage::Snapshot(snapshot, false)
            }
            State::Resumed(to) => {
                self.cursor.map_or(Passage::Nothing, |from| Passage::Resumed(from, to))
            }
            state @ (State::Opening | State::Refreshing(_) | State::Live) => {
                self.state = state;
                Passage::Nothing
            }
        }
    }
}

/// Why a log does not go on from a cursor, if it does not.
fn broken_by(from: Cursor, log: LogEnd) -> Option<ResyncReason> {
    if from.incarnation != log.incarnation {
        return Some(ResyncReason::OtherIncarnation);
    }
    if from.offset > log.last {
        return Some(ResyncReason::Ahead);
    }
    (!log.is_retained).then_some(ResyncReason::TooOld)
}

/// How long to wait before the next try.
pub(crate) fn pause(tries: u32) -> Duration {
    let wait = FOLLOW_AGAIN_AFTER.saturating_mul(1 << tries.min(16));
    wait.min(FOLLOW_AGAIN_AFTER_MAX)
}

/// Where a snapshot stands.
pub(crate) fn cursor_of(snapshot: &ModuleSnapshot) -> Cursor {
    Cursor { incarnation: snapshot.head.incarnation, offset: snapshot.head.offset }
}

#[cfg(test)]
mod tests;
