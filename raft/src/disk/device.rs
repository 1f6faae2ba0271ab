//! Device: the few calls on files whose failure, order and delay decide what survives.
//!
//! They stand behind a trait so that tests can cut power, fill the disk and fail an fsync at a
//! chosen call. Everything else (listing, reading, renaming) goes to `std::fs` directly.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::fs::File;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use model::mutant::{self, Mutant};
use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// What the log asks of a disk.
pub trait Device: fmt::Debug + Send + Sync + 'static {
    /// Makes a file `bytes` long: what is new is written with zeroes, so that writing to it later
    /// neither meets a full disk nor depends on the file system's own records.
    ///
    /// # Errors
    /// `StorageFull` (or `QuotaExceeded`) when there is no room.
    fn preallocate(&self, file: &File, bytes: u64) -> io::Result<()>;
    /// Writes all bytes at an offset.
    ///
    /// # Errors
    /// What the system says.
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Returns when what was written to the file, and its length, survive a loss of power.
    ///
    /// # Errors
    /// What the system says; the caller never tries again.
    fn sync(&self, file: &File) -> io::Result<()>;
    /// Returns when the names in a directory survive a loss of power.
    ///
    /// # Errors
    /// What the system says.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Bytes free for us in this directory; for messages only.
    fn free(&self, dir: &Path) -> u64;
    /// A number nobody can foresee, so that no payload can imitate what the log writes.
    fn nonce(&self) -> u64;
}

/// The real one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Machinery;

impl Device for Machinery {
    fn preallocate(&self, file: &File, bytes: u64) -> io::Result<()> {
        let from = file.metadata()?.len();
        match fallocate(file, FallocateFlags::empty(), 0, bytes) {
            // A file system that cannot reserve meets its end while zeroes are written.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {}
            Err(error) => return Err(error.into()),
        }
        fill(file, from, bytes)
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        sync_dir(dir)
    }

    fn free(&self, dir: &Path) -> u64 {
        statvfs(dir).map_or(0, |space| space.f_bavail.saturating_mul(space.f_frsize))
    }

    fn nonce(&self) -> u64 {
        RandomState::new().build_hasher().finish()
    }
}

/// Writes zeroes from one offset to another.
fn fill(file: &File, from: u64, to: u64) -> io::Result<()> {
    static ZEROES: [u8; 64 << 10] = [0; 64 << 10];
    let mut at = from;
    while at < to {
        let piece = usize::try_from(to - at).map_or(ZEROES.len(), |left| left.min(ZEROES.len()));
        file.write_all_at(&ZEROES[..piece], at)?;
        at += piece as u64;
    }
    Ok(())
}

/// Whether an error says that there is no room, which is refused and tried again, never fatal.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Makes the names in a directory survive a loss of power.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    if mutant::is(Mutant::SkipDirectoryFsync) {
        return Ok(());
    }
    File::open(dir)?.sync_all()
}
