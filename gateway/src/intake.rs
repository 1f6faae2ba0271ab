//! Intake: how much of a message has come over a connection, and how many large ones may come at
//! once.
//!
//! A socket's library hands over whole messages only, so what is gathered before is counted here,
//! below it. Up to `MESSAGE_BYTES_MAX` a connection is read freely. Beyond, its message is a large
//! one: it needs a permit of the node (`SYNC_BODIES_AT_ONCE`), is read no further without it, and
//! keeps it until what it asked for is decided. So the memory of unread messages has a bound.
//!
//! The other way round, an answer that its client does not read is kept for a while only: a
//! connection that takes no byte for `Limits::answer_stall_max` ends. A socket has a rule of its
//! own (`ws/outbox.rs`), which says why it closes.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tokio_util::sync::PollSemaphore;

use crate::client_address::ClientAddress;
use crate::limits::{MESSAGE_BYTES_MAX, READ_BUFFER_BYTES, SYNC_BODY_READ_MAX};

/// Bytes after which a message is a large one: its head and a part of the next one come with it.
const LARGE: usize = MESSAGE_BYTES_MAX + 2 * READ_BUFFER_BYTES;

/// What has come over one connection since its last whole message. Clones are the same.
#[derive(Clone)]
pub(crate) struct Intake {
    peer: ClientAddress,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Whether it carries messages by now; before, other limits hold.
    is_socket: bool,
    /// Bytes since the last whole message.
    bytes: usize,
    /// Whether a large message waits for its permit.
    waits: bool,
    /// The permit of a large message, and since when it is held.
    held: Option<(OwnedSemaphorePermit, Instant)>,
}

impl Intake {
    /// Nothing has come yet.
    pub(crate) fn new(peer: ClientAddress) -> Self {
        Self { peer, state: Arc::default() }
    }

    /// Where its connection comes from.
    pub(crate) fn peer(&self) -> ClientAddress {
        self.peer
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing has come over it yet.
    pub(crate) fn is_silent(&self) -> bool {
        let state = self.state();
        !state.is_socket && state.bytes == 0
    }

    /// From here on what comes is messages.
    pub(crate) fn begin(&self) {
        // The bytes of the upgrade request are no message's.
        let mut state = self.state();
        (state.is_socket, state.bytes) = (true, 0);
    }

    /// A message has come as a whole.
    pub(crate) fn delivered(&self) {
        self.state().bytes = 0;
    }

    /// What a large message asked for is decided.
    pub(crate) fn decided(&self) {
        let mut state = self.state();
        // More bytes are the next large message, which came while this one was decided: it keeps
        // the permit, because it would have to wait for one in the middle.
        if state.bytes <= LARGE {
            state.held = None;
        }
    }

    /// Whether a large message has come and is not decided yet.
    pub(crate) fn is_deciding(&self) -> bool {
        let state = self.state();
        state.held.is_some() && state.bytes <= LARGE
    }

    /// Whether a large message is coming, or waits for its permit to.
    pub(crate) fn is_coming(&self) -> bool {
        let state = self.state();
        state.waits || (state.bytes > LARGE && state.held.is_some())
    }

    /// Whether it has been coming for too long.
    pub(crate) fn is_overdue(&self) -> bool {
        let state = self.state();
        let late = |(_, since): &(_, Instant)| since.elapsed() >= SYNC_BODY_READ_MAX;
        state.bytes > LARGE && state.held.as_ref().is_some_and(late)
    }
}

/// The connections of a node.
pub(crate) struct Connections {
    listener: TcpListener,
    larges: Arc<Semaphore>,
    stall_max: Duration,
}

impl Connections {
    /// Those to a listener, with the permits for large messages, and how long a client may take
    /// nothing of an answer.
    pub(crate) fn new(listener: TcpListener, larges: Arc<Semaphore>, stall_max: Duration) -> Self {
        Self { listener, larges, stall_max }
    }

    /// The next one.
    ///
    /// # Errors
    /// What the listener reports; another may be taken all the same.
    pub(crate) async fn accept(&self) -> io::Result<Metered> {
        let (stream, address) = self.listener.accept().await?;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection could not be told to send at once");
        }
        let larges = PollSemaphore::new(Arc::clone(&self.larges));
        let (intake, stall_max) = (Intake::new(address.into()), self.stall_max);
        Ok(Metered { stream, larges, intake, stall_max, stalled: None })
    }
}

/// A connection whose intake is counted.
pub(crate) struct Metered {
    stream: TcpStream,
    larges: PollSemaphore,
    intake: Intake,
    stall_max: Duration,
    /// Ends when its client has taken nothing for too long; none while it takes what is written.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Metered {
    /// What has come over it.
    pub(crate) fn intake(&self) -> Intake {
        self.intake.clone()
    }

