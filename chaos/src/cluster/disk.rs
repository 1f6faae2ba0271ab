//! Disk: a filesystem of its own for one node. Its power can be cut, and it can be filled.
//!
//! An ext4 in a file, mounted through a loop device. A cut drops everything that was not synced;
//! two marks written right before it show afterwards that the cut was one.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::fs::{FallocateFlags, fallocate};

use super::native_tools::{NativeTools, run};

/// Room for one node's files; the file is sparse.
const SIZE_BYTES: u64 = 8 << 30;
const SYNCED_FILE: &str = "synced";
const UNSYNCED_FILE: &str = "unsynced";
const FILLER_FILE: &str = "balloon";
const MARKER_CONTENT: &[u8] = b"written before the power was cut";

/// A disk whose power can be cut.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    mount: PathBuf,
}

impl Disk {
    /// Makes and mounts an empty disk in a folder.
    ///
    /// # Errors
    /// No root, no ext4, or no loop device is free.
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

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// Cuts its power. Whoever still writes to it gets errors from here on.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn cut(&self, tools: &NativeTools) -> Result<()> {
        // ext4 writes a file out at once that is cut short and written anew: the mark that must be
        // lost is a new file each time.
        let unsynced = self.mount.join(UNSYNCED_FILE);
        if unsynced.exists() {
            fs::remove_file(&unsynced)?;
        }
        let mut synced = File::create(self.mount.join(SYNCED_FILE))?;
        synced.write_all(MARKER_CONTENT)?;
        synced.sync_all()?;
        File::open(&self.mount)?.sync_all()?;
        fs::write(unsynced, MARKER_CONTENT)?;
        run(Command::new(&tools.tool).arg("cut").arg(&self.mount))?;
        Ok(())
    }

    /// Gives power again: mounts what survived. Nobody may have files open on it.
    ///
    /// # Errors
    /// It cannot be mounted, or the cut was none.
    pub fn restore(&self) -> Result<()> {
        run(Command::new("umount").arg(&self.mount))?;
        self.mount()?;
        let has_marker = |name: &str| {
            fs::read(self.mount.join(name)).is_ok_and(|content| content == MARKER_CONTENT)
        };
        ensure!(
            has_marker(SYNCED_FILE),
            "the power cut took what was synced: this disk proves nothing"
        );
        ensure!(!has_marker(UNSYNCED_FILE), "the power cut took nothing: this disk proves nothing");
        Ok(())
    }

    /// Leaves no room on it.
    ///
    /// # Errors
    /// It cannot be filled.
    pub fn fill(&self) -> Result<()> {
        let filler = File::create(self.mount.join(FILLER_FILE))?;
        let stats = rustix::fs::statvfs(&self.mount)?;
        let mut free = stats.f_bfree * stats.f_frsize;
        while free >= stats.f_frsize {
            let filled = filler.metadata()?.len();
            if fallocate(&filler, FallocateFlags::empty(), filled, free).is_err() {
                free /= 2;
            }
        }
        Ok(())
    }

    /// Gives the room back.
    ///
    /// # Errors
    /// The disk does not answer.
    pub fn remove_filler(&self) -> Result<()> {
        match fs::remove_file(self.mount.join(FILLER_FILE)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context("giving room back")
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn mount(&self) -> Result<()> {
        run(Command::new("mount").args(["-o", "loop"]).arg(&self.image).arg(&self.mount))?;
        Ok(())
    }
}

/// The bytes that are taken by a file, or by all in a folder; 0 where there is none.
pub(super) fn allocated_bytes(path: &Path) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else { return 0 };
    let inside = fs::read_dir(path).into_iter().flatten().flatten();
    // `st_blocks` counts 512 bytes each, whatever the filesystem's own blocks are: stat(2).
    metadata.blocks() * 512 + inside.map(|entry| allocated_bytes(&entry.path())).sum::<u64>()
}
