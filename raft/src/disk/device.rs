//! Device: the file operations on whose order and success durability depends.
//!
//! They are behind a trait, so that tests can lose power, fill the disk or fail an fsync at a
//! chosen call. Everything else (listing, reading, renaming) goes to `std::fs` directly. Promise:
//! an open that fails for want of file handles or memory is retried for a while. Refused: retrying
//! an fsync.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::fs::File;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use model::mutant::{self, Mutant};
use rustix::fs::{FallocateFlags, fallocate, statvfs};

use crate::limits::{SHORTAGE_PAUSE, SHORTAGE_WAIT};

/// The disk operations of the log.
pub trait Device: fmt::Debug + Send + Sync + 'static {
    /// Makes a file `bytes` long and fills the new part with zeroes. Writing to it later neither
    /// fails on a full disk nor needs the journal of the file system.
    ///
    /// # Errors
    /// `StorageFull` (or `QuotaExceeded`) when there is no space.
    fn preallocate(&self, file: &File, bytes: u64) -> io::Result<()>;
    /// Writes all bytes at an offset.
    ///
    /// # Errors
    /// The error of the system.
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Returns when the content and the length of a file survive a loss of power.
    ///
    /// # Errors
    /// The error of the system. The caller must never retry.
    fn sync(&self, file: &File) -> io::Result<()>;
    /// Returns when the names in a directory survive a loss of power.
    ///
    /// # Errors
    /// The error of the system.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Bytes available to this process in a directory; for messages only.
    fn free(&self, dir: &Path) -> u64;
    /// A random number, which seeds the checksums so that no payload can imitate a batch.
    fn nonce(&self) -> u64;
}

/// The real disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDevice;

impl Device for RealDevice {
    fn preallocate(&self, file: &File, bytes: u64) -> io::Result<()> {
        let from = file.metadata()?.len();
        match fallocate(file, FallocateFlags::empty(), 0, bytes) {
            // A file system without `fallocate` reports a full disk while zeroes are written.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {}
            Err(error) => return Err(error.into()),
        }
        // Reserving alone is not enough: see "The format" in `wal.rs`.
        write_zeroes(file, from, bytes)
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
fn write_zeroes(file: &File, from: u64, to: u64) -> io::Result<()> {
    static ZEROES: [u8; 64 << 10] = [0; 64 << 10];
    let mut at = from;
    while at < to {
        let piece = usize::try_from(to - at).map_or(ZEROES.len(), |left| left.min(ZEROES.len()));
        file.write_all_at(&ZEROES[..piece], at)?;
        at += piece as u64;
    }
    Ok(())
}

/// Whether an error means that there is no space, or that a file could not be opened for want of
/// file handles or memory. Both may pass: writes are rejected and retried, and the log continues.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        || error.get_ref().is_some_and(|inner| inner.is::<Shortage>())
}

/// The process or the system is out of file handles or memory, so a file was not opened. That says
/// nothing about the disk: nothing was written, and nothing that was is in doubt.
#[derive(Debug, thiserror::Error)]
#[error("{0}; it is tried again")]
struct Shortage(io::Error);

/// Whether an error means that file handles or memory are short for now.
fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let short = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::AGAIN, Errno::INTR];
    error.raw_os_error().is_some_and(|code| short.iter().any(|errno| errno.raw_os_error() == code))
}

/// Calls `open`, and again for [`SHORTAGE_WAIT`] while file handles or memory are short. Must not
/// be used for an fsync, which must not be retried.
///
/// # Errors
/// The error of the system. After a shortage it is one that [`is_full`] accepts.
pub(super) fn retry_shortage<T>(mut open: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let until = Instant::now() + SHORTAGE_WAIT;
    loop {
        match open() {
            Err(error) if is_shortage(&error) => {
                if Instant::now() >= until {
                    return Err(io::Error::other(Shortage(error)));
                }
                std::thread::sleep(SHORTAGE_PAUSE);
            }
            done => return done,
        }
    }
}

/// Makes the names in a directory survive a loss of power.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    if mutant::is(Mutant::SkipDirectoryFsync) {
        return Ok(());
    }
    retry_shortage(|| File::open(dir))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortage_of_file_handles_is_retried() {
        let mut left = 3;
        let open = || {
            left -= 1;
            if left > 0 { Err(io::Error::from_raw_os_error(24)) } else { Ok(left) }
        };
        assert_eq!(retry_shortage(open).unwrap(), 0);
    }

    #[test]
    fn shortage_of_file_handles_counts_as_full_not_fatal() {
        for code in [24, 23, 12, 11, 4] {
            let error =
                retry_shortage(|| Err::<(), _>(io::Error::from_raw_os_error(code))).unwrap_err();
            assert!(is_full(&error), "{error}");
        }
        let broken = retry_shortage(|| Err::<(), _>(io::Error::from_raw_os_error(5))).unwrap_err();
        assert!(!is_full(&broken));
        assert_eq!(broken.raw_os_error(), Some(5));
    }
}
