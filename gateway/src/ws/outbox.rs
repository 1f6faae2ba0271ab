//! Outbox: what has yet to be written to one socket, bounded by count and bytes.
//!
//! Promise: frames leave in the order they came, and one leaves only when the sink took it.
//! When it has no room, its owner stops what fills it; what is already under way still fits, so
//! nothing is ever thrown away.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::extract::ws::{Message, Utf8Bytes};
use futures::Sink;
use model::mutant::{self, Mutant};

use crate::limits::SLOWEST_BYTES_PER_SECOND;
use crate::metrics::{Channel, Counters};

/// What has yet to be written.
pub(crate) struct Outbox {
    frames: VecDeque<(Message, Channel)>,
    /// Of the frames that are no snapshots.
    bytes: usize,
    snapshots: usize,
    frames_max: usize,
    bytes_max: usize,
    /// Whether the sink holds something that may not have reached the system.
    unflushed: bool,
    /// The largest frame the sink may hold.
    in_sink: usize,
    /// When the sink last took a frame or had nothing left.
    moved: Instant,
}

impl Outbox {
    pub(crate) fn new(frames_max: usize, bytes_max: usize) -> Self {
        Self {
            frames: VecDeque::new(),
            bytes: 0,
            snapshots: 0,
            frames_max,
            bytes_max,
            unflushed: false,
            in_sink: 0,
            moved: Instant::now(),
        }
    }

    /// Adds a text frame; an empty one is none.
    pub(crate) fn push(&mut self, frame: Utf8Bytes, channel: Channel) {
        let lost = mutant::is(Mutant::DropEventWhenQueueFull)
            && channel == Channel::Event
            && self.is_full();
        if !frame.is_empty() && !lost {
            self.add(Message::Text(frame), channel);
        }
    }

    /// Adds a protocol ping.
    pub(crate) fn ping(&mut self) {
        self.add(Message::Ping(bytes::Bytes::new()), Channel::Control);
    }

    fn add(&mut self, frame: Message, channel: Channel) {
        if !self.has_work() {
            self.moved = Instant::now();
        }
        if channel == Channel::Snapshot {
            self.snapshots += 1;
        } else {
            self.bytes += length(&frame);
        }
        self.frames.push_back((frame, channel));
        if mutant::is(Mutant::ReorderTwoEvents)
            && let [.., earlier @ (_, Channel::Event), later @ (_, Channel::Event)] =
                self.frames.make_contiguous()
        {
            std::mem::swap(earlier, later);
        }
    }

    /// Whether more may be asked for.
    pub(crate) fn has_room(&self) -> bool {
        !self.is_full() || mutant::is(Mutant::DropEventWhenQueueFull)
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
        self.unflushed || !self.frames.is_empty()
    }

    /// When this socket counts as stalled, unless it takes something before.
    pub(crate) fn stalls_at(&self, patience: Duration) -> Option<Instant> {
        let for_size = Duration::from_secs(self.in_sink as u64 / SLOWEST_BYTES_PER_SECOND);
        self.has_work().then(|| self.moved + patience + for_size)
    }

    /// Gives the sink all it takes and flushes once. Cancel-safe.
    pub(crate) fn poll_write<S, E>(
        &mut self,
        mut sink: Pin<&mut S>,
        counters: &Counters,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), E>>
    where
        S: Sink<Message, Error = E>,
    {
        while !self.frames.is_empty() {
            ready!(sink.as_mut().poll_ready(context))?;
            let Some((frame, channel)) = self.frames.pop_front() else { break };
            let size = length(&frame);
            if channel == Channel::Snapshot {
                self.snapshots -= 1;
            } else {
                self.bytes -= size;
            }
            counters.frame(channel, size);
            sink.as_mut().start_send(frame)?;
            (self.unflushed, self.in_sink, self.moved) = (true, size, Instant::now());
        }
        ready!(sink.poll_flush(context))?;
        (self.unflushed, self.in_sink, self.moved) = (false, 0, Instant::now());
        Poll::Ready(Ok(()))
    }
}

fn length(frame: &Message) -> usize {
    match frame {
        Message::Text(text) => text.len(),
        Message::Binary(bytes) | Message::Ping(bytes) | Message::Pong(bytes) => bytes.len(),
        Message::Close(_) => 0,
    }
}

#[cfg(test)]
mod tests {
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

    fn write(outbox: &mut Outbox, sink: &mut Narrow) -> Poll<Result<(), ()>> {
        let counters = Counters::new(false, false);
        let mut context = Context::from_waker(noop_waker_ref());
        outbox.poll_write(Pin::new(sink), &counters, &mut context)
    }

    #[test]
    fn what_the_sink_does_not_take_stays_and_keeps_its_order() {
        let mut outbox = Outbox::new(3, 100);
        for frame in ["a", "b", "c"] {
            assert!(outbox.has_room());
            outbox.push(frame.into(), Channel::Event);
        }
        assert!(!outbox.has_room());
        let mut sink = Narrow { takes: 2, taken: Vec::new() };
        assert!(write(&mut outbox, &mut sink).is_pending());
        assert!(outbox.has_room() && outbox.has_work());
        sink.takes = 5;
        assert!(write(&mut outbox, &mut sink).is_ready());
        assert_eq!(sink.taken, ["a", "b", "c"]);
        assert!(!outbox.has_work());
    }

    #[test]
    fn bytes_bound_it_too_but_a_snapshot_counts_apart() {
        let mut outbox = Outbox::new(100, 10);
        outbox.push("a snapshot of twenty..".into(), Channel::Snapshot);
        assert!(outbox.has_room() && outbox.has_snapshot());
        outbox.push("ten bytes!".into(), Channel::Event);
        assert!(!outbox.has_room());
        outbox.push("".into(), Channel::Event);
        assert_eq!(outbox.frames.len(), 2);
    }

    #[test]
    fn a_large_frame_is_given_more_time() {
        let mut outbox = Outbox::new(10, 10);
        let patience = Duration::from_secs(30);
        assert_eq!(outbox.stalls_at(patience), None);
        outbox.push("a".into(), Channel::Event);
        let small = outbox.stalls_at(patience).unwrap();
        outbox.in_sink = 1024 * 1024;
        assert_eq!(outbox.stalls_at(patience).unwrap() - small, Duration::from_secs(64));
    }
}
