//! Disk: a filesystem of its own for one node, whose power can be cut.
//!
//! An ext4 in a file, mounted through a loop device. Cutting its power drops everything that was
//! not synced, as a machine does that loses its supply; what was synced is there when it is
//! mounted again. Needs root, and touches nothing but its own files.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Room for a node's log, checkpoints and store; the file is sparse.
const SIZE_BYTES: u64 = 1 << 30;
/// Asks the kernel to stop a filesystem without writing its log out: the ioctl that filesystems'
/// own tests use for a power cut. From a script, because a call to the kernel by number is no
/// safe Rust.
const CUT: &str = "import fcntl,os,struct,sys;\
    fcntl.ioctl(os.open(sys.argv[1],os.O_RDONLY),0x8004587D,struct.pack('I',2))";

/// Written right before a cut, synced and not, to see afterwards that the cut was one.
const SYNCED: &str = "synced";
const UNSYNCED: &str = "unsynced";
const WRITTEN: &[u8] = b"written before the power was cut";

/// A disk whose power can be cut.
#[derive(Debug)]
pub struct PowerCutDisk {
    image: PathBuf,
    mount: PathBuf,
}

impl PowerCutDisk {
    /// Makes and mounts an empty disk in a folder.
    ///
    /// # Errors
    /// Without root, ext4 or loop devices.
    pub fn new(folder: &Path, name: &str) -> Result<Self> {
        let disk = Self {
            image: folder.join(format!("{name}.img")),
            mount: folder.join(format!("{name}.disk")),
        };
        fs::create_dir_all(&disk.mount)?;
        File::create(&disk.image)?.set_len(SIZE_BYTES)?;
        run("mkfs.ext4", |mkfs| mkfs.args(["-q", "-F"]).arg(&disk.image))?;
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
    pub fn cut(&self) -> Result<()> {
        let mut synced = File::create(self.mount.join(SYNCED))?;
        synced.write_all(WRITTEN)?;
        synced.sync_all()?;
        File::open(&self.mount)?.sync_all()?;
        fs::write(self.mount.join(UNSYNCED), WRITTEN)?;
        run("python3", |python| python.args(["-c", CUT]).arg(&self.mount))
    }

    /// Gives power again: mounts what survived. Nobody may have files open on it.
    ///
    /// # Errors
    /// It cannot be mounted, or the cut was none: what was not synced is there, or what was
    /// synced is not.
    pub fn restore(&self) -> Result<()> {
        self.unmount()?;
        self.mount()?;
        let is_there = |name: &str| fs::read(self.mount.join(name)).is_ok_and(|is| is == WRITTEN);
        ensure!(is_there(SYNCED), "the power cut took what was synced: this disk proves nothing");
        ensure!(!is_there(UNSYNCED), "the power cut took nothing: this disk proves nothing");
        Ok(())
    }

    fn mount(&self) -> Result<()> {
        run("mount", |mount| mount.args(["-o", "loop"]).arg(&self.image).arg(&self.mount))
    }

    fn unmount(&self) -> Result<()> {
        run("umount", |umount| umount.arg(&self.mount))
    }
}

impl Drop for PowerCutDisk {
    fn drop(&mut self) {
        // Lazily: it lets go once the last process that uses it has ended.
        let _ = run("umount", |umount| umount.arg("--lazy").arg(&self.mount));
    }
}

fn run(program: &str, arguments: impl FnOnce(&mut Command) -> &mut Command) -> Result<()> {
    let mut command = Command::new(program);
    let done = arguments(&mut command).output().with_context(|| format!("{program} is needed"))?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{command:?} failed: {}", said.trim());
    Ok(())
}
