//! Events: a branch's newest events out of a checkpoint, every link of their chain checked; of the
//! older ones, that none is missing.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use super::{CheckpointReader, bad};
use crate::branch::Branch;
use crate::checkpoint::{part_name, part_of, parts_prefix, segment_name, tail_name};
use crate::codec;
use crate::delta::{Delta, Event};
use crate::event_log::{EventLog, segment_of};
use crate::hash::Hash;
use crate::ids::Offset;
use crate::limits::{EVENTS_BYTES_KEPT, EVENTS_KEPT_MIN, SEGMENT_EVENTS};
use crate::partition::BadChunk;

impl CheckpointReader<'_> {
    /// The newest events; that the older ones exist is all that is asked.
    pub(super) fn events(&self, folder: &str, branch: &Branch) -> Result<EventLog, BadChunk> {
        let parts = self.parts(folder, branch.offset)?;
        let mut newest: VecDeque<(String, &RangeInclusive<u64>, Delta)> = VecDeque::new();
        let (mut unread, mut bytes) = (&parts[..], 0);
        // Reading all history at each start would take longer with every day. Old parts never
        // change; `verify` walks them from the store when an operator asks.
        while let Some((part, before)) = unread.split_last() {
            let events: usize = newest.iter().map(|(.., delta)| delta.events.len()).sum();
            if events >= EVENTS_KEPT_MIN || bytes >= EVENTS_BYTES_KEPT {
                break;
            }
            let has_ended = before.len() + 1 < parts.len() || self.has_ended(folder, part);
            let name = match has_ended {
                true => part_name(folder, segment_of(Offset(*part.start())), part),
                false => tail_name(folder),
            };
            let content = self.source.get(&name).ok_or_else(|| bad(&name, "is missing"))?;
            bytes += content.len() as u64;
            let delta = codec::decode(&content).map_err(|error| bad(&name, error.to_string()))?;
            newest.push_front((name, part, delta));
            unread = before;
        }
        let mut log = EventLog::default();
        // A part that ends with its segment is no cut.
        let ends = unread.iter().map(|part| *part.end());
        ends.filter(|end| !end.is_multiple_of(SEGMENT_EVENTS)).for_each(|end| log.cut(Offset(end)));
        let mut chain = ChainCheck::default();
        for (name, part, delta) in newest {
            chain.take(&mut log, &name, branch, delta, part)?;
        }
        // The head's hash was agreed by the replicas: a tail that ends in it is the log's end,
        // whole.
        if chain.last.unwrap_or_default() != branch.chain_head {
            return Err(bad(&tail_name(folder), "does not end in the chain head"));
        }
        Ok(log)
    }

    /// The parts of a log up to its last event, by the names of its chunks: all of it, without a
    /// gap, the last one the tail where it has not ended.
    fn parts(&self, folder: &str, last: Offset) -> Result<Vec<RangeInclusive<u64>>, BadChunk> {
        let mut parts = Vec::new();
        let mut next = 1;
        for segment in 1..=segment_of(last) {
            let end = segment * SEGMENT_EVENTS;
            let name = segment_name(folder, segment);
            if self.names.contains(&name) && end <= last.0 {
                parts.push(next..=end);
                next = end + 1;
                continue;
            }
            let prefix = parts_prefix(folder, segment);
            let names = self.names.range(prefix.clone()..);
            for part in names.map_while(|name| part_of(name.strip_prefix(&prefix)?)) {
                if *part.start() != next || *part.end() > end.min(last.0) {
                    return Err(bad(&part_name(folder, segment, &part), "leaves a gap"));
                }
                next = part.end() + 1;
                parts.push(part);
            }
            // Only the last segment has not ended: the tail has what its parts lack.
            if next <= end && end <= last.0 {
                return Err(bad(&name, "is missing"));
            }
        }
        if next <= last.0 {
            parts.push(next..=last.0);
        }
        Ok(parts)
    }

    /// Whether the last part of a log has a chunk of its own, and is not the tail.
    fn has_ended(&self, folder: &str, part: &RangeInclusive<u64>) -> bool {
        self.names.contains(&part_name(folder, segment_of(Offset(*part.start())), part))
    }
}

/// The events read so far, each the child of the one before.
#[derive(Default)]
struct ChainCheck {
    last: Option<Hash>,
}

