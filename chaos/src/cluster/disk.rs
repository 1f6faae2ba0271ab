//! Disk: a filesystem for one node, whose power can be cut and whose space can be filled.
//!
//! It is an ext4 in a file, mounted through a loop device. A power cut drops everything that was
//! not synced. Two files written right before, one synced and one not, prove afterwards that it
//! did.
//!
//! Promise: a cut that lost too little or too much is an error, not a fault that counts.
//! Refused: other filesystems. The shutdown without a flush is an ioctl of ext4 and XFS.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::fs::{FallocateFlags, fallocate};

use super::native_tools::{NativeTools, run};

/// The size of the filesystem; its file is sparse.
const SIZE_BYTES: u64 = 8 << 30;
/// A file that must survive a power cut.
const SYNCED_FILE: &str = "synced";
/// A file that must not survive a power cut.
const UNSYNCED_FILE: &str = "unsynced";
/// A file that takes all free space.
const FILLER_FILE: &str = "balloon";
/// What both marker files hold.
const MARKER_CONTENT: &[u8] = b"written before the power was cut";

/// A disk whose power can be cut.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    mount: PathBuf,
}

impl Disk {
    /// Creates and mounts an empty disk in a directory.
    ///
    /// # Errors
    /// The program is not root, the kernel has no ext4, or no loop device is free.
    pub fn new(dir: &Path, name: &str) -> Result<Self> {
        let disk = Self {
            image: dir.join(format!("{name}.img")),
            mount: dir.join(format!("{name}.disk")),
        };
        fs::create_dir_all(&disk.mount)?;
        File::create(&disk.image)?.set_len(SIZE_BYTES)?;
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&disk.image))?;
        disk.mount()?;
        Ok(disk)
    }

    /// Its mount point.
    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// Cuts its power: from here on every access fails, until [`Disk::restore`].
    ///
    /// # Errors
    /// A marker file cannot be written, or the kernel refuses the shutdown.
    pub(super) fn cut(&self, tools: &NativeTools) -> Result<()> {
        // ext4 flushes a file at once that is truncated and written again. The file that must be
        // lost is therefore a new one each time.
        let unsynced = self.mount.join(UNSYNCED_FILE);
        if unsynced.exists() {
            fs::remove_file(&unsynced)?;
        }
        let mut synced = File::create(self.mount.join(SYNCED_FILE))?;
        synced.write_all(MARKER_CONTENT)?;
        synced.sync_all()?;
        // The directory too: without it the synced file may lose its name. Only then the unsynced
        // file is written, for one sync flushes the filesystem's whole journal.
        File::open(&self.mount)?.sync_all()?;
        fs::write(unsynced, MARKER_CONTENT)?;
        run(Command::new(&tools.tool).arg("cut").arg(&self.mount))?;
        Ok(())
    }

    /// Mounts what survived a power cut. No process may have files open on the disk.
    ///
    /// # Errors
    /// The disk cannot be mounted, it lost synced data, or it kept unsynced data.
    pub fn restore(&self) -> Result<()> {
        run(Command::new("umount").arg(&self.mount))?;
        self.mount()?;
        let has_marker = |name: &str| {
            fs::read(self.mount.join(name)).is_ok_and(|content| content == MARKER_CONTENT)
        };
        ensure!(
            has_marker(SYNCED_FILE),
            "the power cut lost synced data: this disk proves nothing"
        );
        ensure!(
            !has_marker(UNSYNCED_FILE),
            "the power cut kept unsynced data: this disk proves nothing"
        );
        Ok(())
    }

    /// Takes all free space.
    ///
    /// # Errors
    /// The filesystem cannot be read or written.
    pub fn fill(&self) -> Result<()> {
        let filler = File::create(self.mount.join(FILLER_FILE))?;
        let stats = rustix::fs::statvfs(&self.mount)?;
        let mut free = stats.f_bfree * stats.f_frsize;
        while free >= stats.f_frsize {
            let filled = filler.metadata()?.len();
            // The free space is not contiguous and the nodes write meanwhile: what does not fit is
            // tried again in halves, down to one block.
            if fallocate(&filler, FallocateFlags::empty(), filled, free).is_err() {
                free /= 2;
            }
        }
        Ok(())
    }

    /// Frees the space that [`Disk::fill`] took; does nothing if it took none.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn remove_filler(&self) -> Result<()> {
        match fs::remove_file(self.mount.join(FILLER_FILE)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context("freeing disk space")
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn mount(&self) -> Result<()> {
        run(Command::new("mount").args(["-o", "loop"]).arg(&self.image).arg(&self.mount))?;
        Ok(())
    }
}

/// The bytes that a file, or all files below a directory, occupy on disk; 0 if there is none.
pub(super) fn allocated_bytes(path: &Path) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else { return 0 };
    let inside = fs::read_dir(path).into_iter().flatten().flatten();
    // `st_blocks` counts 512 bytes each, whatever the filesystem's own blocks are: stat(2).
    metadata.blocks() * 512 + inside.map(|entry| allocated_bytes(&entry.path())).sum::<u64>()
}
