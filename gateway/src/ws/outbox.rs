//! Outbox: what has yet to be written to one socket, bounded by count and bytes.
//!
//! Promise: frames leave in the order they came, and one leaves only when the sink took it. A large
//! snapshot is one message in many frames, each written when the sink takes it; no other message
//! comes between them, pings and pongs may.
//! When it has no room, its owner stops what fills it; what is already under way still fits, so
//! nothing is ever thrown away. While the sockets of the node hold more memory than is theirs, one
//! that has anything to write has no room.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use actors::HeldMemory;
use futures::Sink;
use model::mutant::{self, Mutant};
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use crate::error::{ApiError, Problem};
use crate::limits::{PIECE_BYTES, PIECES_A_TURN, SLOWEST_BYTES_PER_SECOND};
use crate::metrics::{Counters, FrameKind};
use crate::render::Pieces;

/// What is to be sent.
enum OutboxItem {
    Frame(Message),
    /// One message in pieces, and whether its first frame is gone.
    Pieces(Box<Pieces>, bool),
}

impl OutboxItem {
    /// What it takes of memory. A message in pieces is written as it is taken.
    fn bytes(&self) -> usize {
        match self {
            Self::Frame(frame) => frame.len(),
            Self::Pieces(..) => PIECE_BYTES,
        }
    }
}

/// What has yet to be written.
pub(crate) struct Outbox {
    frames: VecDeque<(OutboxItem, FrameKind)>,
    /// Pings: they go before the frames, also between the pieces of one message.
    pings: usize,
    /// Of the frames that are no snapshots.
    bytes: usize,
    snapshots: usize,
    /// Of the snapshots that are written as a whole.
    snapshot_bytes: usize,
    /// Counts what this socket takes of the node's memory.
    held: HeldMemory,
    /// What of it is not the outbox's.
    own_bytes: u64,
    frames_max: usize,
    bytes_max: usize,
    /// Whether the sink holds something that may not have reached the system.
    unflushed: bool,
    /// The largest frame the sink may hold.
    in_sink: usize,
    /// When the sink last took a frame or had nothing left.
    progressed_at: Instant,
}

impl Outbox {
    /// For a socket whose memory is counted by `held`, so far without frames.
    pub(crate) fn new(frames_max: usize, bytes_max: usize, held: HeldMemory) -> Self {
        Self {
            own_bytes: held.bytes(),
            held,
            snapshot_bytes: 0,
            frames: VecDeque::new(),
            pings: 0,
            bytes: 0,
            snapshots: 0,
            frames_max,
            bytes_max,
            unflushed: false,
            in_sink: 0,
            progressed_at: Instant::now(),
        }
    }

    /// Adds a text frame; an empty one is none.
    pub(crate) fn push(&mut self, frame: Utf8Bytes, kind: FrameKind) {
        let lost = mutant::is(Mutant::DropEventWhenQueueFull)
            && kind == FrameKind::Event
            && self.is_full();
        if !frame.is_empty() && !lost {
            self.add(OutboxItem::Frame(Message::Text(frame)), kind);
        }
    }

    /// Adds a message that is written piece by piece; it counts as a snapshot.
    pub(crate) fn push_pieces(&mut self, pieces: Box<Pieces>) {
        self.add(OutboxItem::Pieces(pieces, false), FrameKind::Snapshot);
    }

    /// Adds a protocol ping.
    pub(crate) fn ping(&mut self) {
        if !self.has_work() {
            // A sink that had nothing to take did not stall: its time begins with this ping.
            self.progressed_at = Instant::now();
        }
        // Two that wait would say no more than one.
        self.pings = 1;
    }

    fn add(&mut self, item: OutboxItem, kind: FrameKind) {
        if !self.has_work() {
            // As for a ping: the time before the first frame is not the client's.
            self.progressed_at = Instant::now();
        }
        if kind == FrameKind::Snapshot {
            // Not counted by its bytes, which may be more than the bound: `has_snapshot` holds
            // others back.
            self.snapshots += 1;
            self.snapshot_bytes += item.bytes();
        } else {
            self.bytes += item.bytes();
        }
        self.frames.push_back((item, kind));
        self.count();
        if mutant::is(Mutant::ReorderTwoEvents)
            && let [.., earlier @ (_, FrameKind::Event), later @ (_, FrameKind::Event)] =
                self.frames.make_contiguous()
        {
            std::mem::swap(earlier, later);
        }
    }

