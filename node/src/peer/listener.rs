//! Listener: takes in those who dial.
//!
//! Promise: handshakes are bounded in number and in time, so that a stranger who says nothing
//! costs a slot for three seconds and nothing else.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::Inner;
use super::hello::HandshakeError;
use crate::limits::HANDSHAKES_MAX;

/// How long to wait where the system cannot give a socket (too many open files).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Inner {
    /// Accepts until cancelled.
    pub(super) async fn listen(self: Arc<Self>, listener: TcpListener) {
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        loop {
            let Ok(slot) = Arc::clone(&handshakes).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((socket, from)) => {
                    let shared = Arc::clone(&self);
                    self.spawn(async move {
                        let connected = shared.take(socket).await;
                        drop(slot);
                        match connected {
                            Ok((connection, stream)) => shared.run(connection, stream).await,
                            Err(error) => tracing::warn!(%from, %error, "a peer was not let in"),
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept peers");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn take(
        &self,
        socket: TcpStream,
    ) -> Result<(Arc<super::connection::Connection>, super::transport::PeerStream), HandshakeError>
    {
        let stream = self.transport.accept(socket).await?;
        self.accept_handshake(stream).await
    }
}
