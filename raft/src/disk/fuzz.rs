//! Fuzz: what is read back from the log's segments, as a function of bytes.

use super::record::{self, RECORD_HEAD, TURN_HEAD, Turn};

/// The seed of the segment that the bytes pretend to stand in.
const SEED: u32 = 7;

/// A stretch of a segment: as it is, and once more with its checksums made right, so that what
/// lies behind them is reached too.
pub fn wal_record(data: &[u8]) {
    turn(data);
    let mut sealed = Turn::of_raw_records(data, SEED);
    let (bytes, _) = sealed.finish(SEED, 1, record::Link::default());
    turn(bytes);
}

fn turn(bytes: &[u8]) {
    let Ok(head) = record::turn_head(bytes, SEED) else { return };
    let Ok(mut body) = record::turn_body(&bytes[TURN_HEAD..], &head, SEED) else { return };
    for _ in 0..head.records {
        let Ok(view) = record::view(body, SEED) else { return };
        body = &body[RECORD_HEAD + view.payload.len()..];
    }
}

#[cfg(test)]
#[path = "../../../tests/fuzz/seeds.rs"]
mod seeds;

#[cfg(test)]
mod tests {
    use super::seeds::all;

    #[test]
    fn the_corpus_of_wal_record_is_taken_without_harm() {
        all("wal_record", super::wal_record);
    }
}
