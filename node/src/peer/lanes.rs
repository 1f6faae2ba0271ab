//! Lanes: what waits to be written on one connection, by urgency.
//!
//! Promise: a turn takes the most urgent frames first, and at least one frame of every lane that
//! has any (the floor), so that the least urgent still moves; bulk messages are cut into pieces
//! that take turns. Every lane is bounded in frames and in bytes.
//! Refused: making heartbeats wait for company. A linearizable read confirms its leader on the
//! urgent lane, so a wait there is a wait of every read; idle nodes are cheap enough without it.
//! Refused: a frame for a full lane, at once. Answers are exempt up to twice the bound: how many
//! there can be is bounded where calls are taken in, by the permit they carry.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use raft::Priority;
use tokio::sync::{Notify, OwnedSemaphorePermit};

use super::frame::{Failure, Frame, Kind, lane_to_byte};
use crate::limits::{
    BULK_LANE_BYTES_MAX, BULK_PIECE_BYTES_MAX, CALL_LANE_BYTES_MAX, FEED_LANE_BYTES_MAX,
    LANE_FRAMES_MAX, LOG_LANE_BYTES_MAX, TURN_BYTES, URGENT_LANE_BYTES_MAX,
};

/// Bytes each lane may hold, most urgent first.
const LANE_BYTES_MAX: [usize; 5] = [
    URGENT_LANE_BYTES_MAX,
    LOG_LANE_BYTES_MAX,
    CALL_LANE_BYTES_MAX,
    FEED_LANE_BYTES_MAX,
    BULK_LANE_BYTES_MAX,
];

/// A message on its way out.
pub(super) struct Outgoing {
    pub(super) kind: Kind,
    pub(super) lane: Priority,
    pub(super) id: u64,
    /// When a call's caller gives up.
    pub(super) deadline: Option<Instant>,
    pub(super) payload: Bytes,
    /// An answer's place among the calls being served; free once the answer is written.
    pub(super) permit: Option<OwnedSemaphorePermit>,
    /// A large answer's part of the room for those; free once the answer is written.
    pub(super) room: Option<OwnedSemaphorePermit>,
}

/// What a message holds until its last piece is written: its permit and its room.
pub(super) type HeldPermits = [Option<OwnedSemaphorePermit>; 2];

impl Outgoing {
    /// A message without deadline and permit.
    pub(super) fn new(kind: Kind, lane: Priority, id: u64, payload: Bytes) -> Self {
        Self { kind, lane, id, deadline: None, payload, permit: None, room: None }
    }
}

/// Why a message was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotQueued {
    /// The lane is full.
    Full,
    /// The connection is closed.
    Closed,
}

/// The lanes of one connection. One writer takes; anybody puts.
pub(super) struct Lanes {
    state: Mutex<State>,
    waiting: Notify,
}

#[derive(Default)]
struct State {
    lanes: [Queue; 5],
    closed: bool,
}

#[derive(Default)]
struct Queue {
    messages: VecDeque<Outgoing>,
    bytes: usize,
}

impl Lanes {
    pub(super) fn new() -> Self {
        Self { state: Mutex::new(State::default()), waiting: Notify::new() }
    }

    /// Queues a message; never waits.
    pub(super) fn put(&self, mut message: Outgoing) -> Result<(), NotQueued> {
        let place = usize::from(lane_to_byte(message.lane));
        let mut state = self.state.lock();
        if state.closed {
            return Err(NotQueued::Closed);
        }
        let queue = &mut state.lanes[place];
        let full = queue.messages.len() >= LANE_FRAMES_MAX
            || queue.bytes + message.payload.len() > LANE_BYTES_MAX[place];
        if full && message.permit.is_none() {
            return Err(NotQueued::Full);
        }
        // A large answer has waited for its room.
        let is_too_much = queue.bytes + message.payload.len() > 2 * LANE_BYTES_MAX[place];
        if is_too_much && message.room.is_none() {
            message.kind = Kind::Failed;
            message.payload = Failure::Dropped.to_payload();
        }
        queue.bytes += message.payload.len();
        queue.messages.push_back(message);
        drop(state);
        self.waiting.notify_one();
        Ok(())
    }

    /// Waits until there is something to write and takes a turn's worth of it.
    pub(super) async fn take_turn(&self, turn: &mut Vec<(Frame, HeldPermits)>) {
        loop {
            self.state.lock().take_turn(turn);
            if !turn.is_empty() {
                return;
            }
            self.waiting.notified().await;
        }
    }

    /// Refuses everything from now on and gives back what was not written yet.
    pub(super) fn close(&self) -> Vec<Outgoing> {
        let mut state = self.state.lock();
        state.closed = true;
        state.lanes.iter_mut().flat_map(|queue| std::mem::take(queue).messages).collect()
    }
}

