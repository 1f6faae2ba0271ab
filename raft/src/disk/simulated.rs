//! Simulated disk: a disk in memory that fails on demand. It loses power, tears its last write, is
//! full, fails to write or to sync, and flips a bit.
//!
//! Not part of the product. Promise: what the log synced survives; of what it wrote since, each
//! sector is kept or lost at random. Each call of the log is added to one hash, so that two runs
//! can be compared. Refused: losing file names that were not synced, and faults in what checkpoints
//! and the working store write, which does not pass through this device.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::disk::segment::{self, Segment};
use crate::disk::{Device, RealDevice};
use crate::simulated::Rng;

#[cfg(test)]
mod tests;

/// Bytes that a loss of power keeps or loses as a whole.
const SECTOR: usize = 512;
/// The file system in memory.
const MEMORY: &str = "/dev/shm";

/// A temporary directory, in memory if possible, which is removed when this is dropped.
#[derive(Debug)]
pub struct SimulatedDir(tempfile::TempDir);

impl SimulatedDir {
    /// Creates the directory.
    ///
    /// # Errors
    /// The error of the system.
    pub fn new() -> io::Result<Self> {
        let memory = tempfile::Builder::new().prefix("mishkah-simulated-").tempdir_in(MEMORY);
        Ok(Self(memory.or_else(|_| tempfile::tempdir())?))
    }

    /// The path of a subdirectory, which is not created.
    pub fn subdir(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The path of the directory, as messages show it.
    pub fn display_path(&self) -> String {
        self.0.path().display().to_string()
    }

    /// Removes a subdirectory that is no longer needed.
    pub fn remove(&self, path: &Path) {
        // What cannot be removed now is removed with the whole directory.
        let _ = fs::remove_dir_all(path);
    }
}

/// Which calls fail, until another set of faults is given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskFaults {
    /// There is no space for another segment.
    pub full: bool,
    /// Writes fail.
    pub write_errors: bool,
    /// Syncs fail.
    pub sync_errors: bool,
    /// Syncs report success and do nothing.
    pub ignored_syncs: bool,
}

/// How a node crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashKind {
    /// The process is killed and the system runs on: nothing that was written is lost.
    Kill,
    /// What was not synced is lost or kept at random, sector by sector.
    PowerLoss,
}

/// Where a bit is flipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DamageTarget {
    /// The log, before its last batch: damage in the last one cannot be told from a torn write.
    Log,
    /// A chunk or manifest of a checkpoint.
    Checkpoint,
    /// The working store.
    Store,
}

/// A bit that was flipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BitFlip {
    /// The file, relative to the node's directory.
    pub file: PathBuf,
    /// The offset of the byte in it.
    pub offset: u64,
    bit: u8,
}

impl BitFlip {
    /// Flips the bit back, also if the file was renamed because of the damage.
    ///
    /// # Errors
    /// The error of the system; the file may be gone.
    pub fn revert(&self, dir: &Path) -> io::Result<()> {
        let file = dir.join(&self.file);
        let mut aside = file.clone().into_os_string();
        aside.push(".damaged");
        if !file.exists() {
            fs::rename(aside, &file)?;
        }
        self.toggle(dir)
    }

    fn toggle(&self, dir: &Path) -> io::Result<()> {
        let file = File::options().read(true).write(true).open(dir.join(&self.file))?;
        let mut byte = [0];
        file.read_exact_at(&mut byte, self.offset)?;
        file.write_all_at(&[byte[0] ^ (1 << self.bit)], self.offset)
    }
}

#[derive(Debug, Default)]
struct State {
    rng: Option<Rng>,
    faults: DiskFaults,
    /// Calls until power fails in the middle of one.
    calls_until_power_loss: Option<u64>,
    powered_off: bool,
    /// By inode: the content before each write that is not synced.
    unsynced: BTreeMap<u64, Vec<(u64, Vec<u8>)>>,
    trace: blake3::Hasher,
    calls: u64,
}

/// The disk of one node, from one start to the next crash.
#[derive(Debug)]
pub struct SimulatedDisk(Mutex<State>);

impl SimulatedDisk {
    /// A disk that draws its random numbers from a seed.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(State { rng: Some(Rng(seed)), ..State::default() }))
    }

    /// Sets which calls fail from now on.
    pub fn fail(&self, faults: DiskFaults) {
        self.0.lock().faults = faults;
    }

    /// Loses power in the middle of the call after `calls` others.
    pub fn lose_power_after(&self, calls: u64) {
        self.0.lock().calls_until_power_loss = Some(calls);
    }

    /// The hash and the number of all calls so far.
    pub fn trace(&self) -> (String, u64) {
        let state = self.0.lock();
        (state.trace.finalize().to_hex().to_string(), state.calls)
    }

    /// Crashes the node: copies to `to` what survives of `from`. Nothing that is written here from
    /// now on survives.
    ///
    /// # Errors
    /// The error of the system.
    pub fn crash(&self, kind: CrashKind, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.powered_off = true;
        let State { rng, unsynced, .. } = &mut *state;
        // In reverse, so that overlapping writes end with the content before the first of them.
        let mut lose = |file: &File, before: &[(u64, Vec<u8>)]| -> io::Result<()> {
            for (offset, before) in before.iter().rev() {
                for (at, sector) in before.chunks(SECTOR).enumerate() {
                    if rng.as_mut().is_none_or(|rng| rng.random_bool(500)) {
                        file.write_all_at(sector, offset + (at * SECTOR) as u64)?;
                    }
                }
            }
            Ok(())
        };
        copy(from, to, &mut |inode, copy| match (kind, unsynced.get(&inode)) {
            (CrashKind::PowerLoss, Some(before)) => lose(copy, before),
            (CrashKind::Kill, _) | (CrashKind::PowerLoss, None) => Ok(()),
        })
    }

    /// Records a call. Returns whether power is on before it, and after it.
    fn call(state: &mut State, kind: u8, offset: u64, bytes: &[u8]) -> (bool, bool) {
        if state.powered_off {
            return (false, false);
        }
        state.calls += 1;
        state.trace.update(&[kind]).update(&offset.to_le_bytes());
        state.trace.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
        match &mut state.calls_until_power_loss {
            Some(0) => {
                state.powered_off = true;
                (true, false)
            }
            Some(left) => {
                *left -= 1;
                (true, true)
            }
            None => (true, true),
        }
    }
}

