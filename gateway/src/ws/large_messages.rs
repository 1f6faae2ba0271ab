//! Large messages: what a socket's message needs that is not read in a moment. When it is whole it
//! waits for a turn of the node, and then is read in the background. One at a time, so that
//! messages keep their order: the socket is not read meanwhile.
//!
//! A turn is for reading it; beyond the usual size, also until what it asked for is decided.

use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use actors::{HeldMemory, Memory, MemoryClass, TurnQueue, WorkPermit, in_background};
use bytes::Bytes;
use futures::future::BoxFuture;

use crate::app::AppState;
use crate::intake::Intake;
use crate::limits::{MESSAGE_BYTES_MAX, REQUEST_COST};
use crate::ws::dialect::{ClientFrame, Dialect, UnreadableFrame};

/// The large messages of one socket.
pub(crate) struct LargeMessages {
    usual_turns: TurnQueue,
    large_turns: TurnQueue,
    turn_wait_max: Duration,
    memory: Memory,
    reading: Option<ReadingMessage>,
    /// The turn of the one that is being decided.
    turn: Option<LargeMessagePermit>,
}

/// The turn of a message, and what it takes of the node's memory.
struct LargeMessagePermit {
    _turn: WorkPermit,
    _held: HeldMemory,
}

/// A message that was read.
pub(crate) enum ReadMessage {
    /// It is a frame, or why it is none.
    Frame(Bytes, Result<ClientFrame, Box<UnreadableFrame>>),
    /// It is larger than what it says may be.
    TooLarge,
    /// Reading it ran into a defect.
    Failed,
}

struct ReadingMessage {
    read: BoxFuture<'static, (Option<LargeMessagePermit>, ReadMessage)>,
    /// Until when it waits for its turn.
    until: Instant,
}

impl LargeMessages {
    /// None yet.
    pub(crate) fn new(app: &AppState) -> Self {
        let (usual_turns, large_turns) = (app.body_turns.clone(), app.large_turns.clone());
        let (turn_wait_max, memory) = (app.limits.turn_wait_max, app.memory.clone());
        Self { usual_turns, large_turns, turn_wait_max, memory, reading: None, turn: None }
    }

    /// Whether one waits, is read or is being decided.
    pub(crate) fn is_busy(&self) -> bool {
        self.reading.is_some() || self.turn.is_some()
    }

    /// One has come as a whole. It counts among the arrivals until it is its turn: before, it is
    /// given up where there is no room for it.
    pub(crate) fn came(
        &mut self,
        message: Bytes,
        dialect: &'static dyn Dialect,
        intake: Intake,
        now: Instant,
    ) {
        let is_large = message.len() > MESSAGE_BYTES_MAX;
        let turns = if is_large { &self.large_turns } else { &self.usual_turns }.clone();
        let memory = self.memory.clone();
        let read = Box::pin(async move {
            let turn = turns.take(intake.requester()).await;
            let held = memory.hold(MemoryClass::Requests, message.len() as u64 * REQUEST_COST);
            let turn = LargeMessagePermit { _turn: turn, _held: held };
            intake.delivered();
            let read = in_background(move || {
                if is_large && !dialect.brings_snapshot(&message) {
                    return ReadMessage::TooLarge;
                }
                let frame = dialect.parse(&message);
                ReadMessage::Frame(message, frame)
            });
            let message = read.await.unwrap_or(ReadMessage::Failed);
            (Some(turn).filter(|_| is_large), message)
        });
        self.reading = Some(ReadingMessage { read, until: now + self.turn_wait_max });
    }

    /// Ready with the one that came, when it is read.
    pub(crate) fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<ReadMessage> {
        let Some(reading) = &mut self.reading else { return Poll::Pending };
        let (turn, message) = ready!(reading.read.as_mut().poll(context));
        (self.turn, self.reading) = (turn, None);
        Poll::Ready(message)
    }

    /// Until when one waits for its turn; it may have it already.
    pub(crate) fn waits_until(&self) -> Option<Instant> {
        self.reading.as_ref().map(|reading| reading.until)
    }

    /// All that was asked for is decided.
    pub(crate) fn decided(&mut self) {
        self.turn = None;
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures::FutureExt as _;

    use super::*;
    use crate::arrivals::Arrivals;
    use crate::ws::dialect::of_socket;

    #[tokio::test]
    async fn a_large_message_waits_until_another_is_decided() {
        let large_turns = TurnQueue::new(1);
        let memory = Memory::unlimited();
        let messages = || LargeMessages {
            memory: memory.clone(),
            usual_turns: TurnQueue::new(1),
            large_turns: large_turns.clone(),
            turn_wait_max: Duration::ZERO,
            reading: None,
            turn: None,
        };
        let intake = Intake::detached(&Arrivals::new(usize::MAX, &Memory::unlimited()));
        let post = format!(
            r#"{{"type":"publish","topic":"sync::dar::pos","data":{{"snapshot":{{"x":"{}"}}}}}}"#,
            "x".repeat(MESSAGE_BYTES_MAX)
        );
        let came = |messages: &mut LargeMessages| {
            let message = Bytes::from(post.clone());
            messages.came(message, of_socket(), intake.clone(), Instant::now());
        };
        let (mut first, mut second) = (messages(), messages());
        came(&mut first);
        let read = poll_fn(|context| first.poll_read(context)).await;
        assert!(matches!(read, ReadMessage::Frame(_, Ok(_))));
        came(&mut second);
        assert!(first.is_busy() && second.is_busy());
        assert!(memory.held(MemoryClass::Requests) > MESSAGE_BYTES_MAX as u64, "it counts");
        assert!(poll_fn(|context| second.poll_read(context)).now_or_never().is_none());
        first.decided();
        assert!(!first.is_busy());
        let read = poll_fn(|context| second.poll_read(context)).await;
        assert!(matches!(read, ReadMessage::Frame(_, Ok(_))));
        assert!(second.is_busy() && second.waits_until().is_none());
        second.decided();
        assert_eq!(memory.held(MemoryClass::Requests), 0);
    }
}
