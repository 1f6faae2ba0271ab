//! Outcomes: what was decided about every command of late, so that a retry gets the same answer
//! (decision 3).
//!
//! An outcome is kept at least as long as the definition says, measured by the log's own uptime,
//! and never evicted early: at the limit new commands are refused instead. Small: a command is
//! known by 16 bytes of its id's hash and 32 of its payload's, and its events are not kept twice.

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use crate::codec;
use crate::command::Command;
use crate::delta::Hash;
use crate::ids::{CommandId, Offset};
use crate::limits::EVICTIONS_PER_COMMAND;
use crate::outcome::Reserved;
use crate::reject::Reject;

/// The outcomes of one branch:module.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcomes {
    next: u64,
    /// In the order decided.
    by_serial: OrdMap<u64, Remembered>,
    by_id: OrdMap<IdHash, u64>,
}

/// 16 bytes of a command id's hash: nobody finds two ids that share them.
pub(crate) type IdHash = [u8; 16];

/// One decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Remembered {
    id: IdHash,
    /// What the command asked, so that another one cannot pass under its name.
    pub(crate) payload: Hash,
    /// The log's uptime when it was decided.
    uptime_ms: u64,
    pub(crate) decision: Decision,
}

/// What was decided, small. Append-only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Decision {
    /// It made these events; none for `Define` and `Seed`.
    Events { first: Offset, count: u32 },
    /// It took this number.
    Reserved(Box<Reserved>),
    /// It was refused.
    Rejected(Box<Reject>),
}

impl Outcomes {
    pub(crate) fn get(&self, id: &CommandId) -> Option<&Remembered> {
        self.by_serial.get(self.by_id.get(&id_hash(id))?)
    }

    pub(crate) fn remember(
        &mut self,
        id: &CommandId,
        payload: Hash,
        uptime_ms: u64,
        decision: Decision,
    ) {
        self.restore(self.next, Remembered { id: id_hash(id), payload, uptime_ms, decision });
    }

    /// Forgets a few of the oldest that were kept long enough.
    pub(crate) fn evict(&mut self, uptime_ms: u64, keep_ms: u64) {
        for _ in 0..EVICTIONS_PER_COMMAND {
            let Some((serial, oldest)) = self.by_serial.get_min() else { return };
            if uptime_ms.saturating_sub(oldest.uptime_ms) < keep_ms {
                return;
            }
            let (serial, id) = (*serial, oldest.id);
            self.by_serial.remove(&serial);
            self.by_id.remove(&id);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_serial.len()
    }

    /// The serial the next outcome gets.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// In the order decided.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &Remembered)> {
        self.by_serial.iter().map(|(serial, remembered)| (*serial, remembered))
    }

    /// Puts an outcome where a checkpoint says it was.
    pub(crate) fn restore(&mut self, serial: u64, remembered: Remembered) {
        self.by_id.insert(remembered.id, serial);
        self.by_serial.insert(serial, remembered);
        self.next = self.next.max(serial + 1);
    }

    /// An empty table whose next outcome gets this serial.
    pub(crate) fn starting_at(next: u64) -> Self {
        Self { next, ..Self::default() }
    }
}

/// Names what a command asks, whoever asks and whenever.
pub(crate) fn payload_hash(command: &Command) -> Hash {
    Hash(*blake3::hash(&codec::encode(&(&command.key, &command.request))).as_bytes())
}

fn id_hash(id: &CommandId) -> IdHash {
    let hash = blake3::hash(&codec::encode(id));
    hash.as_bytes()[..16].try_into().expect("32 bytes hold 16")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(request: u64) -> CommandId {
        CommandId { session: "s".to_owned(), request: request.to_string() }
    }

    fn remember(outcomes: &mut Outcomes, request: u64, uptime_ms: u64) {
        let decision = Decision::Events { first: Offset(request), count: 1 };
        outcomes.remember(&id(request), Hash::default(), uptime_ms, decision);
    }

    #[test]
    fn an_outcome_is_kept_its_time_and_then_leaves_oldest_first_a_few_at_once() {
        let mut outcomes = Outcomes::default();
        (0..20).for_each(|n| remember(&mut outcomes, n, n));
        outcomes.evict(99, 100);
        assert_eq!(outcomes.len(), 20, "the oldest is 99 ms old");
        outcomes.evict(102, 100);
        assert_eq!(outcomes.len(), 17);
        assert!(outcomes.get(&id(2)).is_none() && outcomes.get(&id(3)).is_some());
        outcomes.evict(500, 100);
        assert_eq!(outcomes.len(), 17 - EVICTIONS_PER_COMMAND);
        assert_eq!(outcomes.next(), 20, "serials are never given twice");
    }
}
