//! Subscriber: follows one place, now at this node, now at that one, and writes down every word.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use super::{WorkloadContext, places};
use crate::client::{SocketClient, cursor_of};
use crate::history::{BranchKey, Cursor, NodeId, ReceivedMessage, SubscriptionMessage};
use crate::rng::Rng;

/// How long one connection lasts, in seconds, from and to.
const STAY_SECONDS: (u64, u64) = (4, 25);
/// Before it connects again after it could not.
const BEFORE_AGAIN: Duration = Duration::from_millis(200);
/// Nothing for so long, and another node is tried.
const SILENCE: Duration = Duration::from_secs(20);
/// How long it listens on after the last write, so that it hears of it.
const AFTER_THE_END: Duration = Duration::from_secs(5);

/// One that follows a place.
#[derive(Debug)]
pub(super) struct Subscriber {
    stage: Arc<WorkloadContext>,
    number: u32,
    dice: Rng,
    place: BranchKey,
    cursor: Option<Cursor>,
    connection: u32,
    /// Told that it cannot continue; the snapshot that comes next is told of.
    is_told: bool,
}

impl Subscriber {
    pub(super) fn new(stage: &Arc<WorkloadContext>, number: u32) -> Self {
        let places = places();
        let place = places[number as usize % places.len()].clone();
        let dice = Rng::of(stage.crew.seed, 1_000_000 + u64::from(number));
        let stage = Arc::clone(stage);
        Self { stage, number, dice, place, cursor: None, connection: 0, is_told: false }
    }

    /// Listens until the storm is over and what followed it was heard.
    pub(super) async fn listen(mut self) {
        while !self.stage.is_over() {
            self.one_connection().await;
        }
        // Once more, at a node that is there now: nothing that was missed is lost.
        let end = Instant::now() + AFTER_THE_END;
        while Instant::now() < end {
            self.one_connection().await;
        }
    }

    async fn one_connection(&mut self) {
        let node = self.dice.pick(&self.stage.crew.nodes).0;
        let client = format!("subscriber-{}", self.number);
        let http = self.stage.http(node).to_owned();
        let (door, after) = ((node, http.as_str()), self.cursor);
        let opened = if self.is_slow() {
            SocketClient::open_slow(door, &self.place, &client, after).await
        } else {
            SocketClient::open(door, &self.place, &client, after).await
        };
        let Ok(mut socket) = opened else { return sleep(BEFORE_AGAIN).await };
        self.connection += 1;
        self.is_told = false;
        let seconds = self.dice.between(STAY_SECONDS.0, STAY_SECONDS.1);
        let end = Instant::now() + Duration::from_secs(seconds);
        let naps_at = Instant::now() + Duration::from_secs(seconds / 4);
        let mut has_napped = !self.is_slow();
        while Instant::now() < end {
            if self.stage.is_over() && end - Instant::now() > AFTER_THE_END {
                return;
            }
            let patience = SILENCE.min(end - Instant::now()).min(Duration::from_secs(1));
            if !has_napped && Instant::now() > naps_at && !self.stage.is_over() {
                has_napped = true;
                let half = Duration::from_secs(seconds / 2);
                sleep(half).await;
            }
            match timeout(patience, socket.next()).await {
                Ok(Ok(frame)) => self.hear(node, &frame),
                Ok(Err(_)) => return sleep(BEFORE_AGAIN).await,
                Err(_) => {}
            }
        }
    }

    /// Three of eight take little at a time, and nothing at all for half of each stay.
    fn is_slow(&self) -> bool {
        self.number % 8 > 4
    }

    fn hear(&mut self, node: NodeId, frame: &Value) {
        let module = self.place.module.as_str();
        let word = match frame["type"].as_str() {
            Some("server:event") if frame["moduleId"] == *module => self.event(frame),
            Some("server:snapshot") => {
                let is_told =
                    std::mem::take(&mut self.is_told) || frame["meta"]["reason"] == "resync";
                cursor_of(&frame["cursors"][module])
                    .map(|cursor| SubscriptionMessage::Snapshot { cursor, is_told })
            }
            Some("server:resumed") => cursor_of(&frame["modules"][module]["from"])
                .map(|cursor| SubscriptionMessage::Resumed { cursor }),
            Some("server:resync") if frame["moduleId"] == *module => {
                self.is_told = true;
                None
            }
            _ => None,
        };
        let Some(word) = word else { return };
        match &word {
            SubscriptionMessage::Event { cursor, .. }
            | SubscriptionMessage::Snapshot { cursor, .. } => {
                self.cursor = Some(*cursor);
            }
            SubscriptionMessage::Resumed { .. } => {}
        }
        let heard = ReceivedMessage {
            subscriber: self.number,
            connection: self.connection,
            node,
            at: self.stage.now(),
            place: self.place.clone(),
            word,
        };
        let mut book = self.stage.book();
        book.counts.heard += 1;
        book.heard.push(heard);
    }

    fn event(&self, frame: &Value) -> Option<SubscriptionMessage> {
        let number = |value: &Value| u32::try_from(value.as_u64()?).ok();
        let batch = &frame["batch"];
        let of_batch = match (number(&batch["index"]), number(&batch["count"])) {
            (Some(index), Some(count)) => (index + 1, count),
            _ => (1, 1),
        };
        Some(SubscriptionMessage::Event {
            cursor: cursor_of(&frame["cursor"])?,
            id: frame["eventId"].as_str()?.to_owned(),
            op: frame["entry"]["record"]["op"].as_str().map(str::to_owned),
            of_batch,
        })
    }
}
