//! Lane: the publishes of one socket, one lane for each branch:module.
//!
//! Promise: in a lane one publish is decided before the next is submitted, so nothing overtakes;
//! each accepted publish is acknowledged once, before its event: by whichever comes first, its
//! outcome or its event in the stream. An event is committed, so it may speak for the outcome.

use std::collections::{BTreeMap, VecDeque};

use model::{BranchKey, Command, CommandId, Value};

use crate::limits::{PUBLISH_BYTES_WAITING_MAX, PUBLISHES_WAITING_MAX, UNKNOWN_OUTCOMES_MAX};

/// A publish that waits for those before it.
pub(crate) struct Waiting {
    pub(crate) command: Command,
    /// How the client will recognise the answer.
    pub(crate) request_id: Option<Value>,
    /// What it took as it was sent.
    pub(crate) bytes: usize,
}

/// A publish that is being decided.
pub(crate) struct InFlight {
    pub(crate) id: CommandId,
    pub(crate) request_id: Option<Value>,
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
    unknown: VecDeque<CommandId>,
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
            if let Some(Waiting { command, request_id, bytes }) = lane.waiting.pop_front() {
                let id = command.id.clone();
                lane.in_flight = Some(InFlight { id, request_id, acknowledged: false });
                (self.count, self.bytes) = (self.count - 1, self.bytes - bytes);
                commands.push(command);
            }
        }
        commands
    }

    /// Whether an event of this command must be preceded by an acknowledgement.
    pub(crate) fn owes(&mut self, key: &BranchKey, id: &CommandId) -> bool {
        if let Some(place) = self.unknown.iter().position(|unknown| unknown == id) {
            self.unknown.remove(place);
            return true;
        }
        let in_flight = self.lanes.get_mut(key).and_then(|lane| lane.in_flight.as_mut());
        let owed = in_flight.filter(|own| own.id == *id && !own.acknowledged);
        owed.map(|own| own.acknowledged = true).is_some()
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
    pub(crate) fn unknown(&mut self, id: CommandId) {
        if self.unknown.len() == UNKNOWN_OUTCOMES_MAX {
            self.unknown.pop_front();
        }
        self.unknown.push_back(id);
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
