//! Queue: decisions in the order they were made, found by id, forgotten from the front.

use std::sync::Arc;

use imbl::{OrdMap, Vector};

use super::entry::{DedupEntry, IdHash, PackedOutcome};
use super::index::DedupIndex;
use crate::codec;
use crate::limits::{DEDUP_ENTRY_BYTES, REFUSALS_BYTES_MAX, RESERVED_EXTRA_BYTES};
use crate::outcome::ReservedNumber;
use crate::reject::Reject;

/// Decisions in order. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct DedupQueue {
    next: u64,
    entries: Vector<DedupEntry>,
    index: DedupIndex,
    /// The newest refusals, as many as their bound in bytes lets.
    refusals: Attachments,
    /// The numbers taken, as long as their entries are kept.
    reserved: Attachments,
}

/// What does not fit into an entry, by serial, encoded.
#[derive(Debug, Clone, Default)]
struct Attachments {
    by_serial: OrdMap<u64, Arc<[u8]>>,
    bytes: usize,
}

impl Attachments {
    fn insert(&mut self, serial: u64, bytes: Arc<[u8]>) {
        self.bytes += bytes.len();
        self.by_serial.insert(serial, bytes);
    }

    fn remove(&mut self, serial: u64) {
        if let Some(bytes) = self.by_serial.remove(&serial) {
            self.bytes -= bytes.len();
        }
    }

    fn oldest(&self) -> Option<u64> {
        self.by_serial.get_min().map(|(serial, _)| *serial)
    }
}

impl DedupQueue {
    /// An empty queue whose next entry gets this serial.
    pub(crate) fn starting_at(next: u64) -> Self {
        Self { next, ..Self::default() }
    }

    /// The serial the next entry gets.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// What it may be said to take of memory: see [`DEDUP_ENTRY_BYTES`].
    pub(crate) fn bytes(&self) -> u64 {
        let reserved = self.reserved.bytes + self.reserved.by_serial.len() * RESERVED_EXTRA_BYTES;
        (self.entries.len() * DEDUP_ENTRY_BYTES + reserved) as u64
    }

    fn first(&self) -> u64 {
        self.next - self.entries.len() as u64
    }

    pub(crate) fn get(&self, id: &IdHash) -> Option<(u64, &DedupEntry)> {
        // The index knows lower halves only; relative to the front they are unique.
        let place = |serial: u32| (serial.wrapping_sub(low(self.first()))) as usize;
        let is_it = |serial| self.entries.get(place(serial)).is_some_and(|entry| entry.id == *id);
        let found = place(self.index.find(hash(id), is_it)?);
        Some((self.first() + found as u64, self.entries.get(found)?))
    }

    /// Adds a decision; gives its serial.
    pub(crate) fn push(&mut self, entry: DedupEntry) -> u64 {
        let (serial, first) = (self.next, low(self.first()));
        self.entries.push_back(entry);
        self.next += 1;
        let entries = &self.entries;
        let hash_of = |serial: u32| {
            entries.get(serial.wrapping_sub(first) as usize).map_or(0, |entry| hash(&entry.id))
        };
        // After the entry is there: a split asks for the hash of every entry of a bucket.
        self.index.insert(hash(&entry.id), low(serial), &hash_of);
        serial
    }

    pub(crate) fn oldest(&self) -> Option<&DedupEntry> {
        self.entries.front()
    }

    /// Forgets the oldest decision.
    pub(crate) fn pop(&mut self) {
        let serial = self.first();
        let Some(entry) = self.entries.pop_front() else { return };
        self.index.remove(hash(&entry.id), low(serial));
        match entry.decision() {
            PackedOutcome::Events { .. } => {}
            PackedOutcome::Reserved => self.reserved.remove(serial),
            PackedOutcome::Rejected { .. } => self.refusals.remove(serial),
        }
    }

    /// In the order decided.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &DedupEntry)> {
        (self.first()..).zip(&self.entries)
    }

    /// The attachment of the entry with this serial, encoded.
    pub(crate) fn attachment(&self, serial: u64) -> Option<&Arc<[u8]>> {
        let refusal = self.refusals.by_serial.get(&serial);
        refusal.or_else(|| self.reserved.by_serial.get(&serial))
    }

    /// Keeps what belongs to the entry of this serial. Refusals beyond their bound go, the oldest
    /// first: their entries stay and know the code.
    pub(crate) fn attach(&mut self, serial: u64, bytes: Arc<[u8]>, is_refusal: bool) {
        if !is_refusal {
            self.reserved.insert(serial, bytes);
            return;
        }
        self.refusals.insert(serial, bytes);
        // Refusals are as long as what clients sent; a flood of them must not push out outcomes.
        while self.refusals.bytes > REFUSALS_BYTES_MAX {
            let Some(oldest) = self.refusals.oldest() else { break };
            self.refusals.remove(oldest);
        }
    }

    pub(crate) fn reserved(&self, serial: u64) -> Option<ReservedNumber> {
        codec::decode(self.reserved.by_serial.get(&serial)?).ok()
    }

    pub(crate) fn refusal(&self, serial: u64) -> Option<Reject> {
        codec::decode(self.refusals.by_serial.get(&serial)?).ok()
    }
}

fn hash(id: &IdHash) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *id;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// Serials are known by their lower half: never are so many entries kept at once.
fn low(serial: u64) -> u32 {
    serial as u32
}
