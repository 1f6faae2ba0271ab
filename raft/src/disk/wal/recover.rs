//! Recover: reads the segment files of a directory and builds the index from them.
//!
//! Promise: the last segment that holds batches is copied, and the copy synced, before any state is
//! reported. After a kill, what can be read may exist in the page cache only; without the copy, a
//! vote that was reported could be lost by the next loss of power.
//! Refused: a log in which any byte before the last batch is not what was written. The error names
//! the file and the offset.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::disk::GroupKey;
use crate::disk::device::is_full;
use crate::disk::record::{
    self, BATCH_HEADER_BYTES, BatchLink, Kind, RECORD_HEADER_BYTES, RecordView,
};
use crate::disk::segment::{
    self, ParsedBatch, SEGMENT_HEADER_BYTES, ScanEnd, Segment, SegmentHeader,
};
use crate::disk::wal::index::{EntryLocation, LatestRecord, LiveEntry, WalIndex};
use crate::disk::wal::{RecoveredLog, WalConfig, WalError};

/// A log that is ready for the writer.
pub(super) struct OpenedLog {
    pub(super) index: WalIndex,
    pub(super) recovered: RecoveredLog,
    pub(super) active: Arc<Segment>,
    pub(super) capacity: u64,
    pub(super) end: u64,
    pub(super) link: BatchLink,
    pub(super) floor: u64,
}

/// The last segment that holds a batch.
struct LastSegment {
    header: SegmentHeader,
    bytes: Vec<u8>,
    batches: Vec<ParsedBatch>,
}

