//! Hello: what two nodes tell each other before anything else, in a layout that never changes.
//!
//! ```text
//!   u8 tag | u16 length | body
//!   tag 0  hello    "MISHKAH\0" | u16 min | u16 max | u64 features | u8 class | u64 from
//!                   | u64 to | u128 boot | u8+bytes data-directory id | u8+bytes cluster name
//!                   | ignored rest
//!   tag >0 refusal  see `HandshakeRejection`
//! ```
//!
//! Promise: both sides end with the same version and features, or with a [`HandshakeRejection`]
//! that says what does not fit. Later versions append to the body; what is not understood is
//! ignored. Refused: everything that is not a hello, by name; postcard is not used here, because it
//! could not tell.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use model::NodeId;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::limits::{HELLO_BYTES_MAX, HELLO_NAME_BYTES_MAX};

const MAGIC: &[u8; 8] = b"MISHKAH\0";
/// The oldest version of the link this build speaks.
pub const PROTO_MIN: u16 = 1;
/// The newest version of the link this build speaks.
pub const PROTO_MAX: u16 = 1;
/// Abilities both sides must have before they are used; none so far.
pub(super) const FEATURES: u64 = 0;

/// What a connection carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectionClass {
    /// Everything that is small and must be soon.
    Control,
    /// What is large.
    Bulk,
}

/// How one side introduces itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PeerHello {
    pub(super) proto_min: u16,
    pub(super) proto_max: u16,
    pub(super) features: u64,
    pub(super) class: ConnectionClass,
    /// Who speaks.
    pub(super) from: NodeId,
    /// Whom it believes to speak to.
    pub(super) to: NodeId,
    /// This start of the process: tells a restarted peer from one that was dialled twice.
    pub(super) boot: u128,
    pub(super) data_id: String,
    pub(super) cluster: String,
}

