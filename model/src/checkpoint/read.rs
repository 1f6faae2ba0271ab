//! Read: chunks back into a partition, every count and every link of the event chain checked.

mod events;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::archive::Archive;
use crate::batch_piece::StagedChunk;
use crate::branch::Branch;
use crate::checkpoint::{
    ArchiveHead, ArchivePage, BranchHead, DedupHead, DedupPage, PARTITION, PartitionHead,
    QueueHead, RecordPage, RemovedRows, STAGED, TableHead, archive_entry_name, archive_page_name,
    dedup_page_name, folder, head_name, record_page_name, removed_name, schema_name,
};
use crate::codec::{self, LEVEL, Versioned};
use crate::dedup::{Dedup, DedupEntry, DedupQueue, ENTRY_BYTES};
use crate::event_log::summary::LogSummary;
use crate::ids::{BranchKey, TableName};
use crate::limits::{ARCHIVE_PAGE, DEDUP_PAGE, RECORD_PAGE};
use crate::module::{IgnoredLeap, Module, Numbers, Relations, Row, Rows};
use crate::mutant::{self, Mutant};
use crate::partition::schemas::Schemas;
use crate::partition::{BadChunk, ChunkSource, Partition};
use crate::procedure::Procedures;
use crate::read::{ArchiveEntry, ArchivedTable};
use crate::schema::Schema;
use crate::value::{Object, Value};

impl Partition {
    /// Reads back what `chunks` wrote, for commands that may call these procedures. Old sealed
    /// event segments are not loaded into memory.
    ///
    /// # Errors
    /// What is missing or damaged, by chunk name.
    pub fn from_chunks(source: &dyn ChunkSource, procedures: Procedures) -> Result<Self, BadChunk> {
        let names = source.names().into_iter().collect();
        let mut reader = CheckpointReader { source, names, procedures: procedures.clone() };
        let chunk: PartitionHead = reader.must_get(PARTITION)?;
        // Before any other chunk is read: chunks of a newer level would be read as damaged.
        if chunk.level > LEVEL {
            let reason =
                format!("level {}; this build has {LEVEL}: upgrade this node", chunk.level);
            return Err(bad(PARTITION, reason));
        }
        #[cfg(feature = "next-level")]
        if chunk.level >= codec::NEXT_LEVEL {
            let next: super::NextLevelChunk = reader.must_get(super::NEXT_LEVEL_CHUNK)?;
            if next.level != chunk.level {
                return Err(bad(super::NEXT_LEVEL_CHUNK, format!("says level {}", next.level)));
            }
        }
        let mut partition = Partition {
            uptime_ms: chunk.uptime_ms,
            level: chunk.level,
            staged: reader.get::<StagedChunk>(STAGED)?.map(StagedChunk::staged),
            ..Partition::new(procedures)
        };
        for key in chunk.branches {
            let mut branch = reader.branch(key, &mut partition.schemas)?;
            partition.tables.share(&mut branch.module, &branch.relations);
            partition.put_branch(branch);
        }
        partition.tables.forget_alone();
        Ok(partition)
    }
}

struct CheckpointReader<'a> {
    source: &'a dyn ChunkSource,
    names: BTreeSet<String>,
    procedures: Procedures,
}

