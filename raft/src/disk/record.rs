//! Record: the byte layout of write batches and records. Pure: bytes in, values out.
//!
//! All numbers are little-endian. Each checksum is a CRC-32 that starts from the segment's seed, so
//! that bytes of another segment, or a payload that imitates a batch, never pass for this one's.
//!
//! ```text
//! batch   magic "TURN" | crc of the rest of this header | body bytes | crc of the body | records
//!   56 B  | 0 | floor: oldest segment still needed | predecessor's segment, end, header crc | 0
//! record  crc of the rest and the payload | payload bytes | kind, 0, group | replica | index
//!   36 B  | term, then the payload
//! ```
//! The body is the records one after the other, then zeroes up to a multiple of eight. Promise: the
//! checksums cover every byte of a batch. Refused: bytes whose checksum or kind is wrong.

use bytes::Bytes;
use crc32fast::Hasher;

use crate::disk::GroupKey;

/// Batches begin at multiples of this many bytes.
pub(super) const ALIGN: usize = 8;
/// Bytes of a batch header.
pub(super) const BATCH_HEADER_BYTES: usize = 56;
/// Bytes of a record header.
pub(super) const RECORD_HEADER_BYTES: usize = 36;
/// The first bytes of a batch. Part of the format, hence the old word.
const BATCH_MAGIC: u32 = u32::from_le_bytes(*b"TURN");

/// The kind of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An entry. It removes every entry of this index or a later one.
    Entry,
    /// A vote.
    Vote,
    /// What is known to be committed.
    Committed,
    /// Removes every entry after `index`.
    TruncateAfter,
    /// Removes every entry.
    TruncateAll,
    /// Removes every entry up to `index`.
    Purge,
    /// Removes the replica.
    Forget,
    /// A copy of an entry that was live when this was written, so that an old segment can go.
    Compacted,
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Self::Entry => 1,
            Self::Vote => 2,
            Self::Committed => 3,
            Self::TruncateAfter => 4,
            Self::TruncateAll => 5,
            Self::Purge => 6,
            Self::Forget => 7,
            Self::Compacted => 8,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Entry,
            2 => Self::Vote,
            3 => Self::Committed,
            4 => Self::TruncateAfter,
            5 => Self::TruncateAll,
            6 => Self::Purge,
            7 => Self::Forget,
            8 => Self::Compacted,
            _ => return None,
        })
    }
}

/// One record. `index` and `term` are zero where the kind has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) kind: Kind,
    pub(super) key: GroupKey,
    pub(super) index: u64,
    pub(super) term: u64,
    pub(super) payload: Bytes,
}

impl Record {
    /// A record about a replica as a whole, with term 0.
    pub(super) fn metadata(kind: Kind, key: GroupKey, index: u64, payload: Bytes) -> Self {
        Self { kind, key, index, term: 0, payload }
    }

    /// Bytes it takes in a batch, without padding.
    pub(super) fn size(&self) -> usize {
        RECORD_HEADER_BYTES + self.payload.len()
    }
}

/// The identity of a batch, as its successor names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct BatchLink {
    /// The segment it stands in; 0 before the first batch of a log.
    pub(super) serial: u64,
    /// The offset at which it ends.
    pub(super) end: u64,
    /// The checksum of its header, which covers the checksum of its body.
    pub(super) crc: u32,
}

/// The header of a batch. `body` is a length in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BatchHeader {
    pub(super) body: usize,
    pub(super) body_crc: u32,
    pub(super) records: u32,
    pub(super) floor: u64,
    pub(super) prev: BatchLink,
    /// The checksum of the header itself.
    pub(super) crc: u32,
}

fn checksum(seed: u32, bytes: &[u8]) -> u32 {
    let mut hasher = Hasher::new_with_initial(seed);
    hasher.update(bytes);
    hasher.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes were sliced"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes were sliced"))
}

/// A batch under construction: its bytes, header first.
#[derive(Debug)]
pub(super) struct WriteBatch {
    bytes: Vec<u8>,
    records: u32,
}

impl WriteBatch {
    /// An empty batch that uses the memory of `buffer`.
    pub(super) fn new(mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        // Space for the header, which is written last: it covers the body.
        buffer.resize(BATCH_HEADER_BYTES, 0);
        Self { bytes: buffer, records: 0 }
    }

    /// For fuzzing: a batch of records made of any bytes, with valid checksums.
    #[cfg(any(test, feature = "fuzz"))]
    pub(super) fn of_raw_records(data: &[u8], seed: u32) -> Self {
        let mut batch = Self::new(Vec::new());
        for piece in data.chunks(64) {
            let mut record = vec![0; RECORD_HEADER_BYTES.max(piece.len())];
            record[..piece.len()].copy_from_slice(piece);
            let crc = checksum(seed, &record[4..]);
            record[..4].copy_from_slice(&crc.to_le_bytes());
            batch.bytes.extend_from_slice(&record);
            batch.records += 1;
        }
        batch
    }

