//! Connection: the bytes of one client, counted as they come, and let go of when the client does
//! not keep to the times of `limits.rs`.
//!
//! A connection that is to send and does not ends, and so does one that takes nothing of its
//! answer for `Limits::answer_stall_max`. A socket has rules of its own (`ws/outbox.rs`), which
//! say why it closes. One that ends while its client is still sending what nobody wants reads on
//! for a moment: the system would throw away the answer with what was not read.

use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use actors::ShareLimiter;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::coop::poll_proceed;
use tokio::time::{Sleep, sleep_until};

use crate::arrivals::Arrivals;
use crate::connection_place::ConnectionPlace;
use crate::intake::Intake;
use crate::limits::{BYTES_OF_BUDGET, LINGER_BYTES_MAX, LINGER_MAX, Limits};

/// The connections of a node.
pub(crate) struct Connections {
    listener: TcpListener,
    arrivals: Arrivals,
    /// One for each that has said something, shared by addresses.
    shares: ShareLimiter,
    limits: Arc<Limits>,
}

impl Connections {
    /// Those to a listener, whose bytes are counted here.
    pub(crate) fn new(listener: TcpListener, arrivals: Arrivals, limits: Arc<Limits>) -> Self {
        let shares = ShareLimiter::new(limits.connections_max as u64, limits.address_percent);
        Self { listener, arrivals, shares, limits }
    }

    /// The next one. It keeps this permit for as long as it lives, also as a socket.
    ///
    /// # Errors
    /// What the listener reports; another may be taken all the same.
    pub(crate) async fn accept(
        &self,
        permit: OwnedSemaphorePermit,
    ) -> io::Result<ClientConnection> {
        let (stream, address) = self.listener.accept().await?;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection could not be told to send at once");
        }
        let stream = Arc::new(stream);
        let place = ConnectionPlace::new(self.shares.clone(), permit);
        let intake = Intake::new(address.into(), &self.arrivals, place, Arc::downgrade(&stream));
        let limits = Arc::clone(&self.limits);
        Ok(ClientConnection {
            stream,
            intake,
            limits,
            read_timer: None,
            stalled: None,
            lingers: None,
        })
    }
}

/// One connection.
pub(crate) struct ClientConnection {
    stream: Arc<TcpStream>,
    intake: Intake,
    limits: Arc<Limits>,
    /// Goes off when its client has sent nothing for too long, or before.
    read_timer: Option<Pin<Box<Sleep>>>,
    /// Ends when its client has taken nothing for too long; none while it takes what is written.
    stalled: Option<Pin<Box<Sleep>>>,
    /// While it ends: until when what still comes is read, and how much of it was.
    lingers: Option<(Pin<Box<Sleep>>, usize)>,
}

fn timed_out<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::Error::from(io::ErrorKind::TimedOut)))
}

fn sleep_to(deadline: Instant) -> Pin<Box<Sleep>> {
    Box::pin(sleep_until(deadline.into()))
}

impl ClientConnection {
    /// What has come over it.
    pub(crate) fn intake(&self) -> Intake {
        self.intake.clone()
    }

    /// Reads what is there.
    fn poll_bytes(
        &self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream.poll_read_ready(context))?;
            match self.stream.try_read_buf(buffer) {
                Ok(_) => return Poll::Ready(Ok(())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Writes by this as soon as the system takes something.
    fn poll_written(
        &mut self,
        context: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            if self.stream.poll_write_ready(context)?.is_pending() {
                return self.unless_stalled(context);
            }
            match write(&self.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => {
                    self.stalled = None;
                    return Poll::Ready(written);
                }
            }
        }
    }

    /// Waits, or says that the client has taken nothing for too long.
    fn unless_stalled(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.intake.is_socket() {
            return Poll::Pending;
        }
        let until = Instant::now() + self.limits.answer_stall_max;
        let stalled = self.stalled.get_or_insert_with(|| sleep_to(until));
        ready!(stalled.as_mut().poll(context));
        // The error ends the connection, and what of the answer is still kept goes with it.
        timed_out()
    }

    /// Waits, or says that the client has sent nothing for too long.
    fn unless_late(
        &mut self,
        context: &mut Context<'_>,
        deadline: Instant,
    ) -> Poll<io::Result<()>> {
        let timer = self.read_timer.get_or_insert_with(|| sleep_to(deadline));
        // One that goes off early costs one look; setting it for each request costs every request.
        if timer.deadline() > deadline.into() {
            timer.as_mut().reset(deadline.into());
        }
        while timer.as_mut().poll(context).is_ready() {
            if Instant::now() >= deadline {
                return timed_out();
            }
            timer.as_mut().reset(deadline.into());
        }
        Poll::Pending
    }
}

impl AsyncRead for ClientConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let deadline = this.intake.read_deadline(&this.limits)?;
        // Only what arrives now is counted: the caller's buffer may hold bytes from before.
        let before = buffer.filled().len();
        if this.poll_bytes(context, buffer)?.is_ready() {
            let bytes = buffer.filled().len() - before;
            this.intake.has_read(bytes);
            spend_budget(context, bytes);
            return Poll::Ready(Ok(()));
        }
        let Some(deadline) = deadline else { return Poll::Pending };
        if this.intake.poll_cut(context).is_ready() {
            return Poll::Ready(Err(io::Error::other("the node has no room for this head")));
        }
        this.unless_late(context, deadline)
    }
}

