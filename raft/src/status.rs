//! Status: builds a [`GroupStatus`] from openraft's metrics and the replica, and publishes it.
//!
//! Promise: changes of leader, term, readiness, members and stopping are published at once; the
//! other figures once a second at most, however busy the group is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::ReplicaId;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{Instant as _, Raft};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::consensus::{Metrics, TypeConfig};
use crate::error::Fatal;
use crate::limits;
use crate::replica::Replica;
use crate::state_machine::Applier;
use crate::types::GroupStatus;

/// The current status.
pub(crate) fn read(raft: &Raft<TypeConfig, Applier>, replica: &Replica) -> GroupStatus {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    // With longer election timeouts, a longer silence is normal.
    let silence_limit = Duration::from_millis(raft.config().election_timeout_max) * 5 / 2;
    translate(&metrics, replica, silence_limit)
}

fn translate(metrics: &Metrics, replica: &Replica, silence_limit: Duration) -> GroupStatus {
    let membership = metrics.membership_config.membership();
    let voters: Vec<u64> = membership.voter_ids().collect();
    let members: BTreeMap<_, _> = membership
        .nodes()
        .map(|(&id, member)| (ReplicaId(id), (member.node, voters.contains(&id))))
        .collect();
    let leader = metrics.current_leader.map(ReplicaId);
    let leader = leader.and_then(|id| members.get(&id).map(|&(node, _)| (id, node)));
    let is_leader = metrics.state.is_leader() && metrics.current_leader == Some(metrics.id);
    let applied = *replica.applied().borrow();
    let last_log = metrics.last_log_index.unwrap_or(0);
    let behind = |matching: Option<u64>| match matching {
        Some(index) => last_log.saturating_sub(index),
        None => last_log + 1,
    };
    let replication = metrics.replication.iter().flatten().filter(|_| is_leader);
    let lag = replication
        .filter(|&(&id, _)| id != metrics.id)
        .map(|(&id, matching)| (ReplicaId(id), behind(matching.as_ref().map(|log| log.index))))
        .collect();
    let acked = metrics.last_quorum_acked.filter(|_| is_leader);
    let since_quorum = acked.map(|at| at.elapsed());
    let recent = |since: Duration| since < limits::LEADER_CONTACT_TIMEOUT.max(silence_limit);
    let has_quorum = match leader {
        // A single voter is its own quorum, and openraft records no confirmation for it.
        Some(_) if is_leader => voters.len() <= 1 || since_quorum.is_some_and(recent),
        Some(_) => recent(replica.since_leader_contact()),
        None => false,
    };
    let stopped = metrics.running_state.as_ref().err().map(|error| Fatal(error.to_string()));
    GroupStatus {
        replica: ReplicaId(metrics.id),
        leader,
        is_leader,
        term: metrics.current_term,
        ready: is_leader && applied.term == metrics.current_term,
        last_log,
        committed: metrics.cluster_committed.map_or(0, |id| id.index),
        applied: applied.index,
        checkpoint: metrics.snapshot.map_or(0, |id| id.index),
        purged: metrics.purged.map_or(0, |id| id.index),
        members,
        lag,
        since_quorum,
        has_quorum,
        stopped: replica.failure().or(stopped),
    }
}

/// Whether the difference must be published at once.
fn is_significant(old: &GroupStatus, new: &GroupStatus) -> bool {
    old.leader != new.leader
        || old.is_leader != new.is_leader
        || old.term != new.term
        || old.ready != new.ready
        || old.members != new.members
        || old.stopped != new.stopped
}

/// Keeps `sender` up to date until the replica stops.
pub(crate) async fn publish_changes(
    raft: Raft<TypeConfig, Applier>,
    replica: Arc<Replica>,
    sender: watch::Sender<GroupStatus>,
) {
    let mut server = raft.server_metrics();
    let mut data = raft.data_metrics();
    let mut applied = replica.applied();
    // openraft publishes every entry in `data`; it is therefore polled only after a pause.
    let mut reported = Instant::now();
    loop {
        let (settling, next) = {
            let last = sender.borrow();
            (last.is_leader && !last.ready, reported + limits::STATUS_INTERVAL)
        };
        let moving = async {
            let open = data.changed().await.is_ok();
            tokio::time::sleep_until(next).await;
            open
        };
        // `applied` only until this leader is ready: that must be reported at once, and afterwards
        // every entry would wake this task.
        let open = tokio::select! {
            biased;
            changed = server.changed() => changed.is_ok(),
            changed = applied.changed(), if settling => changed.is_ok(),
            open = moving => open,
        };
        let current = read(&raft, &replica);
        sender.send_if_modified(|last| {
            let report =
                is_significant(last, &current) || reported.elapsed() >= limits::STATUS_INTERVAL;
            if report {
                reported = Instant::now();
                *last = current;
            }
            report
        });
        if !open {
            publish_stopped(&raft, &replica, &sender).await;
            return;
        }
    }
}

/// openraft has ended: publishes the reason.
async fn publish_stopped(
    raft: &Raft<TypeConfig, Applier>,
    replica: &Replica,
    sender: &watch::Sender<GroupStatus>,
) {
    let mut last = read(raft, replica);
    // The reason may be set a moment after the metrics were closed.
    if last.stopped.is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
        last = read(raft, replica);
    }
    last.stopped.get_or_insert_with(|| Fatal("the replica stopped".to_owned()));
    (last.is_leader, last.ready, last.has_quorum) = (false, false, false);
    sender.send_replace(last);
}
