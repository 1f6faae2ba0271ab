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
use crate::disk::record::{self, Kind, Link, RECORD_HEAD, TURN_HEAD, View};
use crate::disk::segment::{self, Found, HEAD, Head, Segment, Stop};
use crate::disk::wal::index::{Index, Mark, Place, Slot};
use crate::disk::wal::{Recovered, WalConfig, WalError};

/// A log that may be written to.
pub(super) struct Opened {
    pub(super) index: Index,
    pub(super) recovered: Recovered,
    pub(super) active: Arc<Segment>,
    pub(super) capacity: u64,
    pub(super) end: u64,
    pub(super) link: Link,
    pub(super) floor: u64,
}

/// The segment the last turns stand in.
struct Tail {
    head: Head,
    bytes: Vec<u8>,
    turns: Vec<Found>,
}

/// What walking over all segments gave.
#[derive(Default)]
struct Walk {
    replay: Replay,
    /// Every segment with something in it, in order.
    segments: Vec<Arc<Segment>>,
    /// Segments that can go at once: nothing was ever written to them, or another one replaces
    /// them.
    idle: Vec<u64>,
    tail: Option<Tail>,
    highest: u64,
    /// The oldest segment still needed, by the last turn that says so.
    floor: u64,
    /// The oldest segment from which on none is missing.
    unbroken: u64,
    previous: Option<u64>,
    link: Option<Link>,
    /// Damage that is a torn last write, unless something follows.
    torn: Option<(PathBuf, u64, &'static str)>,
}

/// Opens the log of a directory nobody else has.
pub(super) fn open(dir: &Path, config: &WalConfig) -> Result<Opened, WalError> {
    let io = |source| WalError::Io { path: dir.to_owned(), source };
    // A segment that replaces others has its name for good before they go.
    config.device.sync_dir(dir).map_err(io)?;
    let mut walk = walk(dir)?;
    if walk.unbroken > walk.floor {
        let file = segment::path_of(dir, walk.unbroken - 1);
        return Err(WalError::Corrupt { file, offset: 0, reason: "it is missing".to_owned() });
    }
    let cut = walk.torn.take();
    if let Some((file, offset, reason)) = &cut {
        tracing::warn!(file = %file.display(), offset, reason, "a torn last write is cut");
    }
    remove(dir, &walk.idle).map_err(io)?;
    let tail = copy_tail(dir, &walk, config)?;
    let replaced = walk.tail.as_ref().map_or(tail.segment.head.serial, |old| old.head.serial);
    let (kept, gone): (Vec<_>, Vec<_>) = walk
        .segments
        .into_iter()
        .partition(|segment| (tail.floor..replaced).contains(&segment.head.serial));
    let index = walk.replay.finish(dir, &kept, &tail.segment, replaced, config.cache_bytes)?;
    let gone: Vec<u64> = gone.iter().map(|segment| segment.head.serial).collect();
    remove(dir, &gone).map_err(io)?;
    config.device.sync_dir(dir).map_err(io)?;
    let groups = index.groups.iter().map(|(key, group)| (*key, group.log())).collect();
    let recovered = Recovered { groups, cut: cut.map(|(file, offset, _)| (file, offset)) };
    Ok(Opened {
        index,
        recovered,
        active: tail.segment,
        capacity: tail.capacity,
        end: tail.end,
        link: tail.link,
        floor: tail.floor,
    })
}

fn remove(dir: &Path, serials: &[u64]) -> std::io::Result<()> {
    serials.iter().try_for_each(|serial| fs::remove_file(segment::path_of(dir, *serial)))
}

/// Reads, checks and replays all segments in order.
fn walk(dir: &Path) -> Result<Walk, WalError> {
    let io = |source| WalError::Io { path: dir.to_owned(), source };
    segment::remove_unfinished(dir).map_err(io)?;
    let serials = segment::list(dir).map_err(io)?;
    let mut heads = Vec::new();
    for serial in serials {
        heads.push(Segment::peek(dir, serial)?);
    }
    let mut walk = Walk::default();
    for head in &heads {
        walk.highest = walk.highest.max(head.serial);
        let replaced = |by: &Head| by.replaces <= head.serial && head.serial < by.serial;
        if heads.iter().any(replaced) {
            walk.idle.push(head.serial);
        } else {
            walk.step(dir, head.serial)?;
        }
    }
    Ok(walk)
}

impl Walk {
    /// One more segment.
    fn step(&mut self, dir: &Path, serial: u64) -> Result<(), WalError> {
        let (segment, bytes) = Segment::open(dir, serial)?;
        let head = segment.head;
        if self.previous.is_none_or(|previous| head.replaces > previous + 1) {
            // What stands before a gap is not needed, or the log is refused in the end.
            let (idle, highest) = (std::mem::take(&mut self.idle), self.highest);
            let dropped = std::mem::take(&mut self.segments);
            let floor = self.floor;
            *self = Self { idle, highest, floor, unbroken: head.replaces, ..Self::default() };
            self.idle.extend(dropped.iter().map(|segment| segment.head.serial));
        }
        self.previous = Some(serial);
        self.floor = self.floor.max(head.floor);
        if segment::is_blank(&bytes[HEAD..]) {
            self.idle.push(serial);
            return Ok(());
        }
        let corrupt = |(file, offset, reason): (PathBuf, u64, &str)| {
            Err(WalError::Corrupt { file, offset, reason: reason.to_owned() })
        };
        if let Some(torn) = self.torn.take() {
            return corrupt(torn);
        }
        let (turns, end, stop) = segment::turns(&bytes, &head, self.link);
        for turn in &turns {
            self.floor = self.floor.max(turn.head.floor);
            self.link = Some(Link { serial, end: turn.end(), crc: turn.head.crc });
            self.replay.turn(&segment, &bytes, turn)?;
        }
        if let Stop::Damage { reason, before_last } = stop {
            let damage = (segment.path.clone(), end, reason);
            if before_last {
                return corrupt(damage);
            }
            self.torn = Some(damage);
        }
        if !turns.is_empty() {
            self.tail = Some(Tail { head, bytes, turns });
        }
        self.segments.push(Arc::new(segment));
        Ok(())
    }
}

/// The copied tail.
struct Copied {
    segment: Arc<Segment>,
    capacity: u64,
    end: u64,
    link: Link,
    floor: u64,
}

/// Copies the last turns into a new segment, which is durable afterwards and stands for the old one
/// and all behind it.
fn copy_tail(dir: &Path, walk: &Walk, config: &WalConfig) -> Result<Copied, WalError> {
    let serial = walk.highest + 1;
    let replaces = walk.tail.as_ref().map_or(serial, |tail| tail.head.replaces);
    // A log without a turn begins here.
    let floor = if walk.tail.is_some() { walk.floor } else { serial };
    let head = Head { serial, nonce: config.device.nonce(), replaces, floor };
    let mut bytes = Vec::new();
    let mut link = Link::default();
    for (at, turn) in walk.tail.iter().flat_map(|tail| tail.turns.iter().enumerate()) {
        let from = usize::try_from(turn.offset).expect("it was read from memory");
        let to = from + TURN_HEAD + turn.head.body;
        let old = walk.tail.as_ref().map_or(&[][..], |tail| &tail.bytes[from..to]);
        let start = bytes.len();
        bytes.extend_from_slice(old);
        let prev = if at == 0 { turn.head.prev } else { link };
        let crc = record::reseal(&mut bytes[start..], &turn.head, head.seed(), prev);
        link = Link { serial, end: (HEAD + bytes.len()) as u64, crc };
    }
    let end = (HEAD + bytes.len()) as u64;
    let least = end + config.segment_bytes / 16;
    let wanted = config.segment_bytes.max(least);
    let make = |capacity| {
        let made = Segment::create(dir, head, capacity, &bytes, &*config.device);
        made.map(|segment| (Arc::new(segment), capacity))
    };
    let made = make(wanted).or_else(|error| match is_full(&error) {
        true => make(least),
        false => Err(error),
    });
    match made {
        Ok((segment, capacity)) => Ok(Copied { segment, capacity, end, link, floor }),
        Err(error) if is_full(&error) => {
            let free = config.device.free(dir);
            Err(WalError::Full { dir: dir.to_owned(), needed: least, free })
        }
        Err(source) => Err(WalError::Io { path: dir.to_owned(), source }),
    }
}

/// An entry found on disk.
struct Seen {
    term: u64,
    len: u32,
    serial: u64,
    offset: u64,
}

/// One replica while the log is replayed.
#[derive(Default)]
struct Replayed {
    vote: Mark<Bytes>,
    committed: Mark<Bytes>,
    purged: Mark<(u64, Bytes)>,
    entries: BTreeMap<u64, Seen>,
}

/// What the turns so far say.
#[derive(Default)]
struct Replay {
    groups: BTreeMap<GroupKey, Replayed>,
}

impl Replay {
    fn turn(&mut self, segment: &Segment, bytes: &[u8], turn: &Found) -> Result<(), WalError> {
        let mut at = usize::try_from(turn.offset).expect("it was read from memory") + TURN_HEAD;
        for _ in 0..turn.head.records {
            let view = record::view(&bytes[at..], segment.seed).map_err(|reason| {
                let reason = reason.to_owned();
                WalError::Corrupt { file: segment.path.clone(), offset: at as u64, reason }
            })?;
            self.record(&view, segment.head.serial, at as u64);
            at += RECORD_HEAD + view.payload.len();
        }
        Ok(())
    }