impl AsyncWrite for ClientConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_written(context, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_written(context, |stream| stream.try_write_vectored(parts))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nothing is kept here.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.lingers.is_none() {
            // The runtime's own stream ends its sending side only where it is owned alone.
            let stream = std::net::TcpStream::from(this.stream.as_fd().try_clone_to_owned()?);
            stream.shutdown(Shutdown::Write)?;
            if !this.intake.has_left_unread() {
                return Poll::Ready(Ok(()));
            }
        }
        let until = Instant::now() + LINGER_MAX;
        let (timer, mut count) = this.lingers.take().unwrap_or_else(|| (sleep_to(until), 0));
        let mut bytes = [0; 16 * 1024];
        let mut buffer = ReadBuf::new(&mut bytes);
        while count < LINGER_BYTES_MAX {
            buffer.clear();
            if this.poll_bytes(context, &mut buffer)?.is_pending() {
                let (timer, _) = this.lingers.insert((timer, count));
                return timer.as_mut().poll(context).map(Ok);
            }
            if buffer.filled().is_empty() {
                break;
            }
            count += buffer.filled().len();
        }
        Poll::Ready(Ok(()))
    }
}

/// Spends the budget of tokio's cooperative scheduling by bytes: it counts calls, and a thousand
/// connections that each have a megabyte to be read would hold up all others of their thread.
fn spend_budget(context: &mut Context<'_>, bytes: usize) {
    for _ in 0..bytes / BYTES_OF_BUDGET {
        match poll_proceed(context) {
            Poll::Ready(proceeded) => proceeded.made_progress(),
            // None is left: the next read waits until others had their turn.
            Poll::Pending => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt as _;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::timeout;

    use actors::Memory;
    use tokio::sync::Semaphore;

    use super::*;

    const SHORT: Duration = Duration::from_millis(200);

    /// A connection and its client.
    async fn pair() -> (ClientConnection, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let limits = Limits { answer_stall_max: SHORT, ..Limits::default() };
        let connections =
            Connections::new(listener, Arrivals::new(1024, &Memory::unlimited()), Arc::new(limits));
        let client = TcpStream::connect(to).await.unwrap();
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        (connections.accept(permit).await.unwrap(), client)
    }

    #[tokio::test]
    async fn a_connection_whose_client_takes_nothing_ends() {
        let (mut connection, _client) = pair().await;
        // More than the buffers of both ends take.
        let refused = loop {
            match connection.write_all(&[b'x'; 64 * 1024]).await {
                Ok(()) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_connection_with_much_to_read_lets_others_have_turns() {
        let (mut connection, mut client) = pair().await;
        connection.intake().begins_request(true);
        let writes = tokio::spawn(async move {
            let _ = client.write_all(&[b'x'; 512 * 1024]).await;
            client
        });
        tokio::time::sleep(SHORT).await;
        let (mut bytes, mut count) = ([0; 4096], 0);
        while let Some(read) = connection.read(&mut bytes).now_or_never() {
            count += read.unwrap();
        }
        assert!((1..100 * 1024).contains(&count), "{count}");
        let more = timeout(SHORT, connection.read(&mut bytes)).await.unwrap();
        assert!(more.unwrap() > 0, "it goes on");
        writes.abort();
    }

    #[tokio::test]
    async fn a_slow_client_that_goes_on_taking_keeps_its_connection() {
        let (mut connection, mut client) = pair().await;
        let size = 16 * 1024 * 1024;
        let writes = async move { connection.write_all(&vec![b'x'; size]).await };
        let reads = async move {
            let (mut bytes, mut count) = (vec![0; 1024 * 1024], 0);
            while count < size {
                count += client.read(&mut bytes).await.unwrap();
                tokio::time::sleep(SHORT / 20).await;
            }
        };
        let (written, ()) = tokio::join!(writes, reads);
        written.unwrap();
    }

    #[tokio::test]
    async fn a_client_has_left_a_while_after_it_closed_its_side() {
        let (connection, mut client) = pair().await;
        let intake = connection.intake();
        client.write_all(b"the next request").await.unwrap();
        assert!(timeout(SHORT, intake.left(Duration::ZERO)).await.is_err(), "it is there");
        client.shutdown().await.unwrap();
        assert!(timeout(SHORT, intake.left(10 * SHORT)).await.is_err(), "it may wait still");
        intake.left(Duration::ZERO).await;
    }

    #[tokio::test]
    async fn a_client_that_resets_has_left_at_once() {
        let (mut connection, client) = pair().await;
        let intake = connection.intake();
        connection.write_all(b"never read").await.unwrap();
        client.readable().await.unwrap();
        // The system says so to whoever sends to one that left something unread.
        drop(client);
        timeout(10 * SHORT, intake.left(Duration::from_secs(60))).await.unwrap();
    }
}
