//! Fuzz: what another node's store says, as a function of bytes.

use crate::message::{PeerCast, PeerReply, PeerRequest, decode};

/// A question, an answer, or something one is told.
pub fn peer_message(data: &[u8]) {
    let _ = decode::<PeerRequest>(data);
    let _ = decode::<PeerReply>(data);
    let _ = decode::<PeerCast>(data);
}

#[cfg(test)]
#[path = "../../tests/fuzz/seeds.rs"]
mod seeds;

#[cfg(test)]
mod tests {
    use super::seeds::all;

    #[test]
    fn the_corpus_of_peer_message_is_taken_without_harm() {
        all("peer_message", super::peer_message);
    }
}
