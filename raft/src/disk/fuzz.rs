//! Fuzz: parsing of log batches, as a function of any bytes.

use super::record::{self, BATCH_HEADER_BYTES, RECORD_HEADER_BYTES, WriteBatch};

/// The checksum seed of the segment that the bytes are read from.
const SEED: u32 = 7;

/// Parses the bytes of a segment: as they are, and once more with valid checksums, so that the code
/// behind the checks is reached as well.
pub fn wal_record(data: &[u8]) {
    batch(data);
    let mut sealed = WriteBatch::of_raw_records(data, SEED);
    let (bytes, _) = sealed.finish(SEED, 1, record::BatchLink::default());
    batch(bytes);
}

fn batch(bytes: &[u8]) {
    let Ok(header) = record::parse_batch_header(bytes, SEED) else { return };
    let Ok(mut body) = record::checked_body(&bytes[BATCH_HEADER_BYTES..], &header, SEED) else {
        return;
    };
    for _ in 0..header.records {
        let Ok(view) = record::parse_record(body, SEED) else { return };
        body = &body[RECORD_HEADER_BYTES + view.payload.len()..];
    }
}

#[cfg(test)]
#[path = "../../../tests/fuzz/seeds.rs"]
mod seeds;

#[cfg(test)]
mod tests {
    use super::seeds::all;

    #[test]
    fn wal_record_fuzz_corpus_does_not_panic() {
        all("wal_record", super::wal_record);
    }
}
