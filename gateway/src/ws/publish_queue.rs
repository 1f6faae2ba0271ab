//! PublishQueue: the publishes of one socket, one queue for each branch:module.
//!
//! A publish is anything that changes a module: one mutation, a batch, or a post under a sync
//! topic. Promise: in a queue one publish is decided before the next is submitted, so nothing
//! overtakes; each accepted publish is acknowledged once, before its event: by whichever comes
//! first, its outcome or its event in the stream. An event is committed, so it may speak for the
//! outcome.

use std::collections::{BTreeMap, VecDeque};

use std::sync::Arc;

use model::{BranchKey, Command, CommandId, Event, Object, Value};

use crate::limits::{PUBLISH_BYTES_WAITING_MAX, PUBLISHES_WAITING_MAX, UNKNOWN_OUTCOMES_MAX};

/// How a publish is answered.
#[derive(Clone)]
pub(crate) enum ReplyKind {
    /// `server:ack`.
    Ack,
    /// `server:batch:ack`.
    Batch,
    /// Not at all: what was posted is said under its topics.
    Post(Arc<SyncPost>),
}

/// What a client posted under a sync topic.
pub(crate) struct SyncPost {
    pub(crate) topic: String,
    /// The module it was taken for.
    pub(crate) key: BranchKey,
    pub(crate) trans: String,
    /// What it said, without the snapshot.
    pub(crate) data: Object,
}

/// A publish that is to be answered.
#[derive(Clone)]
pub(crate) struct PendingReply {
    /// How the client will recognise the answer.
    pub(crate) request_id: Option<Value>,
    pub(crate) reply: ReplyKind,
}

impl PendingReply {
    /// Whether these events of its command are enough to answer with.
    fn is_answered_by(&self, events: &[Arc<Event>]) -> bool {
        let whole = |count: u32| usize::try_from(count).is_ok_and(|count| count == events.len());
        match self.reply {
            ReplyKind::Ack => true,
            ReplyKind::Batch => {
                let part = events.first().and_then(|event| event.part);
                part.is_none_or(|part| whole(part.count))
            }
            ReplyKind::Post(_) => false,
        }
    }
}

/// A publish that waits for those before it.
pub(crate) struct QueuedPublish {
    pub(crate) command: Command,
    pub(crate) pending: PendingReply,
    /// What it took as it was sent.
    pub(crate) bytes: usize,
}

/// A publish that is being decided.
pub(crate) struct InFlight {
    pub(crate) id: CommandId,
    pub(crate) pending: PendingReply,
    /// Whether its event came first and it was acknowledged with it.
    pub(crate) acknowledged: bool,
    /// What it took as it was sent.
    bytes: usize,
}

#[derive(Default)]
struct PublishQueue {
    queued: VecDeque<QueuedPublish>,
    in_flight: Option<InFlight>,
}

/// The queues of a socket.
#[derive(Default)]
pub(crate) struct PublishQueues {
    by_module: BTreeMap<BranchKey, PublishQueue>,
    count: usize,
    bytes: usize,
    /// Publishes whose outcome the client was told is unknown: their event acknowledges them.
    unknown: VecDeque<(CommandId, PendingReply)>,
}

impl PublishQueues {
    /// Adds a publish to its queue.
    pub(crate) fn add(&mut self, queued: QueuedPublish) {
        self.count += 1;
        self.bytes += queued.bytes;
        self.by_module.entry(queued.command.key.clone()).or_default().queued.push_back(queued);
    }

    /// What publishes took as they were sent that have no outcome yet, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let in_flight = self.by_module.values().filter_map(|queue| queue.in_flight.as_ref());
        self.bytes + in_flight.map(|in_flight| in_flight.bytes).sum::<usize>()
    }

    /// The publishes whose turn it is.
    pub(crate) fn next_commands(&mut self, may: impl Fn(&BranchKey) -> bool) -> Vec<Command> {
        let mut commands = Vec::new();
        for (key, queue) in &mut self.by_module {
            if queue.in_flight.is_some() || !may(key) {
                continue;
            }
            if let Some(QueuedPublish { command, pending, bytes }) = queue.queued.pop_front() {
                // From here on it does not count as waiting: the limits are for what is not
                // submitted yet.
                let id = command.id.clone();
                queue.in_flight = Some(InFlight { id, pending, acknowledged: false, bytes });
                (self.count, self.bytes) = (self.count - 1, self.bytes - bytes);
                commands.push(command);
            }
        }
        commands
    }

    /// The answer that must precede these events of one command, if there is one.
    pub(crate) fn take_reply(
        &mut self,
        key: &BranchKey,
        events: &[Arc<Event>],
    ) -> Option<PendingReply> {
        let id = &events.first()?.command;
        let unknown = self.unknown.iter();
        let place = unknown
            .clone()
            .position(|(unknown, pending)| unknown == id && pending.is_answered_by(events));
        if let Some(place) = place {
            return self.unknown.remove(place).map(|(_, pending)| pending);
        }
        let in_flight = self.by_module.get_mut(key)?.in_flight.as_mut()?;
        // Marked and not removed: its outcome still comes, and must not be answered a second time.
        let is_due = in_flight.id == *id && !in_flight.acknowledged;
        if !is_due || !in_flight.pending.is_answered_by(events) {
            return None;
        }
        in_flight.acknowledged = true;
        Some(in_flight.pending.clone())
    }

    /// The publish of a queue is decided.
    pub(crate) fn complete(&mut self, key: &BranchKey) -> Option<InFlight> {
        let queue = self.by_module.get_mut(key)?;
        let in_flight = queue.in_flight.take();
        // An empty queue goes, so that the map alone tells whether everything is decided.
        if queue.queued.is_empty() {
            self.by_module.remove(key);
        }
        in_flight
    }

    /// The client was told that the outcome is unknown.
    pub(crate) fn remember_unknown(&mut self, id: CommandId, pending: PendingReply) {
        // The oldest gives way: its event, if it ever comes, is sent without an acknowledgement.
        if self.unknown.len() == UNKNOWN_OUTCOMES_MAX {
            self.unknown.pop_front();
        }
        self.unknown.push_back((id, pending));
    }

    /// Gives up on what waits in a queue.
    pub(crate) fn drain(&mut self, key: &BranchKey) -> Vec<QueuedPublish> {
        let Some(queue) = self.by_module.get_mut(key) else { return Vec::new() };
        let queued: Vec<QueuedPublish> = std::mem::take(&mut queue.queued).into();
        // What was submitted stays in its place: its outcome is still to come.
        if queue.in_flight.is_none() {
            self.by_module.remove(key);
        }
        self.count -= queued.len();
        self.bytes -= queued.iter().map(|queued| queued.bytes).sum::<usize>();
        queued
    }

    /// Whether no more may be read before some are decided.
    pub(crate) fn is_full(&self) -> bool {
        self.count >= PUBLISHES_WAITING_MAX || self.bytes >= PUBLISH_BYTES_WAITING_MAX
    }

    /// Whether everything is decided.
    pub(crate) fn is_idle(&self) -> bool {
        self.by_module.is_empty()
    }
}
