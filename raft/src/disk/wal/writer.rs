//! Writer: the log's one thread. It takes all that is queued, writes it as one turn, makes it
//! durable with one call, and then, in order, says so.
//!
//! It also moves on to the next segment, empties the oldest one by writing again what lives in it,
//! and stops for good at the first write or fsync that fails.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use model::mutant::{self, Mutant};
use parking_lot::{Condvar, Mutex};

use crate::disk::device::is_full;
use crate::disk::record::{Kind, Link, RECORD_HEAD, Record, TURN_HEAD, Turn};
use crate::disk::segment::{HEAD, Head, Segment};
use crate::disk::wal::index::{Index, Source};
use crate::disk::wal::recover::Opened;
use crate::disk::wal::spare::{Maker, Spare};
use crate::disk::wal::{Done, WalConfig, WalCounters, WalError};
use crate::disk::{Device, GroupKey};
use crate::limits;

/// What the writer's memory may keep between turns.
const BUFFER_KEPT: usize = 1 << 20;

/// One submission on its way.
pub(super) struct Work {
    pub(super) records: Vec<Record>,
    pub(super) ticket: u64,
    /// The replicas it is about, each with its refusals when it was submitted.
    pub(super) groups: Vec<(GroupKey, u64)>,
    pub(super) done: Option<Done>,
}

impl Work {
    pub(super) fn size(&self) -> usize {
        self.records.iter().map(Record::size).sum()
    }
}

/// What is shared between those who submit and read, and the writer.
pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    /// Wakes the writer.
    pub(super) wake: Condvar,
    /// Wakes those who wait for room in the queue.
    pub(super) room: Condvar,
    /// Wakes the maker of segments.
    pub(super) order: Condvar,
    /// Wakes the writer when it waits for a segment.
    pub(super) made: Condvar,
    pub(super) counters: WalCounters,
}

/// The shared state. One lock: what is queued and what is known change together.
#[derive(Default)]
pub(super) struct State {
    pub(super) index: Index,
    pub(super) queue: VecDeque<Work>,
    pub(super) queued_bytes: usize,
    pub(super) ticket: u64,
    pub(super) closed: bool,
    pub(super) dead: Option<String>,
    /// Bytes needed and free, while there is no next segment.
    pub(super) full: Option<(u64, u64)>,
    /// The segment after the current one, until the writer takes it.
    pub(super) spare: Spare,
    /// Replicas of which memory says something the disk was refused: it is said again with the next
    /// turn. `true`: that the replica was forgotten before.
    pub(super) unsaid: BTreeMap<GroupKey, bool>,
}

/// What one turn of the writer does.
#[derive(Default)]
struct Batch {
    works: VecDeque<Work>,
    /// Committed marks and marks of the oldest segment.
    marks: Vec<Record>,
    /// Entries of the oldest segment.
    carry: Vec<(GroupKey, Source)>,
    /// The oldest segment needed once all of this is durable.
    floor: u64,
}

