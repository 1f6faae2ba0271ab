//! Dedup: what was decided about every command of late, so that a retry gets the same answer
//! (decision record 13).
//!
//! Two queues. What clients named is kept as long as the definition says, by the log's own uptime;
//! what servers named for them is kept a minute, because nobody can repeat it later. Both share one
//! bound in bytes. At the bound server-named decisions go first, then the oldest of clients that
//! are over an hour old; only then is a new command refused, with the time after
//! which to try again.

mod entry;
mod index;
mod queue;

use std::sync::Arc;

use crate::codec;
use crate::definition::DedupLimits;
use crate::ids::{CommandId, Offset};
use crate::limits::{
    DEDUP_DISPLACED_AT_ONCE, DEDUP_ENTRY_BYTES, DEDUP_GIVE_WAY_MS, DEDUP_SERVER_KEEP_MIN_MS,
    DEDUP_SERVER_KEEP_MS, EVICTIONS_PER_COMMAND, REFUSAL_CODES_MAX,
};
use crate::outcome::ReservedNumber;
use crate::reject::Reject;
use imbl::Vector;

pub(crate) use entry::{DedupEntry, ENTRY_BYTES, PayloadHash, call_hash, payload_hash};
pub(crate) use queue::DedupQueue;

/// How full a branch:module's dedup table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DedupUse {
    /// Decisions remembered.
    pub entries: u64,
    /// Bytes they count for.
    pub bytes: u64,
    /// How many decisions of clients gave way before their time, ever.
    pub displaced: u64,
}

/// The decisions of one branch:module.
#[derive(Debug, Clone, Default)]
pub(crate) struct Dedup {
    /// What clients named.
    pub(crate) client: DedupQueue,
    /// What servers named.
    pub(crate) server: DedupQueue,
    /// How many of the clients' gave way before their time, ever.
    pub(crate) displaced: u64,
    /// The codes of refusals, in the order they first came; entries know their places.
    pub(crate) codes: Vector<Arc<str>>,
}

/// What was decided, as whoever repeats a command is answered.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum DedupOutcome {
    Events { first: Offset, count: u32 },
    Reserved(ReservedNumber),
    Rejected(Reject),
}

/// A decision found by its id.
pub(crate) struct DedupHit<'a> {
    dedup: &'a Dedup,
    queue: &'a DedupQueue,
    serial: u64,
    entry: &'a DedupEntry,
}

impl DedupHit<'_> {
    /// Whether it was about the same content.
    pub(crate) fn is_about(&self, payload: PayloadHash) -> bool {
        self.entry.payload == payload
    }

    pub(crate) fn decided(&self) -> DedupOutcome {
        match self.entry.decision() {
            entry::PackedOutcome::Events { first, count } => DedupOutcome::Events { first, count },
            entry::PackedOutcome::Reserved => match self.queue.reserved(self.serial) {
                Some(reserved) => DedupOutcome::Reserved(reserved),
                // Kept as long as its entry: only a defect loses it.
                None => DedupOutcome::Rejected(Reject::Defect),
            },
            entry::PackedOutcome::Rejected { code } => {
                let earlier = || {
                    let code = self.dedup.codes.get(code as usize);
                    Reject::Earlier { code: code.map_or("request-refused", |code| code).to_owned() }
                };
                DedupOutcome::Rejected(self.queue.refusal(self.serial).unwrap_or_else(earlier))
            }
        }
    }
}

