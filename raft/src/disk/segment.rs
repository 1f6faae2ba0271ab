//! Segment: one file of the log.
//!
//! A segment is created under a temporary name: zeroes and header are written and synced, the file
//! is renamed, and its directory is synced. Promise: a file with the name of a segment has a whole
//! header and allocated space, so a full disk is detected before any record needs it. Each byte is
//! written once, front to back, and never changed: a reader that holds the file open can read on
//! after the file was removed. Refused: a header or a batch that is not what was written; the error
//! names file and offset.
//!
//! ```text
//! header 64 B   "mishkahL" | version, 0 | serial | nonce | replaces | floor | 0 | crc of the rest
//! then batches (record.rs), then zeroes
//! ```
//! `replaces`: this segment holds everything of the segments from that serial on (most segments
//! name themselves). `floor`: the oldest segment that was needed when this one was created.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use model::mutant::{self, Mutant};

use crate::disk::device::retry_shortage;
use crate::disk::record::{
    self, ALIGN, BATCH_HEADER_BYTES, BatchHeader, BatchLink, RECORD_HEADER_BYTES, Record,
};
use crate::disk::{Device, WalError};

/// The format this build writes.
pub(super) const VERSION: u8 = 1;
/// Bytes of a segment's header.
pub(super) const SEGMENT_HEADER_BYTES: usize = 64;
const MAGIC: &[u8; 8] = b"mishkahL";
const SUFFIX: &str = ".wal";
const UNFINISHED: &str = ".wal.new";

/// The header of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) serial: u64,
    pub(super) nonce: u64,
    pub(super) replaces: u64,
    pub(super) floor: u64,
}

impl SegmentHeader {
    /// The initial value of all checksums in the segment.
    pub(super) fn seed(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.serial.to_le_bytes());
        hasher.update(&self.nonce.to_le_bytes());
        hasher.finalize()
    }

    pub(super) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8] = VERSION;
        bytes[16..24].copy_from_slice(&self.serial.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.nonce.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.replaces.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.floor.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..SEGMENT_HEADER_BYTES - 4]);
        bytes[SEGMENT_HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header. Later formats keep the positions of magic, version and checksum, so that an
    /// older build can name the version it does not know.
    fn decode(bytes: &[u8], file: &Path) -> Result<Self, WalError> {
        let corrupt = |reason: &str| WalError::Corrupt {
            file: file.to_owned(),
            offset: 0,
            reason: reason.to_owned(),
        };
        let header: &[u8; SEGMENT_HEADER_BYTES] =
            bytes.first_chunk().ok_or_else(|| corrupt("too short for a segment header"))?;
        if &header[..8] != MAGIC {
            return Err(corrupt("not a log segment"));
        }
        if crc32fast::hash(&header[..SEGMENT_HEADER_BYTES - 4]).to_le_bytes()
            != header[SEGMENT_HEADER_BYTES - 4..]
        {
            return Err(corrupt("the header of the segment has a wrong checksum"));
        }
        if header[8] != VERSION {
            return Err(WalError::Version {
                file: file.to_owned(),
                found: header[8],
                known: VERSION,
            });
        }
        let number = |at: usize| {
            u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes were sliced"))
        };
        Ok(Self { serial: number(16), nonce: number(24), replaces: number(32), floor: number(40) })
    }
}

/// The path of a segment's file.
pub(super) fn path_of(dir: &Path, serial: u64) -> PathBuf {
    dir.join(format!("{serial:016}{SUFFIX}"))
}

/// The serials of the segments in a directory, in order.
pub(super) fn list(dir: &Path) -> io::Result<Vec<u64>> {
    let mut serials = Vec::new();
    for found in fs::read_dir(dir)? {
        let name = found?.file_name();
        let stem = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
        serials.extend(stem.and_then(|stem| stem.parse::<u64>().ok()));
    }
    serials.sort_unstable();
    Ok(serials)
}

