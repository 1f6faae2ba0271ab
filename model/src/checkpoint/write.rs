//! Write: a partition into chunks.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::branch::Branch;
use crate::checkpoint::{
    ArchiveHead, ArchivePage, ArchiveTableHead, BranchHead, DedupAttachment, DedupHead, DedupPage,
    PARTITION, PartitionHead, QueueHead, RecordPage, RemovedRows, STAGED, StoredDefinition,
    TableHead, archive_entry_name, archive_page_name, dedup_page_name, folder, head_name,
    part_name, record_page_name, removed_name, schema_name, tail_name,
};
use crate::codec::{self, Versioned};
use crate::dedup::DedupQueue;
use crate::delta::Delta;
use crate::event_log::segment_of;
use crate::hash::Hash;
use crate::ids::Offset;
use crate::limits::{ARCHIVE_PAGE, DEDUP_PAGE, RECORD_PAGE};
use crate::partition::schemas::schema_hash;
use crate::partition::{ChunkSink, Partition};
use crate::read::ArchiveEntry;
use crate::value::Object;

impl Partition {
    /// Writes the whole state as named chunks, in an order and with boundaries that are functions
    /// of the log alone. A chunk whose content did not change has the same bytes as before; a
    /// sealed event segment that memory no longer holds is kept by name.
    pub fn chunks(&self, sink: &mut dyn ChunkSink) {
        self.write_heads(sink);
        #[cfg(feature = "next-level")]
        if self.level >= codec::NEXT_LEVEL {
            put(sink, super::NEXT_LEVEL_CHUNK, &super::NextLevelChunk { level: self.level });
        }
        // Once for all branches that share it; the order of branches decides where, so that
        // replicas write the same.
        let mut written = BTreeSet::new();
        for definition in self.branches().filter_map(Branch::definition) {
            let hash = schema_hash(&definition.schema);
            if written.insert(hash) {
                sink.put(&schema_name(hash), codec::encode(&*definition.schema));
            }
        }
        for branch in self.branches() {
            branch.write_state(sink);
            branch.write_events(sink);
        }
    }

    /// The hash of everything two replicas must agree on: the partition's counters, and each
    /// branch.
    pub fn state_hash(&self) -> Hash {
        // Schemas and events are left out: a head names its schema by hash and its events by the
        // chain, so comparing replicas reads neither.
        let mut sink = HashSink::default();
        self.write_heads(&mut sink);
        for branch in self.branches() {
            branch.write_state(&mut sink);
        }
        sink.hash()
    }

    /// What is of no one branch.
    fn write_heads(&self, sink: &mut dyn ChunkSink) {
        sink.put(PARTITION, codec::encode(&partition_chunk(self)));
        if let Some(staged) = &self.staged {
            put(sink, STAGED, &staged.chunk());
        }
    }
}

fn partition_chunk(partition: &Partition) -> PartitionHead {
    PartitionHead {
        uptime_ms: partition.uptime_ms,
        level: partition.level,
        branches: partition.branches.keys().cloned().collect(),
    }
}

impl Branch {
    /// The hash of everything two replicas must agree on.
    pub fn state_hash(&self) -> Hash {
        let mut sink = HashSink::default();
        self.write_state(&mut sink);
        sink.hash()
    }

    /// Writes everything but the events: those the chain head stands for.
    fn write_state(&self, sink: &mut dyn ChunkSink) {
        let folder = folder(&self.key);
        if let Some(head) = self.head_chunk() {
            sink.put(&head_name(&folder), codec::encode(&head));
        }
        for (table, rows) in self.module.tables() {
            // By ordinal and not by key: a new row touches the last page only, and every page
            // before it has the bytes it had, which the disk then shares with the checkpoint
            // before.
            let rows = rows.iter().map(|(ordinal, row)| {
                (ordinal / RECORD_PAGE, (ordinal, row.key.clone(), Arc::clone(&row.record)))
            });
            pages(rows, |page, rows| {
                put(sink, &record_page_name(&folder, table, page), &RecordPage(rows));
            });
        }
        for (table, rows) in self.module.tables().filter(|(_, rows)| !rows.removed().is_empty()) {
            let removed = rows.removed().iter().map(|(name, ordinal)| (Arc::clone(name), ordinal));
            put(sink, &removed_name(&folder, table), &RemovedRows(removed.collect()));
        }
        for (name, queue) in [("client", &self.dedup.client), ("server", &self.dedup.server)] {
            write_decisions(sink, &folder, name, queue);
        }
        for entry in self.archive.iter() {
            write_entry(sink, &folder, entry);
        }
    }

    fn write_events(&self, sink: &mut dyn ChunkSink) {
        let folder = folder(&self.key);
        // Memory forgot a part only after a finished checkpoint held it, so `keep` always finds it.
        let first_held = self.events.first().map_or(u64::MAX, |first| first.0);
        let segments = 1..=segment_of(self.offset);
        let parts = segments.flat_map(|segment| {
            self.events.parts(segment).into_iter().map(move |part| (segment, part))
        });
        for (segment, part) in parts {
            // At a boundary there is no tail: an empty chunk would be one that is written for
            // nothing.
            if *part.start() > self.offset.0 {
                break;
            }
            let has_ended = *part.end() <= self.offset.0;
            let name =
                if has_ended { part_name(&folder, segment, &part) } else { tail_name(&folder) };
            if first_held <= *part.start() {
                put(sink, &name, &self.part(&part));
            } else {
                sink.keep(&name);
            }
        }
    }