impl Dedup {
    pub(crate) fn get(&self, id: &CommandId) -> Option<DedupHit<'_>> {
        // The id itself says which queue, so that only one is searched.
        let queue = if id.is_server_named() { &self.server } else { &self.client };
        let (serial, entry) = queue.get(&entry::id_hash(id))?;
        Some(DedupHit { dedup: self, queue, serial, entry })
    }

    pub(crate) fn remember(
        &mut self,
        id: &CommandId,
        payload: PayloadHash,
        uptime_ms: u64,
        decided: &DedupOutcome,
    ) {
        let (decision, attachment) = match decided {
            DedupOutcome::Events { first, count } => {
                (entry::PackedOutcome::Events { first: *first, count: *count }, None)
            }
            DedupOutcome::Reserved(reserved) => {
                (entry::PackedOutcome::Reserved, Some((codec::encode(reserved), false)))
            }
            DedupOutcome::Rejected(reject) => {
                // The entry keeps the code, the attachment the whole refusal: of an old one only
                // the code is left, which is enough for a client to know that it was refused.
                let code = self.index_of_code(reject.code());
                (entry::PackedOutcome::Rejected { code }, Some((codec::encode(reject), true)))
            }
        };
        let queue = if id.is_server_named() { &mut self.server } else { &mut self.client };
        let serial = queue.push(DedupEntry::new(id, payload, uptime_ms, decision));
        if let Some((bytes, is_refusal)) = attachment {
            queue.attach(serial, bytes.into(), is_refusal);
        }
    }

    /// Codes are few; past a bound they are not distinguished any more.
    fn index_of_code(&mut self, code: &str) -> u32 {
        let place = self.codes.iter().position(|known| **known == *code);
        let place = place.unwrap_or_else(|| {
            if self.codes.len() < REFUSAL_CODES_MAX {
                self.codes.push_back(code.into());
                return self.codes.len() - 1;
            }
            REFUSAL_CODES_MAX // Nothing is found there.
        });
        u32::try_from(place).unwrap_or(u32::MAX)
    }

    /// Forgets a few of what was kept long enough, and, where the bound in bytes is met, what may
    /// give way. Gives how many gave way before their time.
    ///
    /// # Errors
    /// After how many milliseconds of log uptime an entry fits, where none fits now.
    pub(crate) fn evict(&mut self, limits: &DedupLimits, uptime_ms: u64) -> Result<u64, u64> {
        // A few with each command, so that no command pays for a burst an hour ago.
        for _ in 0..EVICTIONS_PER_COMMAND {
            let server = pop_over(&mut self.server, uptime_ms, server_keep(limits));
            let client = pop_over(&mut self.client, uptime_ms, limits.keep_ms);
            if !server && !client {
                break;
            }
        }
        let (mut displaced, mut may_give_way) = (0, true);
        // At the bound: entries that could still be asked for give way, the least likely ones
        // first. A young one of a client never does; a new command is refused rather than an old
        // one repeated.
        for _ in 0..DEDUP_DISPLACED_AT_ONCE {
            if self.fits_one_more(limits) {
                break;
            }
            // Nobody repeats what a server named once its request is over.
            if pop_over(&mut self.server, uptime_ms, server_give_way(limits)) {
                continue;
            }
            may_give_way = pop_over(&mut self.client, uptime_ms, give_way(limits));
            if !may_give_way {
                break;
            }
            displaced += 1;
        }
        // Counted for ever and replicated: operators see that the bound is too small for their
        // clients.
        self.displaced += displaced;
        // After the bound was lowered more may give way than one command should wait for: the next
        // ones go on with it. Each leaves many more than it adds.
        if may_give_way || self.fits_one_more(limits) {
            return Ok(displaced);
        }
        Err(self.retry_after_ms(limits, uptime_ms))
    }

    fn fits_one_more(&self, limits: &DedupLimits) -> bool {
        let bytes = self.client.bytes() + self.server.bytes();
        // With the entry that is about to come.
        bytes + DEDUP_ENTRY_BYTES as u64 <= limits.bytes_max
    }

    /// When the next entry may give way.
    fn retry_after_ms(&self, limits: &DedupLimits, uptime_ms: u64) -> u64 {
        let wait = |queue: &DedupQueue, keep_ms: u64| {
            queue.oldest().map(|oldest| keep_ms.saturating_sub(oldest.age_ms(uptime_ms)))
        };
        let server = wait(&self.server, server_give_way(limits));
        let client = wait(&self.client, give_way(limits));
        // Without entries nothing can be evicted: the bound is below one entry.
        server.into_iter().chain(client).min().unwrap_or(limits.keep_ms)
    }

    pub(crate) fn used(&self) -> DedupUse {
        DedupUse {
            entries: (self.client.len() + self.server.len()) as u64,
            bytes: self.client.bytes() + self.server.bytes(),
            displaced: self.displaced,
        }
    }
}

/// Forgets the oldest if it is so old.
fn pop_over(queue: &mut DedupQueue, uptime_ms: u64, keep_ms: u64) -> bool {
    let over = queue.oldest().is_some_and(|oldest| oldest.age_ms(uptime_ms) >= keep_ms);
    if over {
        queue.pop();
    }
    over
}

fn give_way(limits: &DedupLimits) -> u64 {
    // A definition may keep for less than what gives way at the bound.
    limits.keep_ms.min(DEDUP_GIVE_WAY_MS)
}

fn server_keep(limits: &DedupLimits) -> u64 {
    limits.keep_ms.min(DEDUP_SERVER_KEEP_MS)
}

fn server_give_way(limits: &DedupLimits) -> u64 {
    limits.keep_ms.min(DEDUP_SERVER_KEEP_MIN_MS)
}

#[cfg(test)]
mod tests;