    /// States what this socket takes of memory. A frame that others send too counts for each.
    fn count(&mut self) {
        let frames = self.bytes + self.snapshot_bytes + self.in_sink;
        self.held.set(self.own_bytes + frames as u64);
    }

    /// Whether more may be asked for.
    pub(crate) fn accepts_more(&self) -> bool {
        // One frame each, so that every socket goes on whatever the others hold.
        let is_allowed = self.frames.is_empty() || !self.held.is_over();
        (is_allowed && !self.is_full()) || mutant::is(Mutant::DropEventWhenQueueFull)
    }

    fn is_full(&self) -> bool {
        self.frames.len() >= self.frames_max || self.bytes >= self.bytes_max
    }

    /// Whether a snapshot waits: nobody is asked for more before it is under way.
    pub(crate) fn has_snapshot(&self) -> bool {
        self.snapshots > 0
    }

    /// Whether there is anything to write or to flush.
    pub(crate) fn has_work(&self) -> bool {
        self.unflushed || self.pings > 0 || !self.frames.is_empty()
    }

    /// When this socket counts as stalled, unless it takes something before.
    pub(crate) fn stalls_at(&self, stall_max: Duration) -> Option<Instant> {
        let for_size = Duration::from_secs(self.in_sink as u64 / SLOWEST_BYTES_PER_SECOND);
        self.has_work().then(|| self.progressed_at + stall_max + for_size)
    }

    /// Gives the sink all it takes and flushes once. Cancel-safe.
    pub(crate) fn poll_write<S, E>(
        &mut self,
        mut sink: Pin<&mut S>,
        counters: &Counters,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), WriteError<E>>>
    where
        S: Sink<Message, Error = E>,
    {
        let mut pieces = 0;
        while self.pings > 0 || !self.frames.is_empty() {
            // Asked before a frame leaves the queue: one that was taken and not sent would be lost.
            ready!(sink.as_mut().poll_ready(context)).map_err(WriteError::Sink)?;
            // Writing a piece takes a while: others of this thread have their turn in between.
            if pieces == PIECES_A_TURN {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let Some(frame) = self.next(counters).map_err(|_| WriteError::Defect)? else { break };
            pieces += usize::from(matches!(frame, Message::Frame(_)));
            let size = frame.len();
            sink.as_mut().start_send(frame).map_err(WriteError::Sink)?;
            (self.unflushed, self.in_sink, self.progressed_at) = (true, size, Instant::now());
            self.count();
        }
        // Until the flush is through the client may still be too slow to take what the sink holds.
        ready!(sink.poll_flush(context)).map_err(WriteError::Sink)?;
        (self.unflushed, self.in_sink, self.progressed_at) = (false, 0, Instant::now());
        self.count();
        Poll::Ready(Ok(()))
    }

    /// The frame to be sent next.
    fn next(&mut self, counters: &Counters) -> Result<Option<Message>, ApiError> {
        if self.pings > 0 {
            self.pings = 0;
            counters.frame(FrameKind::Control, 0);
            return Ok(Some(Message::Ping(bytes::Bytes::new())));
        }
        if let Some((OutboxItem::Pieces(pieces, has_begun), kind)) = self.frames.front_mut() {
            let Some((piece, is_last)) = pieces.next()? else {
                return Err(ApiError::new(Problem::Defect, "a snapshot ended before its end"));
            };
            // Between the first and the last frame of a message all others continue it.
            let data = if std::mem::replace(has_begun, true) { Data::Continue } else { Data::Text };
            counters.piece(*kind, piece.len(), is_last);
            if is_last {
                self.frames.pop_front();
                self.snapshots -= 1;
                self.snapshot_bytes -= PIECE_BYTES;
            }
            return Ok(Some(Message::Frame(Frame::message(piece, OpCode::Data(data), is_last))));
        }
        let Some((OutboxItem::Frame(frame), kind)) = self.frames.pop_front() else {
            return Ok(None);
        };
        if kind == FrameKind::Snapshot {
            self.snapshots -= 1;
            self.snapshot_bytes -= frame.len();
        } else {
            self.bytes -= frame.len();
        }
        counters.frame(kind, frame.len());
        Ok(Some(frame))
    }
}

/// Why nothing more can be written.
#[derive(Debug)]
pub(crate) enum WriteError<E> {
    /// The connection is gone.
    Sink(E),
    /// A message that has begun cannot be finished.
    Defect,
}

#[cfg(test)]
mod tests {
    use actors::{Memory, MemoryClass};
    use futures::task::noop_waker_ref;

