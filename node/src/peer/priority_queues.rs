//! Priority queues: what waits to be written on one connection, by urgency.
//!
//! Promise: a write batch takes the most urgent frames first, and at least one of every queue that
//! has any (the floor), so that the least urgent still moves; bulk messages are cut into pieces
//! that take turns. Every queue is bounded in frames and in bytes.
//! Refused: making heartbeats wait for company. A linearizable read confirms its leader on the
//! urgent queue, so a wait there is a wait of every read; idle nodes are cheap enough without it.
//! Refused: a frame for a full queue, at once. Answers are exempt up to twice the bound: how many
//! there can be is bounded where calls are taken in, by the permit they carry.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use raft::Priority;
use tokio::sync::{Notify, OwnedSemaphorePermit};

use super::frame::{CallFailure, PeerFrame, PeerFrameKind, priority_to_byte};
use crate::limits::{
    BULK_PIECE_BYTES_MAX, BULK_QUEUE_BYTES_MAX, CALL_QUEUE_BYTES_MAX, FEED_QUEUE_BYTES_MAX,
    LOG_QUEUE_BYTES_MAX, QUEUE_FRAMES_MAX, URGENT_QUEUE_BYTES_MAX, WRITE_BATCH_BYTES,
};

/// Bytes each queue may hold, most urgent first.
const QUEUE_BYTES_MAX: [usize; 5] = [
    URGENT_QUEUE_BYTES_MAX,
    LOG_QUEUE_BYTES_MAX,
    CALL_QUEUE_BYTES_MAX,
    FEED_QUEUE_BYTES_MAX,
    BULK_QUEUE_BYTES_MAX,
];

/// A message on its way out.
pub(super) struct Outgoing {
    pub(super) kind: PeerFrameKind,
    pub(super) priority: Priority,
    pub(super) id: u64,
    /// When a call's caller gives up.
    pub(super) deadline: Option<Instant>,
    pub(super) payload: Bytes,
    /// An answer's place among the calls being served; free once the answer is written.
    pub(super) permit: Option<OwnedSemaphorePermit>,
    /// A large answer's part of the budget for those; free once the answer is written.
    pub(super) budget: Option<OwnedSemaphorePermit>,
}

/// What a message holds until its last piece is written: its permit and its part of the budget.
pub(super) type HeldPermits = [Option<OwnedSemaphorePermit>; 2];

impl Outgoing {
    /// A message without deadline and permit.
    pub(super) fn new(kind: PeerFrameKind, priority: Priority, id: u64, payload: Bytes) -> Self {
        Self { kind, priority, id, deadline: None, payload, permit: None, budget: None }
    }
}

/// Why a message was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QueueError {
    /// The queue is full.
    Full,
    /// The connection is closed.
    Closed,
}

/// The priority_queues of one connection. One writer takes; anybody puts.
pub(super) struct PriorityQueues {
    state: Mutex<State>,
    not_empty: Notify,
}

#[derive(Default)]
struct State {
    priority_queues: [PriorityQueue; 5],
    closed: bool,
}

#[derive(Default)]
struct PriorityQueue {
    messages: VecDeque<Outgoing>,
    bytes: usize,
}

impl PriorityQueues {
    pub(super) fn new() -> Self {
        Self { state: Mutex::new(State::default()), not_empty: Notify::new() }
    }

    /// Queues a message; never waits.
    pub(super) fn put(&self, mut message: Outgoing) -> Result<(), QueueError> {
        let place = usize::from(priority_to_byte(message.priority));
        let mut state = self.state.lock();
        if state.closed {
            return Err(QueueError::Closed);
        }
        let queue = &mut state.priority_queues[place];
        let full = queue.messages.len() >= QUEUE_FRAMES_MAX
            || queue.bytes + message.payload.len() > QUEUE_BYTES_MAX[place];
        // An answer's permit was given when its call was taken in: that is where it is bounded.
        if full && message.permit.is_none() {
            return Err(QueueError::Full);
        }
        // A large answer has waited for its part of the budget, so it is never too much here.
        let is_too_much = queue.bytes + message.payload.len() > 2 * QUEUE_BYTES_MAX[place];
        if is_too_much && message.budget.is_none() {
            message.kind = PeerFrameKind::Failed;
            message.payload = CallFailure::Dropped.to_payload();
        }
        queue.bytes += message.payload.len();
        queue.messages.push_back(message);
        drop(state);
        // A notification that nobody waits for is kept, so the writer, which looks first and waits
        // after, misses none.
        self.not_empty.notify_one();
        Ok(())
    }

    /// Waits until there is something to write and takes a batch of it.
    pub(super) async fn take_batch(&self, batch: &mut Vec<(PeerFrame, HeldPermits)>) {
        loop {
            self.state.lock().take_batch(batch);
            if !batch.is_empty() {
                return;
            }
            self.not_empty.notified().await;
        }
    }

