//! Connection: one stream to one peer, after the handshake: a reader, a writer, and what they
//! share.
//!
//! Both run in one task, so that a heartbeat is read, answered and written without waking another.
//! Calls for the replicas are polled in that task as well; calls for the actors get a task each,
//! because what they do is not bounded here.
//!
//! Promise: every call taken in is answered, with a failure if its handler panics or is dropped;
//! when the connection ends, for whatever reason, all calls that wait on it end at once.
//! Refused: frames and unfinished messages past their bounds: the peer is cut.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use metrics::Counter;
use model::NodeId;
use parking_lot::Mutex;
use raft::Priority;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};
use tokio_util::sync::CancellationToken;

use super::calls::{CallResult, Calls, PeerCallError};
use super::frame::{CallFailure, HEADER_BYTES, PeerFrame, PeerFrameKind};
use super::hello::ConnectionClass;
use super::priority_queues::{Outgoing, PriorityQueues, QueueError};
use super::serve::{Inboxes, ServedCalls};
use super::transport::PeerStream;
use crate::limits::{
    ANSWER_BYTES_MAX, BULK_MESSAGE_BYTES_MAX, BULK_PIECE_BYTES_MAX, CONTROL_FRAME_BYTES_MAX,
    CONTROL_PAYLOAD_BYTES_MAX, COPY_BYTES_MAX, READ_BUFFER_BYTES, UNFINISHED_BYTES_MAX,
    WRITE_BATCH_BYTES,
};

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum EndReason {
    #[error("the peer closed it")]
    ByPeer,
    #[error("{0}")]
    Broken(#[from] io::Error),
    #[error("the peer broke the protocol: {0}")]
    Protocol(String),
    #[error("{0}")]
    Here(String),
}

/// One stream to one peer, after the handshake.
pub(super) struct Connection {
    pub(super) peer: NodeId,
    /// The peer's start, as it said.
    pub(super) boot: u128,
    /// The peer's data directory, as it said.
    pub(super) data_id: String,
    pub(super) class: ConnectionClass,
    /// Whether this node dialled.
    pub(super) dialled_here: bool,
    priority_queues: Arc<PriorityQueues>,
    pub(super) calls: Calls,
    served: Arc<ServedCalls>,
    ended: CancellationToken,
    began: Instant,
    /// Milliseconds from `began` to the last sign of life.
    last_received_ms: AtomicU64,
    end_reason: Mutex<Option<String>>,
    counters: ConnectionCounters,
}

struct ConnectionCounters {
    frames_sent: Counter,
    bytes_sent: Counter,
    frames_received: Counter,
    bytes_received: Counter,
}

impl ConnectionCounters {
    fn new(peer: NodeId, class: ConnectionClass) -> Self {
        let class = match class {
            ConnectionClass::Control => "control",
            ConnectionClass::Bulk => "bulk",
        };
        let counter = |name: &'static str| metrics::counter!(name, "peer" => peer.to_string(), "connection" => class);
        Self {
            frames_sent: counter("mishkah_peer_frames_sent_total"),
            bytes_sent: counter("mishkah_peer_bytes_sent_total"),
            frames_received: counter("mishkah_peer_frames_received_total"),
            bytes_received: counter("mishkah_peer_bytes_received_total"),
        }
    }
}

/// Forgets a call when its caller stops waiting.
struct CallGuard<'a> {
    calls: &'a Calls,
    id: u64,
}

impl Drop for CallGuard<'_> {
    fn drop(&mut self) {
        self.calls.forget(self.id);
    }
}

impl Connection {
    pub(super) fn new(
        peer: NodeId,
        boot: u128,
        data_id: String,
        class: ConnectionClass,
        dialled_here: bool,
    ) -> Self {
        let (priority_queues, ended) = (Arc::new(PriorityQueues::new()), CancellationToken::new());
        let served = ServedCalls::new(peer, Arc::clone(&priority_queues), ended.clone());
        Self {
            peer,
            boot,
            data_id,
            class,
            dialled_here,
            priority_queues,
            calls: Calls::new(),
            served: Arc::new(served),
            ended,
            began: Instant::now(),
            last_received_ms: AtomicU64::new(0),
            end_reason: Mutex::new(None),
            counters: ConnectionCounters::new(peer, class),
        }
    }

    /// How long the peer has been silent.
    pub(super) fn silence(&self, now: Instant) -> Duration {
        let received = Duration::from_millis(self.last_received_ms.load(Ordering::Relaxed));
        now.saturating_duration_since(self.began).saturating_sub(received)
    }

    fn note_received(&self) {
        let ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_received_ms.store(ms, Ordering::Relaxed);
    }

    /// Asks the peer for a sign of life. A full queue is one already.
    pub(super) fn ping(&self) {
        let priority = match self.class {
            ConnectionClass::Control => Priority::Urgent,
            ConnectionClass::Bulk => Priority::Bulk,
        };
        let _ =
            self.priority_queues.put(Outgoing::new(PeerFrameKind::Ping, priority, 0, Bytes::new()));
    }