/// Removes segments that a crash left unfinished. No segment may be under creation there.
pub(super) fn remove_unfinished(dir: &Path) -> io::Result<()> {
    for found in fs::read_dir(dir)? {
        let path = found?.path();
        if path.to_str().is_some_and(|path| path.ends_with(UNFINISHED)) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// An open segment.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) header: SegmentHeader,
    pub(super) seed: u32,
    pub(super) path: PathBuf,
    file: File,
}

impl Segment {
    /// Creates a segment of `capacity` bytes. `batches` are written behind its header and are as
    /// durable as the header.
    ///
    /// # Errors
    /// The error of the system; no file is left.
    pub(super) fn create(
        dir: &Path,
        header: SegmentHeader,
        capacity: u64,
        batches: &[u8],
        device: &dyn Device,
    ) -> io::Result<Self> {
        let path = path_of(dir, header.serial);
        let unfinished = dir.join(format!("{:016}{UNFINISHED}", header.serial));
        let result = (|| {
            let file = retry_shortage(|| {
                OpenOptions::new()
                    .read(true)
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .open(&unfinished)
            })?;
            device.preallocate(&file, capacity)?;
            let mut bytes = header.encode().to_vec();
            bytes.extend_from_slice(batches);
            device.write_at(&file, &bytes, 0)?;
            // Only the copy that recovery makes has batches at creation.
            if !mutant::is(Mutant::SkipTailSyncAtOpen) || batches.is_empty() {
                device.sync(&file)?;
            }
            // The content before the name, and the name before anybody writes: otherwise a loss of
            // power could leave a segment without a header, or lose one with acknowledged batches.
            fs::rename(&unfinished, &path)?;
            device.sync_dir(dir)?;
            Ok(file)
        })();
        match result {
            Ok(file) => Ok(Self { header, seed: header.seed(), path, file }),
            Err(error) => {
                // Best effort: the next open removes it as well.
                let _ = fs::remove_file(&unfinished);
                Err(error)
            }
        }
    }

    /// Reads the header of an existing segment.
    pub(super) fn read_header(dir: &Path, serial: u64) -> Result<SegmentHeader, WalError> {
        let path = path_of(dir, serial);
        let mut bytes = Vec::new();
        retry_shortage(|| File::open(&path))
            .and_then(|file| file.take(SEGMENT_HEADER_BYTES as u64).read_to_end(&mut bytes))
            .map_err(|source| WalError::Io { path: path.clone(), source })?;
        let header = SegmentHeader::decode(&bytes, &path)?;
        // A file that was renamed or copied by hand would be replayed in the wrong order.
        if header.serial != serial {
            let reason = format!("it says it is segment {}", header.serial);
            return Err(WalError::Corrupt { file: path, offset: 0, reason });
        }
        Ok(header)
    }

    /// Opens an existing segment and reads it whole.
    pub(super) fn open(dir: &Path, serial: u64) -> Result<(Self, Vec<u8>), WalError> {
        let path = path_of(dir, serial);
        let io = |source| WalError::Io { path: path.clone(), source };
        let header = Self::read_header(dir, serial)?;
        let bytes = retry_shortage(|| fs::read(&path)).map_err(io)?;
        let file = retry_shortage(|| File::open(&path)).map_err(io)?;
        Ok((Self { header, seed: header.seed(), path, file }, bytes))
    }

    /// Enlarges a segment that holds no batch yet.
    pub(super) fn grow(&self, capacity: u64, device: &dyn Device) -> io::Result<()> {
        device.preallocate(&self.file, capacity)?;
        device.sync(&self.file)
    }

    pub(super) fn write(&self, bytes: &[u8], offset: u64, device: &dyn Device) -> io::Result<()> {
        device.write_at(&self.file, bytes, offset)
    }

    pub(super) fn sync(&self, device: &dyn Device) -> io::Result<()> {
        device.sync(&self.file)
    }

    /// Frees the space behind the last batch. A failure is only logged: the file stays larger.
    pub(super) fn trim(&self, end: u64) {
        if let Err(error) = self.file.set_len(end) {
            let file = self.path.display();
            tracing::warn!(%file, %error, "a full log segment could not be trimmed");
        }
    }

    /// Reads the record at an offset, whose payload has `payload` bytes.
    pub(super) fn record(&self, offset: u64, payload: usize) -> Result<Record, WalError> {
        let mut bytes = vec![0; RECORD_HEADER_BYTES + payload];
        let corrupt =
            |reason: String| WalError::Corrupt { file: self.path.clone(), offset, reason };
        match self.file.read_exact_at(&mut bytes, offset) {
            Ok(()) => {}
            // The index knows the length, so a file that ends before is damaged.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(corrupt("a record is cut off".to_owned()));
            }
            Err(source) => return Err(WalError::Io { path: self.path.clone(), source }),
        }
        let view =
            record::parse_record(&bytes, self.seed).map_err(|reason| corrupt(reason.to_owned()))?;
        let (kind, key, index, term) = (view.kind, view.key, view.index, view.term);
        let payload = Bytes::from(bytes).slice(RECORD_HEADER_BYTES..);
        Ok(Record { kind, key, index, term, payload })
    }
}