impl ChainCheck {
    fn take(
        &mut self,
        log: &mut EventLog,
        name: &str,
        branch: &Branch,
        found: Delta,
        part: &RangeInclusive<u64>,
    ) -> Result<(), BadChunk> {
        // A valid part under another branch's name: chunks were mixed up, not damaged.
        if found.key != branch.key || found.incarnation != branch.incarnation {
            return Err(bad(name, format!("belongs to {}", found.key)));
        }
        let count = found.events.len() as u64;
        for (place, event) in (*part.start()..).zip(found.events) {
            let encoded = self.check(name, place, &event)?;
            log.push(event, encoded);
        }
        // Under one name there may be the content of another, which is whole as well.
        if count != part.end() + 1 - part.start() {
            return Err(bad(name, format!("has {count} events")));
        }
        Ok(())
    }

    /// Gives how many bytes it has.
    fn check(&mut self, name: &str, place: u64, event: &Event) -> Result<usize, BadChunk> {
        // The first event read has a parent that was not read: its link is taken on trust here.
        let follows = self.last.is_none_or(|last| last == event.previous);
        if event.offset.0 != place || !follows {
            return Err(bad(name, format!("event {} does not follow its chain", event.offset)));
        }
        let (hash, encoded) = event.hash_and_length();
        self.last = Some(hash);
        Ok(encoded)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::checkpoint::is_event_chunk;
    use crate::limits::EVENT_PART_BYTES;
    use crate::partition::{ChunkSink, Partition};
    use crate::procedure::Procedures;
    use crate::testing::{Chunks, Shop, object};
    use crate::{Replace, Request};

    /// Replaces a table by one row with a text of some more bytes than that.
    fn replace(shop: &mut Shop, bytes: usize) -> Event {
        // Another each time: an event has the records that it changes.
        let text = format!("{}{}", shop.now.0, "x".repeat(bytes));
        let tables = object(&format!(r#"{{"tickets":[{{"id":"t","text":"{text}"}}]}}"#));
        let replace = Request::Replace(Replace { tables: tables.into(), revision: None });
        (*shop.operation(replace).unwrap().unwrap()).clone()
    }

    /// A checkpoint after another, which has what the first one kept.
    #[derive(Default)]
    struct Disk(Chunks);

    impl Disk {
        /// Writes one, and lets memory go of what is in it.
        fn checkpoint(&mut self, shop: &mut Shop) {
            let mut new = Chunks::default();
            shop.partition.chunks(&mut new);
            for name in std::mem::take(&mut new.kept) {
                let content = self.0.held.get(&name).unwrap_or_else(|| panic!("{name} is kept"));
                new.put(&name, content.clone());
            }
            self.0 = new;
            let offset = shop.branch().offset;
            shop.partition.forget_events(|_| offset);
        }

        fn read(&self) -> Partition {
            Partition::from_chunks(&self.0, Procedures::default()).unwrap()
        }

        /// All events in it, by offset: as the working store is filled.
        fn events(&self) -> BTreeMap<u64, Event> {
            let chunks = self.0.held.iter().filter(|(name, _)| is_event_chunk(name));
            let deltas = chunks.map(|(_, bytes)| Partition::read_segment(bytes).unwrap());
            let events = deltas.flat_map(|delta| delta.events);
            events.map(|event| (event.offset.0, (*event).clone())).collect()
        }
    }

    fn event_names(disk: &Disk) -> Vec<&str> {
        let names = disk.0.held.keys().filter(|name| is_event_chunk(name));
        names.map(|name| name.strip_prefix("b/dar/pos/events/").unwrap()).collect()
    }

    #[test]
    fn forty_replaced_mebibytes_leave_the_bound_in_memory() {
        let (mut shop, mut disk) = (Shop::lenient(), Disk::default());
        (0..40).for_each(|_| drop(replace(&mut shop, EVENT_PART_BYTES)));
        let one = shop.branch().events.memory_bytes() / 40;
        disk.checkpoint(&mut shop);
        let held = shop.branch().events.memory_bytes();
        assert!(held <= EVENTS_BYTES_KEPT && held + one > EVENTS_BYTES_KEPT, "{held} bytes");
        replace(&mut shop, EVENT_PART_BYTES);
        assert_eq!(shop.branch().events.memory_bytes(), held + one);
        disk.checkpoint(&mut shop);
        assert_eq!(disk.events().len(), 41, "the disk has them all");
        let read = disk.read();
        let branch = read.branch(&shop.key).unwrap();
        assert!(branch.events.memory_bytes() <= EVENTS_BYTES_KEPT + one);
        assert_eq!(read.state_hash(), shop.partition.state_hash());
    }

    #[test]
    fn one_event_larger_than_the_bound_leaves_too() {
        let (mut shop, mut disk) = (Shop::lenient(), Disk::default());
        shop.insert("dishes", r#"{"id":"d","code":"tea"}"#).unwrap();
        replace(&mut shop, usize::try_from(EVENTS_BYTES_KEPT).unwrap());
        disk.checkpoint(&mut shop);
        assert_eq!(shop.branch().first_event(), None);
        assert_eq!(shop.branch().events_after(Offset(1)), None, "the disk has it");
        assert_eq!(shop.branch().events_after(Offset(2)), Some(Vec::new()));
        assert_eq!(event_names(&disk), ["0000000000000001/0000000000000001-0000000000000002"]);
        shop.insert("dishes", r#"{"id":"e","code":"cup"}"#).unwrap();
        disk.checkpoint(&mut shop);
        assert_eq!(
            event_names(&disk),
            ["0000000000000001/0000000000000001-0000000000000002", "tail"]
        );
        assert_eq!(disk.read().state_hash(), shop.partition.state_hash());
    }

    #[test]
    fn a_part_that_is_missing_cut_or_another_is_refused() {
        let (mut shop, mut disk) = (Shop::lenient(), Disk::default());
        for n in 0..260 {
            shop.insert("tickets", &format!(r#"{{"id":"{n}"}}"#)).unwrap();
            if n % 100 == 0 {
                replace(&mut shop, EVENT_PART_BYTES);
            }
        }
        disk.checkpoint(&mut shop);
        assert_eq!(event_names(&disk).len(), 5, "three parts end early, one with its segment");
        disk.read();
        let damaged = |damage: &dyn Fn(&mut Chunks)| {
            let mut chunks = disk.0.clone();
            damage(&mut chunks);
            Partition::from_chunks(&chunks, Procedures::default())
        };
        let names: Vec<&String> = disk.0.held.keys().filter(|name| is_event_chunk(name)).collect();
        for name in &names {
            let missing = damaged(&|chunks| drop(chunks.held.remove(*name)));
            assert!(missing.is_err(), "without {name}");
        }
        let swapped = damaged(&|chunks| {
            let other = chunks.held[names[1]].clone();
            chunks.held.insert(names[3].clone(), other);
        });
        assert_eq!(&swapped.unwrap_err().name, names[3]);
        let shorter = damaged(&|chunks| {
            let mut part = Partition::read_segment(&chunks.held[names[3]]).unwrap();
            part.events.pop();
            chunks.held.insert(names[3].clone(), codec::encode(&part));
        });
        assert!(shorter.unwrap_err().reason.starts_with("has "));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

        /// Whenever checkpoints are written and read back, whatever leaves memory: no event is
        /// lost, none is another, and the state is that of who never did so.
        #[test]
        fn checkpoints_and_what_leaves_memory_change_nothing(
            steps in proptest::collection::vec((0..10_u8, 1..90_usize), 1..14),
        ) {
            let (mut shop, mut disk) = (Shop::lenient(), Disk::default());
            let mut all: Vec<Event> = Vec::new();
            for (step, count) in steps {
                match step {
                    0..=4 => for _ in 0..count {
                        all.push((*shop.insert("tickets", "{}").unwrap()).clone());
                    },
                    // From a third of a part to several times the bound on memory.
                    5..=7 => all.push(replace(&mut shop, (count / 9 + 1) * EVENT_PART_BYTES / 3)),
                    8 => disk.checkpoint(&mut shop),
                    _ => {
                        disk.checkpoint(&mut shop);
                        shop.partition = disk.read();
                    }
                }
                let branch = shop.branch();
                for after in (0..=all.len()).step_by(7) {
                    if let Some(found) = branch.events_after(Offset(after as u64)) {
                        prop_assert!(found.iter().map(|event| &**event).eq(&all[after..]));
                    }
                }
            }
            disk.checkpoint(&mut shop);
            let (on_disk, read) = (disk.events(), disk.read());
            prop_assert!(on_disk.values().eq(&all), "each event is in one chunk");
            prop_assert_eq!(read.state_hash(), shop.partition.state_hash());
            let mut anew = Chunks::default();
            read.chunks(&mut anew);
            let names: Vec<_> = anew.held.keys().chain(&anew.kept).cloned().collect();
            prop_assert!(names.iter().all(|name| disk.0.held.contains_key(name)));
            prop_assert_eq!(names.len(), disk.0.held.len(), "under the same names");
        }
    }
}
