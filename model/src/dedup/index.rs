//! Index: from an id's hash to where its entry is, in about six bytes an entry.
//!
//! Linear hashing: buckets are split one by one as entries come, and joined as they go, so that no
//! command pays for all. A bucket is a run of five-byte slots: one byte of the hash, which spares
//! most looks at an entry, and the entry's serial. Buckets are shared between clones.

use std::sync::Arc;

use imbl::Vector;

/// Slots a bucket has on average.
const SLOTS: usize = 32;
const SLOT_BYTES: usize = 5;

/// Where entries are, by hash. Serials are known by their lower 32 bits.
#[derive(Debug, Clone, Default)]
pub(super) struct DedupIndex {
    buckets: Vector<Arc<[u8]>>,
    len: usize,
}

/// What the index asks of its entries: the hash of the one with this serial.
pub(super) type HashOf<'a> = &'a dyn Fn(u32) -> u64;

impl DedupIndex {
    /// The first serial under this hash that is the one looked for.
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let bucket = self.buckets.get(self.place(hash)?)?;
        let slots = bucket.chunks_exact(SLOT_BYTES);
        // The tag spares most looks at entries, each of which is a miss of the processor's cache.
        slots.filter(|slot| slot[0] == tag(hash)).map(serial_of).find(|serial| is_it(*serial))
    }

    pub(super) fn insert(&mut self, hash: u64, serial: u32, hash_of: HashOf<'_>) {
        if self.buckets.is_empty() {
            self.buckets.push_back(Arc::default());
        }
        self.add(hash, serial);
        self.len += 1;
        if self.len > self.buckets.len() * SLOTS {
            self.split(hash_of);
        }
    }

    pub(super) fn remove(&mut self, hash: u64, serial: u32) {
        let Some(place) = self.place(hash) else { return };
        let bucket = &self.buckets[place];
        let Some(at) = bucket.chunks_exact(SLOT_BYTES).position(|slot| serial_of(slot) == serial)
        else {
            return;
        };
        let (before, after) = (&bucket[..at * SLOT_BYTES], &bucket[(at + 1) * SLOT_BYTES..]);
        // A bucket is replaced, not changed: clones of the table still read the old one.
        self.buckets.set(place, [before, after].concat().into());
        self.len -= 1;
        // At half the load at which a bucket is split, or a table at the border would do both in
        // turn.
        if self.buckets.len() > 1 && self.len * 2 < self.buckets.len() * SLOTS {
            self.join();
        }
    }

    /// Which bucket a hash belongs to; `None` while there is none.
    fn place(&self, hash: u64) -> Option<usize> {
        let count = self.buckets.len() as u64;
        // Linear hashing: `round` bits of the hash name the bucket once this round of splits is
        // done.
        let round = count.checked_next_power_of_two().filter(|_| count > 0)?;
        let place = hash & (round - 1);
        // Not split yet in this round: it still belongs where it was.
        let place = if place < count { place } else { hash & (round / 2 - 1) };
        usize::try_from(place).ok()
    }

    fn add(&mut self, hash: u64, serial: u32) {
        let Some(place) = self.place(hash) else { return };
        let bucket = &self.buckets[place];
        let mut longer = Vec::with_capacity(bucket.len() + SLOT_BYTES);
        longer.extend_from_slice(bucket);
        longer.push(tag(hash));
        longer.extend_from_slice(&serial.to_le_bytes());
        self.buckets.set(place, longer.into());
    }

    /// Adds a bucket and moves into it what belongs there, out of the one bucket it may be in.
    fn split(&mut self, hash_of: HashOf<'_>) {
        let new = self.buckets.len();
        self.buckets.push_back(Arc::default());
        let old = new - new.next_power_of_two() / if new.is_power_of_two() { 1 } else { 2 };
        let (mut stays, mut moves) = (Vec::new(), Vec::new());
        for slot in self.buckets[old].chunks_exact(SLOT_BYTES) {
            let place = self.place(hash_of(serial_of(slot)));
            if place == Some(new) { &mut moves } else { &mut stays }.extend_from_slice(slot);
        }
        self.buckets.set(old, stays.into());
        self.buckets.set(new, moves.into());
    }

    /// Takes the last bucket away; what was in it goes back where it came from.
    fn join(&mut self) {
        let Some(last) = self.buckets.pop_back() else { return };
        let new = self.buckets.len();
        let old = new - new.next_power_of_two() / if new.is_power_of_two() { 1 } else { 2 };
        let joined = [&self.buckets[old], &*last].concat();
        self.buckets.set(old, joined.into());
    }
}

fn tag(hash: u64) -> u8 {
    hash.to_le_bytes()[7]
}

fn serial_of(slot: &[u8]) -> u32 {
    slot[1..].try_into().map(u32::from_le_bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(serial: u32) -> u64 {
        let hash = blake3::hash(&serial.to_le_bytes());
        u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap())
    }

    #[test]
    fn what_is_in_is_found_and_what_was_removed_is_not() {
        let mut index = DedupIndex::default();
        assert_eq!(index.find(hash(1), |_| true), None);
        for serial in 0..5_000 {
            index.insert(hash(serial), serial, &hash);
        }
        let kept = index.clone();
        let found = |index: &DedupIndex, n| index.find(hash(n), |serial| serial == n) == Some(n);
        assert!((0..5_000).all(|n| found(&index, n)));
        assert!(index.buckets.len() > 100);
        for serial in 0..4_990 {
            index.remove(hash(serial), serial);
            assert!(!found(&index, serial));
        }
        assert!((4_990..5_000).all(|n| found(&index, n)));
        assert_eq!(index.buckets.len(), 1, "it shrinks again");
        assert!((0..5_000).all(|n| found(&kept, n)), "a clone is not disturbed");
    }
}
