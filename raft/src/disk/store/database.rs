//! Database: all calls of sled.
//!
//! Promise: an error or a panic of sled is returned as a reason in words, and never unwinds into
//! the caller. A value that is replaced while it is read is returned as the old or the new one.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::sync_channel;

use bytes::Bytes;

use crate::disk::GroupKey;
use crate::disk::device::{retry_shortage, sync_dir};
use crate::limits::{
    STORE_BATCH_BYTES, STORE_BATCH_RECORDS, STORE_BROKEN_KEPT, STORE_CACHE_BYTES,
    STORE_SEGMENT_BYTES, STORE_VALUE_BYTES,
};
use crate::machine::{ScanLimit, StoreWrite};

/// The key spaces: the byte that follows group and replica in a key.
const PROGRESS: u8 = 0;
const DATA: u8 = 1;
const PART: u8 = 2;
/// The first byte of a value in the space `DATA`.
const VALUE_WHOLE: u8 = 0;
const VALUE_SPLIT: u8 = 1;

/// How much of a replica's changes is stored.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct StoreProgress {
    /// The index up to which changes are stored.
    pub(super) index: u64,
    /// Whether a rebuild began and did not finish.
    pub(super) rebuilding: bool,
}

/// An open database. Cheap to clone.
#[derive(Clone)]
pub(super) struct Database {
    db: Arc<DatabaseHandle>,
    dir: PathBuf,
    file: Arc<File>,
    /// The edition of the next value that is split.
    editions: Arc<AtomicU32>,
}

/// The database, shared by all who use it. Readers may still hold one that was abandoned.
struct DatabaseHandle {
    /// `None` only while it is dropped.
    db: Option<sled::Db>,
    abandoned: AtomicBool,
}

impl Deref for DatabaseHandle {
    type Target = sled::Db;

    fn deref(&self) -> &sled::Db {
        self.db.as_ref().expect("only drop takes it")
    }
}

impl Drop for DatabaseHandle {
    fn drop(&mut self) {
        // To drop a sled database that failed may panic, or wait for ever for its own threads.
        if self.abandoned.load(Ordering::Acquire) {
            let thread = std::thread::Builder::new().name("store-end".into());
            drop_on_thread(self.db.take(), |end| thread.spawn(end).map(drop));
        }
    }
}

/// Drops a value on a thread of its own, because that may panic or never return. If no thread can
/// be started, the value is never dropped.
fn drop_on_thread<T: Send + 'static>(
    failed: T,
    spawn: impl FnOnce(Box<dyn FnOnce() + Send>) -> io::Result<()>,
) {
    // Sent once the thread runs: if it cannot be started, its closure is dropped here, and with it
    // all that the closure owns.
    let (give, given) = sync_channel(1);
    let end = move || drop(catch_unwind(AssertUnwindSafe(|| drop(given.recv()))));
    let left = match spawn(Box::new(end)) {
        Ok(()) => give.send(failed).err().map(|unsent| unsent.0),
        Err(error) => {
            tracing::error!(%error, "a failed working store stays in memory until the node ends");
            Some(failed)
        }
    };
    std::mem::forget(left);
}

/// Runs calls of sled, and returns an error or a panic as a reason in words.
fn catch_sled<T>(calls: impl FnOnce() -> Result<T, sled::Error>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(calls)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the database panicked".to_owned()),
    }
}

fn key(group: GroupKey, space: u8, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(11 + rest.len());
    key.extend(group.group.to_be_bytes());
    key.extend(group.replica.to_be_bytes());
    key.push(space);
    key.extend(rest);
    key
}

fn part_key(group: GroupKey, name: &[u8], split: SplitValue, part: u32) -> Vec<u8> {
    let mut key = key(group, PART, name);
    key.extend(split.edition.to_be_bytes());
    key.extend(part.to_be_bytes());
    key
}

/// Stands in the place of a value that was split into parts. Each one gets an edition that no other
/// has had since the database was opened. A reader during a replacement, however slow, therefore
/// finds all parts of the old value, or misses one and reads again.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct SplitValue {
    edition: u32,
    parts: u32,
}

impl SplitValue {
    fn encode(self) -> Vec<u8> {
        let mut bytes = vec![VALUE_SPLIT];
        bytes.extend(self.edition.to_be_bytes());
        bytes.extend(self.parts.to_be_bytes());
        bytes
    }

