//! Testing: a disk that is full, fails to sync or loses power on demand.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;

use model::mutant::{self, Mutant};
use parking_lot::Mutex;

use crate::disk::{Device, RealDevice};

/// What a loss of power undoes: a file, and its content before each write that is not synced.
#[derive(Debug)]
struct Unsynced {
    file: File,
    before: Vec<(u64, Vec<u8>)>,
}

/// Writes to the real disk, and instead of syncing remembers what a loss of power would undo.
#[derive(Debug, Default)]
pub(crate) struct FaultyDevice {
    pub(crate) full: AtomicBool,
    pub(crate) sync_fails: AtomicBool,
    /// While it is locked, a sync does not end.
    pub(crate) sync_gate: Mutex<()>,
    unsynced: Mutex<HashMap<u64, Unsynced>>,
    /// By directory, the names of the segments whose names are durable.
    names: Mutex<HashMap<PathBuf, HashSet<PathBuf>>>,
}

/// A small random number generator: one seed gives one sequence.
#[derive(Debug, Clone)]
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % below
    }
}

impl FaultyDevice {
    /// Loses power: of what was written but not synced, each sector is lost or kept at random, and
    /// all of it is lost without `rng`. Names that are not durable are lost with their files.
    pub(crate) fn power_cut(&self, mut rng: Option<&mut Rng>) {
        // In reverse, so that overlapping writes end with the content before the first of them.
        for (_, lost) in self.unsynced.lock().drain() {
            for (offset, before) in lost.before.iter().rev() {
                for (at, sector) in before.chunks(512).enumerate() {
                    if rng.as_mut().is_none_or(|rng| rng.below(2) == 0) {
                        lost.file.write_all_at(sector, offset + at as u64 * 512).unwrap();
                    }
                }
            }
        }
        for (dir, durable) in &*self.names.lock() {
            for name in segments_in(dir).unwrap().difference(durable) {
                fs::remove_file(name).unwrap();
            }
        }
    }
}

/// The log segments in a directory, which may hold other files as well.
fn segments_in(dir: &Path) -> io::Result<HashSet<PathBuf>> {
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|suffix| suffix == "wal");
    let paths = fs::read_dir(dir)?.map(|entry| Ok(entry?.path()));
    paths.filter(|path| path.as_ref().map_or(true, is_segment)).collect()
}

impl Device for FaultyDevice {
    fn preallocate(&self, file: &File, bytes: u64) -> io::Result<()> {
        if self.full.load(SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        RealDevice.preallocate(file, bytes)
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut before = vec![0; bytes.len()];
        file.read_exact_at(&mut before, offset)?;
        let mut unsynced = self.unsynced.lock();
        let entry = unsynced.entry(file.metadata()?.ino());
        let file_again = file.try_clone()?;
        let entry = entry.or_insert(Unsynced { file: file_again, before: Vec::new() });
        entry.before.push((offset, before));
        RealDevice.write_at(file, bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        drop(self.sync_gate.lock());
        if self.sync_fails.load(SeqCst) {
            return Err(io::Error::other("the disk is on fire"));
        }
        self.unsynced.lock().remove(&file.metadata()?.ino());
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut names = self.names.lock();
        let durable = names.entry(dir.to_owned()).or_default();
        if !mutant::is(Mutant::SkipDirectoryFsync) {
            *durable = segments_in(dir)?;
        }
        Ok(())
    }

    fn free(&self, _: &Path) -> u64 {
        if self.full.load(SeqCst) { 0 } else { u64::MAX }
    }

    fn nonce(&self) -> u64 {
        7
    }
}
