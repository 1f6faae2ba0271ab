//! Greet: from a stream to a connection: both sides say hello and agree, or say why not.

use std::sync::Arc;

use model::NodeId;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::Shared;
use super::connection::Connection;
use super::hello::{Class, FEATURES, GreetError, Hello, PROTO_MAX, PROTO_MIN, Refusal, read_hello};
use super::remote::Remote;
use super::transport::Stream;
use crate::limits::HELLO_TIMEOUT;

impl Shared {
    fn hello(&self, to: NodeId, class: Class) -> Hello {
        Hello {
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

    /// Dials a peer and greets it.
    pub(super) async fn dial(
        &self,
        remote: &Remote,
        class: Class,
        address: String,
    ) -> Result<(Arc<Connection>, Stream), GreetError> {
        let greeting = async {
            let mut stream = self.transport.dial(address).await?;
            let ours = self.hello(remote.node, class);
            stream.write.write_all(&ours.encode()).await?;
            stream.write.flush().await?;
            let theirs = read_hello(&mut stream.read).await?;
            self.check(&ours, &theirs, true).map_err(GreetError::RefusedHere)?;
            let connection = Connection::new(theirs.from, theirs.boot, theirs.data_id, class, true);
            Ok((Arc::new(connection), stream))
        };
        timeout(HELLO_TIMEOUT, greeting).await.unwrap_or_else(|_| Err(silent()))
    }

    /// Greets whoever dialled.
    pub(super) async fn greet(
        &self,
        mut stream: Stream,
    ) -> Result<(Arc<Connection>, Stream), GreetError> {
        let greeting = async {
            let theirs = read_hello(&mut stream.read).await?;
            let ours = self.hello(theirs.from, theirs.class);
            if let Err(refusal) = self.check(&ours, &theirs, false) {
                stream.write.write_all(&refusal.encode()).await?;
                stream.write.shutdown().await?;
                return Err(GreetError::RefusedHere(refusal));
            }
            stream.write.write_all(&ours.encode()).await?;
            stream.write.flush().await?;
            let class = theirs.class;
            let connection =
                Connection::new(theirs.from, theirs.boot, theirs.data_id, class, false);
            Ok((Arc::new(connection), stream))
        };
        timeout(HELLO_TIMEOUT, greeting).await.unwrap_or_else(|_| Err(silent()))
    }

    fn check(&self, ours: &Hello, theirs: &Hello, dialled_here: bool) -> Result<(), Refusal> {
        let _version = ours.agree(theirs)?;
        if dialled_here && theirs.from != ours.to || theirs.from == self.node {
            return Err(Refusal::WrongNode { actual: theirs.from });
        }
        let known = self.book.borrow().get(&theirs.from).and_then(|peer| peer.data_id.clone());
        if known.is_some_and(|known| known != theirs.data_id) {
            return Err(Refusal::OtherData { node: theirs.from });
        }
        let remote = self.remotes.read().get(&theirs.from).cloned();
        remote.map_or(Ok(()), |remote| remote.admit(theirs, dialled_here))
    }
}

fn silent() -> GreetError {
    let text = format!("no hello within {} s", HELLO_TIMEOUT.as_secs());
    GreetError::Broken(std::io::Error::new(std::io::ErrorKind::TimedOut, text))
}
