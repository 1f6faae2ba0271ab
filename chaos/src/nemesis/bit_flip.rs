//! Bit flip: flips one bit of one file, as a failing disk does.
//!
//! Promise: the bit is one that a node wrote, and the flip is durable. Flipping it again restores
//! it.
//! Refused: preallocated space, and on request the end of each file.

use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::rng::Rng;

/// How many bytes at the end of a log are skipped: more than one write batch. The last batch may be
/// torn after a crash, and a node must discard it then instead of reporting corruption.
const SKIPPED_TAIL_BYTES: u64 = 256 << 10;

/// Flips one random bit of one file below a directory, with `skip_tail` not in the end of a file.
/// Returns the bit.
///
/// # Errors
/// No file below the directory is long enough.
pub(super) fn flip_random_bit(dir: &Path, skip_tail: bool, rng: &mut Rng) -> Result<BitFlip> {
    let mut files = Vec::new();
    list_files(dir, &mut files).with_context(|| format!("looking below {}", dir.display()))?;
    // A directory lists its files in any order; the same seed must flip the same bit.
    files.sort();
    let mut candidates = Vec::new();
    for path in files {
        let file = File::options().read(true).write(true).open(&path)?;
        let skipped = if skip_tail { SKIPPED_TAIL_BYTES } else { 0 };
        let written_len = written_len_of(&file)?.saturating_sub(skipped);
        if written_len > 0 {
            candidates.push((path, file, written_len));
        }
    }
    ensure!(!candidates.is_empty(), "no file below {} is long enough yet", dir.display());
    let (path, _, written_len) = rng.choose(&candidates);
    let (offset, bit) = (rng.between(0, written_len - 1), rng.between(0, 7));
    let bit = BitFlip { path: path.clone(), offset, bit };
    bit.toggle()?;
    Ok(bit)
}

/// One bit of a file.
#[derive(Debug, Clone)]
pub(super) struct BitFlip {
    path: PathBuf,
    offset: u64,
    bit: u64,
}

impl BitFlip {
    /// Inverts the bit and syncs the file.
    ///
    /// # Errors
    /// The file does not exist any more, or it has become shorter.
    pub(super) fn toggle(&self) -> Result<()> {
        let file = File::options().read(true).write(true).open(&self.path)?;
        let mut byte = [0];
        file.read_exact_at(&mut byte, self.offset)?;
        byte[0] ^= 1 << self.bit;
        file.write_all_at(&byte, self.offset)?;
        Ok(file.sync_all()?)
    }
}

impl fmt::Display for BitFlip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.path.file_name().unwrap_or_default().display();
        write!(f, "bit {} of byte {} of {name}", self.bit, self.offset)
    }
}

fn list_files(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            list_files(&entry.path(), files)?;
        } else if metadata.len() > 0 {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// The length of a file without the zeros of preallocated space at its end.
fn written_len_of(file: &File) -> Result<u64> {
    let mut end = file.metadata()?.len();
    // From the end: the written part may be much longer than the preallocated rest.
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
    fn exactly_one_written_bit_is_flipped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut before = vec![7; 1000];
        before.extend([0; 200_000]);
        fs::write(&path, &before).unwrap();
        let flip = flip_random_bit(dir.path(), false, &mut Rng::new(3)).unwrap();
        let after = fs::read(&path).unwrap();
        let differ: Vec<usize> =
            (0..before.len()).filter(|offset| before[*offset] != after[*offset]).collect();
        assert_eq!(differ.len(), 1, "{flip}");
        assert!(differ[0] < 1000, "{flip}");
        assert_eq!((before[differ[0]] ^ after[differ[0]]).count_ones(), 1);
    }

    #[test]
    fn the_tail_of_a_log_is_not_flipped() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("log"), vec![7; 1000]).unwrap();
        assert!(flip_random_bit(dir.path(), true, &mut Rng::new(3)).is_err());
    }

    #[test]
    fn an_empty_directory_has_no_bit_to_flip() {
        let dir = tempfile::tempdir().unwrap();
        assert!(flip_random_bit(dir.path(), false, &mut Rng::new(3)).is_err());
    }
}
