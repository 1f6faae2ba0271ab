//! Fuzz: what is read back from the log's segments, as a function of bytes.

use super::record::{self, BATCH_HEADER_BYTES, RECORD_HEADER_BYTES, WriteBatch};

/// The seed of the segment that the bytes pretend to stand in.
const SEED: u32 = 7;

/// A stretch of a segment: as it is, and once more with its checksums made right, so that what
/// lies behind them is reached too.
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