    /// `None`: not a split value.
    fn decode(value: &[u8]) -> Option<Self> {
        let (&VALUE_SPLIT, numbers) = value.split_first()? else { return None };
        let (edition, parts) = numbers.split_first_chunk()?;
        let (edition, parts) = (u32::from_be_bytes(*edition), parts.try_into().ok()?);
        Some(Self { edition, parts: u32::from_be_bytes(parts) })
    }
}

impl Database {
    pub(super) fn open(dir: &Path) -> Result<Self, String> {
        let db = catch_sled(|| {
            sled::Config::new()
                .path(dir)
                .mode(sled::Mode::HighThroughput)
                .cache_capacity(STORE_CACHE_BYTES)
                .segment_size(STORE_SEGMENT_BYTES)
                .flush_every_ms(None)
                .use_compression(false)
                .open()
        })?;
        let file = sync_files(dir).map_err(|error| error.to_string())?;
        let editions = Arc::new(AtomicU32::new(0));
        let db = Arc::new(DatabaseHandle { db: Some(db), abandoned: AtomicBool::new(false) });
        Ok(Self { db, dir: dir.to_owned(), file: Arc::new(file), editions })
    }

    /// Opens the database. One that does not open is moved aside and a new one is created.
    pub(super) fn open_or_create(dir: &Path) -> Result<Self, String> {
        let reason = match Self::open(dir) {
            Ok(database) => return Ok(database),
            Err(reason) => reason,
        };
        tracing::error!(dir = %dir.display(), reason, "the working store does not open");
        Self::create_new(dir)
    }

    /// Moves the present database aside and creates a new one. If that fails, the disk may be full:
    /// the databases that were moved aside are removed before the second attempt.
    pub(super) fn create_new(dir: &Path) -> Result<Self, String> {
        let create = |kept| {
            move_aside(dir, kept).map_err(|error| error.to_string())?;
            Self::open(dir)
        };
        create(STORE_BROKEN_KEPT).or_else(|reason| {
            tracing::error!(dir = %dir.display(), reason, "no new store; removing old ones");
            create(0)
        })
    }

    /// Gives up a database that failed. Those who still read it are not disturbed.
    pub(super) fn abandon(self) {
        self.db.abandoned.store(true, Ordering::Release);
    }

    pub(super) fn progress(&self, group: GroupKey) -> Result<StoreProgress, String> {
        let found = catch_sled(|| self.db.get(key(group, PROGRESS, &[])))?;
        let Some(bytes) = found else { return Ok(StoreProgress::default()) };
        let (Some(index), Some(rebuilding)) = (bytes.get(..8), bytes.get(8)) else {
            return Err("the index in the working store is damaged".to_owned());
        };
        let index = u64::from_be_bytes(index.try_into().expect("eight bytes were taken"));
        Ok(StoreProgress { index, rebuilding: *rebuilding != 0 })
    }

    /// Writes changes in order, and the progress in the same batch as the last of them. Not durable
    /// before [`Database::sync`].
    pub(super) fn write(
        &self,
        group: GroupKey,
        writes: impl IntoIterator<Item = StoreWrite>,
        progress: Option<StoreProgress>,
    ) -> Result<(), String> {
        let mut batch = StoreBatch::default();
        for write in writes {
            let (name, value) = match &write {
                StoreWrite::Put(name, value) => (name, Some(value)),
                StoreWrite::Delete(name) => (name, None),
            };
            self.replace(&mut batch, group, name, value)?;
            self.apply_if_full(&mut batch)?;
        }
        if let Some(progress) = progress {
            let mut bytes = progress.index.to_be_bytes().to_vec();
            bytes.push(u8::from(progress.rebuilding));
            batch.insert(key(group, PROGRESS, &[]), bytes);
        }
        self.apply(&mut batch)
    }

