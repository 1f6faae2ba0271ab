//! Simulated disk: a file system in memory that fails when told to: it loses power, tears its last
//! write, is full, refuses to write or to sync, and turns a bit over.
//!
//! Not part of the product. Promise: what the log synced survives; of what it wrote since, each
//! sector is kept or lost by the dice. Every call of the log goes into one hash, so that two runs
//! can be compared. Refused: losing names of files that were not synced, and what checkpoints and
//! the working store write: those go to the same files, but past this device.

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

/// What a loss of power takes or keeps as a whole.
const SECTOR: usize = 512;
/// Where memory is a file system.
const MEMORY: &str = "/dev/shm";

/// A directory in memory where that exists, gone when this is dropped.
#[derive(Debug)]
pub struct SimulatedDir(tempfile::TempDir);

impl SimulatedDir {
    /// A new one.
    ///
    /// # Errors
    /// What the system says.
    pub fn new() -> io::Result<Self> {
        let memory = tempfile::Builder::new().prefix("mishkah-simulated-").tempdir_in(MEMORY);
        Ok(Self(memory.or_else(|_| tempfile::tempdir())?))
    }

    /// A place in it that does not exist yet.
    pub fn subdir(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Its path, as messages show it.
    pub fn display_path(&self) -> String {
        self.0.path().display().to_string()
    }

    /// Removes a place that is no longer needed.
    pub fn remove(&self, path: &Path) {
        // What is still open in it goes with the room.
        let _ = fs::remove_dir_all(path);
    }
}

/// Which calls fail until told otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskFaults {
    /// No room for another segment.
    pub full: bool,
    /// Writing fails.
    pub write_errors: bool,
    /// Syncing fails.
    pub sync_errors: bool,
    /// Syncing says that all is well and does nothing.
    pub ignored_syncs: bool,
}

/// How a node ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashKind {
    /// The process ends, the system goes on: nothing written is lost.
    Kill,
    /// What was not synced is lost or kept by chance, sector by sector.
    PowerLoss,
}

/// Bits are turned over in one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DamageTarget {
    /// The log, before its last turn: damage in the last cannot be told from a torn write.
    Log,
    /// A chunk or manifest of a checkpoint.
    Checkpoint,
    /// The working store.
    Store,
}

/// A bit that was turned over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BitFlip {
    /// In this file, seen from where the node keeps everything.
    pub file: PathBuf,
    /// At this byte.
    pub offset: u64,
    bit: u8,
}

impl BitFlip {
    /// Turns it back, also where the file was set aside for being damaged.
    ///
    /// # Errors
    /// What the system says; the file may be gone.
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
    /// By file: what stood there before each write that is not synced.
    unsynced: BTreeMap<u64, Vec<(u64, Vec<u8>)>>,
    trace: blake3::Hasher,
    calls: u64,
}

/// The disk of one node in one of its lives.
#[derive(Debug)]
pub struct SimulatedDisk(Mutex<State>);

impl SimulatedDisk {
    /// A disk whose chance comes from a seed.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(State { rng: Some(Rng(seed)), ..State::default() }))
    }

    /// Which calls fail from now on.
    pub fn fail(&self, faults: DiskFaults) {
        self.0.lock().faults = faults;
    }

    /// Power fails in the call after so many others.
    pub fn lose_power_after(&self, calls: u64) {
        self.0.lock().calls_until_power_loss = Some(calls);
    }

    /// The hash of all calls so far, and how many there were.
    pub fn trace(&self) -> (String, u64) {
        let state = self.0.lock();
        (state.trace.finalize().to_hex().to_string(), state.calls)
    }

    /// The node ends: what its next life finds of `from` is put into `to`, and nothing written
    /// here from now on counts.
    ///
    /// # Errors
    /// What the system says.
    pub fn crash(&self, kind: CrashKind, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.powered_off = true;
        let State { rng, unsynced, .. } = &mut *state;
        let mut lose = |file: &File, before: &[(u64, Vec<u8>)]| -> io::Result<()> {
            for (offset, before) in before.iter().rev() {
                for (at, sector) in before.chunks(SECTOR).enumerate() {
                    if rng.as_mut().is_none_or(|rng| rng.chance(500)) {
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

    /// One call: whether power is (still) on before and after it.
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

/// Copies a tree, and says of each file copied which one it was.
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

/// Turns over one bit of what a node that is down keeps; `None` where there is nothing of it.
///
/// # Errors
/// What the system says.
pub fn flip_bit(dir: &Path, kind: DamageTarget, rng: &mut Rng) -> io::Result<Option<BitFlip>> {
    let mut ranges = match kind {
        DamageTarget::Log => log_ranges(&dir.join("log"))?,
        DamageTarget::Checkpoint => file_ranges(&dir.join("checkpoints"))?,
        DamageTarget::Store => file_ranges(&dir.join("store"))?,
    };
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

/// Stretches of a log that were durable before its last turn was begun.
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