/// The state of the scan over all segments, oldest first.
#[derive(Default)]
struct LogScan {
    replay: Replay,
    /// Every segment that holds a batch, oldest first.
    segments: Vec<Arc<Segment>>,
    /// Segments that can be removed at once: they are blank, or another segment replaces them.
    removable: Vec<u64>,
    last_segment: Option<LastSegment>,
    /// The highest serial of any file; the copy gets the next one.
    highest: u64,
    /// The oldest segment that is needed, by the highest floor that any header or batch names.
    floor: u64,
    /// From this serial on, no segment is missing.
    contiguous_from: u64,
    /// The serial of the segment scanned last.
    previous: Option<u64>,
    /// The batch scanned last; the next one must name it as its predecessor.
    link: Option<BatchLink>,
    /// Damage at the end of a segment: file, offset, reason. A torn last write, unless a later
    /// segment holds a batch.
    torn_write: Option<(PathBuf, u64, &'static str)>,
}

/// Opens the log in a directory that this process has locked.
pub(super) fn open(dir: &Path, config: &WalConfig) -> Result<OpenedLog, WalError> {
    let io = |source| WalError::Io { path: dir.to_owned(), source };
    // A previous open may have been killed between the rename of its copy and the sync. The name of
    // the copy must be durable before the segments it replaces are removed.
    config.device.sync_dir(dir).map_err(io)?;
    let mut scan = scan_segments(dir)?;
    // A gap below the floor is the normal result of compaction. One above it is a lost file.
    if scan.contiguous_from > scan.floor {
        let file = segment::path_of(dir, scan.contiguous_from - 1);
        return Err(WalError::Corrupt { file, offset: 0, reason: "it is missing".to_owned() });
    }
    let torn_write = scan.torn_write.take();
    if let Some((file, offset, reason)) = &torn_write {
        tracing::warn!(file = %file.display(), offset, reason, "a torn last write is cut");
    }
    // First, so that on a nearly full disk the copy finds the space of blank segments.
    remove(dir, &scan.removable).map_err(io)?;
    let copy = copy_tail(dir, &scan, config)?;
    let replaced =
        scan.last_segment.as_ref().map_or(copy.segment.header.serial, |old| old.header.serial);
    let (kept, removed): (Vec<_>, Vec<_>) = scan
        .segments
        .into_iter()
        .partition(|segment| (copy.floor..replaced).contains(&segment.header.serial));
    let index = scan.replay.finish(dir, &kept, &copy.segment, replaced, config.cache_bytes)?;
    let removed: Vec<u64> = removed.iter().map(|segment| segment.header.serial).collect();
    // Only now: the copy is durable and the index was built, so a refusal above changed nothing
    // that the operator may need.
    remove(dir, &removed).map_err(io)?;
    config.device.sync_dir(dir).map_err(io)?;
    let groups = index.groups.iter().map(|(key, group)| (*key, group.state())).collect();
    let recovered =
        RecoveredLog { groups, torn_write: torn_write.map(|(file, offset, _)| (file, offset)) };
    Ok(OpenedLog {
        index,
        recovered,
        active: copy.segment,
        capacity: copy.capacity,
        end: copy.end,
        link: copy.link,
        floor: copy.floor,
    })
}

fn remove(dir: &Path, serials: &[u64]) -> std::io::Result<()> {
    serials.iter().try_for_each(|serial| fs::remove_file(segment::path_of(dir, *serial)))
}

/// Reads, checks and replays all segments, oldest first.
fn scan_segments(dir: &Path) -> Result<LogScan, WalError> {
    let io = |source| WalError::Io { path: dir.to_owned(), source };
    segment::remove_unfinished(dir).map_err(io)?;
    let serials = segment::list(dir).map_err(io)?;
    // All headers first: which segments are replaced is known from later ones only.
    let mut headers = Vec::new();
    for serial in serials {
        headers.push(Segment::read_header(dir, serial)?);
    }
    let mut scan = LogScan::default();
    for header in &headers {
        scan.highest = scan.highest.max(header.serial);
        let replaced =
            |by: &SegmentHeader| by.replaces <= header.serial && header.serial < by.serial;
        // An open that was killed leaves both the copy and the original; the copy counts.
        if headers.iter().any(replaced) {
            scan.removable.push(header.serial);
        } else {
            scan.scan_segment(dir, header.serial)?;
        }
    }
    Ok(scan)
}

impl LogScan {
    /// Scans the next segment and replays its batches.
    fn scan_segment(&mut self, dir: &Path, serial: u64) -> Result<(), WalError> {
        let (segment, bytes) = Segment::open(dir, serial)?;
        let header = segment.header;
        if self.previous.is_none_or(|previous| header.replaces > previous + 1) {
            // Starts over behind the gap, without the records before it. If any of those were still
            // needed, `open` refuses the log in the end, as the gap lies above the floor.
            let (removable, highest) = (std::mem::take(&mut self.removable), self.highest);
            let dropped = std::mem::take(&mut self.segments);
            let floor = self.floor;
            *self = Self {
                removable,
                highest,
                floor,
                contiguous_from: header.replaces,
                ..Self::default()
            };
            self.removable.extend(dropped.iter().map(|segment| segment.header.serial));
        }
        self.previous = Some(serial);
        self.floor = self.floor.max(header.floor);
        // The spare segment. It is not the last one that holds a batch, so damage before it can
        // still be a torn last write.
        if segment::is_blank(&bytes[SEGMENT_HEADER_BYTES..]) {
            self.removable.push(serial);
            return Ok(());
        }
        let corrupt = |(file, offset, reason): (PathBuf, u64, &str)| {
            Err(WalError::Corrupt { file, offset, reason: reason.to_owned() })
        };
        // The writer moves on to a segment only when all before it is durable, so damage with a
        // batch behind it is corruption.
        if let Some(torn_write) = self.torn_write.take() {
            return corrupt(torn_write);
        }
        let (batches, end, scan_end) = segment::scan_batches(&bytes, &header, self.link);
        for batch in &batches {
            self.floor = self.floor.max(batch.header.floor);
            self.link = Some(BatchLink { serial, end: batch.end(), crc: batch.header.crc });
            self.replay.batch(&segment, &bytes, batch)?;
        }
        if let ScanEnd::Damage { reason, before_last } = scan_end {
            let damage = (segment.path.clone(), end, reason);
            if before_last {
                return corrupt(damage);
            }
            self.torn_write = Some(damage);
        }
        if !batches.is_empty() {
            self.last_segment = Some(LastSegment { header, bytes, batches });
        }
        self.segments.push(Arc::new(segment));
        Ok(())
    }
}

/// The copy of the last segment, and where the writer continues in it.
struct CopiedTail {
    segment: Arc<Segment>,
    capacity: u64,
    end: u64,
    link: BatchLink,
    floor: u64,
}

/// Copies the batches of the last segment into a new one, which is durable when this returns and
/// replaces the old one and all behind it.
fn copy_tail(dir: &Path, scan: &LogScan, config: &WalConfig) -> Result<CopiedTail, WalError> {
    let serial = scan.highest + 1;
    let replaces = scan.last_segment.as_ref().map_or(serial, |last| last.header.replaces);
    // A log without a batch begins with this segment.
    let floor = if scan.last_segment.is_some() { scan.floor } else { serial };
    let header = SegmentHeader { serial, nonce: config.device.nonce(), replaces, floor };
    let mut bytes = Vec::new();
    let mut link = BatchLink::default();
    for (at, batch) in scan.last_segment.iter().flat_map(|last| last.batches.iter().enumerate()) {
        let from = usize::try_from(batch.offset).expect("it was read from memory");
        let to = from + BATCH_HEADER_BYTES + batch.header.body;
        let old = scan.last_segment.as_ref().map_or(&[][..], |last| &last.bytes[from..to]);
        let start = bytes.len();
        bytes.extend_from_slice(old);
        // The first batch keeps its predecessor, which stands in an older segment. The others are
        // linked anew, because checksums depend on the segment's seed.
        let prev = if at == 0 { batch.header.prev } else { link };
        let crc =
            record::rewrite_checksums(&mut bytes[start..], &batch.header, header.seed(), prev);
        link = BatchLink { serial, end: (SEGMENT_HEADER_BYTES + bytes.len()) as u64, crc };
    }
    let end = (SEGMENT_HEADER_BYTES + bytes.len()) as u64;
    let least = end + config.segment_bytes / 16;
    let wanted = config.segment_bytes.max(least);
    let create = |capacity| {
        let created = Segment::create(dir, header, capacity, &bytes, &*config.device);
        created.map(|segment| (Arc::new(segment), capacity))
    };
    // On a nearly full disk a small segment is better than a node that does not start: the copy
    // fits, and so do votes.
    let created = create(wanted).or_else(|error| match is_full(&error) {
        true => create(least),
        false => Err(error),
    });
    match created {
        Ok((segment, capacity)) => Ok(CopiedTail { segment, capacity, end, link, floor }),
        Err(error) if is_full(&error) => {
            let free = config.device.free(dir);
            Err(WalError::Full { dir: dir.to_owned(), needed: least, free })
        }
        Err(source) => Err(WalError::Io { path: dir.to_owned(), source }),
    }
}

/// Where an entry was found, before the index exists.
struct FoundEntry {
    term: u64,
    len: u32,
    serial: u64,
    offset: u64,
}

/// One replica while the log is replayed.
#[derive(Default)]
struct ReplayedGroup {
    vote: LatestRecord<Bytes>,
    committed: LatestRecord<Bytes>,
    purged: LatestRecord<(u64, Bytes)>,
    entries: BTreeMap<u64, FoundEntry>,
}

/// The state of all replicas after the batches scanned so far.
#[derive(Default)]
struct Replay {
    groups: BTreeMap<GroupKey, ReplayedGroup>,
}

impl Replay {
    /// Replays the records of one batch.
    fn batch(
        &mut self,
        segment: &Segment,
        bytes: &[u8],
        batch: &ParsedBatch,
    ) -> Result<(), WalError> {
        let mut at =
            usize::try_from(batch.offset).expect("it was read from memory") + BATCH_HEADER_BYTES;
        for _ in 0..batch.header.records {
            let view = record::parse_record(&bytes[at..], segment.seed).map_err(|reason| {
                let reason = reason.to_owned();
                WalError::Corrupt { file: segment.path.clone(), offset: at as u64, reason }
            })?;
            self.record(&view, segment.header.serial, at as u64);
            at += RECORD_HEADER_BYTES + view.payload.len();
        }
        Ok(())
    }

