//! Subscriber: follows one branch, each time at a random node, and records every message.
//!
//! Promise: it resumes after the last cursor that it received, and stays until it has received the
//! end of the log. Some subscribers read slowly, so that queues fill.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use super::{WorkloadContext, branch_keys};
use crate::client::{SocketClient, cursor_of};
use crate::rng::Rng;
use history::{BranchModule, LogPosition, NodeId, ReceivedMessage, SubscriptionMessage};

/// The shortest and the longest duration of a connection, in seconds.
const CONNECTION_SECONDS: (u64, u64) = (4, 25);
/// The pause before it connects again after an error.
const RECONNECT_DELAY: Duration = Duration::from_millis(200);
/// The longest wait for a message.
const READ_TIMEOUT: Duration = Duration::from_secs(20);
/// How long it stays connected after the workload was stopped, to receive the last events.
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// A client that follows one branch.
#[derive(Debug)]
pub(super) struct Subscriber {
    context: Arc<WorkloadContext>,
    number: u32,
    rng: Rng,
    branch_key: BranchModule,
    cursor: Option<LogPosition>,
    connection: u32,
    /// Whether the node announced a resync: the next snapshot belongs to it.
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

    /// Runs until the workload is stopped and the last events have arrived.
    pub(super) async fn run(mut self) {
        while !self.context.is_stopped() {
            self.one_connection().await;
        }
        // Another connection, for the last one may have been at a node that a fault had cut off.
        // Every fault is healed now, so any node delivers what is missing.
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
        // An announced resync ends with the connection that announced it.
        self.connection += 1;
        self.is_resync = false;
        let seconds = self.rng.between(CONNECTION_SECONDS.0, CONNECTION_SECONDS.1);
        let deadline = Instant::now() + Duration::from_secs(seconds);
        let pause_at = Instant::now() + Duration::from_secs(seconds / 4);
        let mut has_paused = !self.is_slow();
        while Instant::now() < deadline {
            // Once the workload is stopped, a long connection would only delay the end of the run.
            if self.context.is_stopped() && deadline - Instant::now() > DRAIN_TIME {
                return;
            }
            // At most a second, so that the loop notices in time that the workload was stopped.
            let wait = READ_TIMEOUT.min(deadline - Instant::now()).min(Duration::from_secs(1));
            // A slow subscriber once reads nothing for half of its connection. Not after the end:
            // it would miss the last events.
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

    /// Whether this subscriber reads slowly: three of eight do.
    fn is_slow(&self) -> bool {
        self.number % 8 > 4
    }

    /// Records a frame if it is a message that checkers judge.
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
            // It must name the cursor that the subscriber asked for. If it names another one,
            // keeping ours lets the next connection ask for the right events again.
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

    /// The event in a frame; `None` if a part is missing.
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