    fn replace(
        &self,
        batch: &mut StoreBatch,
        group: GroupKey,
        name: &[u8],
        value: Option<&Bytes>,
    ) -> Result<(), String> {
        let data_key = key(group, DATA, name);
        let old = catch_sled(|| self.db.get(&data_key))?;
        let old = old.and_then(|old| SplitValue::decode(&old));
        match value {
            None => batch.remove(data_key),
            Some(value) if value.len() <= STORE_VALUE_BYTES => {
                let mut whole = Vec::with_capacity(1 + value.len());
                whole.push(VALUE_WHOLE);
                whole.extend(&value[..]);
                batch.insert(data_key, whole);
            }
            Some(value) => {
                let parts = u32::try_from(value.len().div_ceil(STORE_VALUE_BYTES));
                let parts = parts.map_err(|_| "a value is too large".to_owned())?;
                let next = || self.editions.fetch_add(1, Ordering::Relaxed);
                // The counter starts at 0 in each process, so the old value may have the same one.
                let taken = old.map(|old| old.edition);
                let edition = Some(next()).filter(|edition| taken != Some(*edition));
                let edition = edition.unwrap_or_else(next);
                let split = SplitValue { edition, parts };
                // All parts before the value that refers to them: they may be in earlier batches.
                for (part, bytes) in (0..).zip(value.chunks(STORE_VALUE_BYTES)) {
                    batch.insert(part_key(group, name, split, part), bytes.to_vec());
                    self.apply_if_full(batch)?;
                }
                batch.insert(data_key, split.encode());
            }
        }
        // The old parts last: a reader that still sees the old value can find them until then.
        let old = old.unwrap_or_default();
        for part in 0..old.parts {
            batch.remove(part_key(group, name, old, part));
            self.apply_if_full(batch)?;
        }
        Ok(())
    }

    fn apply_if_full(&self, batch: &mut StoreBatch) -> Result<(), String> {
        if batch.is_full() { self.apply(batch) } else { Ok(()) }
    }

    fn apply(&self, batch: &mut StoreBatch) -> Result<(), String> {
        let batch = std::mem::take(batch);
        if batch.records == 0 {
            return Ok(());
        }
        catch_sled(|| self.db.apply_batch(batch.batch))
    }

    /// Makes what was written durable, as far as sled allows it.
    pub(super) fn sync(&self) -> Result<(), String> {
        // `flush` hands the data to the system; only the second call reaches the disk.
        catch_sled(|| self.db.flush())?;
        self.file.sync_data().map_err(|error| error.to_string())?;
        self.sync_blobs().map_err(|error| error.to_string())
    }

    /// Syncs blob files. Values are split so that sled creates none; if it ever does, they would
    /// not be durable without this.
    fn sync_blobs(&self) -> io::Result<()> {
        let blobs = self.dir.join("blobs");
        let mut found = 0usize;
        for entry in blobs.read_dir().into_iter().flatten() {
            let path = entry?.path();
            retry_shortage(|| File::open(&path))?.sync_all()?;
            found += 1;
        }
        if found > 0 {
            tracing::warn!(found, "the working store holds values outside its file");
            sync_dir(&blobs)?;
        }
        Ok(())
    }

    pub(super) fn clear(&self, group: GroupKey) -> Result<(), String> {
        let prefix = key(group, 0, &[]);
        let mut batch = StoreBatch::default();
        let mut keys = self.db.scan_prefix(&prefix[..prefix.len() - 1]).keys();
        while let Some(key) = catch_sled(|| keys.next().transpose())? {
            batch.remove(key.to_vec());
            self.apply_if_full(&mut batch)?;
        }
        self.apply(&mut batch)
    }

    pub(super) fn scan(
        &self,
        group: GroupKey,
        from: &[u8],
        to: &[u8],
        limit: ScanLimit,
    ) -> Result<Vec<(Bytes, Bytes)>, String> {
        let prefix = key(group, DATA, &[]).len();
        let range = key(group, DATA, from)..key(group, DATA, to);
        let (mut found, mut bytes) = (Vec::new(), 0);
        // An iterator of sled sees changes that are made meanwhile, hence `assemble`.
        let mut items = self.db.range(range);
        while found.len() < limit.rows && bytes < limit.bytes {
            let Some((name, value)) = catch_sled(|| items.next().transpose())? else { break };
            let name = Bytes::copy_from_slice(&name[prefix..]);
            if let Some(value) = self.assemble(group, &name, value)? {
                bytes += value.len();
                found.push((name, value));
            }
        }
        Ok(found)
    }

    /// The value of a record that was found, with its parts put together. `None`: it was removed
    /// meanwhile.
    fn assemble(
        &self,
        group: GroupKey,
        name: &[u8],
        mut value: sled::IVec,
    ) -> Result<Option<Bytes>, String> {
        loop {
            if let Some((&VALUE_WHOLE, bytes)) = value.split_first() {
                return Ok(Some(Bytes::copy_from_slice(bytes)));
            }
            let split = SplitValue::decode(&value);
            let split =
                split.ok_or_else(|| "a value of the working store is damaged".to_owned())?;
            if let Some(bytes) = self.parts(group, name, split)? {
                return Ok(Some(bytes));
            }
            // A part is missing: the value was replaced meanwhile, or the database is damaged. It
            // is damage if the record is unchanged.
            let again = catch_sled(|| self.db.get(key(group, DATA, name)))?;
            match again {
                None => return Ok(None),
                Some(again) if again == value => {
                    return Err("a part of a value of the working store is missing".to_owned());
                }
                Some(again) => value = again,
            }
        }
    }

