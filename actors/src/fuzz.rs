//! Fuzz: what another node sends, as a function of bytes.

use crate::message::{PeerCast, PeerReply, PeerRequest, decode};

/// A request, a reply or a cast.
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
