//! Lane: the publishes of one socket, one lane for each branch:module.
//!
//! A publish is anything that changes a module: one mutation, a batch, or a post under a sync
//! topic. Promise: in a lane one publish is decided before the next is submitted, so nothing
//! overtakes; each accepted publish is acknowledged once, before its event: by whichever comes
//! first, its outcome or its event in the stream. An event is committed, so it may speak for the
//! outcome.

use std::collections::{BTreeMap, VecDeque};

use std::sync::Arc;

use model::{BranchKey, Command, CommandId, Event, Object, Value};

use crate::limits::{PUBLISH_BYTES_WAITING_MAX, PUBLISHES_WAITING_MAX, UNKNOWN_OUTCOMES_MAX};

/// How a publish is answered.
#[derive(Clone)]
pub(crate) enum Reply {
    /// `server:ack`.
    Ack,
    /// `server:batch:ack`.
    Batch,
    /// Not at all: what was posted is said under its topics.
    Post(Arc<Posted>),
}

/// What a client posted under a sync topic.
pub(crate) struct Posted {
    pub(crate) topic: String,
    /// The module it was taken for.
    pub(crate) key: BranchKey,
    pub(crate) trans: String,
    /// What it said, without the snapshot.
    pub(crate) data: Object,
}

/// A publish that is to be answered.
#[derive(Clone)]
pub(crate) struct Owed {
    /// How the client will recognise the answer.
    pub(crate) request_id: Option<Value>,
    pub(crate) reply: Reply,
}

impl Owed {
    /// Whether these events of its command are enough to answer with.
    fn is_answered_by(&self, events: &[Arc<Event>]) -> bool {
        let whole = |count: u32| usize::try_from(count).is_ok_and(|count| count == events.len());
        match self.reply {
            Reply::Ack => true,
            Reply::Batch => {
                let part = events.first().and_then(|event| event.part);
                part.is_none_or(|part| whole(part.count))
            }
            Reply::Post(_) => false,
        }
    }
}

/// A publish that waits for those before it.
pub(crate) struct Waiting {
    pub(crate) command: Command,
    pub(crate) owed: Owed,
    /// What it took as it was sent.
    pub(crate) bytes: usize,
}

/// A publish that is being decided.
pub(crate) struct InFlight {
    pub(crate) id: CommandId,
    pub(crate) owed: Owed,
    /// Whether its event came first and it was acknowledged with it.
    pub(crate) acknowledged: bool,
}

#[derive(Default)]
struct Lane {
    waiting: VecDeque<Waiting>,
    in_flight: Option<InFlight>,
}

/// All lanes of a socket.
#[derive(Default)]
pub(crate) struct Lanes {
    lanes: BTreeMap<BranchKey, Lane>,
    count: usize,
    bytes: usize,
    /// Publishes whose outcome the client was told is unknown: their event acknowledges them.
    unknown: VecDeque<(CommandId, Owed)>,
}

impl Lanes {
    /// Adds a publish to its lane.
    pub(crate) fn add(&mut self, waiting: Waiting) {
        self.count += 1;
        self.bytes += waiting.bytes;
        self.lanes.entry(waiting.command.key.clone()).or_default().waiting.push_back(waiting);
    }

    /// The publishes whose turn it is.
    pub(crate) fn start(&mut self, may: impl Fn(&BranchKey) -> bool) -> Vec<Command> {
        let mut commands = Vec::new();
        for (key, lane) in &mut self.lanes {
            if lane.in_flight.is_some() || !may(key) {
                continue;
            }
            if let Some(Waiting { command, owed, bytes }) = lane.waiting.pop_front() {
                let id = command.id.clone();
                lane.in_flight = Some(InFlight { id, owed, acknowledged: false });
                (self.count, self.bytes) = (self.count - 1, self.bytes - bytes);
                commands.push(command);
            }
        }
        commands
    }

    /// The answer that must precede these events of one command, if there is one.
    pub(crate) fn owes(&mut self, key: &BranchKey, events: &[Arc<Event>]) -> Option<Owed> {
        let id = &events.first()?.command;
        let unknown = self.unknown.iter();
        let place = unknown
            .clone()
            .position(|(unknown, owed)| unknown == id && owed.is_answered_by(events));
        if let Some(place) = place {
            return self.unknown.remove(place).map(|(_, owed)| owed);
        }
        let in_flight = self.lanes.get_mut(key)?.in_flight.as_mut()?;
        let owes = in_flight.id == *id && !in_flight.acknowledged;
        if !owes || !in_flight.owed.is_answered_by(events) {
            return None;
        }
        in_flight.acknowledged = true;
        Some(in_flight.owed.clone())
    }

    /// The publish of a lane is decided.
    pub(crate) fn decided(&mut self, key: &BranchKey) -> Option<InFlight> {
        let lane = self.lanes.get_mut(key)?;
        let decided = lane.in_flight.take();
        if lane.waiting.is_empty() {
            self.lanes.remove(key);
        }
        decided
    }

    /// The client was told that the outcome is unknown.
    pub(crate) fn unknown(&mut self, id: CommandId, owed: Owed) {
        if self.unknown.len() == UNKNOWN_OUTCOMES_MAX {
            self.unknown.pop_front();
        }
        self.unknown.push_back((id, owed));
    }

    /// Gives up on what waits in a lane.
    pub(crate) fn give_up(&mut self, key: &BranchKey) -> Vec<Waiting> {
        let Some(lane) = self.lanes.get_mut(key) else { return Vec::new() };
        let waiting: Vec<Waiting> = std::mem::take(&mut lane.waiting).into();
        if lane.in_flight.is_none() {
            self.lanes.remove(key);
        }
        self.count -= waiting.len();
        self.bytes -= waiting.iter().map(|waiting| waiting.bytes).sum::<usize>();
        waiting
    }

    /// Whether no more may be read before some are decided.
    pub(crate) fn is_full(&self) -> bool {
        self.count >= PUBLISHES_WAITING_MAX || self.bytes >= PUBLISH_BYTES_WAITING_MAX
    }

    /// Whether everything is decided.
    pub(crate) fn is_idle(&self) -> bool {
        self.lanes.is_empty()
    }
}