/// The writer.
pub(super) struct Writer {
    shared: Arc<Shared>,
    dir: PathBuf,
    device: Arc<dyn Device>,
    fatal: Box<dyn Fn(String) + Send + Sync>,
    segment_bytes: u64,
    carry_after: usize,
    active: Arc<Segment>,
    capacity: u64,
    end: u64,
    link: Link,
    floor: u64,
    spare: Option<Segment>,
    batch: Batch,
    turn: Turn,
    /// The records of the turn: ticket and offset in the turn.
    placed: Vec<(Record, u64, u64)>,
    /// Whom to tell after the turn, and what was refused.
    outcomes: Vec<(Done, Option<io::Error>)>,
    /// Replicas something of which was refused in this batch.
    refused: BTreeSet<GroupKey>,
    /// Where there are no threads: makes segments when they are needed.
    pub(super) maker: Option<Maker>,
    ended: bool,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        dir: PathBuf,
        config: WalConfig,
        opened: Opened,
    ) -> Self {
        let writer = Self {
            shared,
            dir,
            device: config.device,
            fatal: config.fatal,
            segment_bytes: config.segment_bytes,
            carry_after: config.carry_after_segments,
            active: opened.active,
            capacity: opened.capacity,
            end: opened.end,
            link: opened.link,
            floor: opened.floor,
            spare: None,
            batch: Batch::default(),
            turn: Turn::new(Vec::new()),
            placed: Vec::new(),
            outcomes: Vec::new(),
            refused: BTreeSet::new(),
            maker: None,
            ended: false,
        };
        writer.want_spare(&mut writer.shared.state.lock());
        writer
    }

    /// The thread's body.
    pub(super) fn run(mut self) {
        let ended = catch_unwind(AssertUnwindSafe(|| self.serve()));
        self.end(ended);
    }

    /// Without a thread: does what waits and returns.
    pub(super) fn turn(&mut self) {
        if self.ended {
            return;
        }
        if let Some(maker) = &self.maker {
            maker.attempt();
        }
        let state = self.shared.state.lock();
        let waits = !state.queue.is_empty() || state.closed;
        drop(state);
        if !waits {
            return;
        }
        let ended = match catch_unwind(AssertUnwindSafe(|| self.step())) {
            Ok(Ok(true)) => return,
            Ok(other) => Ok(other.map(|_| ())),
            Err(panic) => Err(panic),
        };
        self.end(ended);
    }

    fn end(&mut self, ended: std::thread::Result<io::Result<()>>) {
        self.ended = true;
        self.shared.state.lock().spare.end();
        self.shared.order.notify_all();
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                self.die(&format!("writing to {} failed: {error}", self.dir.display()));
            }
            Err(_) => self.die("the log's thread panicked"),
        }
    }

    fn serve(&mut self) -> io::Result<()> {
        while self.step()? {}
        Ok(())
    }

    /// One batch. `false`: the log is closed and nothing is left.
    fn step(&mut self) -> io::Result<bool> {
        let Some(batch) = self.take() else { return Ok(false) };
        self.batch = batch;
        self.refused.clear();
        while let Some(work) = self.batch.works.pop_front() {
            self.admit(work)?;
        }
        let floor = self.ride_along();
        self.flush(floor)?;
        Ok(true)
    }

    /// The segment after the current one; see [`Shared::next_segment`].
    fn next_segment(&self, again: bool) -> io::Result<Option<Segment>> {
        match &self.maker {
            Some(maker) => {
                maker.attempt();
                self.shared.next_segment(false)
            }
            None => self.shared.next_segment(again),
        }
    }

    /// Waits for something to do and takes all of it. `None`: closed, and nothing is left.
    fn take(&mut self) -> Option<Batch> {
        let shared = self.shared.clone();
        let mut state = shared.state.lock();
        while state.queue.is_empty() && !state.closed {
            shared.wake.wait(&mut state);
        }
        if state.queue.is_empty() && state.index.advised.is_empty() {
            return None;
        }
        self.spare = self.spare.take().or_else(|| state.spare.take());
        let batch = self.plan(&mut state);
        shared.room.notify_all();
        Some(batch)
    }

    /// Everything queued, and what rides along. Because the whole queue is taken, the state at this
    /// moment is exactly what the disk will say after this batch.
    fn plan(&self, state: &mut State) -> Batch {
        let mut works = std::mem::take(&mut state.queue);
        state.queued_bytes = 0;
        if !state.unsaid.is_empty() {
            works.push_front(restate(state));
        }
        let mut batch = Batch { works, floor: self.floor, ..Batch::default() };
        for key in std::mem::take(&mut state.index.advised) {
            let known = state.index.groups.get(&key);
            if let Some(committed) = known.and_then(|group| group.committed.value.clone()) {
                batch.marks.push(Record::mark(Kind::Committed, key, 0, committed));
            }
        }
        let (living, max_live) = (state.index.segments.len(), self.segment_bytes / 4);
        for (&serial, holding) in &state.index.segments {
            let live = holding.bytes + holding.entries * RECORD_HEAD as u64;
            let may_go = live == 0 || (living > self.carry_after + 1 && live <= max_live);
            if serial == self.active.head.serial || !may_go {
                break;
            }
            let (marks, entries, all) = state.index.living(serial, limits::WAL_CARRY_BYTES);
            let nothing = marks.is_empty() && entries.is_empty();
            batch.marks.extend(marks);
            batch.carry = entries;
            if all {
                batch.floor = serial + 1;
            }
            if !nothing {
                break;
            }
        }
        batch
    }

    /// Puts a submission into the turn; begins another turn or segment for it where needed.
    fn admit(&mut self, work: Work) -> io::Result<()> {
        if self.is_stale(&work) {
            self.refuse(work, false);
            return Ok(());
        }
        match self.make_room(work.size()) {
            Ok(true) => {}
            Ok(false) => {
                self.refuse(work, true);
                return Ok(());
            }
            Err(error) => {
                // It is told with all the others.
                self.batch.works.push_front(work);
                return Err(error);
            }
        }
        for record in work.records {
            self.push(record, work.ticket);
        }
        self.outcomes.extend(work.done.map(|done| (done, None)));
        Ok(())
    }

    /// Sees to it that records of this size fit into the turn. `false`: there is no room on the
    /// disk.
    fn make_room(&mut self, size: usize) -> io::Result<bool> {
        // Whether there is a next segment is known while half of this one is left.
        if self.spare.is_none() && self.turn.size_with(size) as u64 + self.end > self.capacity / 2 {
            self.spare = self.next_segment(false)?;
        }
        while !self.fits(size) {
            self.flush(self.floor)?;
            if !self.rotate(size)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether something this submission stands on was refused.
    fn is_stale(&self, work: &Work) -> bool {
        if work.groups.iter().any(|(key, _)| self.refused.contains(key)) {
            return true;
        }
        let state = self.shared.state.lock();
        let refusals = |key| state.index.refusals.get(key).copied().unwrap_or(0);
        work.groups.iter().any(|(key, seen)| refusals(key) != *seen)
    }

    /// Whether records of this size fit into the current segment. While there is no next one, only
    /// small submissions may use its last part.
    fn fits(&self, size: usize) -> bool {
        let reserved = self.spare.is_none() && size > limits::WAL_TINY_BYTES.min(self.reserve());
        let reserve = if reserved { self.reserve() as u64 } else { 0 };
        self.end + self.turn.size_with(size) as u64 + reserve <= self.capacity
    }

    fn reserve(&self) -> usize {
        usize::try_from(self.segment_bytes / 16).expect("segments fit into memory")
    }

    fn push(&mut self, record: Record, ticket: u64) {
        let offset = self.turn.push(&record, self.active.seed);
        self.placed.push((record, ticket, offset));
    }

    /// Adds what rides along, if there is room and nothing was refused. Returns the oldest segment
    /// needed once the turn is durable.
    fn ride_along(&mut self) -> u64 {
        let batch = std::mem::take(&mut self.batch);
        let mut records = batch.marks;
        for (key, source) in batch.carry {
            match carried(key, source) {
                Ok(record) => records.push(record),
                Err(error) => {
                    // Whoever needs the entry will be told; until then its file must stay.
                    tracing::error!(%error, "an old log segment cannot be emptied");
                    return self.floor;
                }
            }
        }
        let size: usize = records.iter().map(Record::size).sum();
        if !self.refused.is_empty() || !self.fits(size) {
            let mut state = self.shared.state.lock();
            if !state.closed {
                let committed = records.iter().filter(|record| record.kind == Kind::Committed);
                state.index.advised.extend(committed.map(|record| record.key));
            }
            return self.floor;
        }
        let carried = records.iter().filter(|record| record.kind == Kind::Carried);
        let bytes: usize = carried.map(Record::size).sum();
        self.shared.counters.carried_bytes.fetch_add(bytes as u64, Relaxed);
        for record in records {
            self.push(record, 0);
        }
        batch.floor
    }

    /// Writes the turn, makes it durable, and tells everybody in it.
    fn flush(&mut self, floor: u64) -> io::Result<()> {
        if !self.turn.is_empty() {
            let start = self.end;
            self.write_turn(floor)?;
            let serial = self.active.head.serial;
            let mut state = self.shared.state.lock();
            for (record, ticket, offset) in self.placed.drain(..) {
                state.index.written(&record, ticket, serial, start + offset);
            }
            drop(state);
            self.retire(floor);
        }
        for (done, refused) in self.outcomes.drain(..) {
            tell(done, refused.map_or(Ok(()), Err));
        }
        Ok(())
    }

    fn write_turn(&mut self, floor: u64) -> io::Result<()> {
        let (bytes, crc) = self.turn.finish(self.active.seed, floor, self.link);
        let len = bytes.len() as u64;
        self.active.write(bytes, self.end, &*self.device)?;
        let begun = Instant::now();
        if !mutant::is(Mutant::AcknowledgeBeforeFsync) {
            self.active.sync(&*self.device)?;
        }
        let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.end += len;
        self.link = Link { serial: self.active.head.serial, end: self.end, crc };
        let counters = &self.shared.counters;
        counters.turns.fetch_add(1, Relaxed);
        counters.fsyncs.fetch_add(1, Relaxed);
        counters.fsync_micros.fetch_add(micros, Relaxed);
        counters.bytes.fetch_add(len, Relaxed);
        counters.ops.fetch_add(self.placed.len() as u64, Relaxed);
        let mut buffer = std::mem::replace(&mut self.turn, Turn::new(Vec::new())).into_buffer();
        buffer.clear();
        buffer.shrink_to(BUFFER_KEPT);
        self.turn = Turn::new(buffer);
        Ok(())
    }

    /// Removes the segments nobody needs any more, now that a durable turn says so.
    fn retire(&mut self, floor: u64) {
        if floor == self.floor {
            return;
        }
        self.floor = floor;
        let mut state = self.shared.state.lock();
        let kept = state.index.segments.split_off(&floor);
        let gone = std::mem::replace(&mut state.index.segments, kept);
        self.shared.counters.segments.store(state.index.segments.len() as u64, Relaxed);
        drop(state);
        for holding in gone.into_values() {
            if let Err(error) = std::fs::remove_file(&holding.segment.path) {
                let file = holding.segment.path.display();
                tracing::warn!(%file, %error, "a log segment no longer needed stays");
            }
        }
    }

    /// Goes on in the next segment, which gets room for `size` bytes of records. `false`: there is
    /// no room on the disk.
    fn rotate(&mut self, size: usize) -> io::Result<bool> {
        let next = match self.spare.take() {
            Some(spare) => Some(spare),
            None => self.next_segment(true)?,
        };
        let Some(spare) = next else { return Ok(false) };
        let needed = (HEAD + TURN_HEAD + size + 8 + self.reserve()) as u64;
        if needed > self.segment_bytes
            && let Err(error) = spare.grow(needed, &*self.device)
        {
            self.spare = Some(spare);
            return if is_full(&error) { Ok(false) } else { Err(error) };
        }
        self.active.seal(self.end);
        self.active = Arc::new(spare);
        self.end = HEAD as u64;
        self.capacity = self.segment_bytes.max(needed);
        let mut state = self.shared.state.lock();
        self.want_spare(&mut state);
        state.index.add_segment(self.active.clone());
        self.shared.counters.segments.store(state.index.segments.len() as u64, Relaxed);
        Ok(true)
    }

    /// Orders the segment after the current one.
    fn want_spare(&self, state: &mut State) {
        let serial = self.active.head.serial + 1;
        let (nonce, floor) = (self.device.nonce(), self.floor);
        state.spare.want(Head { serial, nonce, replaces: serial, floor });
        self.shared.order.notify_all();
    }

    /// Says no to a submission because there is no room for it. Memory forgets what it appended;
    /// what else it changed is said to the disk again with the next turn.
    fn refuse(&mut self, work: Work, take_back: bool) {
        let mut state = self.shared.state.lock();
        for (key, _) in &work.groups {
            if take_back {
                state.index.take_back(*key, work.ticket);
            }
            let its = || work.records.iter().filter(|record| record.key == *key);
            // Entries that were never written need no word.
            if its().any(|record| record.kind != Kind::Entry) {
                let forgotten = its().any(|record| record.kind == Kind::Forget);
                *state.unsaid.entry(*key).or_default() |= forgotten;
            }
            self.refused.insert(*key);
        }
        let (needed, free) = state.full.unwrap_or_else(|| (work.size() as u64, 0));
        drop(state);
        self.shared.counters.refused.fetch_add(1, Relaxed);
        let error = WalError::Full { dir: self.dir.clone(), needed, free };
        let error = io::Error::new(io::ErrorKind::StorageFull, error);
        self.outcomes.extend(work.done.map(|done| (done, Some(error))));
    }

    /// The end of this log: everybody still waiting is told, then the node.
    fn die(&mut self, reason: &str) {
        tracing::error!(reason, "the log stops");
        let mut state = self.shared.state.lock();
        state.dead = Some(reason.to_owned());
        let queue = std::mem::take(&mut state.queue);
        state.queued_bytes = 0;
        self.shared.room.notify_all();
        drop(state);
        let waiting = self.outcomes.drain(..).map(|(done, _)| done);
        let batch = std::mem::take(&mut self.batch.works);
        let queued = batch.into_iter().chain(queue).filter_map(|work| work.done);
        for done in waiting.chain(queued) {
            tell(done, Err(dead(reason)));
        }
        (self.fatal)(reason.to_owned());
    }
}

/// What everybody is told once the log is dead.
pub(super) fn dead(reason: &str) -> io::Error {
    io::Error::other(WalError::Dead { reason: reason.to_owned() })
}

/// Calls a callback; one that panics is a defect of its owner, not the end of the log.
fn tell(done: Done, result: io::Result<()>) {
    if catch_unwind(AssertUnwindSafe(|| done(result))).is_err() {
        tracing::error!("a callback of the log panicked");
    }
}

/// What memory says of the replicas a refusal left in doubt, to be written first.
fn restate(state: &mut State) -> Work {
    let mut records = Vec::new();
    let mut groups = Vec::new();
    for (key, forgotten) in std::mem::take(&mut state.unsaid) {
        groups.push((key, state.index.refusals.get(&key).copied().unwrap_or(0)));
        if forgotten {
            records.push(Record::mark(Kind::Forget, key, 0, bytes::Bytes::new()));
        }
        if let Some(group) = state.index.groups.get(&key) {
            records.extend(group.restated(key));
        }
    }
    Work { records, ticket: 0, groups, done: None }
}

/// An entry of an old segment, to be written again.
fn carried(key: GroupKey, source: Source) -> Result<Record, WalError> {
    let entry = source.read(key)?;
    let (index, term, payload) = (entry.index, entry.term, entry.bytes);
    Ok(Record { kind: Kind::Carried, key, index, term, payload })
}