/// Why two nodes do not talk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeRejection {
    /// No version of the link is spoken by both.
    #[error(
        "no common version of the peer link: we speak {ours_min} to {ours_max}, they {theirs_min} to {theirs_max}"
    )]
    VersionMismatch {
        /// The oldest the refusing side speaks.
        ours_min: u16,
        /// The newest the refusing side speaks.
        ours_max: u16,
        /// The oldest the refused side speaks.
        theirs_min: u16,
        /// The newest the refused side speaks.
        theirs_max: u16,
    },
    /// The node belongs to another cluster.
    #[error("the node there belongs to cluster {theirs:?}")]
    WrongCluster {
        /// The refusing side's cluster.
        theirs: String,
    },
    /// Another node lives at this address.
    #[error("the address leads to node {actual}")]
    WrongNode {
        /// The refusing side's number.
        actual: NodeId,
    },
    /// The node is known with another data directory.
    #[error(
        "node {node} is known with another data directory; give it its old directory, or replace the node by command"
    )]
    OtherData {
        /// The refused node.
        node: NodeId,
    },
    /// There already is such a connection, and it is well.
    #[error("there already is a connection")]
    Duplicate,
    /// A reason a newer build gives.
    #[error("refused for reason {0}, which this build does not know")]
    Other(u8),
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The connection broke, or nothing came in time.
    #[error("the handshake broke off: {0}")]
    Broken(#[from] std::io::Error),
    /// What came was no hello.
    #[error("what answers there is not a Mishkah node: {0}")]
    NotAHello(&'static str),
    /// The other side said no.
    #[error("refused: {0}")]
    RefusedByPeer(HandshakeRejection),
    /// This side said no.
    #[error("refused: {0}")]
    RefusedHere(HandshakeRejection),
}

impl PeerHello {
    /// The frame that carries it.
    pub(super) fn encode(&self) -> Bytes {
        let mut body = BytesMut::with_capacity(128);
        body.put_slice(MAGIC);
        body.put_u16(self.proto_min);
        body.put_u16(self.proto_max);
        body.put_u64(self.features);
        body.put_u8(match self.class {
            ConnectionClass::Control => 0,
            ConnectionClass::Bulk => 1,
        });
        body.put_u64(self.from.0);
        body.put_u64(self.to.0);
        body.put_u128(self.boot);
        put_name(&mut body, &self.data_id);
        put_name(&mut body, &self.cluster);
        framed(0, &body)
    }

    fn decode(mut body: &[u8]) -> Result<Self, HandshakeError> {
        const FIXED: usize = 8 + 2 + 2 + 8 + 1 + 8 + 8 + 16;
        if body.len() < FIXED {
            return Err(HandshakeError::NotAHello("it is too short"));
        }
        if body[..MAGIC.len()] != MAGIC[..] {
            return Err(HandshakeError::NotAHello("it does not begin as one"));
        }
        body.advance(MAGIC.len());
        Ok(Self {
            proto_min: body.get_u16(),
            proto_max: body.get_u16(),
            features: body.get_u64(),
            class: match body.get_u8() {
                0 => ConnectionClass::Control,
                1 => ConnectionClass::Bulk,
                _ => return Err(HandshakeError::NotAHello("its connection class is unknown")),
            },
            from: NodeId(body.get_u64()),
            to: NodeId(body.get_u64()),
            boot: body.get_u128(),
            data_id: get_name(&mut body)?,
            cluster: get_name(&mut body)?,
        })
    }

    /// What both sides agree on, as seen by the side that checks: the newest common version.
    pub(super) fn agree(&self, theirs: &Self) -> Result<u16, HandshakeRejection> {
        if theirs.cluster != self.cluster {
            return Err(HandshakeRejection::WrongCluster { theirs: self.cluster.clone() });
        }
        let newest = self.proto_max.min(theirs.proto_max);
        if newest < self.proto_min.max(theirs.proto_min) {
            return Err(HandshakeRejection::VersionMismatch {
                ours_min: self.proto_min,
                ours_max: self.proto_max,
                theirs_min: theirs.proto_min,
                theirs_max: theirs.proto_max,
            });
        }
        if theirs.to != self.from {
            return Err(HandshakeRejection::WrongNode { actual: self.from });
        }
        Ok(newest)
    }
}

impl HandshakeRejection {
    /// The frame that carries it.
    pub(super) fn encode(&self) -> Bytes {
        let mut body = BytesMut::new();
        let tag = match self {
            Self::VersionMismatch { ours_min, ours_max, theirs_min, theirs_max } => {
                for version in [ours_min, ours_max, theirs_min, theirs_max] {
                    body.put_u16(*version);
                }
                1
            }
            Self::WrongCluster { theirs } => {
                put_name(&mut body, theirs);
                2
            }
            Self::WrongNode { actual } => {
                body.put_u64(actual.0);
                3
            }
            Self::OtherData { node } => {
                body.put_u64(node.0);
                4
            }
            Self::Duplicate => 5,
            Self::Other(tag) => *tag,
        };
        framed(tag, &body)
    }

    fn decode(tag: u8, mut body: &[u8]) -> Self {
        match (tag, body.len()) {
            (1, 8..) => Self::VersionMismatch {
                ours_min: body.get_u16(),
                ours_max: body.get_u16(),
                theirs_min: body.get_u16(),
                theirs_max: body.get_u16(),
            },
            (2, _) => match get_name(&mut body) {
                Ok(theirs) => Self::WrongCluster { theirs },
                Err(_) => Self::Other(tag),
            },
            (3, 8..) => Self::WrongNode { actual: NodeId(body.get_u64()) },
            (4, 8..) => Self::OtherData { node: NodeId(body.get_u64()) },
            (5, _) => Self::Duplicate,
            _ => Self::Other(tag),
        }
    }
}

/// Reads bytes as a hello and as a refusal.
#[cfg(any(test, feature = "fuzz"))]
pub(super) fn read_any(data: &[u8]) {
    if let Ok(hello) = PeerHello::decode(data) {
        let _ = hello.agree(&hello);
        let _ = hello.encode();
    }
    if let Some((tag, body)) = data.split_first() {
        let _ = HandshakeRejection::decode(*tag, body).to_string();
    }
}

/// Reads the other side's hello, or its refusal. The caller sets a time limit.
pub(super) async fn read_hello(
    from: &mut (impl AsyncRead + Unpin),
) -> Result<PeerHello, HandshakeError> {
    let mut head = [0; 3];
    from.read_exact(&mut head).await?;
    let length = usize::from(u16::from_be_bytes([head[1], head[2]]));
    if length > HELLO_BYTES_MAX {
        return Err(HandshakeError::NotAHello("it is too long"));
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body).await?;
    match head[0] {
        0 => PeerHello::decode(&body),
        tag => Err(HandshakeError::RefusedByPeer(HandshakeRejection::decode(tag, &body))),
    }
}

fn framed(tag: u8, body: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(3 + body.len());
    frame.put_u8(tag);
    frame.put_u16(u16::try_from(body.len()).expect("names in a hello are short"));
    frame.put_slice(body);
    frame.freeze()
}

/// Names are checked against their limit where they are configured; here they are cut, not trusted.
fn put_name(body: &mut BytesMut, name: &str) {
    let mut end = name.len().min(HELLO_NAME_BYTES_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    body.put_u8(u8::try_from(end).expect("cut to fit"));
    body.put_slice(&name.as_bytes()[..end]);
}

fn get_name(body: &mut &[u8]) -> Result<String, HandshakeError> {
    let short = HandshakeError::NotAHello("a name is cut short");
    if body.is_empty() {
        return Err(short);
    }
    let length = usize::from(body.get_u8());
    if body.len() < length {
        return Err(short);
    }
    let name = std::str::from_utf8(&body[..length])
        .map_err(|_| HandshakeError::NotAHello("a name is not text"))?
        .to_owned();
    body.advance(length);
    Ok(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hello() -> PeerHello {
        PeerHello {
            proto_min: 1,
            proto_max: 3,
            features: 0,
            class: ConnectionClass::Bulk,
            from: NodeId(1),
            to: NodeId(2),
            boot: 5,
            data_id: "d".into(),
            cluster: "shop".into(),
        }
    }

    async fn read(bytes: &[u8]) -> Result<PeerHello, HandshakeError> {
        read_hello(&mut &bytes[..]).await
    }

    #[tokio::test]
    async fn a_hello_is_read_as_written_and_a_longer_one_too() {
        let bytes = hello().encode();
        assert_eq!(read(&bytes).await.unwrap(), hello());
        let mut longer = bytes[3..].to_vec();
        longer.extend_from_slice(b"of a later version");
        assert_eq!(read(&framed(0, &longer)).await.unwrap(), hello());
    }

    #[tokio::test]
    async fn a_refusal_is_read_as_written() {
        for refusal in [
            HandshakeRejection::VersionMismatch {
                ours_min: 1,
                ours_max: 2,
                theirs_min: 3,
                theirs_max: 4,
            },
            HandshakeRejection::WrongCluster { theirs: "other".into() },
            HandshakeRejection::WrongNode { actual: NodeId(9) },
            HandshakeRejection::OtherData { node: NodeId(3) },
            HandshakeRejection::Duplicate,
            HandshakeRejection::Other(77),
        ] {
            match read(&refusal.encode()).await {
                Err(HandshakeError::RefusedByPeer(read)) => assert_eq!(read, refusal),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn the_newest_common_version_is_agreed_or_the_misfit_named() {
        let here =
            PeerHello { from: NodeId(2), to: NodeId(1), proto_min: 2, proto_max: 9, ..hello() };
        assert_eq!(here.agree(&hello()), Ok(3));
        let old = PeerHello { proto_min: 1, proto_max: 1, ..hello() };
        assert!(matches!(here.agree(&old), Err(HandshakeRejection::VersionMismatch { .. })));
        let foreign = PeerHello { cluster: "other".into(), ..hello() };
        assert!(matches!(here.agree(&foreign), Err(HandshakeRejection::WrongCluster { .. })));
        let lost = PeerHello { to: NodeId(7), ..hello() };
        assert_eq!(here.agree(&lost), Err(HandshakeRejection::WrongNode { actual: NodeId(2) }));
    }

    proptest! {
        #[test]
        fn garbage_is_refused_and_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = PeerHello::decode(&bytes);
            if let Some((tag, body)) = bytes.split_first() {
                let _ = HandshakeRejection::decode(*tag, body);
            }
            let mut valid = hello().encode().to_vec();
            for (place, byte) in bytes.iter().enumerate().filter(|(_, b)| **b % 16 == 0) {
                let place = place % valid.len();
                valid[place] ^= byte;
            }
            let _ = PeerHello::decode(&valid[3..]);
        }
    }
}
