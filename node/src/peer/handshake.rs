//! Handshake: from a stream to a connection: both sides say hello and agree, or say why not.

use std::sync::Arc;

use model::NodeId;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::Inner;
use super::connection::Connection;
use super::hello::{
    ConnectionClass, FEATURES, HandshakeError, HandshakeRejection, PROTO_MAX, PROTO_MIN, PeerHello,
    read_hello,
};
use super::remote::Remote;
use super::transport::PeerStream;
use crate::limits::HELLO_TIMEOUT;

impl Inner {
    fn hello(&self, to: NodeId, class: ConnectionClass) -> PeerHello {
        PeerHello {
            proto_min: PROTO_MIN,
            proto_max: PROTO_MAX,
            features: FEATURES,
            class,
            from: self.node,
            to,
            boot: self.boot,
            data_id: self.data_id.clone(),
            cluster: self.cluster.clone(),
        }
    }

    /// Dials a peer and makes the handshake.
    pub(super) async fn dial(
        &self,
        remote: &Remote,
        class: ConnectionClass,
        address: String,
    ) -> Result<(Arc<Connection>, PeerStream), HandshakeError> {
        let handshake = async {
            let mut stream = self.transport.dial(address).await?;
            let ours = self.hello(remote.node, class);
            // The dialler speaks first: its hello names the class and the node it means, which the
            // other side needs for an answer.
            stream.write.write_all(&ours.encode()).await?;
            stream.write.flush().await?;
            let theirs = read_hello(&mut stream.read).await?;
            // Both sides check: an address may lead to another node than the book says.
            self.check(&ours, &theirs, true).map_err(HandshakeError::RefusedHere)?;
            let connection = Connection::new(theirs.from, theirs.boot, theirs.data_id, class, true);
            Ok((Arc::new(connection), stream))
        };
        timeout(HELLO_TIMEOUT, handshake).await.unwrap_or_else(|_| Err(silent()))
    }

    /// Makes the handshake with a peer that dialled.
    pub(super) async fn accept_handshake(
        &self,
        mut stream: PeerStream,
    ) -> Result<(Arc<Connection>, PeerStream), HandshakeError> {
        let handshake = async {
            let theirs = read_hello(&mut stream.read).await?;
            let ours = self.hello(theirs.from, theirs.class);
            // Checked before our hello is sent: with it the dialler takes the connection as agreed.
            if let Err(refusal) = self.check(&ours, &theirs, false) {
                stream.write.write_all(&refusal.encode()).await?;
                stream.write.shutdown().await?;
                return Err(HandshakeError::RefusedHere(refusal));
            }
            stream.write.write_all(&ours.encode()).await?;
            stream.write.flush().await?;
            let class = theirs.class;
            let connection =
                Connection::new(theirs.from, theirs.boot, theirs.data_id, class, false);
            Ok((Arc::new(connection), stream))
        };
        timeout(HELLO_TIMEOUT, handshake).await.unwrap_or_else(|_| Err(silent()))
    }

    fn check(
        &self,
        ours: &PeerHello,
        theirs: &PeerHello,
        dialled_here: bool,
    ) -> Result<(), HandshakeRejection> {
        let _version = ours.agree(theirs)?;
        if dialled_here && theirs.from != ours.to || theirs.from == self.node {
            return Err(HandshakeRejection::WrongNode { actual: theirs.from });
        }
        // Where the book has no data directory yet (a configured peer), the first one is taken; the
        // catalogue fills it in.
        let known = self.book.borrow().get(&theirs.from).and_then(|peer| peer.data_id.clone());
        if known.is_some_and(|known| known != theirs.data_id) {
            return Err(HandshakeRejection::OtherData { node: theirs.from });
        }
        // Last, because it is the only check that depends on what else is connected right now.
        let remote = self.remotes.read().get(&theirs.from).cloned();
        remote.map_or(Ok(()), |remote| remote.admit(theirs, dialled_here))
    }
}

fn silent() -> HandshakeError {
    let text = format!("no hello within {} s", HELLO_TIMEOUT.as_secs());
    HandshakeError::Broken(std::io::Error::new(std::io::ErrorKind::TimedOut, text))
}
