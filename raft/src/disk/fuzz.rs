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
mod tests {
    use std::fs;
    use std::path::Path;

    /// Gives every seed of a corpus to its target.
    fn all(corpus: &str, target: fn(&[u8])) {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus").join(corpus);
        let seeds: Vec<_> = fs::read_dir(&dir).unwrap().map(|seed| seed.unwrap().path()).collect();
        assert!(!seeds.is_empty(), "{} has no seeds", dir.display());
        for seed in seeds {
            target(&fs::read(seed).unwrap());
        }
    }

    #[test]
    fn the_corpus_of_wal_record_is_taken_without_harm() {
        all("wal_record", super::wal_record);
    }
}