impl State {
    fn take_turn(&mut self, turn: &mut Vec<(Frame, HeldPermits)>) {
        let mut left = TURN_BYTES;
        for queue in &mut self.lanes {
            let mut is_first = true;
            while (is_first || left > 0)
                && let Some((frame, permits)) = queue.take_piece()
            {
                left = left.saturating_sub(frame.payload.len().max(1));
                turn.push((frame, permits));
                is_first = false;
            }
        }
    }
}

impl Queue {
    /// The next message, or a piece of it; the rest of a cut message goes to the back.
    fn take_piece(&mut self) -> Option<(Frame, HeldPermits)> {
        let mut message = self.messages.pop_front()?;
        let mut frame = Frame {
            kind: message.kind,
            lane: message.lane,
            more: false,
            id: message.id,
            remaining_ms: remaining_ms(message.deadline),
            payload: Bytes::new(),
        };
        if message.lane == Priority::Bulk && message.payload.len() > BULK_PIECE_BYTES_MAX {
            frame.payload = message.payload.split_to(BULK_PIECE_BYTES_MAX);
            frame.more = true;
            self.bytes -= frame.payload.len();
            self.messages.push_back(message);
            return Some((frame, [None, None]));
        }
        self.bytes -= message.payload.len();
        frame.payload = message.payload;
        Some((frame, [message.permit, message.room]))
    }
}

/// What is left until a deadline, in milliseconds; 0 when it has passed, or where there is none.
fn remaining_ms(deadline: Option<Instant>) -> u32 {
    let Some(deadline) = deadline else { return 0 };
    let left = deadline.saturating_duration_since(Instant::now());
    u32::try_from(left.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;

    fn message(lane: Priority, id: u64, bytes: usize) -> Outgoing {
        Outgoing::new(Kind::Cast, lane, id, Bytes::from(vec![0; bytes]))
    }

    async fn turn(lanes: &Lanes) -> Vec<(Priority, u64, bool)> {
        let mut turn = Vec::new();
        lanes.take_turn(&mut turn).await;
        turn.iter().map(|(frame, _)| (frame.lane, frame.id, frame.more)).collect()
    }

    #[tokio::test]
    async fn the_most_urgent_goes_first_and_the_least_urgent_still_moves() {
        let lanes = Lanes::new();
        for id in 0..3 {
            lanes.put(message(Priority::Feed, id, 10)).unwrap();
            lanes.put(message(Priority::Log, id, TURN_BYTES)).unwrap();
        }
        lanes.put(message(Priority::Urgent, 9, 10)).unwrap();
        assert_eq!(
            turn(&lanes).await,
            [(Priority::Urgent, 9, false), (Priority::Log, 0, false), (Priority::Feed, 0, false)]
        );
        assert_eq!(turn(&lanes).await, [(Priority::Log, 1, false), (Priority::Feed, 1, false)]);
    }

    #[tokio::test]
    async fn bulk_messages_are_cut_and_take_turns() {
        let lanes = Lanes::new();
        lanes.put(message(Priority::Bulk, 1, 2 * BULK_PIECE_BYTES_MAX + 1)).unwrap();
        lanes.put(message(Priority::Bulk, 2, 5)).unwrap();
        assert_eq!(turn(&lanes).await, [(Priority::Bulk, 1, true)]);
        assert_eq!(turn(&lanes).await, [(Priority::Bulk, 2, false), (Priority::Bulk, 1, true)]);
        assert_eq!(turn(&lanes).await, [(Priority::Bulk, 1, false)]);
    }

    #[test]
    fn a_full_lane_refuses_but_has_room_for_answers() {
        let lanes = Lanes::new();
        for id in 0..LANE_FRAMES_MAX as u64 {
            lanes.put(message(Priority::Call, id, 1)).unwrap();
        }
        assert_eq!(lanes.put(message(Priority::Call, 0, 1)), Err(NotQueued::Full));
        assert_eq!(lanes.put(message(Priority::Feed, 0, 1)), Ok(()), "lanes are full one by one");
        assert_eq!(
            lanes.put(message(Priority::Feed, 0, FEED_LANE_BYTES_MAX)),
            Err(NotQueued::Full),
            "full by bytes"
        );
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().ok();
        let answer = Outgoing { permit, ..message(Priority::Call, 0, 1) };
        assert_eq!(lanes.put(answer), Ok(()));
        assert_eq!(lanes.close().len(), LANE_FRAMES_MAX + 2);
        assert_eq!(lanes.put(message(Priority::Log, 0, 1)), Err(NotQueued::Closed));
    }
}
