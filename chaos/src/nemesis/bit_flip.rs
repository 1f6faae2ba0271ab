//! Bits: flips one bit of one file, as a bad disk would.

use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::rng::Rng;

/// What is spared at the end of a log: more than one turn of it, which may be torn after a crash
/// and must then be taken for one that never was.
const SPARED_BYTES: u64 = 256 << 10;

/// Flips one bit of a file below a folder, or not in the end of any; returns which.
///
/// # Errors
/// There is no file with enough in it.
pub(super) fn flip(folder: &Path, spare_the_end: bool, dice: &mut Rng) -> Result<BitFlip> {
    let mut files = Vec::new();
    gather(folder, &mut files).with_context(|| format!("looking below {}", folder.display()))?;
    files.sort();
    let mut long_enough = Vec::new();
    for path in files {
        let file = File::options().read(true).write(true).open(&path)?;
        let spared = if spare_the_end { SPARED_BYTES } else { 0 };
        let written = written_bytes(&file)?.saturating_sub(spared);
        if written > 0 {
            long_enough.push((path, file, written));
        }
    }
    ensure!(!long_enough.is_empty(), "there is not enough in {} yet", folder.display());
    let (path, _, written) = dice.pick(&long_enough);
    let (at, bit) = (dice.between(0, written - 1), dice.between(0, 7));
    let bit = BitFlip { path: path.clone(), at, bit };
    bit.flip()?;
    Ok(bit)
}

/// A bit on a disk.
#[derive(Debug, Clone)]
pub(super) struct BitFlip {
    path: PathBuf,
    at: u64,
    bit: u64,
}

impl BitFlip {
    /// Makes it the other one.
    ///
    /// # Errors
    /// The file is not there any more, or shorter.
    pub(super) fn flip(&self) -> Result<()> {
        let file = File::options().read(true).write(true).open(&self.path)?;
        let mut byte = [0];
        file.read_exact_at(&mut byte, self.at)?;
        byte[0] ^= 1 << self.bit;
        file.write_all_at(&byte, self.at)?;
        Ok(file.sync_all()?)
    }
}

impl fmt::Display for BitFlip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.path.file_name().unwrap_or_default().display();
        write!(f, "bit {} of byte {} of {name}", self.bit, self.at)
    }
}

fn gather(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let about = entry.metadata()?;
        if about.is_dir() {
            gather(&entry.path(), files)?;
        } else if about.len() > 0 {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// Where what was written ends: the zeros of room set aside do not count.
fn written_bytes(file: &File) -> Result<u64> {
    let mut end = file.metadata()?.len();
    let mut block = vec![0; 64 << 10];
    while end > 0 {
        let from = end.saturating_sub(block.len() as u64);
        let part = &mut block[..usize::try_from(end - from)?];
        file.read_exact_at(part, from)?;
        if let Some(last) = part.iter().rposition(|byte| *byte != 0) {
            return Ok(from + last as u64 + 1);
        }
        end = from;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bit_of_what_was_written_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut before = vec![7; 1000];
        before.extend([0; 200_000]);
        fs::write(&path, &before).unwrap();
        let words = flip(folder.path(), false, &mut Rng::new(3)).unwrap();
        let after = fs::read(&path).unwrap();
        let differ: Vec<usize> = (0..before.len()).filter(|at| before[*at] != after[*at]).collect();
        assert_eq!(differ.len(), 1, "{words}");
        assert!(differ[0] < 1000, "{words}");
        assert_eq!((before[differ[0]] ^ after[differ[0]]).count_ones(), 1);
    }

    #[test]
    fn the_end_of_a_log_is_spared() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("log"), vec![7; 1000]).unwrap();
        assert!(flip(folder.path(), true, &mut Rng::new(3)).is_err());
    }

    #[test]
    fn where_nothing_is_there_is_nothing_to_flip() {
        let folder = tempfile::tempdir().unwrap();
        assert!(flip(folder.path(), false, &mut Rng::new(3)).is_err());
    }
}