    /// The events of a part that is here.
    fn part(&self, part: &RangeInclusive<u64>) -> Delta {
        let (before, count) = (Offset(part.start() - 1), part.end() + 1 - part.start());
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        Delta {
            key: self.key.clone(),
            incarnation: self.incarnation,
            events: self.events.after(before, self.offset, count).unwrap_or_default(),
        }
    }

    fn head_chunk(&self) -> Option<BranchHead> {
        let definition = self.definition.as_ref()?;
        let (made, set) = (self.numbers.made.iter(), self.numbers.set.iter());
        Some(BranchHead {
            definition: StoredDefinition::of(definition, schema_hash(&definition.schema)),
            incarnation: self.incarnation,
            offset: self.offset,
            chain_head: self.chain_head,
            revision: self.revision,
            last_updated_at: self.last_updated_at,
            last_commit_at: self.last_commit_at,
            seeded: self.seeded,
            counters: self.numbers.counters.clone(),
            rules_made: made.map(|(table, rules)| (table.clone(), (**rules).clone())).collect(),
            reservations: self.numbers.reservations.iter().cloned().collect(),
            rules_set: set.map(|(table, rules)| (table.clone(), (**rules).clone())).collect(),
            leaps: self.numbers.leaps.values().map(|leap| (**leap).clone()).collect(),
            tables: self
                .module
                .tables()
                .map(|(name, rows)| TableHead {
                    name: name.clone(),
                    next_ordinal: rows.next(),
                    records: rows.len() as u64,
                })
                .collect(),
            dedup: DedupHead {
                client: queue_head(&self.dedup.client),
                server: queue_head(&self.dedup.server),
                displaced: self.dedup.displaced,
                codes: self.dedup.codes.iter().map(|code| (**code).to_owned()).collect(),
            },
            log_first_at: self.summary.first_at,
            log_last: self.summary.last.clone(),
            log_tables: self
                .summary
                .tables
                .iter()
                .map(|(name, cursor)| (name.clone(), cursor.clone()))
                .collect(),
            archive: self.archive.iter().map(|entry| entry.id.clone()).collect(),
        })
    }
}

fn queue_head(queue: &DedupQueue) -> QueueHead {
    QueueHead { entries: queue.len() as u64, next: queue.next() }
}

fn write_decisions(sink: &mut dyn ChunkSink, folder: &str, name: &str, queue: &DedupQueue) {
    let entries = queue.iter().map(|(serial, entry)| (serial / DEDUP_PAGE, (serial, *entry)));
    pages(entries, |page, decisions| {
        let attachment = decisions.iter().filter_map(|(serial, entry)| {
            // A refusal may be gone already while its entry stays: it knows the code.
            let bytes = queue.attachment(*serial)?.to_vec();
            Some(DedupAttachment { serial: *serial, is_refusal: entry.is_refusal(), bytes })
        });
        let content = DedupPage {
            first: decisions.first().map_or(0, |(serial, _)| *serial),
            attachment: attachment.collect(),
            entries: decisions.iter().flat_map(|(_, entry)| entry.to_bytes()).collect(),
        };
        put(sink, &dedup_page_name(folder, name, page), &content);
    });
}

fn write_entry(sink: &mut dyn ChunkSink, folder: &str, entry: &ArchiveEntry) {
    let tables = entry.tables.iter().map(|table| ArchiveTableHead {
        name: table.table.clone(),
        key_fields: Arc::clone(&table.key_fields),
        first_keys: table.first_keys.clone(),
        records: table.records.len() as u64,
    });
    let head = ArchiveHead {
        id: entry.id.clone(),
        at: entry.at,
        reason: entry.reason.clone(),
        requested_by: entry.requested_by.clone(),
        revision: entry.revision,
        tables: tables.collect(),
    };
    put(sink, &archive_entry_name(folder, &entry.id), &head);
    let records: Vec<Arc<Object>> =
        entry.tables.iter().flat_map(|table| table.records.iter().cloned()).collect();
    for (page, records) in records.chunks(ARCHIVE_PAGE).enumerate() {
        put(sink, &archive_page_name(folder, &entry.id, page), &ArchivePage(records.to_vec()));
    }
}

/// Gives out items page by page; they come in page order.
fn pages<T>(items: impl Iterator<Item = (u64, T)>, mut give: impl FnMut(u64, Vec<T>)) {
    let (mut current, mut page) = (0, Vec::new());
    for (number, item) in items {
        // A page whose items are all gone is not written at all; reading expects that.
        if number != current && !page.is_empty() {
            give(current, std::mem::take(&mut page));
        }
        current = number;
        page.push(item);
    }
    if !page.is_empty() {
        give(current, page);
    }
}

fn put(sink: &mut dyn ChunkSink, name: &str, content: &impl Versioned) {
    sink.put(name, codec::encode(content));
}

/// Names and contents, as one hash.
#[derive(Default)]
struct HashSink(blake3::Hasher);

impl HashSink {
    fn hash(&self) -> Hash {
        Hash(*self.0.finalize().as_bytes())
    }
}

impl ChunkSink for HashSink {
    fn put(&mut self, name: &str, bytes: Vec<u8>) {
        for part in [name.as_bytes(), &bytes] {
            // With lengths, so that no two lists of names and contents run into the same bytes.
            self.0.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
    }

    fn keep(&mut self, name: &str) {
        unreachable!("{name}: only events are kept by name, and no state is an event");
    }
}
