//! Fuzz: what clients send, as functions of bytes, for the fuzzers in tests/fuzz. Their corpora run
//! here as plain tests.
//!
//! Promise: whatever the bytes, each target returns.

use model::{Catalogue, Timestamp, Value};

use crate::auth::Principal;
use crate::publish::Publish;
use crate::ws::session::{Moment, Session};

/// A REST body, into the parts of a command.
pub fn rest_body(data: &[u8]) {
    let Ok(Value::Object(body)) = Value::from_json(data) else { return };
    // A refusal is an answer like any other.
    let _ = Publish::read(body, "rest");
}

/// The frames of one socket, one a line, into what its session does.
pub fn socket_frame(data: &[u8]) {
    let at = Timestamp(1_795_220_377_740);
    let catalogue = Catalogue::default();
    let (mut session, _) = Session::new("socket".into(), "ws-1".into(), Principal::Anyone, at);
    for frame in data.split(|byte| *byte == b'\n') {
        let moment = Moment { at, catalogue: &catalogue };
        drop(session.on_message(frame, moment));
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
    fn the_corpus_of_rest_body_is_taken_without_harm() {
        all("rest_body", super::rest_body);
    }

    #[test]
    fn the_corpus_of_socket_frame_is_taken_without_harm() {
        all("socket_frame", super::socket_frame);
    }
}
