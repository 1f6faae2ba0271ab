//! Subscriber: follows one place, now at this node, now at that one, and writes down every word.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use super::{WorkloadContext, branch_keys};
use crate::client::{SocketClient, cursor_of};
use crate::history::{BranchKey, Cursor, NodeId, ReceivedMessage, SubscriptionMessage};
use crate::rng::Rng;

/// How long one connection lasts, in seconds, from and to.
const CONNECTION_SECONDS: (u64, u64) = (4, 25);
/// Before it connects again after it could not.
const RECONNECT_DELAY: Duration = Duration::from_millis(200);
/// Nothing for so long, and another node is tried.
const READ_TIMEOUT: Duration = Duration::from_secs(20);
/// How long it listens on after the last write, so that it hears of it.
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// One that follows a place.
#[derive(Debug)]
pub(super) struct Subscriber {
    context: Arc<WorkloadContext>,
    number: u32,
    rng: Rng,
    branch_key: BranchKey,
    cursor: Option<Cursor>,
    connection: u32,
    /// Told that it cannot continue; the snapshot that comes next is told of.
    is_resync: bool,
}

impl Subscriber {
    pub(super) fn new(context: &Arc<WorkloadContext>, number: u32) -> Self {
        let branch_keys = branch_keys();
        let branch_key = branch_keys[number as usize % branch_keys.len()].clone();
        let rng = Rng::with_stream(context.config.seed, 1_000_000 + u64::from(number));
        let context = Arc::clone(context);
        Self { context, number, rng, branch_key, cursor: None, connection: 0, is_resync: false }
    }

    /// Listens until the storm is over and what followed it was heard.
    pub(super) async fn run(mut self) {
        while !self.context.is_stopped() {
            self.one_connection().await;
        }
        // Once more, at a node that is there now: nothing that was missed is lost.
        let deadline = Instant::now() + DRAIN_TIME;
        while Instant::now() < deadline {
            self.one_connection().await;
        }
    }

    async fn one_connection(&mut self) {
        let node = self.rng.choose(&self.context.config.nodes).0;
        let client = format!("subscriber-{}", self.number);
        let http = self.context.http_address(node).to_owned();
        let (address, after) = ((node, http.as_str()), self.cursor);
        let result = if self.is_slow() {
            SocketClient::open_slow(address, &self.branch_key, &client, after).await
        } else {
            SocketClient::open(address, &self.branch_key, &client, after).await
        };
        let Ok(mut socket) = result else { return sleep(RECONNECT_DELAY).await };
        self.connection += 1;
        self.is_resync = false;
        let seconds = self.rng.between(CONNECTION_SECONDS.0, CONNECTION_SECONDS.1);
        let deadline = Instant::now() + Duration::from_secs(seconds);
        let pause_at = Instant::now() + Duration::from_secs(seconds / 4);
        let mut has_paused = !self.is_slow();
        while Instant::now() < deadline {
            if self.context.is_stopped() && deadline - Instant::now() > DRAIN_TIME {
                return;
            }
            let wait = READ_TIMEOUT.min(deadline - Instant::now()).min(Duration::from_secs(1));
            if !has_paused && Instant::now() > pause_at && !self.context.is_stopped() {
                has_paused = true;
                let pause = Duration::from_secs(seconds / 2);
                sleep(pause).await;
            }
            match timeout(wait, socket.next()).await {
                Ok(Ok(frame)) => self.record(node, &frame),
                Ok(Err(_)) => return sleep(RECONNECT_DELAY).await,
                Err(_) => {}
            }
        }
    }

    /// Three of eight take little at a time, and nothing at all for half of each stay.
    fn is_slow(&self) -> bool {
        self.number % 8 > 4
    }

    fn record(&mut self, node: NodeId, frame: &Value) {
        let module = self.branch_key.module.as_str();
        let message = match frame["type"].as_str() {
            Some("server:event") if frame["moduleId"] == *module => self.event(frame),
            Some("server:snapshot") => {
                let is_resync =
                    std::mem::take(&mut self.is_resync) || frame["meta"]["reason"] == "resync";
                cursor_of(&frame["cursors"][module])
                    .map(|cursor| SubscriptionMessage::Snapshot { cursor, is_resync })
            }
            Some("server:resumed") => cursor_of(&frame["modules"][module]["from"])
                .map(|cursor| SubscriptionMessage::Resumed { cursor }),
            Some("server:resync") if frame["moduleId"] == *module => {
                self.is_resync = true;
                None
            }
            _ => None,
        };
        let Some(message) = message else { return };
        match &message {
            SubscriptionMessage::Event { cursor, .. }
            | SubscriptionMessage::Snapshot { cursor, .. } => {
                self.cursor = Some(*cursor);
            }
            SubscriptionMessage::Resumed { .. } => {}
        }
        let received = ReceivedMessage {
            subscriber: self.number,
            connection: self.connection,
            node,
            at: self.context.now(),
            branch_key: self.branch_key.clone(),
            message,
        };
        let mut recording = self.context.recording();
        recording.counts.received += 1;
        recording.received.push(received);
    }

    fn event(&self, frame: &Value) -> Option<SubscriptionMessage> {
        let number = |value: &Value| u32::try_from(value.as_u64()?).ok();
        let batch = &frame["batch"];
        let batch_position = match (number(&batch["index"]), number(&batch["count"])) {
            (Some(index), Some(count)) => (index + 1, count),
            _ => (1, 1),
        };
        Some(SubscriptionMessage::Event {
            cursor: cursor_of(&frame["cursor"])?,
            id: frame["eventId"].as_str()?.to_owned(),
            op: frame["entry"]["record"]["op"].as_str().map(str::to_owned),
            batch_position,
        })
    }
}