fn power_is_off() -> io::Error {
    io::Error::other("the power is off")
}

impl Device for SimulatedDisk {
    fn preallocate(&self, file: &File, bytes: u64) -> io::Result<()> {
        let mut state = self.0.lock();
        if state.faults.full && !state.powered_off {
            return Err(io::ErrorKind::StorageFull.into());
        }
        match Self::call(&mut state, b'p', bytes, &[]) {
            (true, true) => RealDevice.preallocate(file, bytes),
            (_, _) => Err(power_is_off()),
        }
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.0.lock();
        if state.faults.write_errors && !state.powered_off {
            return Err(io::Error::from_raw_os_error(5));
        }
        let (before, after) = Self::call(&mut state, b'w', offset, bytes);
        if !before {
            return Err(power_is_off());
        }
        // Written also if power fails in this call: it is not synced, so each sector is lost or
        // kept, which is a torn write.
        let mut old = vec![0; bytes.len()];
        file.read_exact_at(&mut old, offset)?;
        let inode = file.metadata()?.ino();
        state.unsynced.entry(inode).or_default().push((offset, old));
        file.write_all_at(bytes, offset)?;
        if after { Ok(()) } else { Err(power_is_off()) }
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        let mut state = self.0.lock();
        if state.faults.sync_errors && !state.powered_off {
            return Err(io::Error::from_raw_os_error(5));
        }
        match Self::call(&mut state, b's', 0, &[]) {
            (true, true) if state.faults.ignored_syncs => Ok(()),
            (true, true) => {
                state.unsynced.remove(&file.metadata()?.ino());
                Ok(())
            }
            (_, _) => Err(power_is_off()),
        }
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        match Self::call(&mut self.0.lock(), b'd', 0, &[]) {
            (true, true) => Ok(()),
            (_, _) => Err(power_is_off()),
        }
    }

    fn free(&self, _: &Path) -> u64 {
        if self.0.lock().faults.full { 0 } else { u64::MAX }
    }

    fn nonce(&self) -> u64 {
        self.0.lock().rng.as_mut().map_or(7, Rng::next_u64)
    }
}

/// Copies a tree, and calls `copied` with the original's inode and the copy of each file.
fn copy(
    from: &Path,
    to: &Path,
    copied: &mut dyn FnMut(u64, &File) -> io::Result<()>,
) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let meta = entry.metadata()?;
        if meta.is_dir() {
            copy(&entry.path(), &target, copied)?;
        } else {
            fs::copy(entry.path(), &target)?;
            copied(meta.ino(), &File::options().write(true).open(&target)?)?;
        }
    }
    Ok(())
}

/// Flips one random bit in the files of a stopped node. `None`: there are no such files.
///
/// # Errors
/// The error of the system.
pub fn flip_bit(dir: &Path, kind: DamageTarget, rng: &mut Rng) -> io::Result<Option<BitFlip>> {
    let mut ranges = match kind {
        DamageTarget::Log => log_ranges(&dir.join("log"))?,
        DamageTarget::Checkpoint => file_ranges(&dir.join("checkpoints"))?,
        DamageTarget::Store => file_ranges(&dir.join("store"))?,
    };
    // The order of a directory listing is not reproducible.
    ranges.sort();
    ranges.retain(|(_, from, to)| from < to);
    if ranges.is_empty() {
        return Ok(None);
    }
    let choice = usize::try_from(rng.below(ranges.len() as u64)).unwrap_or(0);
    let (file, from, to) = ranges.swap_remove(choice);
    let offset = from + rng.below(to - from);
    let bit = u8::try_from(rng.below(8)).unwrap_or(0);
    let file = file.strip_prefix(dir).map_err(io::Error::other)?.to_owned();
    let bit_flip = BitFlip { file, offset, bit };
    bit_flip.toggle(dir)?;
    Ok(Some(bit_flip))
}

/// The ranges of a log that were durable before its last batch was written.
fn log_ranges(dir: &Path) -> io::Result<Vec<(PathBuf, u64, u64)>> {
    let mut ranges = Vec::new();
    let mut last = None;
    for serial in segment::list(dir)? {
        let Ok((segment, bytes)) = Segment::open(dir, serial) else { continue };
        let (batches, end, _) = segment::scan_batches(&bytes, &segment.header, None);
        if let Some(batch) = batches.last() {
            last = Some((ranges.len(), batch.offset));
            ranges.push((segment.path.clone(), 0, end));
        }
    }
    if let Some((last_range, begin)) = last {
        ranges[last_range].2 = begin;
    }
    Ok(ranges)
}

fn file_ranges(dir: &Path) -> io::Result<Vec<(PathBuf, u64, u64)>> {
    let mut ranges = Vec::new();
    if !dir.is_dir() {
        return Ok(ranges);
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        if meta.is_dir() {
            ranges.extend(file_ranges(&entry.path())?);
        } else {
            ranges.push((entry.path(), 0, meta.len()));
        }
    }
    Ok(ranges)
}
