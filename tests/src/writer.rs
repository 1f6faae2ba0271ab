//! Writer: writes orders until each outcome is known, whatever happens to nodes meanwhile.
//!
//! No answer, or the answer that the outcome is unknown, is asked again under the same key, at
//! the next node: the key makes it the same command. A refusal ends the story; nothing here
//! earns one.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::client::{Client, Place, Reply};
use crate::ledger::{KEY, Ledger, MARK};
use crate::patience::SAFETY_NET;

/// Before a write is asked again.
const PAUSE: Duration = Duration::from_millis(25);

/// Writes orders of one branch.
#[derive(Debug)]
pub struct Writer {
    nodes: Vec<Client>,
    branch: String,
    name: String,
    next: u64,
    /// What was asked and acknowledged.
    pub ledger: Ledger,
    /// The longest time between two acknowledgements; for drills that measure.
    pub longest_gap: Duration,
    /// How often a write had to be asked again.
    pub asked_again: u64,
    last_ack: Option<Instant>,
}

/// What an answer means to a writer.
#[derive(Debug, PartialEq, Eq)]
enum Meaning {
    Acked(String),
    /// Nothing was done, or it is not known: ask again under the same key.
    Again,
    Refused,
}

impl Writer {
    /// A writer named `name`, which must be unlike any other's, that asks the first node first.
    pub fn new(name: &str, branch: &str, nodes: Vec<Client>) -> Self {
        Self {
            nodes,
            branch: branch.to_owned(),
            name: name.to_owned(),
            next: 0,
            ledger: Ledger::default(),
            longest_gap: Duration::ZERO,
            asked_again: 0,
            last_ack: None,
        }
    }

    /// Writes one more order and waits until its outcome is known; returns its id.
    ///
    /// # Errors
    /// A refusal, or no known outcome within the safety net.
    pub async fn write(&mut self) -> Result<String> {
        self.next += 1;
        let key = format!("{KEY}{}-{}", self.name, self.next);
        self.ledger.ask(&key);
        let id = self.ask_until_known(&key).await?;
        self.ledger.ack(&key, &id);
        let now = Instant::now();
        if let Some(before) = self.last_ack.replace(now) {
            self.longest_gap = self.longest_gap.max(now - before);
        }
        Ok(id)
    }

    /// Writes this many orders, one after another.
    ///
    /// # Errors
    /// See [`Writer::write`].
    pub async fn write_many(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            self.write().await?;
        }
        Ok(())
    }

    async fn ask_until_known(&mut self, key: &str) -> Result<String> {
        let end = Instant::now() + SAFETY_NET;
        let mut last = String::new();
        let orders = Place::pos(&self.branch, "order_header");
        for node in self.nodes.iter().cycle() {
            if Instant::now() >= end {
                break;
            }
            match node.insert(&orders, Some(key), &order(key)).await {
                Ok(reply) => match meaning(&reply) {
                    Meaning::Acked(id) => return Ok(id),
                    Meaning::Refused => bail!("{key} was refused: {} {}", reply.status, reply.body),
                    Meaning::Again => last = format!("{} {}", reply.status, reply.body),
                },
                Err(error) => last = format!("{error:#}"),
            }
            self.asked_again += 1;
            sleep(PAUSE).await;
        }
        bail!("no outcome for {key} within {SAFETY_NET:?}; last: {last}")
    }
}

/// Writers at work together.
#[derive(Debug)]
pub struct Writing(Vec<JoinHandle<Result<Writer>>>);

/// How many writes were acknowledged to writers at work, so far.
#[derive(Debug)]
pub struct Progress(watch::Receiver<usize>);

/// Sets writers to work, each on this many orders, one after another.
pub fn write_together(writers: Vec<Writer>, orders: usize) -> (Progress, Writing) {
    let (acked, progress) = watch::channel(0);
    let acked = Arc::new(acked);
    let tasks = writers.into_iter().map(|mut writer| {
        let acked = Arc::clone(&acked);
        tokio::spawn(async move {
            for _ in 0..orders {
                writer.write().await?;
                acked.send_modify(|count| *count += 1);
            }
            Ok(writer)
        })
    });
    (Progress(progress), Writing(tasks.collect()))
}

impl Progress {
    /// Waits until this many writes were acknowledged.
    ///
    /// # Errors
    /// The writers ended before, or took too long.
    pub async fn reached(&self, count: usize) -> Result<()> {
        let mut progress = self.0.clone();
        let reached = progress.wait_for(|acked| *acked >= count);
        match timeout(SAFETY_NET, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => bail!("the writers ended before {count} writes were acknowledged"),
            Err(_) => bail!("{count} writes were not acknowledged within {SAFETY_NET:?}"),
        }
    }
}

impl Writing {
    /// Waits for every writer; returns what all of them noted.
    ///
    /// # Errors
    /// One of them failed.
    pub async fn finish(self) -> Result<Ledger> {
        let mut ledger = Ledger::default();
        for writer in self.writers().await? {
            ledger.merge(writer.ledger);
        }
        Ok(ledger)
    }

    /// Waits for every writer.
    ///
    /// # Errors
    /// One of them failed.
    pub async fn writers(self) -> Result<Vec<Writer>> {
        let mut writers = Vec::new();
        for task in self.0 {
            writers.push(task.await??);
        }
        Ok(writers)
    }
}

/// The smallest order there is; it carries its key.
pub fn order(key: &str) -> Value {
    json!({ MARK: key, "statusId": "open" })
}

fn meaning(reply: &Reply) -> Meaning {
    match (reply.status, reply.body["record"]["id"].as_str()) {
        (200 | 201, Some(id)) => Meaning::Acked(id.to_owned()),
        (408 | 429 | 500.., _) => Meaning::Again,
        _ => Meaning::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_success_a_refusal_or_a_reason_to_ask_again() {
        let means = |status, body| meaning(&Reply { status, body });
        let made = json!({ "record": { "id": "DAR-001001" } });
        assert_eq!(means(201, made), Meaning::Acked("DAR-001001".into()));
        for status in [408, 429, 500, 502, 503, 504] {
            assert_eq!(means(status, Value::Null), Meaning::Again, "{status}");
        }
        for status in [201, 400, 404, 409, 422] {
            assert_eq!(means(status, Value::Null), Meaning::Refused, "{status}");
        }
    }
}