    /// Refuses everything from now on and gives back what was not written yet.
    pub(super) fn close(&self) -> Vec<Outgoing> {
        let mut state = self.state.lock();
        state.closed = true;
        state.priority_queues.iter_mut().flat_map(|queue| std::mem::take(queue).messages).collect()
    }
}

impl State {
    fn take_batch(&mut self, batch: &mut Vec<(PeerFrame, HeldPermits)>) {
        let mut left = WRITE_BATCH_BYTES;
        for queue in &mut self.priority_queues {
            // The floor: one frame even where more urgent queues used the batch up.
            let mut is_first = true;
            while (is_first || left > 0)
                && let Some((frame, permits)) = queue.take_piece()
            {
                left = left.saturating_sub(frame.payload.len().max(1));
                batch.push((frame, permits));
                is_first = false;
            }
        }
    }
}

impl PriorityQueue {
    /// The next message, or a piece of it; the rest of a cut message goes to the back.
    fn take_piece(&mut self) -> Option<(PeerFrame, HeldPermits)> {
        let mut message = self.messages.pop_front()?;
        let mut frame = PeerFrame {
            kind: message.kind,
            priority: message.priority,
            more: false,
            id: message.id,
            remaining_ms: remaining_ms(message.deadline),
            payload: Bytes::new(),
        };
        if message.priority == Priority::Bulk && message.payload.len() > BULK_PIECE_BYTES_MAX {
            frame.payload = message.payload.split_to(BULK_PIECE_BYTES_MAX);
            frame.more = true;
            self.bytes -= frame.payload.len();
            // The permits stay with the rest: they are free when the last piece is written.
            self.messages.push_back(message);
            return Some((frame, [None, None]));
        }
        self.bytes -= message.payload.len();
        frame.payload = message.payload;
        Some((frame, [message.permit, message.budget]))
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

    fn message(priority: Priority, id: u64, bytes: usize) -> Outgoing {
        Outgoing::new(PeerFrameKind::Cast, priority, id, Bytes::from(vec![0; bytes]))
    }

    async fn batch(priority_queues: &PriorityQueues) -> Vec<(Priority, u64, bool)> {
        let mut batch = Vec::new();
        priority_queues.take_batch(&mut batch).await;
        batch.iter().map(|(frame, _)| (frame.priority, frame.id, frame.more)).collect()
    }

    #[tokio::test]
    async fn the_most_urgent_goes_first_and_the_least_urgent_still_moves() {
        let priority_queues = PriorityQueues::new();
        for id in 0..3 {
            priority_queues.put(message(Priority::Feed, id, 10)).unwrap();
            priority_queues.put(message(Priority::Log, id, WRITE_BATCH_BYTES)).unwrap();
        }
        priority_queues.put(message(Priority::Urgent, 9, 10)).unwrap();
        assert_eq!(
            batch(&priority_queues).await,
            [(Priority::Urgent, 9, false), (Priority::Log, 0, false), (Priority::Feed, 0, false)]
        );
        assert_eq!(
            batch(&priority_queues).await,
            [(Priority::Log, 1, false), (Priority::Feed, 1, false)]
        );
    }

    #[tokio::test]
    async fn bulk_messages_are_cut_and_take_turns() {
        let priority_queues = PriorityQueues::new();
        priority_queues.put(message(Priority::Bulk, 1, 2 * BULK_PIECE_BYTES_MAX + 1)).unwrap();
        priority_queues.put(message(Priority::Bulk, 2, 5)).unwrap();
        assert_eq!(batch(&priority_queues).await, [(Priority::Bulk, 1, true)]);
        assert_eq!(
            batch(&priority_queues).await,
            [(Priority::Bulk, 2, false), (Priority::Bulk, 1, true)]
        );
        assert_eq!(batch(&priority_queues).await, [(Priority::Bulk, 1, false)]);
    }

    #[test]
    fn a_full_lane_refuses_but_has_room_for_answers() {
        let priority_queues = PriorityQueues::new();
        for id in 0..QUEUE_FRAMES_MAX as u64 {
            priority_queues.put(message(Priority::Call, id, 1)).unwrap();
        }
        assert_eq!(priority_queues.put(message(Priority::Call, 0, 1)), Err(QueueError::Full));
        assert_eq!(
            priority_queues.put(message(Priority::Feed, 0, 1)),
            Ok(()),
            "each queue is full by itself"
        );
        assert_eq!(
            priority_queues.put(message(Priority::Feed, 0, FEED_QUEUE_BYTES_MAX)),
            Err(QueueError::Full),
            "full by bytes"
        );
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().ok();
        let answer = Outgoing { permit, ..message(Priority::Call, 0, 1) };
        assert_eq!(priority_queues.put(answer), Ok(()));
        assert_eq!(priority_queues.close().len(), QUEUE_FRAMES_MAX + 2);
        assert_eq!(priority_queues.put(message(Priority::Log, 0, 1)), Err(QueueError::Closed));
    }
}