    fn parts(
        &self,
        group: GroupKey,
        name: &[u8],
        split: SplitValue,
    ) -> Result<Option<Bytes>, String> {
        let mut bytes = Vec::new();
        for part in 0..split.parts {
            let part = catch_sled(|| self.db.get(part_key(group, name, split, part)))?;
            let Some(part) = part else { return Ok(None) };
            bytes.extend(&part[..]);
        }
        Ok(Some(bytes.into()))
    }

    /// The edition of a split value.
    #[cfg(test)]
    pub(super) fn edition(&self, group: GroupKey, name: &[u8]) -> Option<u32> {
        let found = catch_sled(|| self.db.get(key(group, DATA, name))).ok().flatten();
        found.and_then(|value| SplitValue::decode(&value)).map(|split| split.edition)
    }

    /// The number of records in the database.
    #[cfg(test)]
    pub(super) fn records(&self) -> usize {
        self.db.len()
    }

    pub(super) fn size(&self) -> u64 {
        catch_sled(|| self.db.size_on_disk()).unwrap_or(0)
    }
}

/// A bounded batch: sled stops all readers and writers of the process while it applies a batch.
#[derive(Default)]
struct StoreBatch {
    batch: sled::Batch,
    records: usize,
    bytes: usize,
}

impl StoreBatch {
    fn insert(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.records += 1;
        self.bytes += key.len() + value.len();
        self.batch.insert(key, value);
    }

    fn remove(&mut self, key: Vec<u8>) {
        self.records += 1;
        self.bytes += key.len();
        self.batch.remove(key);
    }

    fn is_full(&self) -> bool {
        self.records >= STORE_BATCH_RECORDS || self.bytes >= STORE_BATCH_BYTES
    }
}

/// Syncs the files and names that sled created, which sled does not do, and returns the database's
/// file.
fn sync_files(dir: &Path) -> io::Result<File> {
    retry_shortage(|| File::open(dir.join("conf")))?.sync_all()?;
    let file = retry_shortage(|| File::open(dir.join("db")))?;
    file.sync_all()?;
    sync_dir(dir)?;
    sync_dir(parent_of(dir))?;
    Ok(file)
}

fn parent_of(dir: &Path) -> &Path {
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}

/// Renames the directory of a database, and removes all but the last `kept` renamed ones. It is no
/// error if there is none.
pub(super) fn move_aside(dir: &Path, kept: usize) -> io::Result<()> {
    let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let parent = parent_of(dir);
    let aside = |number: u64| parent.join(format!("{name}.broken-{number}"));
    let mut numbers: Vec<u64> = parent
        .read_dir()?
        .filter_map(|entry| {
            let file = entry.ok()?.file_name().into_string().ok()?;
            file.strip_prefix(&format!("{name}.broken-"))?.parse().ok()
        })
        .collect();
    numbers.sort_unstable();
    let next = numbers.last().map_or(1, |last| last + 1);
    // Renamed, not removed: the content may tell why it failed.
    if dir.exists() {
        std::fs::rename(dir, aside(next))?;
        numbers.push(next);
    }
    for number in &numbers[..numbers.len().saturating_sub(kept)] {
        std::fs::remove_dir_all(aside(*number))?;
    }
    sync_dir(parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records that it was dropped.
    struct DropFlag(Arc<AtomicBool>);

    impl Drop for DropFlag {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Release);
        }
    }

    #[test]
    fn failed_database_is_dropped_on_its_own_thread() {
        let dropped = Arc::new(AtomicBool::new(false));
        let no_memory = |_| Err(io::ErrorKind::OutOfMemory.into());
        drop_on_thread(DropFlag(dropped.clone()), no_memory);
        assert!(!dropped.load(Ordering::Acquire), "and without a thread by nobody");
        let mut thread = None;
        let spawn = |end| {
            thread = Some(std::thread::spawn(end));
            Ok(())
        };
        drop_on_thread(DropFlag(dropped.clone()), spawn);
        thread.unwrap().join().unwrap();
        assert!(dropped.load(Ordering::Acquire));
    }
}