impl CheckpointReader<'_> {
    fn must_get<T: Versioned>(&self, name: &str) -> Result<T, BadChunk> {
        self.get(name)?.ok_or_else(|| bad(name, "is missing"))
    }

    fn get<T: Versioned>(&self, name: &str) -> Result<Option<T>, BadChunk> {
        let Some(bytes) = self.source.get(name) else { return Ok(None) };
        codec::decode(&bytes).map(Some).map_err(|error| bad(name, error.to_string()))
    }

    fn branch(&mut self, key: BranchKey, schemas: &mut Schemas) -> Result<Branch, BadChunk> {
        let folder = folder(&key);
        let head_name = head_name(&folder);
        let head: BranchHead = self.must_get(&head_name)?;
        // Branches of one module share a schema: chunks name it by its hash, and memory holds it
        // once.
        let schema: Schema = self.must_get(&schema_name(head.definition.schema))?;
        let definition = Arc::new(head.definition.with(schemas.share(Arc::new(schema))));
        let relations = Arc::new(Relations::of(&definition));
        let relations = schemas.share_relations(&definition, relations);
        let mut module = Module::default();
        for table in head.tables {
            let name = table.name.clone();
            let mut rows = self.rows(&folder, &definition.schema, table)?;
            // Indexes are not written: they are a function of the rows and the definition.
            rows.index(relations.indexes(&name));
            module.set_rows(name, rows);
        }
        let (made, set) = (head.rules_made.into_iter(), head.rules_set.into_iter());
        let leap = |leap: IgnoredLeap| {
            ((leap.table.clone(), Arc::from(leap.field.as_str())), Arc::new(leap))
        };
        let mut branch = Branch {
            rows: module.count(&definition.schema),
            definition: Some(definition),
            relations,
            incarnation: head.incarnation,
            offset: head.offset,
            chain_head: head.chain_head,
            revision: head.revision,
            last_updated_at: head.last_updated_at,
            last_commit_at: head.last_commit_at,
            seeded: head.seeded,
            module,
            numbers: Numbers {
                counters: head.counters,
                made: made.map(|(table, rules)| (table, Arc::new(rules))).collect(),
                reservations: head.reservations.into_iter().collect(),
                set: set.map(|(table, rules)| (table, Arc::new(rules))).collect(),
                leaps: head.leaps.into_iter().map(leap).collect(),
            },
            dedup: self.dedup(&folder, head.dedup)?,
            summary: LogSummary {
                first_at: head.log_first_at,
                last: head.log_last,
                tables: head.log_tables.into_iter().collect(),
            },
            archive: self.archive(&folder, head.archive)?,
            ..Branch::new(key, self.procedures.clone())
        };
        // Last, because the chain is checked against the offset and the head just read.
        branch.events = self.events(&folder, &branch)?;
        Ok(branch)
    }

    fn rows(&self, folder: &str, schema: &Schema, head: TableHead) -> Result<Rows, BadChunk> {
        let mut names = FieldNames::of(schema, &head.name);
        let mut rows = Rows::starting_at(head.next_ordinal);
        for page in 0..head.next_ordinal.div_ceil(RECORD_PAGE) {
            let name = record_page_name(folder, &head.name, page);
            if !self.names.contains(&name) {
                continue; // All its records were removed.
            }
            // A row on the wrong page would be written to another one next time, and stand twice.
            for (ordinal, key, record) in self.must_get::<RecordPage>(&name)?.0 {
                if ordinal / RECORD_PAGE != page || ordinal >= head.next_ordinal {
                    return Err(bad(&name, format!("has ordinal {ordinal}")));
                }
                rows.restore(ordinal, Row { key, record: Arc::new(names.share(&record)) });
            }
        }
        let name = removed_name(folder, &head.name);
        if self.names.contains(&name) {
            for (row, ordinal) in self.must_get::<RemovedRows>(&name)?.0 {
                if ordinal >= head.next_ordinal {
                    return Err(bad(&name, format!("has ordinal {ordinal}")));
                }
                rows.restore_removed(row, ordinal);
            }
        }
        // A page that is missing looks like one whose rows were removed; the count tells them
        // apart.
        if rows.len() as u64 != head.records {
            let reason = format!(
                "says {} has {} records, its pages have {}",
                head.name,
                head.records,
                rows.len()
            );
            return Err(bad(&head_name(folder), reason));
        }
        Ok(rows)
    }

    fn dedup(&self, folder: &str, head: DedupHead) -> Result<Dedup, BadChunk> {
        // Broken on purpose in mutant builds: a chaos run must notice it.
        if mutant::is(Mutant::ForgetExactlyOnceInCheckpoint) {
            return Ok(Dedup::default());
        }
        Ok(Dedup {
            client: self.decisions(folder, "client", &head.client)?,
            server: self.decisions(folder, "server", &head.server)?,
            displaced: head.displaced,
            codes: head.codes.into_iter().map(Arc::from).collect(),
        })
    }

    fn decisions(
        &self,
        folder: &str,
        queue_name: &str,
        head: &QueueHead,
    ) -> Result<DedupQueue, BadChunk> {
        // Entries leave only at the front, so two numbers say which serials there are.
        let oldest = head.next.saturating_sub(head.entries);
        let mut queue = DedupQueue::starting_at(oldest);
        while queue.next() < head.next {
            let name = dedup_page_name(folder, queue_name, queue.next() / DEDUP_PAGE);
            let page: DedupPage = self.must_get(&name)?;
            let (entries, rest) = page.entries.as_chunks::<ENTRY_BYTES>();
            let last = queue.next() + entries.len() as u64;
            let end = head.next.min((queue.next() / DEDUP_PAGE + 1) * DEDUP_PAGE);
            // A gap would answer a retry with another command's outcome: serials are positions.
            if page.first != queue.next() || last != end || !rest.is_empty() {
                return Err(bad(
                    &name,
                    format!("has {} decisions from {}", entries.len(), page.first),
                ));
            }
            for bytes in entries {
                let entry = DedupEntry::from_bytes(bytes);
                queue.push(entry.ok_or_else(|| bad(&name, "has a decision that is none"))?);
            }
            for attachment in page.attachment {
                queue.attach(attachment.serial, attachment.bytes.into(), attachment.is_refusal);
            }
        }
        Ok(queue)
    }

    fn archive(&self, folder: &str, ids: Vec<String>) -> Result<Archive, BadChunk> {
        let mut archive = Archive::default();
        for id in ids {
            archive.restore(Arc::new(self.entry(folder, &id)?));
        }
        Ok(archive)
    }

    fn entry(&self, folder: &str, id: &str) -> Result<ArchiveEntry, BadChunk> {
        let head: ArchiveHead = self.must_get(&archive_entry_name(folder, id))?;
        // Pages run over the tables' borders, so that small tables do not each cost a chunk.
        let total: u64 = head.tables.iter().map(|table| table.records).sum();
        let mut records = Vec::new();
        while (records.len() as u64) < total {
            let name = archive_page_name(folder, id, records.len() / ARCHIVE_PAGE);
            let ArchivePage(page) = self.must_get(&name)?;
            let left = usize::try_from(total).unwrap_or(usize::MAX) - records.len();
            if page.len() != left.min(ARCHIVE_PAGE) {
                return Err(bad(&name, format!("has {} records", page.len())));
            }
            records.extend(page);
        }
        let mut records = records.into_iter();
        let tables = head.tables.into_iter().map(|table| ArchivedTable {
            table: table.name,
            key_fields: table.key_fields,
            first_keys: table.first_keys,
            records: records
                .by_ref()
                .take(usize::try_from(table.records).unwrap_or(usize::MAX))
                .collect(),
        });
        Ok(ArchiveEntry {
            id: head.id,
            at: head.at,
            reason: head.reason,
            requested_by: head.requested_by,
            revision: head.revision,
            tables: tables.collect(),
        })
    }
}

