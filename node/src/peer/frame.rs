//! Frame: the unit of the peer link: a length, a header of sixteen bytes, a payload.
//!
//! ```text
//!   u32 length of what follows | u8 kind | u8 flags | u8 priority | u8 0 | u64 id
//!       | u32 remaining ms | payload
//! ```
//!
//! Promise: any bytes decode to a frame or to a named error, never to a panic; a kind this build
//! does not know is a frame of kind [`PeerFrameKind::Unknown`], to be answered, not a reason to
//! hang up. Refused: frames shorter than their header.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use raft::Priority;

/// Bytes of a frame's header, after the length.
pub(super) const HEADER_BYTES: usize = 16;
/// The flag of a piece that is not the last of its message.
const FLAG_MORE: u8 = 1;

/// What a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PeerFrameKind {
    /// Asks for a sign of life.
    Ping,
    /// The sign of life.
    Pong,
    /// A message for the replicas, to be answered.
    RaftCall,
    /// A message for the actors' inbox, to be answered.
    ActorCall,
    /// A message for the actors' inbox, without an answer.
    Cast,
    /// The answer to a call.
    Answer,
    /// A call has no answer; the payload is one byte, a [`CallFailure`].
    Failed,
    /// Something a newer build sends.
    Unknown(u8),
}

impl PeerFrameKind {
    fn to_byte(self) -> u8 {
        match self {
            Self::Ping => 1,
            Self::Pong => 2,
            Self::RaftCall => 3,
            Self::ActorCall => 4,
            Self::Cast => 5,
            Self::Answer => 6,
            Self::Failed => 7,
            Self::Unknown(byte) => byte,
        }
    }

    fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::Ping,
            2 => Self::Pong,
            3 => Self::RaftCall,
            4 => Self::ActorCall,
            5 => Self::Cast,
            6 => Self::Answer,
            7 => Self::Failed,
            other => Self::Unknown(other),
        }
    }
}

/// Why a call has no answer, as the answering side says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallFailure {
    /// Too many calls are being answered; this one was not begun.
    Busy,
    /// The node is not ready for such calls yet; this one was not begun.
    Starting,
    /// This build does not know the frame's kind.
    Unsupported,
    /// The deadline had passed on arrival; the call was not begun.
    Expired,
    /// The call was begun and dropped without an answer.
    Dropped,
    /// The answer is larger than its priority may carry.
    TooLarge,
}

impl CallFailure {
    pub(super) fn to_payload(self) -> Bytes {
        Bytes::from_static(match self {
            Self::Busy => &[1],
            Self::Starting => &[2],
            Self::Unsupported => &[3],
            Self::Expired => &[4],
            Self::Dropped => &[5],
            Self::TooLarge => &[6],
        })
    }

    /// A reason of a newer build is read as [`CallFailure::Dropped`], the one that promises least.
    pub(super) fn from_payload(payload: &[u8]) -> Self {
        match payload.first() {
            Some(1) => Self::Busy,
            Some(2) => Self::Starting,
            Some(3) => Self::Unsupported,
            Some(4) => Self::Expired,
            Some(6) => Self::TooLarge,
            Some(_) | None => Self::Dropped,
        }
    }
}

/// One frame, or one piece of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PeerFrame {
    /// What it is for.
    pub(super) kind: PeerFrameKind,
    /// The priority it travels with, which is also where its answer belongs.
    pub(super) priority: Priority,
    /// Whether more pieces of the same kind and id follow.
    pub(super) more: bool,
    /// Names a call, or a message in pieces, on this connection and in this direction.
    pub(super) id: u64,
    /// What was left of the call's deadline when the frame was written.
    pub(super) remaining_ms: u32,
    /// The message or a piece of it.
    pub(super) payload: Bytes,
}

/// Bytes that are not a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    /// There is not even a header.
    #[error("a frame of {0} bytes is shorter than its header")]
    Short(usize),
    /// There is no such priority.
    #[error("a frame of priority {0}, which does not exist")]
    Priority(u8),
}

impl PeerFrame {
    /// Writes length and header; the payload follows, copied or written in place.
    pub(super) fn put_header(&self, buffer: &mut BytesMut) {
        let body = HEADER_BYTES + self.payload.len();
        buffer.put_u32(u32::try_from(body).expect("payloads are bounded far below 4 GiB"));
        buffer.put_u8(self.kind.to_byte());
        buffer.put_u8(if self.more { FLAG_MORE } else { 0 });
        buffer.put_u8(priority_to_byte(self.priority));
        buffer.put_u8(0);
        buffer.put_u64(self.id);
        buffer.put_u32(self.remaining_ms);
    }

    /// Reads what follows the length.
    pub(super) fn decode(mut body: BytesMut) -> Result<Self, FrameError> {
        if body.len() < HEADER_BYTES {
            return Err(FrameError::Short(body.len()));
        }
        let kind = PeerFrameKind::from_byte(body.get_u8());
        let more = body.get_u8() & FLAG_MORE != 0;
        let priority = body.get_u8();
        let priority = priority_from_byte(priority).ok_or(FrameError::Priority(priority))?;
        let _reserved = body.get_u8();
        let id = body.get_u64();
        let remaining_ms = body.get_u32();
        Ok(Self { kind, priority, more, id, remaining_ms, payload: body.freeze() })
    }
}

/// A priority's place in the order of urgency.
pub(super) fn priority_to_byte(priority: Priority) -> u8 {
    match priority {
        Priority::Urgent => 0,
        Priority::Log => 1,
        Priority::Call => 2,
        Priority::Feed => 3,
        Priority::Bulk => 4,
    }
}

fn priority_from_byte(byte: u8) -> Option<Priority> {
    Some(match byte {
        0 => Priority::Urgent,
        1 => Priority::Log,
        2 => Priority::Call,
        3 => Priority::Feed,
        4 => Priority::Bulk,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(frame: &PeerFrame) -> BytesMut {
        let mut buffer = BytesMut::new();
        frame.put_header(&mut buffer);
        buffer.extend_from_slice(&frame.payload);
        buffer
    }

    #[test]
    fn the_header_is_pinned_byte_by_byte() {
        let frame = PeerFrame {
            kind: PeerFrameKind::RaftCall,
            priority: Priority::Log,
            more: true,
            id: 7,
            remaining_ms: 300,
            payload: Bytes::from_static(b"ab"),
        };
        let golden = [0, 0, 0, 18, 3, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 1, 44, b'a', b'b'];
        assert_eq!(encode(&frame)[..], golden);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            kind in any::<u8>(), priority in 0u8..5, more in any::<bool>(), id in any::<u64>(),
            remaining_ms in any::<u32>(), payload in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let frame = PeerFrame {
                kind: PeerFrameKind::from_byte(kind),
                priority: priority_from_byte(priority).unwrap(),
                more, id, remaining_ms,
                payload: payload.into(),
            };
            let mut bytes = encode(&frame);
            prop_assert_eq!(bytes.get_u32() as usize, bytes.len());
            prop_assert_eq!(PeerFrame::decode(bytes), Ok(frame));
        }

        #[test]
        fn garbage_is_refused_or_read_but_never_panics(
            bytes in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            match PeerFrame::decode(BytesMut::from(&bytes[..])) {
                Ok(frame) => prop_assert_eq!(frame.payload.len(), bytes.len() - HEADER_BYTES),
                Err(FrameError::Short(length)) => prop_assert_eq!(length, bytes.len()),
                Err(FrameError::Priority(priority)) => prop_assert!(priority > 4),
            }
        }
    }
}
