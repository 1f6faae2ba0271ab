//! Recover: from the files of a directory to what the log holds.
//!
//! Every byte up to the last turn must be what was written; a log that is not is refused, naming
//! file and offset. Then the segment the last turns stand in is copied and the copy made durable,
//! before anything is reported: after a kill, what can be read may exist in the system's memory
//! only, and a vote that was reported must never be forgotten by the next loss of power.

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
use crate::disk::wal::index::{EntryLocation, Index, LatestRecord, LiveEntry};
use crate::disk::wal::{RecoveredLog, WalConfig, WalError};

/// A log that may be written to.
pub(super) struct OpenedLog {
    pub(super) index: Index,
    pub(super) recovered: RecoveredLog,
    pub(super) active: Arc<Segment>,
    pub(super) capacity: u64,
    pub(super) end: u64,
    pub(super) link: BatchLink,
    pub(super) floor: u64,
}

/// The segment the last turns stand in.
struct LastSegment {
    header: SegmentHeader,
    bytes: Vec<u8>,
    batches: Vec<ParsedBatch>,
}

/// What walking over all segments gave.
#[derive(Default)]
struct LogScan {
    replay: Replay,
    /// Every segment with something in it, in order.
    segments: Vec<Arc<Segment>>,
    /// Segments that can go at once: nothing was ever written to them, or another one replaces
    /// them.
    removable: Vec<u64>,
    last_segment: Option<LastSegment>,
    highest: u64,
    /// The oldest segment still needed, by the last turn that says so.
    floor: u64,
    /// The oldest segment from which on none is missing.
    contiguous_from: u64,
    previous: Option<u64>,
    link: Option<BatchLink>,
    /// Damage that is a torn last write, unless something follows.
    torn_write: Option<(PathBuf, u64, &'static str)>,
}

/// Opens the log of a directory nobody else has.
pub(super) fn open(dir: &Path, config: &WalConfig) -> Result<OpenedLog, WalError> {
    let io = |source| WalError::Io { path: dir.to_owned(), source };
    // A segment that replaces others has its name for good before they go.
    config.device.sync_dir(dir).map_err(io)?;
    let mut scan = scan_segments(dir)?;
    if scan.contiguous_from > scan.floor {
        let file = segment::path_of(dir, scan.contiguous_from - 1);
        return Err(WalError::Corrupt { file, offset: 0, reason: "it is missing".to_owned() });
    }
    let torn_write = scan.torn_write.take();
    if let Some((file, offset, reason)) = &torn_write {
        tracing::warn!(file = %file.display(), offset, reason, "a torn last write is cut");
    }
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

/// Reads, checks and replays all segments in order.
fn scan_segments(dir: &Path) -> Result<LogScan, WalError> {
    let io = |source| WalError::Io { path: dir.to_owned(), source };
    segment::remove_unfinished(dir).map_err(io)?;
    let serials = segment::list(dir).map_err(io)?;
    let mut heads = Vec::new();
    for serial in serials {
        heads.push(Segment::read_header(dir, serial)?);
    }
    let mut scan = LogScan::default();
    for header in &heads {
        scan.highest = scan.highest.max(header.serial);
        let replaced =
            |by: &SegmentHeader| by.replaces <= header.serial && header.serial < by.serial;
        if heads.iter().any(replaced) {
            scan.removable.push(header.serial);
        } else {
            scan.scan_segment(dir, header.serial)?;
        }
    }
    Ok(scan)
}

impl LogScan {
    /// One more segment.
    fn scan_segment(&mut self, dir: &Path, serial: u64) -> Result<(), WalError> {
        let (segment, bytes) = Segment::open(dir, serial)?;
        let header = segment.header;
        if self.previous.is_none_or(|previous| header.replaces > previous + 1) {
            // What stands before a gap is not needed, or the log is refused in the end.
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
        if segment::is_blank(&bytes[SEGMENT_HEADER_BYTES..]) {
            self.removable.push(serial);
            return Ok(());
        }
        let corrupt = |(file, offset, reason): (PathBuf, u64, &str)| {
            Err(WalError::Corrupt { file, offset, reason: reason.to_owned() })
        };
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

/// The copied tail.
struct CopiedTail {
    segment: Arc<Segment>,
    capacity: u64,
    end: u64,
    link: BatchLink,
    floor: u64,
}

/// Copies the last turns into a new segment, which is durable afterwards and stands for the old one
/// and all behind it.
fn copy_tail(dir: &Path, scan: &LogScan, config: &WalConfig) -> Result<CopiedTail, WalError> {
    let serial = scan.highest + 1;
    let replaces = scan.last_segment.as_ref().map_or(serial, |last| last.header.replaces);
    // A log without a turn begins here.
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
        let prev = if at == 0 { batch.header.prev } else { link };
        let crc =
            record::rewrite_checksums(&mut bytes[start..], &batch.header, header.seed(), prev);
        link = BatchLink { serial, end: (SEGMENT_HEADER_BYTES + bytes.len()) as u64, crc };
    }
    let end = (SEGMENT_HEADER_BYTES + bytes.len()) as u64;
    let least = end + config.segment_bytes / 16;
    let wanted = config.segment_bytes.max(least);
    let make = |capacity| {
        let allocation_done = Segment::create(dir, header, capacity, &bytes, &*config.device);
        allocation_done.map(|segment| (Arc::new(segment), capacity))
    };
    let allocation_done = make(wanted).or_else(|error| match is_full(&error) {
        true => make(least),
        false => Err(error),
    });
    match allocation_done {
        Ok((segment, capacity)) => Ok(CopiedTail { segment, capacity, end, link, floor }),
        Err(error) if is_full(&error) => {
            let free = config.device.free(dir);
            Err(WalError::Full { dir: dir.to_owned(), needed: least, free })
        }
        Err(source) => Err(WalError::Io { path: dir.to_owned(), source }),
    }
}

/// An entry found on disk.
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

/// What the turns so far say.
#[derive(Default)]
struct Replay {
    groups: BTreeMap<GroupKey, ReplayedGroup>,
}

impl Replay {
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
                group.entries.split_off(&view.index);
                let found = FoundEntry { term: view.term, len: len(), serial, offset };
                group.entries.insert(view.index, found);
            }
            // Among the entries that live at this point, and perhaps the only record of it.
            Kind::Compacted => {
                let found = FoundEntry { term: view.term, len: len(), serial, offset };
                group.entries.insert(view.index, found);
            }
            Kind::Vote => group.vote = LatestRecord { value: Some(payload()), serial: serial },
            Kind::Committed => {
                group.committed = LatestRecord { value: Some(payload()), serial: serial }
            }
            Kind::TruncateAfter => {
                group.entries.split_off(&(view.index + 1));
            }
            Kind::TruncateAll => group.entries.clear(),
            Kind::Purge => {
                let purged = group.purged.value.as_ref().map(|(index, _)| *index);
                if purged.is_none_or(|purged| purged <= view.index) {
                    group.purged =
                        LatestRecord { value: Some((view.index, payload())), serial: serial };
                    group.entries = group.entries.split_off(&(view.index + 1));
                }
            }
            Kind::Forget => {
                self.groups.remove(&view.key);
            }
        }
    }

    /// Builds the index. What stood in the copied segment now stands in the copy, at the same
    /// place.
    fn finish(
        self,
        dir: &Path,
        kept: &[Arc<Segment>],
        copy: &Arc<Segment>,
        replaced: u64,
        cache_bytes: usize,
    ) -> Result<Index, WalError> {
        let mut index = Index::new(cache_bytes);
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
            if let Some(expected) = expected {
                group.entries = group.entries.split_off(&expected);
            }
            for (at, found) in group.entries {
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
