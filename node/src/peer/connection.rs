//! Connection: one greeted stream to one peer: a reader, a writer, and what they share.
//!
//! Both run in one task, so that a heartbeat is read, answered and written without waking another.
//! Calls for the replicas are polled in that task as well; calls for the actors get a task each,
//! because what they do is not bounded here.
//!
//! Promise: every call taken in is answered, with a failure if its handler panics or is dropped;
//! when the connection ends, for whatever reason, all that waits on it is told at once.
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
use tokio::sync::Semaphore;
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};
use tokio_util::sync::CancellationToken;

use super::calls::{CallFailed, CallResult, Calls};
use super::frame::{Failure, Frame, HEADER_BYTES, Kind};
use super::hello::Class;
use super::lanes::{Lanes, NotQueued, Outgoing};
use super::serve::{Answering, Served};
use super::transport::Stream;
use crate::limits::{
    ACTOR_CALLS_SERVED_MAX, ANSWER_BYTES_MAX, BULK_CALLS_AT_ONCE, BULK_MESSAGE_BYTES_MAX,
    BULK_PIECE_BYTES_MAX, CONTROL_FRAME_BYTES_MAX, CONTROL_PAYLOAD_BYTES_MAX, COPY_BYTES_MAX,
    LARGE_ANSWERS_BYTES_AT_ONCE, RAFT_CALLS_SERVED_MAX, READ_BUFFER_BYTES, ROOM_UNIT_BYTES,
    TURN_BYTES, UNFINISHED_BYTES_MAX,
};

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("the peer closed it")]
    ByPeer,
    #[error("{0}")]
    Broken(#[from] io::Error),
    #[error("the peer broke the protocol: {0}")]
    Protocol(String),
    #[error("{0}")]
    Here(String),
}

/// One greeted stream to one peer.
pub(super) struct Connection {
    pub(super) peer: NodeId,
    /// The peer's start, as it said.
    pub(super) boot: u128,
    /// The peer's data directory, as it said.
    pub(super) data_id: String,
    pub(super) class: Class,
    /// Whether this node dialled.
    pub(super) dialled_here: bool,
    pub(super) lanes: Lanes,
    pub(super) calls: Calls,
    /// Actor calls of the peer that may still be taken in.
    pub(super) actor_permits: Arc<Semaphore>,
    /// Raft calls of the peer that may still be taken in.
    pub(super) raft_permits: Arc<Semaphore>,
    /// Bulk calls of the peer that may still be worked on.
    pub(super) bulk_work: Arc<Semaphore>,
    /// The room for large answers, in units of [`ROOM_UNIT_BYTES`].
    pub(super) answer_room: Arc<Semaphore>,
    /// Ends handlers whose answers nobody can be given any more.
    pub(super) ended: CancellationToken,
    began: Instant,
    /// Milliseconds from `began` to the last sign of life.
    heard_ms: AtomicU64,
    end_reason: Mutex<Option<String>>,
    counters: Counters,
}

struct Counters {
    frames_sent: Counter,
    bytes_sent: Counter,
    frames_received: Counter,
    bytes_received: Counter,
}

impl Counters {
    fn new(peer: NodeId, class: Class) -> Self {
        let class = match class {
            Class::Control => "control",
            Class::Bulk => "bulk",
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
struct Waiter<'a> {
    calls: &'a Calls,
    id: u64,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.calls.forget(self.id);
    }
}

impl Connection {
    pub(super) fn new(
        peer: NodeId,
        boot: u128,
        data_id: String,
        class: Class,
        dialled_here: bool,
    ) -> Self {
        Self {
            peer,
            boot,
            data_id,
            class,
            dialled_here,
            lanes: Lanes::new(),
            calls: Calls::new(),
            actor_permits: Arc::new(Semaphore::new(ACTOR_CALLS_SERVED_MAX)),
            raft_permits: Arc::new(Semaphore::new(RAFT_CALLS_SERVED_MAX)),
            bulk_work: Arc::new(Semaphore::new(BULK_CALLS_AT_ONCE)),
            answer_room: Arc::new(Semaphore::new(LARGE_ANSWERS_BYTES_AT_ONCE / ROOM_UNIT_BYTES)),
            ended: CancellationToken::new(),
            began: Instant::now(),
            heard_ms: AtomicU64::new(0),
            end_reason: Mutex::new(None),
            counters: Counters::new(peer, class),
        }
    }