/// Why the scan over a segment's batches ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScanEnd {
    /// Only zeroes follow.
    Clean,
    /// Something follows that is not a batch. `before_last`: there is a sign of a later batch, so
    /// this is corruption and not a torn last write.
    Damage { reason: &'static str, before_last: bool },
}

/// A batch in a segment's bytes, with valid checksums.
#[derive(Debug, Clone, Copy)]
pub(super) struct ParsedBatch {
    pub(super) offset: u64,
    pub(super) header: BatchHeader,
}

impl ParsedBatch {
    /// The offset at which it ends.
    pub(super) fn end(&self) -> u64 {
        self.offset + (BATCH_HEADER_BYTES + self.header.body) as u64
    }
}

/// The valid batches at the start of a segment, each linked to the one before it; the offset at
/// which they end; and why they end. `prev`: the predecessor the first batch must name, if known.
pub(super) fn scan_batches(
    bytes: &[u8],
    header: &SegmentHeader,
    prev: Option<BatchLink>,
) -> (Vec<ParsedBatch>, u64, ScanEnd) {
    let seed = header.seed();
    let mut found = Vec::new();
    let mut prev = prev;
    let mut at = SEGMENT_HEADER_BYTES;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        if is_blank(rest) {
            return (found, at as u64, ScanEnd::Clean);
        }
        let batch = match record::parse_batch_header(rest, seed) {
            Ok(batch) => batch,
            Err(reason) => {
                // Without a header the length is unknown, so a later header is searched for.
                let before_last = batch_follows(bytes, header, at);
                return (found, at as u64, ScanEnd::Damage { reason, before_last });
            }
        };
        let body = &rest[BATCH_HEADER_BYTES..];
        if let Err(reason) = record::checked_body(body, &batch, seed) {
            // The header is valid and gives the length: anything but zeroes behind the body was
            // written after this batch was durable.
            let before_last = !is_blank(body.get(batch.body..).unwrap_or_default());
            return (found, at as u64, ScanEnd::Damage { reason, before_last });
        }
        // Each batch is valid by itself, but not the sequence: an older copy of the file, say.
        if prev.is_some_and(|prev| prev != batch.prev) {
            let reason = "the batch before this one is not the one that was written";
            return (found, at as u64, ScanEnd::Damage { reason, before_last: true });
        }
        let this = ParsedBatch { offset: at as u64, header: batch };
        prev = Some(BatchLink { serial: header.serial, end: this.end(), crc: batch.crc });
        at += BATCH_HEADER_BYTES + batch.body;
        found.push(this);
    }
}

/// Whether a batch header follows after `from`. If so, what stands at `from` was durable before it
/// was written. The body of that later batch may be torn.
fn batch_follows(bytes: &[u8], header: &SegmentHeader, from: usize) -> bool {
    let seed = header.seed();
    // A header counts only if its predecessor ends exactly where it begins: a payload may hold
    // bytes that look like a header.
    (from + ALIGN..bytes.len()).step_by(ALIGN).any(|at| {
        record::parse_batch_header(&bytes[at..], seed)
            .is_ok_and(|batch| batch.prev.serial == header.serial && batch.prev.end == at as u64)
    })
}

/// Whether all bytes are zero: nothing was ever written here.
pub(super) fn is_blank(bytes: &[u8]) -> bool {
    const BLANK: [u8; 4096] = [0; 4096];
    bytes.chunks(BLANK.len()).all(|piece| piece == &BLANK[..piece.len()])
}
