//! Writer: writes orders until each outcome is known, whatever happens to nodes meanwhile, and
//! records what it was answered.
//!
//! Without an answer, or if the outcome is unknown, a writer sends the order again under the same
//! key to the next node: the key makes it the same command. A refusal ends the test; no order of
//! a writer gives a reason for one.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use history::{Attempt, Completion, Invocation};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::client::{Client, TablePath};
use crate::recording::{ClientRecording, ID_PREFIX, OP_FIELD, completion, now};
use crate::wait::TIMEOUT;

/// The pause before an order is sent again.
const RETRY_DELAY: Duration = Duration::from_millis(25);

/// Writes orders of one branch.
#[derive(Debug)]
pub struct OrderWriter {
    nodes: Vec<Client>,
    branch: String,
    name: String,
    next: u64,
    /// What it wrote, and how each write completed.
    pub recording: ClientRecording,
    /// The longest time between two acknowledgements; for programs that measure it.
    pub longest_gap: Duration,
    /// How often an order was sent again.
    pub retries: u64,
    last_acknowledged: Option<Instant>,
}

impl OrderWriter {
    /// A writer with a name that no other writer has. It sends to the first node first.
    pub fn new(name: &str, branch: &str, nodes: Vec<Client>) -> Self {
        Self {
            nodes,
            branch: branch.to_owned(),
            name: name.to_owned(),
            next: 0,
            recording: ClientRecording::default(),
            longest_gap: Duration::ZERO,
            retries: 0,
            last_acknowledged: None,
        }
    }

    /// Writes one more order and waits until its outcome is known; returns its id.
    ///
    /// # Errors
    /// A refusal, or no known outcome within the safety net.
    pub async fn write(&mut self) -> Result<String> {
        self.next += 1;
        let key = format!("{ID_PREFIX}{}-{}", self.name, self.next);
        let (mut attempts, mut unclear) = (Vec::new(), String::new());
        let answer = self.send_until_known(&key, &mut attempts, &mut unclear).await;
        // Recorded also without a known outcome: what the nodes show of it was asked for.
        let completion = match &answer {
            Some((completion, _)) => completion.clone(),
            None => Completion::Info { why: unclear.clone() },
        };
        self.recording.record((&key, &self.branch), Invocation::Ticket, attempts, completion);
        match answer {
            Some((Completion::Ok(_), id)) => {
                let now = Instant::now();
                if let Some(before) = self.last_acknowledged.replace(now) {
                    self.longest_gap = self.longest_gap.max(now - before);
                }
                Ok(id)
            }
            Some((Completion::Fail { code }, _)) => bail!("{key} was refused: {code}"),
            Some((Completion::Info { .. }, _)) | None => {
                bail!("no outcome for {key} within {TIMEOUT:?}; last: {unclear}")
            }
        }
    }

    /// Writes this many orders, one after another.
    ///
    /// # Errors
    /// See [`OrderWriter::write`].
    pub async fn write_many(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            self.write().await?;
        }
        Ok(())
    }

    /// The first clear answer, with the order's id; `None` if there was none in time.
    async fn send_until_known(
        &mut self,
        key: &str,
        attempts: &mut Vec<Attempt>,
        unclear: &mut String,
    ) -> Option<(Completion, String)> {
        let end = Instant::now() + TIMEOUT;
        let orders = TablePath::pos(&self.branch, "order_header");
        for (node, client) in (1..).zip(&self.nodes).cycle() {
            if Instant::now() >= end {
                break;
            }
            let at = now();
            let reply = client.insert(&orders, Some(key), &order(key)).await;
            let answer = match &reply {
                Ok(reply) => completion(reply),
                Err(error) => Completion::Info { why: format!("{error:#}") },
            };
            attempts.push(Attempt { node, at, completion: Some(answer.clone()) });
            match (answer, reply) {
                (Completion::Info { why }, _) => *unclear = why,
                (answer, Ok(reply)) => {
                    let id = reply.body["record"]["id"].as_str().unwrap_or_default();
                    return Some((answer, id.to_owned()));
                }
                (_, Err(error)) => *unclear = format!("{error:#}"),
            }
            self.retries += 1;
            sleep(RETRY_DELAY).await;
        }
        None
    }
}

/// Writers that work at the same time.
#[derive(Debug)]
pub struct RunningWriters(Vec<JoinHandle<Result<OrderWriter>>>);

/// How many writes were acknowledged to running writers so far.
#[derive(Debug)]
pub struct AcknowledgedCount(watch::Receiver<usize>);

/// Starts writers, each of which writes this many orders, one after another.
pub fn start_writers(
    writers: Vec<OrderWriter>,
    orders: usize,
) -> (AcknowledgedCount, RunningWriters) {
    let (sender, count) = watch::channel(0);
    let sender = Arc::new(sender);
    let tasks = writers.into_iter().map(|mut writer| {
        let sender = Arc::clone(&sender);
        tokio::spawn(async move {
            for _ in 0..orders {
                writer.write().await?;
                sender.send_modify(|count| *count += 1);
            }
            Ok(writer)
        })
    });
    (AcknowledgedCount(count), RunningWriters(tasks.collect()))
}

impl AcknowledgedCount {
    /// Waits until this many writes were acknowledged.
    ///
    /// # Errors
    /// The writers ended before, or took too long.
    pub async fn reached(&self, count: usize) -> Result<()> {
        let mut acknowledged = self.0.clone();
        let reached = acknowledged.wait_for(|acknowledged| *acknowledged >= count);
        match timeout(TIMEOUT, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => bail!("the writers ended before {count} writes were acknowledged"),
            Err(_) => bail!("{count} writes were not acknowledged within {TIMEOUT:?}"),
        }
    }
}

impl RunningWriters {
    /// Waits for every writer; returns what all of them recorded.
    ///
    /// # Errors
    /// One of them failed.
    pub async fn finish(self) -> Result<ClientRecording> {
        let mut recording = ClientRecording::default();
        for writer in self.writers().await? {
            recording.extend(writer.recording);
        }
        Ok(recording)
    }

    /// Waits for every writer.
    ///
    /// # Errors
    /// One of them failed.
    pub async fn writers(self) -> Result<Vec<OrderWriter>> {
        let mut writers = Vec::new();
        for task in self.0 {
            writers.push(task.await??);
        }
        Ok(writers)
    }
}

/// The smallest order there is; it carries the id of its operation.
pub fn order(op: &str) -> Value {
    json!({ OP_FIELD: op, "statusId": "open" })
}