/// One text per field name, for all records of a table.
struct FieldNames(BTreeMap<Arc<str>, Arc<str>>);

impl FieldNames {
    fn of(schema: &Schema, table: &TableName) -> Self {
        let fields = schema.table(table.as_str()).into_iter().flat_map(|table| &table.fields);
        Self(fields.map(|field| (Arc::clone(&field.name), Arc::clone(&field.name))).collect())
    }

    fn share(&mut self, record: &Object) -> Object {
        let mut shared = Object::with_capacity(record.len());
        for (name, value) in record.iter() {
            // Each record decodes with names of its own; a hundred thousand records would hold as
            // many copies of the same text.
            let name = self.0.entry(Arc::clone(name)).or_insert_with(|| Arc::clone(name));
            shared.push(Arc::clone(name), Value::clone(value));
        }
        shared
    }
}

fn bad(name: &str, reason: impl Into<String>) -> BadChunk {
    BadChunk { name: name.to_owned(), reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::ids::Offset;
    use crate::limits::SEGMENT_EVENTS;
    use crate::testing::{Chunks, Shop, rule};

    /// A shop with something of everything, `events` events long.
    fn shop(events: u64) -> Shop {
        let mut shop = Shop::lenient();
        shop.redefine(|definition| {
            let table = TableName::parse("tickets").unwrap();
            definition.sequences.insert(table, [("number".to_owned(), rule("#", 9))].into());
            definition.validation = crate::Validation::Strict;
            definition.dedup.bytes_max = 48_000_000;
        })
        .unwrap();
        shop.seed(r#"{"dishes":[{"id":"d","code":"tea","unknown":[1]}]}"#).unwrap();
        shop.reserve("dishes", "place").unwrap();
        shop.insert("tickets", r#"{"nonsense":1}"#).unwrap_err();
        for n in 0..events {
            shop.insert("tickets", &format!(r#"{{"id":"{n}"}}"#)).unwrap();
        }
        shop
    }

    fn chunks(partition: &Partition) -> Chunks {
        let mut chunks = Chunks::default();
        partition.chunks(&mut chunks);
        chunks
    }

    /// Counts the event segments that are read.
    struct CountingSource<'a>(&'a Chunks, Cell<u64>);

    impl ChunkSource for CountingSource<'_> {
        fn get(&self, name: &str) -> Option<Vec<u8>> {
            self.1.set(self.1.get() + u64::from(crate::checkpoint::is_event_chunk(name)));
            self.0.get(name)
        }

        fn names(&self) -> Vec<String> {
            self.0.names()
        }
    }

    #[test]
    fn however_many_events_there_are_the_last_two_segments_are_read() {
        for events in [SEGMENT_EVENTS + 1, 8 * SEGMENT_EVENTS + 1] {
            let written = chunks(&shop(events).partition);
            let counted = CountingSource(&written, Cell::new(0));
            Partition::from_chunks(&counted, Procedures::default()).unwrap();
            assert_eq!(counted.1.get(), 2, "{events} events");
        }
    }

    #[test]
    fn what_was_written_is_read_and_goes_on_alike() {
        for events in [0, 1, 255, 256, 257, 600] {
            let mut shop = shop(events);
            let written = chunks(&shop.partition);
            let mut read = Partition::from_chunks(&written, Procedures::default()).unwrap();
            assert_eq!(read.state_hash(), shop.partition.state_hash(), "{events} events");
            assert_eq!(chunks(&shop.partition), written, "and the same each time");
            shop.insert("dishes", r#"{"id":"e","code":"tea"}"#).unwrap_err();
            std::mem::swap(&mut shop.partition, &mut read);
            shop.now = crate::Timestamp(shop.now.0 - 1);
            shop.insert("dishes", r#"{"id":"e","code":"tea"}"#).unwrap_err();
            shop.insert("tickets", "{}").unwrap();
            let held = shop.branch().events_after(Offset(events.saturating_sub(256))).unwrap();
            assert_eq!(held.len() as u64, events.min(256) + 1, "the window is there");
        }
    }

    /// A shop whose tickets went into the history, so many of them.
    fn purged(tickets: usize) -> Shop {
        let mut shop = shop(0);
        let rows = (0..tickets).map(|n| format!(r#"{{"id":"{n}"}}"#)).collect::<Vec<_>>().join(",");
        let tables = crate::testing::object(&format!(r#"{{"tickets":[{rows}]}}"#));
        shop.operation(crate::Request::Replace(crate::Replace {
            tables: Arc::new(tables),
            revision: None,
        }))
        .unwrap();
        let purge = crate::Purge {
            tables: vec!["tickets".to_owned(), "order_header".to_owned(), "dishes".to_owned()],
            reason: "end of day".to_owned(),
            requested_by: Some("me".to_owned()),
            reset_events: true,
        };
        shop.operation(crate::Request::Purge(purge)).unwrap();
        shop
    }

    #[test]
    fn a_history_and_what_the_log_remembers_are_read_back() {
        let mut shop = purged(600);
        let (archive, log) = (shop.archive(), shop.branch().read(&crate::Read::Log).unwrap());
        let written = chunks(&shop.partition);
        let pages = written.held.keys().filter(|name| name.contains("/archive/")).count();
        assert_eq!(pages, 4, "a head, and 601 records on three pages");
        let read = Partition::from_chunks(&written, Procedures::default()).unwrap();
        assert_eq!(read.state_hash(), shop.partition.state_hash());
        let mut before = std::mem::replace(&mut shop.partition, read);
        assert_eq!(shop.archive(), archive);
        assert_eq!(shop.branch().read(&crate::Read::Log).unwrap(), log);
        std::mem::swap(&mut shop.partition, &mut before);
        shop.insert("dishes", r#"{"id":"e","code":"tea"}"#).unwrap();
        let after = chunks(&shop.partition);
        let entry = |name: &&String| name.contains("/archive/");
        assert!(
            written.held.keys().filter(entry).all(|name| after.held[name] == written.held[name]),
            "an entry is written once"
        );
    }

    #[test]
    fn a_history_that_is_missing_or_damaged_is_refused_by_name() {
        let full = chunks(&purged(300).partition);
        for name in full.held.keys().filter(|name| name.contains("/archive/")) {
            let mut damaged = full.clone();
            damaged.held.remove(name);
            assert!(
                Partition::from_chunks(&damaged, Procedures::default()).is_err(),
                "without {name}"
            );
            let mut cut = full.clone();
            cut.held.get_mut(name).unwrap().pop();
            let error = Partition::from_chunks(&cut, Procedures::default()).unwrap_err();
            assert_eq!(&error.name, name);
        }
        let mut swapped = full.clone();
        let names: Vec<_> = full.held.keys().filter(|name| name.contains("/archive/")).collect();
        swapped.held.insert(names[1].clone(), full.held[names[0]].clone());
        assert!(Partition::from_chunks(&swapped, Procedures::default()).is_err());
    }

    #[test]
    fn sealed_segments_that_left_memory_are_kept_by_name() {
        let mut shop = shop(600);
        let full = chunks(&shop.partition);
        assert!(full.kept.is_empty());
        shop.partition.forget_events(|_| Offset(600));
        let after = chunks(&shop.partition);
        assert_eq!(after.kept, ["b/dar/pos/events/0000000000000001"]);
        assert_eq!(
            shop.partition.state_hash(),
            Partition::from_chunks(&full, Procedures::default()).unwrap().state_hash()
        );
        let segment = Partition::read_segment(&full.held[&after.kept[0]]).unwrap();
        assert_eq!((segment.events.len(), segment.last()), (256, Some(Offset(256))));
    }

    #[test]
    fn an_untouched_page_has_the_bytes_it_had() {
        let mut shop = shop(300);
        let before = chunks(&shop.partition);
        shop.merge("tickets", r#"{"id":"299","n":1}"#).unwrap();
        let after = chunks(&shop.partition);
        let changed =
            after.held.iter().filter(|(name, bytes)| before.held.get(*name) != Some(*bytes));
        let names: Vec<_> = changed.map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            [
                "b/dar/pos/dedup/client/0000000000000000",
                "b/dar/pos/events/tail",
                "b/dar/pos/head",
                "b/dar/pos/records/tickets/0000000000000001",
            ]
        );
    }

    #[test]
    fn what_is_missing_or_damaged_is_refused_by_name() {
        let full = chunks(&shop(600).partition);
        let names: Vec<String> = full.held.keys().cloned().collect();
        for name in &names {
            let mut missing = full.clone();
            missing.held.remove(name);
            assert!(
                Partition::from_chunks(&missing, Procedures::default()).is_err(),
                "without {name}"
            );
            let mut cut = full.clone();
            cut.held.get_mut(name).unwrap().pop();
            let old_segment = name.ends_with("events/0000000000000001");
            assert_eq!(
                Partition::from_chunks(&cut, Procedures::default()).is_err(),
                !old_segment,
                "{name} cut"
            );
        }
        let mut swapped = full.clone();
        let older = full.held["b/dar/pos/events/0000000000000001"].clone();
        swapped.held.insert("b/dar/pos/events/0000000000000002".to_owned(), older);
        let error = Partition::from_chunks(&swapped, Procedures::default()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "checkpoint chunk \"b/dar/pos/events/0000000000000002\": event 1 does not follow its chain"
        );
    }

    #[test]
    fn the_records_of_a_table_share_their_names() {
        let read =
            Partition::from_chunks(&chunks(&shop(2).partition), Procedures::default()).unwrap();
        let branch = read.branches().next().unwrap();
        let table = branch.definition().unwrap().schema.table("tickets").unwrap();
        let (_, row) = branch.module.rows(&table.name).unwrap().iter().next().unwrap();
        let (name, _) = row.record.iter().next().unwrap();
        assert!(Arc::ptr_eq(name, &table.fields[0].name));
    }
}