    use super::*;

    /// A sink that takes so many frames, then no more.
    struct Narrow {
        takes: usize,
        taken: Vec<String>,
    }

    impl Sink<Message> for Narrow {
        type Error = ();

        fn poll_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), ()>> {
            if self.takes > 0 { Poll::Ready(Ok(())) } else { Poll::Pending }
        }

        fn start_send(mut self: Pin<&mut Self>, frame: Message) -> Result<(), ()> {
            self.takes -= 1;
            self.taken.push(frame.to_text().unwrap().to_owned());
            Ok(())
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), ()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), ()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn write(outbox: &mut Outbox, sink: &mut Narrow) -> Poll<Result<(), WriteError<()>>> {
        let counters = Counters::new(false, false);
        let mut context = Context::from_waker(noop_waker_ref());
        outbox.poll_write(Pin::new(sink), &counters, &mut context)
    }

    fn outbox(frames_max: usize, bytes_max: usize) -> Outbox {
        Outbox::new(frames_max, bytes_max, Memory::unlimited().hold(MemoryClass::Sockets, 0))
    }

    #[test]
    fn what_waits_is_counted_and_a_full_node_lets_one_frame_wait() {
        let memory = Memory::new(100_000);
        let others = memory.hold(MemoryClass::Sockets, memory.share(MemoryClass::Sockets));
        let mut outbox = Outbox::new(10, 1000, memory.hold(MemoryClass::Sockets, 7));
        assert!(outbox.accepts_more(), "one that has nothing to write goes on");
        outbox.push("event".into(), FrameKind::Event);
        outbox.push("snapshot".into(), FrameKind::Snapshot);
        assert!(!outbox.accepts_more());
        drop(others);
        assert!(outbox.accepts_more());
        assert_eq!(memory.held(MemoryClass::Sockets), 7 + 5 + 8);
        assert!(write(&mut outbox, &mut Narrow { takes: 1, taken: Vec::new() }).is_pending());
        assert_eq!(memory.held(MemoryClass::Sockets), 7 + 8 + 5, "the sink has the first");
        assert!(write(&mut outbox, &mut Narrow { takes: 5, taken: Vec::new() }).is_ready());
        assert_eq!(memory.held(MemoryClass::Sockets), 7);
        outbox.push("event".into(), FrameKind::Event);
        drop(outbox);
        assert_eq!(memory.held(MemoryClass::Sockets), 0);
    }

    #[test]
    fn what_the_sink_does_not_take_stays_and_keeps_its_order() {
        let mut outbox = outbox(3, 100);
        for frame in ["a", "b", "c"] {
            assert!(outbox.accepts_more());
            outbox.push(frame.into(), FrameKind::Event);
        }
        assert!(!outbox.accepts_more());
        let mut sink = Narrow { takes: 2, taken: Vec::new() };
        assert!(write(&mut outbox, &mut sink).is_pending());
        assert!(outbox.accepts_more() && outbox.has_work());
        sink.takes = 5;
        assert!(write(&mut outbox, &mut sink).is_ready());
        assert_eq!(sink.taken, ["a", "b", "c"]);
        assert!(!outbox.has_work());
    }

    #[test]
    fn bytes_bound_it_too_but_a_snapshot_counts_apart() {
        let mut outbox = outbox(100, 10);
        outbox.push("a snapshot of twenty..".into(), FrameKind::Snapshot);
        assert!(outbox.accepts_more() && outbox.has_snapshot());
        outbox.push("ten bytes!".into(), FrameKind::Event);
        assert!(!outbox.accepts_more());
        outbox.push("".into(), FrameKind::Event);
        assert_eq!(outbox.frames.len(), 2);
    }

    #[test]
    fn a_large_frame_is_given_more_time() {
        let mut outbox = outbox(10, 10);
        let stall_max = Duration::from_secs(30);
        assert_eq!(outbox.stalls_at(stall_max), None);
        outbox.push("a".into(), FrameKind::Event);
        let small = outbox.stalls_at(stall_max).unwrap();
        outbox.in_sink = 1024 * 1024;
        assert_eq!(outbox.stalls_at(stall_max).unwrap() - small, Duration::from_secs(64));
    }
}