    /// What came of a write, or that the client has taken nothing for too long.
    fn unless_stalled<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() || self.intake.state().is_socket {
            self.stalled = None;
            return written;
        }
        let stall_max = self.stall_max;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall_max)));
        ready!(stalled.as_mut().poll(context));
        // The error ends the connection, and what of the answer is still kept goes with it.
        Poll::Ready(Err(io::Error::from(io::ErrorKind::TimedOut)))
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        // The lock is let go before the permit is waited for: the socket's task asks this state,
        // too.
        let needs_permit = {
            let mut state = this.intake.state();
            state.waits = state.is_socket && state.bytes > LARGE && state.held.is_none();
            state.waits
        };
        if needs_permit {
            let permit = ready!(this.larges.poll_acquire(context))
                .ok_or_else(|| io::Error::other("no large message is taken any more"))?;
            let mut state = this.intake.state();
            (state.waits, state.held) = (false, Some((permit, Instant::now())));
        }
        // Only what arrives now is counted: the caller's buffer may hold bytes from before.
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        this.intake.state().bytes += buffer.filled().len() - before;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.unless_stalled(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.unless_stalled(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::task::JoinHandle;
    use tokio::time::timeout;

    use super::*;

    const MESSAGE: usize = LARGE + 256 * 1024;
    const STALL_MAX: Duration = Duration::from_millis(200);

    /// A connection over which a large message comes.
    async fn sending(connections: &Connections) -> (Metered, JoinHandle<()>) {
        let to = connections.listener.local_addr().unwrap();
        let mut client = TcpStream::connect(to).await.unwrap();
        let metered = connections.accept().await.unwrap();
        metered.intake.begin();
        let sends = tokio::task::spawn_local(async move {
            client.write_all(&vec![b'x'; MESSAGE]).await.unwrap();
        });
        (metered, sends)
    }

    /// Reads the message, or as much of it as may come now.
    async fn read(from: &mut Metered) -> usize {
        let (mut bytes, mut count) = (vec![0; 64 * 1024], 0);
        loop {
            let next = timeout(Duration::from_millis(200), from.read(&mut bytes)).await;
            match next {
                // The client is done and gone, or nothing may come.
                Ok(Ok(0)) | Err(_) => return count,
                Ok(next) => count += next.unwrap(),
            }
        }
    }

    #[tokio::test]
    async fn a_large_message_waits_until_another_is_decided() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connections = Connections::new(listener, Arc::new(Semaphore::new(1)), STALL_MAX);
        let story = async {
            let (mut first, _sends) = sending(&connections).await;
            let (mut second, _sends) = sending(&connections).await;
            assert_eq!(read(&mut first).await, MESSAGE);
            assert!(first.intake.is_coming() && !first.intake.is_overdue());
            let waits = read(&mut second).await;
            assert!(waits < MESSAGE && second.intake.is_coming(), "{waits}");

            first.intake.delivered();
            assert!(first.intake.is_deciding() && !first.intake.is_coming());
            assert_eq!(read(&mut second).await, 0, "it is not decided yet");
            first.intake.decided();
            assert!(!first.intake.is_deciding());
            assert!(waits + read(&mut second).await >= MESSAGE);
            second.intake.decided();
            assert!(second.intake.is_coming(), "what is coming keeps its permit");
        };
        tokio::task::LocalSet::new().run_until(story).await;
    }

    #[tokio::test]
    async fn a_connection_whose_client_takes_nothing_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connections = Connections::new(listener, Arc::new(Semaphore::new(1)), STALL_MAX);
        let to = connections.listener.local_addr().unwrap();
        let _client = TcpStream::connect(to).await.unwrap();
        let mut metered = connections.accept().await.unwrap();
        // More than the buffers of both ends take.
        let refused = loop {
            match metered.write_all(&[b'x'; 64 * 1024]).await {
                Ok(()) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_slow_client_that_goes_on_taking_keeps_its_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connections = Connections::new(listener, Arc::new(Semaphore::new(1)), STALL_MAX);
        let to = connections.listener.local_addr().unwrap();
        let client = TcpStream::connect(to).await.unwrap();
        let mut metered = connections.accept().await.unwrap();
        let (size, mut client) = (16 * 1024 * 1024, client);
        let writes = async move { metered.write_all(&vec![b'x'; size]).await };
        let reads = async move {
            let (mut bytes, mut count) = (vec![0; 1024 * 1024], 0);
            while count < size {
                count += client.read(&mut bytes).await.unwrap();
                tokio::time::sleep(STALL_MAX / 20).await;
            }
        };
        let (written, ()) = tokio::join!(writes, reads);
        written.unwrap();
    }
}