    /// Sends a call and waits for its end.
    pub(super) async fn call(
        &self,
        kind: PeerFrameKind,
        priority: Priority,
        payload: Bytes,
        timeout: Duration,
    ) -> CallResult {
        check_size(priority, payload.len())?;
        let deadline = Instant::now() + timeout;
        let id = self.calls.next_id();
        // Registered before it is queued: the answer may come before `put` returns.
        let answer = self.calls.expect(id, deadline)?;
        let _waiter = CallGuard { calls: &self.calls, id };
        let call =
            Outgoing { deadline: Some(deadline), ..Outgoing::new(kind, priority, id, payload) };
        self.put(call)?;
        answer.await.unwrap_or_else(|_| Err(PeerCallError::NoAnswer("the connection broke".into())))
    }

    /// Sends a message without an answer.
    pub(super) fn cast(&self, priority: Priority, payload: Bytes) -> Result<(), PeerCallError> {
        check_size(priority, payload.len())?;
        self.put(Outgoing::new(PeerFrameKind::Cast, priority, self.calls.next_id(), payload))
    }

    fn put(&self, message: Outgoing) -> Result<(), PeerCallError> {
        self.priority_queues.put(message).map_err(|error| match error {
            QueueError::Full => PeerCallError::Busy,
            QueueError::Closed => PeerCallError::NotSent("the connection broke".into()),
        })
    }

    /// Ends the connection from this side; its task ends soon after.
    pub(super) fn end(&self, reason: &str) {
        self.end_reason.lock().get_or_insert_with(|| reason.to_owned());
        self.ended.cancel();
    }

    /// Reads and writes until the connection ends.
    pub(super) async fn run(&self, stream: PeerStream, inboxes: &Inboxes) -> EndReason {
        let ended = tokio::select! {
            // An end from this side wins over the error it causes on the stream: its reason is
            // told.
            biased;
            () = self.ended.cancelled() => {
                EndReason::Here(self.end_reason.lock().clone().unwrap_or_default())
            }
            ended = self.read(stream.read, inboxes) => ended,
            error = self.write(stream.write) => EndReason::Broken(error),
        };
        self.ended.cancel();
        // The order matters. What still waits in a queue certainly did nothing, and its call says
        // so; only what is left after that may have been executed. Closed queues take nothing more,
        // so no call slips in between.
        for unsent in self.priority_queues.close() {
            if matches!(unsent.kind, PeerFrameKind::RaftCall | PeerFrameKind::ActorCall) {
                let reason = format!("the connection broke before it was sent: {ended}");
                self.calls.end(unsent.id, Err(PeerCallError::NotSent(reason)));
            }
        }
        self.calls.close(&format!("the connection broke: {ended}"));
        ended
    }

    async fn write(&self, mut stream: Box<dyn AsyncWrite + Send + Unpin>) -> io::Error {
        let mut batch = Vec::new();
        let mut buffer = BytesMut::with_capacity(4096);
        loop {
            self.priority_queues.take_batch(&mut batch).await;
            let frames = batch.len() as u64;
            match write_batch(&mut stream, &mut buffer, &mut batch).await {
                Ok(bytes) => {
                    self.counters.frames_sent.increment(frames);
                    self.counters.bytes_sent.increment(bytes);
                }
                Err(error) => return error,
            }
        }
    }

    async fn read(
        &self,
        stream: Box<dyn AsyncRead + Send + Unpin>,
        inboxes: &Inboxes,
    ) -> EndReason {
        let codec = LengthDelimitedCodec::builder()
            .length_field_type::<u32>()
            .max_frame_length(match self.class {
                ConnectionClass::Control => CONTROL_FRAME_BYTES_MAX,
                ConnectionClass::Bulk => BULK_PIECE_BYTES_MAX + HEADER_BYTES,
            })
            .new_codec();
        let mut frames = FramedRead::with_capacity(stream, codec, READ_BUFFER_BYTES);
        let mut unfinished = PartialMessages::default();
        let mut answering: FuturesUnordered<BoxFuture<'static, ()>> = FuturesUnordered::new();
        loop {
            let body = tokio::select! {
                // Answers before new frames: a peer that sends without pause delays no answer.
                biased;
                Some(()) = answering.next(), if !answering.is_empty() => continue,
                body = frames.next() => body,
            };
            let body = match body {
                None => return EndReason::ByPeer,
                Some(Err(error)) => return EndReason::Broken(error),
                Some(Ok(body)) => body,
            };
            self.note_received();
            self.counters.frames_received.increment(1);
            self.counters.bytes_received.increment(body.len() as u64);
            let frame = match PeerFrame::decode(body) {
                Ok(frame) => frame,
                Err(error) => return EndReason::Protocol(error.to_string()),
            };
            // The caller waits as long as pieces come: a large answer takes longer than the
            // deadline its call was given, which nobody could know.
            if frame.more && frame.kind == PeerFrameKind::Answer {
                self.calls.progress(frame.id, Instant::now());
            }
            match unfinished.add(frame) {
                Ok(Some(whole)) => {
                    if let Some(call) = self.take_in(whole, inboxes) {
                        answering.push(call);
                    }
                }
                Ok(None) => {}
                Err(reason) => return EndReason::Protocol(reason),
            }
        }
    }

