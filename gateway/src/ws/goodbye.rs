//! Goodbye: why a socket ends, and what its client is told of it.

use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::limits::{GOODBYE_MAX, LINGER_BYTES_MAX};

/// A connection that has become a WebSocket.
pub(crate) type WebSocket = WebSocketStream<TokioIo<Upgraded>>;

/// Why a socket ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CloseReason {
    /// The client is gone, or said goodbye.
    Gone,
    /// The client sent more than may be sent at once.
    TooLarge,
    /// The client sent a text that is not UTF-8.
    NotText,
    /// The client sent a frame that is none.
    NoFrame,
    /// The client sent a message too slowly.
    TooSlow,
    /// The node has no room for what the client sends.
    Crowded,
    /// Nothing came from the client for too long.
    Idle,
    /// The client took nothing for too long.
    Stalled,
    /// This node goes away.
    Leaving,
}

/// Where its frames go.
pub(crate) type FrameSink = SplitSink<WebSocket, Message>;

impl CloseReason {
    /// What an error of the library means.
    pub(crate) fn of(error: &tungstenite::Error) -> Self {
        if matches!(error, tungstenite::Error::Capacity(_)) {
            return Self::TooLarge;
        }
        if matches!(error, tungstenite::Error::Utf8(_)) {
            return Self::NotText;
        }
        let tungstenite::Error::Protocol(error) = error else { return Self::Gone };
        // These say that the connection has ended, not that a frame is wrong.
        let has_ended = matches!(
            error,
            ProtocolError::ResetWithoutClosingHandshake
                | ProtocolError::ReceivedAfterClosing
                | ProtocolError::SendAfterClosing
        );
        if has_ended { Self::Gone } else { Self::NoFrame }
    }

    /// What the client is told.
    fn goodbye(self) -> Option<(CloseCode, &'static str)> {
        Some(match self {
            Self::Gone => return None,
            Self::TooLarge => (CloseCode::Size, "the message is too large"),
            Self::NotText => (CloseCode::Invalid, "a text message is not UTF-8"),
            Self::NoFrame => (CloseCode::Protocol, "a frame is not as RFC 6455 says"),
            Self::TooSlow => (CloseCode::Policy, "a message came too slowly"),
            Self::Crowded => (CloseCode::Again, "there is no room for this message; send it again"),
            Self::Idle => (CloseCode::Away, "nothing was heard"),
            Self::Stalled => (CloseCode::Again, "nothing was taken; connect again"),
            Self::Leaving => (CloseCode::Restart, "this node goes away; connect again"),
        })
    }

    /// Whether what comes can still be read as frames, and is worth its memory.
    fn reads_on(self) -> bool {
        matches!(self, Self::Idle | Self::Stalled | Self::Leaving)
    }
}

/// Says why, and lets the client answer.
pub(crate) async fn close(
    end: CloseReason,
    mut sink: FrameSink,
    mut stream: SplitStream<WebSocket>,
) {
    let Some((code, reason)) = end.goodbye() else {
        // The answer to the client's own goodbye is written by reading on.
        let silence = async { while let Some(Ok(_)) = stream.next().await {} };
        let _ = timeout(GOODBYE_MAX, silence).await;
        return;
    };
    let close = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
    if !matches!(timeout(GOODBYE_MAX, sink.send(close)).await, Ok(Ok(()))) {
        return;
    }
    let ended = async {
        // The close handshake is driven by reading on; what else comes is not for anybody.
        while end.reads_on() && matches!(stream.next().await, Some(Ok(_))) {}
        // What was gathered of a message is let go of here.
        if let Ok(socket) = sink.reunite(stream) {
            read_away(socket.into_inner()).await;
        }
    };
    if timeout(GOODBYE_MAX, ended).await.is_err() {
        tracing::trace!("a client did not answer the goodbye");
    }
}

/// Reads what still comes: the system would throw away the goodbye with what was not read.
async fn read_away(mut io: TokioIo<Upgraded>) {
    let (mut bytes, mut left) = (vec![0; 16 * 1024], LINGER_BYTES_MAX);
    if io.shutdown().await.is_err() {
        return;
    }
    while left > 0
        && let Ok(count @ 1..) = io.read(&mut bytes).await
    {
        left = left.saturating_sub(count);
    }
}
