//! Fuzz: what comes over the link from another node, as a function of bytes.

use bytes::BytesMut;

use super::{frame, hello};

/// A frame of the link, and the hello before it.
pub fn peer_frame(data: &[u8]) {
    if let Ok(frame) = frame::PeerFrame::decode(BytesMut::from(data)) {
        let mut header = BytesMut::new();
        frame.put_header(&mut header);
        let _ = frame::CallFailure::from_payload(&frame.payload);
    }
    hello::read_any(data);
}

#[cfg(test)]
#[path = "../../../tests/fuzz/seeds.rs"]
mod seeds;

#[cfg(test)]
mod tests {
    use super::seeds::all;

    #[test]
    fn the_corpus_of_peer_frame_is_taken_without_harm() {
        all("peer_frame", super::peer_frame);
    }
}