    /// Whether it has no record yet.
    pub(super) fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Bytes of the finished batch if `more` bytes of records are added.
    pub(super) fn size_with(&self, more: usize) -> usize {
        (self.bytes.len() + more).next_multiple_of(ALIGN)
    }

    /// Adds a record and returns its offset within the batch.
    pub(super) fn push(&mut self, record: &Record, seed: u32) -> u64 {
        let at = self.bytes.len();
        let len = u32::try_from(record.payload.len()).expect("entry sizes are limited");
        // The checksum comes first and covers what follows, so it is filled in at the end.
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&len.to_le_bytes());
        self.bytes.extend_from_slice(&[record.kind.byte(), 0]);
        self.bytes.extend_from_slice(&record.key.group.to_le_bytes());
        self.bytes.extend_from_slice(&record.key.replica.to_le_bytes());
        self.bytes.extend_from_slice(&record.index.to_le_bytes());
        self.bytes.extend_from_slice(&record.term.to_le_bytes());
        self.bytes.extend_from_slice(&record.payload);
        let crc = checksum(seed, &self.bytes[at + 4..]);
        self.bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
        self.records += 1;
        at as u64
    }

    /// Pads the batch and writes its header. Returns the bytes and the header's checksum.
    pub(super) fn finish(&mut self, seed: u32, floor: u64, prev: BatchLink) -> (&[u8], u32) {
        // Before the checksum of the body, which covers the padding as well.
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGN), 0);
        let crc = write_header(&mut self.bytes, self.records, seed, floor, prev);
        (&self.bytes, crc)
    }

    /// Returns the memory, for the next batch.
    pub(super) fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }
}

/// Writes the header of a batch whose body stands behind it. Returns the header's checksum.
fn write_header(batch: &mut [u8], records: u32, seed: u32, floor: u64, prev: BatchLink) -> u32 {
    let body = u32::try_from(batch.len() - BATCH_HEADER_BYTES).expect("batch sizes are limited");
    let body_crc = checksum(seed, &batch[BATCH_HEADER_BYTES..]);
    batch[0..4].copy_from_slice(&BATCH_MAGIC.to_le_bytes());
    batch[8..12].copy_from_slice(&body.to_le_bytes());
    batch[12..16].copy_from_slice(&body_crc.to_le_bytes());
    batch[16..20].copy_from_slice(&records.to_le_bytes());
    batch[20..24].fill(0);
    batch[24..32].copy_from_slice(&floor.to_le_bytes());
    batch[32..40].copy_from_slice(&prev.serial.to_le_bytes());
    batch[40..48].copy_from_slice(&prev.end.to_le_bytes());
    batch[48..52].copy_from_slice(&prev.crc.to_le_bytes());
    batch[52..56].fill(0);
    // Last, as it covers the fields above, and through `body_crc` the whole batch.
    let crc = checksum(seed, &batch[8..BATCH_HEADER_BYTES]);
    batch[4..8].copy_from_slice(&crc.to_le_bytes());
    crc
}

/// Rewrites the checksums of a valid batch for a segment with another seed. Returns the header's.
pub(super) fn rewrite_checksums(
    batch: &mut [u8],
    header: &BatchHeader,
    seed: u32,
    prev: BatchLink,
) -> u32 {
    let mut at = BATCH_HEADER_BYTES;
    for _ in 0..header.records {
        let end = at + RECORD_HEADER_BYTES + u32_at(batch, at + 4) as usize;
        let crc = checksum(seed, &batch[at + 4..end]);
        batch[at..at + 4].copy_from_slice(&crc.to_le_bytes());
        at = end;
    }
    write_header(batch, header.records, seed, header.floor, prev)
}

/// Reads a batch header.
///
/// # Errors
/// Why these bytes are not one.
pub(super) fn parse_batch_header(bytes: &[u8], seed: u32) -> Result<BatchHeader, &'static str> {
    if bytes.len() < BATCH_HEADER_BYTES {
        return Err("too short for a batch header");
    }
    if u32_at(bytes, 0) != BATCH_MAGIC {
        return Err("no batch begins here");
    }
    let crc = u32_at(bytes, 4);
    if crc != checksum(seed, &bytes[8..BATCH_HEADER_BYTES]) {
        return Err("the header of a batch has a wrong checksum");
    }
    let prev =
        BatchLink { serial: u64_at(bytes, 32), end: u64_at(bytes, 40), crc: u32_at(bytes, 48) };
    Ok(BatchHeader {
        body: u32_at(bytes, 8) as usize,
        body_crc: u32_at(bytes, 12),
        records: u32_at(bytes, 16),
        floor: u64_at(bytes, 24),
        prev,
        crc,
    })
}