    fn record(&mut self, view: &RecordView<'_>, serial: u64, offset: u64) {
        let group = self.groups.entry(view.key).or_default();
        let payload = || Bytes::copy_from_slice(view.payload);
        let len = || u32::try_from(view.payload.len()).expect("its length is a u32 on disk");
        match view.kind {
            Kind::Entry => {
                // An entry overwrites the one of its index and removes all behind it.
                group.entries.split_off(&view.index);
                let found = FoundEntry { term: view.term, len: len(), serial, offset };
                group.entries.insert(view.index, found);
            }
            // Does not remove what is behind it: the entry was live when it was copied, among
            // others. And it may be the only record, if the original's segment is gone.
            Kind::Compacted => {
                let found = FoundEntry { term: view.term, len: len(), serial, offset };
                group.entries.insert(view.index, found);
            }
            Kind::Vote => group.vote = LatestRecord { value: Some(payload()), serial },
            Kind::Committed => group.committed = LatestRecord { value: Some(payload()), serial },
            Kind::TruncateAfter => {
                group.entries.split_off(&(view.index + 1));
            }
            Kind::TruncateAll => group.entries.clear(),
            Kind::Purge => {
                // Also an equal one: compaction writes the last purge again, and from then on the
                // newer segment holds it.
                let purged = group.purged.value.as_ref().map(|(index, _)| *index);
                if purged.is_none_or(|purged| purged <= view.index) {
                    group.purged = LatestRecord { value: Some((view.index, payload())), serial };
                    group.entries = group.entries.split_off(&(view.index + 1));
                }
            }
            Kind::Forget => {
                self.groups.remove(&view.key);
            }
        }
    }