    fn record(&mut self, view: &View<'_>, serial: u64, offset: u64) {
        let group = self.groups.entry(view.key).or_default();
        let payload = || Bytes::copy_from_slice(view.payload);
        let len = || u32::try_from(view.payload.len()).expect("its length is a u32 on disk");
        match view.kind {
            Kind::Entry => {
                group.entries.split_off(&view.index);
                let seen = Seen { term: view.term, len: len(), serial, offset };
                group.entries.insert(view.index, seen);
            }
            // Among the entries that live at this point, and perhaps the only record of it.
            Kind::Carried => {
                let seen = Seen { term: view.term, len: len(), serial, offset };
                group.entries.insert(view.index, seen);
            }
            Kind::Vote => group.vote = Mark { value: Some(payload()), at: serial },
            Kind::Committed => group.committed = Mark { value: Some(payload()), at: serial },
            Kind::TruncateAfter => {
                group.entries.split_off(&(view.index + 1));
            }
            Kind::TruncateAll => group.entries.clear(),
            Kind::Purge => {
                let purged = group.purged.value.as_ref().map(|(index, _)| *index);
                if purged.is_none_or(|purged| purged <= view.index) {
                    group.purged = Mark { value: Some((view.index, payload())), at: serial };
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
        tail: &Arc<Segment>,
        replaced: u64,
        cache_bytes: usize,
    ) -> Result<Index, WalError> {
        let mut index = Index::new(cache_bytes);
        for segment in kept {
            index.add_segment(segment.clone());
        }
        index.add_segment(tail.clone());
        let now = |serial: u64| if serial == replaced { tail.head.serial } else { serial };
        let oldest = index.segments.keys().next().copied().unwrap_or(replaced);
        for (key, mut group) in self.groups {
            let purged = group.purged.value.as_ref().map(|(index, _)| *index);
            let mut due = purged.map(|index| index + 1);
            if let Some(due) = due {
                group.entries = group.entries.split_off(&due);
            }
            for (at, seen) in group.entries {
                if now(seen.serial) < oldest || due.is_some_and(|due| due != at) {
                    let due = due.unwrap_or(at);
                    return Err(WalError::Corrupt {
                        file: segment::path_of(dir, seen.serial),
                        offset: seen.offset,
                        reason: format!("entry {at} of {key} stands where {due} is due"),
                    });
                }
                due = Some(at + 1);
                let place = Place::At(now(seen.serial), seen.offset);
                let slot = Slot { term: seen.term, len: seen.len, place, bytes: None };
                index.found(key, at, slot);
            }
            let known = index.group(key);
            known.vote = group.vote.moved(now);
            known.committed = group.committed.moved(now);
            known.purged = group.purged.moved(now);
        }
        Ok(index)
    }
}

impl<T> Mark<T> {
    fn moved(self, now: impl Fn(u64) -> u64) -> Self {
        Self { value: self.value, at: now(self.at) }
    }
}
