//! Seeds: what the fuzzers begin with, for the plain tests of every room that has fuzzed readers.

use std::fs;
use std::path::Path;

/// Gives every seed of a corpus to its target.
pub(crate) fn all(corpus: &str, target: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus").join(corpus);
    let seeds: Vec<_> = fs::read_dir(&dir).unwrap().map(|seed| seed.unwrap().path()).collect();
    assert!(!seeds.is_empty(), "{} has no seeds", dir.display());
    for seed in seeds {
        target(&fs::read(seed).unwrap());
    }
}