    /// Builds the index. Records of the copied segment now stand in the copy, at the same offsets.
    fn finish(
        self,
        dir: &Path,
        kept: &[Arc<Segment>],
        copy: &Arc<Segment>,
        replaced: u64,
        cache_bytes: usize,
    ) -> Result<WalIndex, WalError> {
        let mut index = WalIndex::new(cache_bytes);
        for segment in kept {
            index.add_segment(segment.clone());
        }
        index.add_segment(copy.clone());
        let current_serial =
            |serial: u64| if serial == replaced { copy.header.serial } else { serial };
        let oldest = index.segments.keys().next().copied().unwrap_or(replaced);
        for (key, mut group) in self.groups {
            let purged = group.purged.value.as_ref().map(|(index, _)| *index);
            let mut expected = purged.map(|index| index + 1);
            // Entries that the last purge covers are not live, in whatever order the records stand.
            if let Some(expected) = expected {
                group.entries = group.entries.split_off(&expected);
            }
            for (at, found) in group.entries {
                // A gap, or a record in a segment that is not needed any more: both mean that the
                // floor or a batch was lost, and that entries are missing.
                if current_serial(found.serial) < oldest
                    || expected.is_some_and(|expected| expected != at)
                {
                    let expected = expected.unwrap_or(at);
                    return Err(WalError::Corrupt {
                        file: segment::path_of(dir, found.serial),
                        offset: found.offset,
                        reason: format!("entry {at} of {key} stands where {expected} is due"),
                    });
                }
                expected = Some(at + 1);
                let location = EntryLocation::Written(current_serial(found.serial), found.offset);
                let entry = LiveEntry { term: found.term, len: found.len, location, bytes: None };
                index.insert_recovered(key, at, entry);
            }
            let known = index.group(key);
            known.vote = group.vote.relocated(current_serial);
            known.committed = group.committed.relocated(current_serial);
            known.purged = group.purged.relocated(current_serial);
        }
        Ok(index)
    }
}

impl<T> LatestRecord<T> {
    fn relocated(self, current_serial: impl Fn(u64) -> u64) -> Self {
        Self { value: self.value, serial: current_serial(self.serial) }
    }
}
