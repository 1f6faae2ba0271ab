//! Fuzz: what comes over the link from another node, as a function of bytes.

use bytes::BytesMut;

use super::{frame, hello};

/// A frame of the link, and the greeting before it.
pub fn peer_frame(data: &[u8]) {
    if let Ok(frame) = frame::Frame::decode(BytesMut::from(data)) {
        let mut header = BytesMut::new();
        frame.put_header(&mut header);
        let _ = frame::Failure::from_payload(&frame.payload);
    }
    hello::read_any(data);
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
    fn the_corpus_of_peer_frame_is_taken_without_harm() {
        all("peer_frame", super::peer_frame);
    }
}
