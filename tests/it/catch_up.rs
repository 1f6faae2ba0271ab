//! Catching up: a follower that was away holds everything again, and proves it by leading.

use anyhow::Result;
use history::{Attempt, Completion, Invocation, Response};
use serde_json::{Value, json};
use tests::client::{HttpReply, TablePath};
use tests::process_cluster::{Contents, ProcessCluster};
use tests::recording::{ClientRecording, ID_PREFIX, now};
use tests::wait::{WaitState, until};
use tests::writer::OrderWriter;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_was_away_catches_up_by_the_log() -> Result<()> {
    let mut cluster = ProcessCluster::start(3).await?;
    let leader = cluster.leader(1, "dar", "pos").await?;
    let [away, witness] = cluster.others(leader)[..] else { panic!("three nodes") };
    let mut story = WrittenParts::default();

    cluster.kill(away)?;
    story.write(&cluster, &[leader], 100).await?;
    cluster.restart(away).await?;
    no_lag(&cluster, leader, away).await?;
    same_state(&cluster).await?;
    story.away_leads_alone(&mut cluster, [leader, away, witness]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_was_away_too_long_catches_up_by_a_checkpoint() -> Result<()> {
    let mut cluster = ProcessCluster::plan(3, Contents::Sample).await?;
    cluster.tell("--checkpoint-log-mib", 1);
    cluster.start_all().await?;
    let leader = cluster.leader(1, "dar", "pos").await?;
    let [away, witness] = cluster.others(leader)[..] else { panic!("three nodes") };
    let mut story = WrittenParts::default();

    story.write(&cluster, &[leader], 20).await?;
    cluster.kill(away)?;
    // Far more log than is kept: what it lacks is no longer there to be sent entry by entry.
    for round in 0..4 {
        story.write_notes(&cluster, leader, round).await?;
    }
    story.write(&cluster, &[leader], 20).await?;
    cluster.restart(away).await?;
    no_lag(&cluster, leader, away).await?;
    assert!(cluster.logged(away).contains("a checkpoint arrived"), "it caught up by the log alone");
    same_state(&cluster).await?;
    // What it was sent and what it wrote itself since are the same after a restart as well.
    cluster.kill(away)?;
    cluster.restart(away).await?;
    same_state(&cluster).await?;
    story.away_leads_alone(&mut cluster, [leader, away, witness]).await
}

/// What was written, part by part.
#[derive(Default)]
struct WrittenParts {
    recording: ClientRecording,
    part: u32,
}

impl WrittenParts {
    /// Writes 8 MiB into a table beside the orders.
    async fn write_notes(
        &mut self,
        cluster: &ProcessCluster,
        through: u64,
        round: u64,
    ) -> Result<()> {
        let notes = TablePath::pos("dar", "customer_profiles");
        for n in 0..64 {
            let value = round * 64 + n;
            let (op, key) = (format!("{ID_PREFIX}note-{value}"), format!("guest-{value}"));
            let text = format!("{round}-{n}-").repeat(8192);
            let at = now();
            let note = json!({ "id": key, "name": op, "notes": text });
            let reply = cluster.client(through).insert(&notes, Some(&op), &note).await?;
            let cursor = reply.cursor;
            reply.ok()?;
            let attempts = vec![Attempt { node: through, at, completion: None }];
            let answer = Completion::Ok(Response { cursor, ..Response::default() });
            let put = Invocation::Put { key, value };
            self.recording.record((&op, "dar"), put, attempts, answer);
        }
        Ok(())
    }

    async fn write(
        &mut self,
        cluster: &ProcessCluster,
        through: &[u64],
        orders: usize,
    ) -> Result<()> {
        self.part += 1;
        let name = format!("catch-up-{}", self.part);
        let mut writer = OrderWriter::new(&name, "dar", cluster.clients(through));
        writer.write_many(orders).await?;
        self.recording.extend(writer.recording);
        Ok(())
    }

    /// The one that was away becomes the only node with the last writes: it must have them, and
    /// all before, on its own disk.
    async fn away_leads_alone(
        mut self,
        cluster: &mut ProcessCluster,
        [leader, away, witness]: [u64; 3],
    ) -> Result<()> {
        cluster.kill(witness)?;
        self.write(cluster, &[leader], 20).await?;
        cluster.kill(leader)?;
        cluster.restart(witness).await?;
        self.write(cluster, &[witness, away], 20).await?;
        self.recording.judge("dar", &cluster.clients(&[witness, away])).await?.assert_hold();
        Ok(())
    }
}

/// Waits until a node's replica of dar:pos lacks nothing.
async fn no_lag(cluster: &ProcessCluster, asked: u64, node: u64) -> Result<()> {
    until(&format!("node {node} has caught up"), async || {
        let status = match cluster.status(asked).await {
            Ok(status) => status,
            Err(error) => return WaitState::NotYet(format!("{error:#}")),
        };
        let lag = status.lag_of("dar", "pos", node);
        WaitState::when(lag == Some(0), (), || format!("its lag is {lag:?}"))
    })
    .await
}

/// Waits until all nodes have applied the same, and holds them to the same state and whole logs.
async fn same_state(cluster: &ProcessCluster) -> Result<()> {
    until("all nodes have applied the same", async || {
        let mut shown: Vec<Vec<Value>> = Vec::new();
        for node in cluster.ids() {
            let path = "/api/cluster/replicas?verify=true";
            match cluster.client(node).get(path).await.and_then(HttpReply::ok) {
                Ok(own) => shown.push(own["replicas"].as_array().cloned().unwrap_or_default()),
                Err(error) => return WaitState::NotYet(format!("{error:#}")),
            }
        }
        let applied = |replicas: &[Value]| -> Vec<Value> {
            replicas.iter().map(|replica| replica["applied"].clone()).collect()
        };
        if shown.iter().any(|replicas| applied(replicas) != applied(&shown[0])) {
            return WaitState::NotYet("entries are under way".to_owned());
        }
        assert!(!shown[0].is_empty());
        for replicas in &shown {
            assert!(replicas.iter().all(|one| one.get("brokenChain").is_none()), "{replicas:?}");
            assert_eq!(*replicas, shown[0], "the same entries gave another state");
        }
        WaitState::Done(())
    })
    .await
}