    /// How long the peer has been silent.
    pub(super) fn silence(&self, now: Instant) -> Duration {
        let heard = Duration::from_millis(self.heard_ms.load(Ordering::Relaxed));
        now.saturating_duration_since(self.began).saturating_sub(heard)
    }

    fn heard(&self) {
        let ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard_ms.store(ms, Ordering::Relaxed);
    }

    /// Asks the peer for a sign of life. A full lane is one already.
    pub(super) fn ping(&self) {
        let lane = match self.class {
            Class::Control => Priority::Urgent,
            Class::Bulk => Priority::Bulk,
        };
        let _ = self.lanes.put(Outgoing::new(Kind::Ping, lane, 0, Bytes::new()));
    }

    /// Sends a call and waits for its end.
    pub(super) async fn call(
        &self,
        kind: Kind,
        lane: Priority,
        payload: Bytes,
        timeout: Duration,
    ) -> CallResult {
        check_size(lane, payload.len())?;
        let deadline = Instant::now() + timeout;
        let id = self.calls.next_id();
        let answer = self.calls.expect(id, deadline)?;
        let _waiter = Waiter { calls: &self.calls, id };
        let call = Outgoing { deadline: Some(deadline), ..Outgoing::new(kind, lane, id, payload) };
        self.put(call)?;
        answer.await.unwrap_or_else(|_| Err(CallFailed::NoAnswer("the connection broke".into())))
    }

    /// Sends a message without an answer.
    pub(super) fn cast(&self, lane: Priority, payload: Bytes) -> Result<(), CallFailed> {
        check_size(lane, payload.len())?;
        self.put(Outgoing::new(Kind::Cast, lane, self.calls.next_id(), payload))
    }

    fn put(&self, message: Outgoing) -> Result<(), CallFailed> {
        self.lanes.put(message).map_err(|error| match error {
            NotQueued::Full => CallFailed::Busy,
            NotQueued::Closed => CallFailed::NotSent("the connection broke".into()),
        })
    }

    /// Ends the connection from this side; its task ends soon after.
    pub(super) fn end(&self, reason: &str) {
        self.end_reason.lock().get_or_insert_with(|| reason.to_owned());
        self.ended.cancel();
    }

    /// Reads and writes until the connection ends.
    pub(super) async fn run(self: &Arc<Self>, stream: Stream, served: &Served) -> Ended {
        let ended = tokio::select! {
            biased;
            () = self.ended.cancelled() => {
                Ended::Here(self.end_reason.lock().clone().unwrap_or_default())
            }
            ended = self.read(stream.read, served) => ended,
            error = self.write(stream.write) => Ended::Broken(error),
        };
        self.ended.cancel();
        for unsent in self.lanes.close() {
            if matches!(unsent.kind, Kind::RaftCall | Kind::ActorCall) {
                let reason = format!("the connection broke before it was sent: {ended}");
                self.calls.end(unsent.id, Err(CallFailed::NotSent(reason)));
            }
        }
        self.calls.close(&format!("the connection broke: {ended}"));
        ended
    }

    async fn write(&self, mut stream: Box<dyn AsyncWrite + Send + Unpin>) -> io::Error {
        let mut turn = Vec::new();
        let mut buffer = BytesMut::with_capacity(4096);
        loop {
            self.lanes.take_turn(&mut turn).await;
            let frames = turn.len() as u64;
            match write_turn(&mut stream, &mut buffer, &mut turn).await {
                Ok(bytes) => {
                    self.counters.frames_sent.increment(frames);
                    self.counters.bytes_sent.increment(bytes);
                }
                Err(error) => return error,
            }
        }
    }

