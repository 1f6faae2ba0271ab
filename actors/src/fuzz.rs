//! Fuzz: what another node's router says, as a function of bytes.

use crate::message::{Ask, Cast, Reply, decode};

/// A question, an answer, or something one is told.
pub fn peer_message(data: &[u8]) {
    let _ = decode::<Ask>(data);
    let _ = decode::<Reply>(data);
    let _ = decode::<Cast>(data);
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
    fn the_corpus_of_peer_message_is_taken_without_harm() {
        all("peer_message", super::peer_message);
    }
}
