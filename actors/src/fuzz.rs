//! Fuzz: what another node's router says, as a function of bytes.

use crate::message::{Ask, Cast, Reply, decode};

/// A question, an answer, or something one is told.
pub fn peer_message(data: &[u8]) {
    let _ = decode::<Ask>(data);
    let _ = decode::<Reply>(data);
    let _ = decode::<Cast>(data);
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