/// Checks a batch body, which begins at the start of `bytes`, and returns it.
///
/// # Errors
/// Why it is not what was written.
pub(super) fn checked_body<'a>(
    bytes: &'a [u8],
    header: &BatchHeader,
    seed: u32,
) -> Result<&'a [u8], &'static str> {
    let body = bytes.get(..header.body).ok_or("the body of a batch is cut off")?;
    if checksum(seed, body) != header.body_crc {
        return Err("the body of a batch has a wrong checksum");
    }
    Ok(body)
}

/// A record in a segment's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordView<'a> {
    pub(super) kind: Kind,
    pub(super) key: GroupKey,
    pub(super) index: u64,
    pub(super) term: u64,
    pub(super) payload: &'a [u8],
}

/// Reads the record at the start of `bytes`.
///
/// # Errors
/// Why it is not what was written.
pub(super) fn parse_record(bytes: &[u8], seed: u32) -> Result<RecordView<'_>, &'static str> {
    if bytes.len() < RECORD_HEADER_BYTES {
        return Err("too short for a record header");
    }
    let end = RECORD_HEADER_BYTES + u32_at(bytes, 4) as usize;
    let whole = bytes.get(..end).ok_or("a record is cut off")?;
    if u32_at(whole, 0) != checksum(seed, &whole[4..]) {
        return Err("a record has a wrong checksum");
    }
    let kind = Kind::from_byte(whole[8]).ok_or("a record of an unknown kind")?;
    let group = u16::from_le_bytes([whole[10], whole[11]]);
    Ok(RecordView {
        kind,
        key: GroupKey { group, replica: u64_at(whole, 12) },
        index: u64_at(whole, 20),
        term: u64_at(whole, 28),
        payload: &whole[RECORD_HEADER_BYTES..],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Record {
        let key = GroupKey { group: 2, replica: 3 };
        Record { kind: Kind::Entry, key, index: 4, term: 5, payload: Bytes::from_static(b"dar") }
    }

    fn as_record_view(record: &Record) -> RecordView<'_> {
        let Record { kind, key, index, term, payload } = record;
        RecordView { kind: *kind, key: *key, index: *index, term: *term, payload }
    }

    #[test]
    fn disk_records_and_batches_have_pinned_bytes() {
        let mut batch = WriteBatch::new(Vec::new());
        assert_eq!(batch.push(&sample(), 7), BATCH_HEADER_BYTES as u64);
        let (bytes, crc) = batch.finish(7, 1, BatchLink { serial: 9, end: 64, crc: 11 });
        assert_eq!(bytes.len() % ALIGN, 0);
        assert_eq!(crc32fast::hash(bytes), 1_885_365_617, "golden bytes");
        let header = parse_batch_header(bytes, 7).unwrap();
        assert_eq!((header.records, header.floor, header.crc), (1, 1, crc));
        assert_eq!(header.prev, BatchLink { serial: 9, end: 64, crc: 11 });
        let body = checked_body(&bytes[BATCH_HEADER_BYTES..], &header, 7).unwrap();
        assert_eq!(parse_record(body, 7), Ok(as_record_view(&sample())));
    }

    #[test]
    fn disk_batch_of_another_segment_is_rejected() {
        let mut batch = WriteBatch::new(Vec::new());
        batch.push(&sample(), 7);
        let (bytes, _) = batch.finish(7, 1, BatchLink::default());
        assert!(parse_batch_header(bytes, 8).is_err());
        assert!(parse_record(&bytes[BATCH_HEADER_BYTES..], 8).is_err());
    }

    #[test]
    fn disk_batch_with_rewritten_checksums_reads_the_same() {
        let mut batch = WriteBatch::new(Vec::new());
        batch.push(&sample(), 7);
        batch.push(&sample(), 7);
        let (bytes, _) = batch.finish(7, 1, BatchLink::default());
        let mut moved = bytes.to_vec();
        let header = parse_batch_header(bytes, 7).unwrap();
        rewrite_checksums(&mut moved, &header, 8, BatchLink { serial: 1, end: 2, crc: 3 });
        let header = parse_batch_header(&moved, 8).unwrap();
        let body = checked_body(&moved[BATCH_HEADER_BYTES..], &header, 8).unwrap();
        assert_eq!(parse_record(body, 8), Ok(as_record_view(&sample())));
        assert_eq!(parse_record(&body[sample().size()..], 8), Ok(as_record_view(&sample())));
    }
}
