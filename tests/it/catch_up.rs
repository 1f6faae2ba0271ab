//! Catching up: a follower that was away holds everything again, and proves it by leading.

use anyhow::Result;
use history::{Attempt, Completion, Invocation, Response};
use serde_json::{Value, json};
use tests::client::{Place, Reply};
use tests::fleet::{Contents, Fleet};
use tests::patience::{Look, until};
use tests::recording::{ID_PREFIX, Recording, now};
use tests::writer::Writer;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_was_away_catches_up_by_the_log() -> Result<()> {
    let mut fleet = Fleet::start(3).await?;
    let leader = fleet.leader(1, "dar", "pos").await?;
    let [away, witness] = fleet.others(leader)[..] else { panic!("three nodes") };
    let mut story = Story::default();

    fleet.kill(away)?;
    story.write(&fleet, &[leader], 100).await?;
    fleet.restart(away).await?;
    no_lag(&fleet, leader, away).await?;
    same_state(&fleet).await?;
    story.away_leads_alone(&mut fleet, [leader, away, witness]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_was_away_too_long_catches_up_by_a_checkpoint() -> Result<()> {
    let mut fleet = Fleet::plan(3, Contents::Sample).await?;
    fleet.tell("--checkpoint-log-mib", 1);
    fleet.start_all().await?;
    let leader = fleet.leader(1, "dar", "pos").await?;
    let [away, witness] = fleet.others(leader)[..] else { panic!("three nodes") };
    let mut story = Story::default();

    story.write(&fleet, &[leader], 20).await?;
    fleet.kill(away)?;
    // Far more log than is kept: what it lacks is no longer there to be sent entry by entry.
    for round in 0..4 {
        story.write_notes(&fleet, leader, round).await?;
    }
    story.write(&fleet, &[leader], 20).await?;
    fleet.restart(away).await?;
    no_lag(&fleet, leader, away).await?;
    assert!(fleet.logged(away).contains("a checkpoint arrived"), "it caught up by the log alone");
    same_state(&fleet).await?;
    // What it was sent and what it wrote itself since are the same after a restart as well.
    fleet.kill(away)?;
    fleet.restart(away).await?;
    same_state(&fleet).await?;
    story.away_leads_alone(&mut fleet, [leader, away, witness]).await
}

/// What was written, part by part.
#[derive(Default)]
struct Story {
    recording: Recording,
    part: u32,
}

impl Story {
    /// Writes 8 MiB into a table beside the orders.
    async fn write_notes(&mut self, fleet: &Fleet, through: u64, round: u64) -> Result<()> {
        let notes = Place::pos("dar", "customer_profiles");
        for n in 0..64 {
            let value = round * 64 + n;
            let (op, key) = (format!("{ID_PREFIX}note-{value}"), format!("guest-{value}"));
            let text = format!("{round}-{n}-").repeat(8192);
            let at = now();
            let note = json!({ "id": key, "name": op, "notes": text });
            let reply = fleet.client(through).insert(&notes, Some(&op), &note).await?;
            let cursor = reply.cursor;
            reply.ok()?;
            let attempts = vec![Attempt { node: through, at, completion: None }];
            let answer = Completion::Ok(Response { cursor, ..Response::default() });
            let put = Invocation::Put { key, value };
            self.recording.record((&op, "dar"), put, attempts, answer);
        }
        Ok(())
    }

    async fn write(&mut self, fleet: &Fleet, through: &[u64], orders: usize) -> Result<()> {
        self.part += 1;
        let name = format!("catch-up-{}", self.part);
        let mut writer = Writer::new(&name, "dar", fleet.clients(through));
        writer.write_many(orders).await?;
        self.recording.extend(writer.recording);
        Ok(())
    }

    /// The one that was away becomes the only node with the last writes: it must have them, and
    /// all before, on its own disk.
    async fn away_leads_alone(
        mut self,
        fleet: &mut Fleet,
        [leader, away, witness]: [u64; 3],
    ) -> Result<()> {
        fleet.kill(witness)?;
        self.write(fleet, &[leader], 20).await?;
        fleet.kill(leader)?;
        fleet.restart(witness).await?;
        self.write(fleet, &[witness, away], 20).await?;
        self.recording.judge("dar", &fleet.clients(&[witness, away])).await?.assert_hold();
        Ok(())
    }
}

/// Waits until a node's replica of dar:pos lacks nothing.
async fn no_lag(fleet: &Fleet, asked: u64, node: u64) -> Result<()> {
    until(&format!("node {node} has caught up"), async || {
        let status = match fleet.status(asked).await {
            Ok(status) => status,
            Err(error) => return Look::NotYet(format!("{error:#}")),
        };
        let lag = status.lag_of("dar", "pos", node);
        Look::when(lag == Some(0), (), || format!("its lag is {lag:?}"))
    })
    .await
}

/// Waits until all nodes have applied the same, and holds them to the same state and whole logs.
async fn same_state(fleet: &Fleet) -> Result<()> {
    until("all nodes have applied the same", async || {
        let mut shown: Vec<Vec<Value>> = Vec::new();
        for node in fleet.ids() {
            let path = "/api/cluster/replicas?verify=true";
            match fleet.client(node).get(path).await.and_then(Reply::ok) {
                Ok(own) => shown.push(own["replicas"].as_array().cloned().unwrap_or_default()),
                Err(error) => return Look::NotYet(format!("{error:#}")),
            }
        }
        let applied = |replicas: &[Value]| -> Vec<Value> {
            replicas.iter().map(|replica| replica["applied"].clone()).collect()
        };
        if shown.iter().any(|replicas| applied(replicas) != applied(&shown[0])) {
            return Look::NotYet("entries are under way".to_owned());
        }
        assert!(!shown[0].is_empty());
        for replicas in &shown {
            assert!(replicas.iter().all(|one| one.get("brokenChain").is_none()), "{replicas:?}");
            assert_eq!(*replicas, shown[0], "the same entries gave another state");
        }
        Look::Done(())
    })
    .await
}