    async fn read(
        self: &Arc<Self>,
        stream: Box<dyn AsyncRead + Send + Unpin>,
        served: &Served,
    ) -> Ended {
        let codec = LengthDelimitedCodec::builder()
            .length_field_type::<u32>()
            .max_frame_length(match self.class {
                Class::Control => CONTROL_FRAME_BYTES_MAX,
                Class::Bulk => BULK_PIECE_BYTES_MAX + HEADER_BYTES,
            })
            .new_codec();
        let mut frames = FramedRead::with_capacity(stream, codec, READ_BUFFER_BYTES);
        let mut unfinished = Unfinished::default();
        let mut answering: FuturesUnordered<BoxFuture<'static, ()>> = FuturesUnordered::new();
        loop {
            let body = tokio::select! {
                biased;
                Some(()) = answering.next(), if !answering.is_empty() => continue,
                body = frames.next() => body,
            };
            let body = match body {
                None => return Ended::ByPeer,
                Some(Err(error)) => return Ended::Broken(error),
                Some(Ok(body)) => body,
            };
            self.heard();
            self.counters.frames_received.increment(1);
            self.counters.bytes_received.increment(body.len() as u64);
            let frame = match Frame::decode(body) {
                Ok(frame) => frame,
                Err(error) => return Ended::Protocol(error.to_string()),
            };
            if frame.more && frame.kind == Kind::Answer {
                self.calls.progress(frame.id, Instant::now());
            }
            match unfinished.add(frame) {
                Ok(Some(whole)) => {
                    if let Some(call) = self.take_in(whole, served) {
                        answering.push(call);
                    }
                }
                Ok(None) => {}
                Err(reason) => return Ended::Protocol(reason),
            }
        }
    }

    /// Does what a frame says; a call for the replicas comes back as the future that answers it.
    fn take_in(self: &Arc<Self>, frame: Frame, served: &Served) -> Option<BoxFuture<'static, ()>> {
        match frame.kind {
            Kind::Ping => {
                let pong = Outgoing::new(Kind::Pong, frame.lane, 0, Bytes::new());
                let _ = self.lanes.put(pong);
                None
            }
            Kind::Pong => None,
            Kind::Answer => {
                self.calls.end(frame.id, Ok(frame.payload));
                None
            }
            Kind::Failed => {
                let failure = Failure::from_payload(&frame.payload);
                self.calls.end(frame.id, Err(failure.into()));
                None
            }
            Kind::Cast => {
                served.cast(self.peer, frame.payload);
                None
            }
            Kind::RaftCall | Kind::ActorCall => served.answer(self, frame),
            Kind::Unknown(_) => {
                Answering::refuse(self, &frame, Failure::Unsupported);
                None
            }
        }
    }
}

fn check_size(lane: Priority, bytes: usize) -> Result<(), CallFailed> {
    let most = match lane {
        Priority::Urgent | Priority::Log | Priority::Call | Priority::Feed => {
            CONTROL_PAYLOAD_BYTES_MAX
        }
        Priority::Bulk => BULK_MESSAGE_BYTES_MAX,
    };
    if bytes > most {
        let reason = format!("a message of {bytes} bytes is larger than its lane's {most}");
        return Err(CallFailed::NotSent(reason));
    }
    Ok(())
}

/// Writes a turn's frames: small ones copied together, large ones in place.
async fn write_turn<P>(
    stream: &mut (impl AsyncWrite + Unpin),
    buffer: &mut BytesMut,
    turn: &mut Vec<(Frame, P)>,
) -> io::Result<u64> {
    let mut written = 0;
    for (frame, _permit) in turn.drain(..) {
        frame.put_header(buffer);
        if frame.payload.len() <= COPY_BYTES_MAX {
            buffer.extend_from_slice(&frame.payload);
        }
        if buffer.len() >= TURN_BYTES || frame.payload.len() > COPY_BYTES_MAX {
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
struct Unfinished {
    messages: HashMap<(u8, u64), BytesMut>,
    bytes: usize,
}

impl Unfinished {
    /// Adds a piece; gives the whole message with its last one.
    fn add(&mut self, mut frame: Frame) -> Result<Option<Frame>, String> {
        if !frame.more && self.messages.is_empty() {
            return Ok(Some(frame));
        }
        let direction = u8::from(matches!(frame.kind, Kind::Answer | Kind::Failed));
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