    /// Does what a frame says; a call for the replicas comes back as the future that answers it.
    fn take_in(&self, frame: PeerFrame, inboxes: &Inboxes) -> Option<BoxFuture<'static, ()>> {
        match frame.kind {
            PeerFrameKind::Ping => {
                let pong = Outgoing::new(PeerFrameKind::Pong, frame.priority, 0, Bytes::new());
                let _ = self.priority_queues.put(pong);
                None
            }
            PeerFrameKind::Pong => None,
            PeerFrameKind::Answer => {
                self.calls.end(frame.id, Ok(frame.payload));
                None
            }
            PeerFrameKind::Failed => {
                let failure = CallFailure::from_payload(&frame.payload);
                self.calls.end(frame.id, Err(failure.into()));
                None
            }
            PeerFrameKind::Cast => {
                inboxes.cast(self.peer, frame.payload);
                None
            }
            PeerFrameKind::RaftCall | PeerFrameKind::ActorCall => {
                inboxes.answer(&self.served, frame)
            }
            PeerFrameKind::Unknown(_) => {
                self.served.refuse(&frame, CallFailure::Unsupported);
                None
            }
        }
    }
}

fn check_size(priority: Priority, bytes: usize) -> Result<(), PeerCallError> {
    let most = match priority {
        Priority::Urgent | Priority::Log | Priority::Call | Priority::Feed => {
            CONTROL_PAYLOAD_BYTES_MAX
        }
        Priority::Bulk => BULK_MESSAGE_BYTES_MAX,
    };
    if bytes > most {
        let reason =
            format!("a message of {bytes} bytes is larger than the {most} of its priority");
        return Err(PeerCallError::NotSent(reason));
    }
    Ok(())
}

/// Writes a batch's frames: small ones copied together, large ones in place.
async fn write_batch<P>(
    stream: &mut (impl AsyncWrite + Unpin),
    buffer: &mut BytesMut,
    batch: &mut Vec<(PeerFrame, P)>,
) -> io::Result<u64> {
    let mut written = 0;
    for (frame, _permit) in batch.drain(..) {
        frame.put_header(buffer);
        if frame.payload.len() <= COPY_BYTES_MAX {
            buffer.extend_from_slice(&frame.payload);
        }
        if buffer.len() >= WRITE_BATCH_BYTES || frame.payload.len() > COPY_BYTES_MAX {
            written += buffer.len();
            stream.write_all_buf(buffer).await?;
            buffer.clear();
        }
        if frame.payload.len() > COPY_BYTES_MAX {
            written += frame.payload.len();
            stream.write_all(&frame.payload).await?;
        }
    }
    written += buffer.len();
    stream.write_all_buf(buffer).await?;
    stream.flush().await?;
    buffer.clear();
    Ok(written as u64)
}

/// Messages of which some pieces have come.
#[derive(Default)]
struct PartialMessages {
    messages: HashMap<(u8, u64), BytesMut>,
    bytes: usize,
}

impl PartialMessages {
    /// Adds a piece; gives the whole message with its last one.
    fn add(&mut self, mut frame: PeerFrame) -> Result<Option<PeerFrame>, String> {
        // Nearly every message is whole: no lookup for it.
        if !frame.more && self.messages.is_empty() {
            return Ok(Some(frame));
        }
        // Both sides number their calls from 1, so an answer's id may also be the id of a call that
        // the peer makes: the direction is part of the name.
        let direction =
            u8::from(matches!(frame.kind, PeerFrameKind::Answer | PeerFrameKind::Failed));
        let name = (direction, frame.id);
        if frame.more {
            let message = self.messages.entry(name).or_default();
            message.extend_from_slice(&frame.payload);
            self.bytes += frame.payload.len();
            let most = if direction == 1 { ANSWER_BYTES_MAX } else { BULK_MESSAGE_BYTES_MAX };
            if message.len() > most || self.bytes > UNFINISHED_BYTES_MAX {
                return Err("a message in pieces is too large".to_owned());
            }
            return Ok(None);
        }
        if let Some(mut message) = self.messages.remove(&name) {
            self.bytes -= message.len();
            message.extend_from_slice(&frame.payload);
            frame.payload = message.freeze();
        }
        Ok(Some(frame))
    }
}
