//! Transport: how two nodes get a stream of bytes between them. Plain TCP now; this is the seam
//! for mutual TLS, and for tests that delay or cut.

use std::io;
use std::net::SocketAddr;

use futures::future::BoxFuture;
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};

use crate::limits::{SEND_BUFFER_BYTES, UNCONFIRMED_MAX};

/// A stream in its two directions.
pub struct PeerStream {
    /// What comes in.
    pub read: Box<dyn AsyncRead + Send + Unpin>,
    /// What goes out.
    pub write: Box<dyn AsyncWrite + Send + Unpin>,
}

/// Makes streams between nodes.
pub trait Transport: Send + Sync + 'static {
    /// Connects to an address, `host:port`.
    fn dial(&self, address: String) -> BoxFuture<'static, io::Result<PeerStream>>;
    /// Makes a stream of an accepted connection.
    fn accept(&self, socket: TcpStream) -> BoxFuture<'static, io::Result<PeerStream>>;
}

/// TCP without encryption: for one machine, or a network of its own.
#[derive(Debug, Clone, Copy)]
pub struct PlainTcp;

impl Transport for PlainTcp {
    fn dial(&self, address: String) -> BoxFuture<'static, io::Result<PeerStream>> {
        Box::pin(async move {
            let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            for candidate in lookup_host(&address).await? {
                match connect(candidate).await {
                    Ok(socket) => return split(socket),
                    Err(error) => last = error,
                }
            }
            Err(last)
        })
    }

    fn accept(&self, socket: TcpStream) -> BoxFuture<'static, io::Result<PeerStream>> {
        Box::pin(async move { split(socket) })
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    // Where a port of this machine is dialled that nobody listens on, the kernel may choose that
    // very port to dial from and connect the socket to itself: the peer could never listen there.
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(io::Error::new(io::ErrorKind::ConnectionRefused, "nobody listens there"));
    }
    Ok(stream)
}

fn split(socket: TcpStream) -> io::Result<PeerStream> {
    socket.set_nodelay(true)?;
    sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER_BYTES)?;
    let unconfirmed_ms = u32::try_from(UNCONFIRMED_MAX.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(&socket, unconfirmed_ms)?;
    let (read, write) = socket.into_split();
    Ok(PeerStream { read: Box::new(read), write: Box::new(write) })
}
