//! Consensus: openraft's type configuration and settings.
//!
//! Promise: openraft's types are used here and in the files that adapt it, and never in the public
//! interface of this crate. Refused: lease reads; a restarted leader that leads on without an
//! election; openraft's own policy for snapshots and log purges, which `checkpoint_task.rs`
//! replaces by one that counts bytes.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use openraft::SnapshotPolicy;
use openraft::raft::responder::Responder;
use openraft::vote::leader_id_std::{CommittedLeaderId, LeaderId};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::erased::ErasedResponse;
use crate::limits;
use crate::timing::Timing;
use crate::types::{GroupId, Member};

/// Standard Raft: one leader per term, so a term alone fences a proposal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TypeConfig;

impl openraft::RaftTypeConfig for TypeConfig {
    type D = EntryData;
    type R = ErasedResponse;
    type NodeId = u64;
    type Node = Member;
    type Term = u64;
    type LeaderId = LeaderId<u64, u64>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<EntryData, u64, Member>;
    type Entry = openraft::Entry<CommittedLeaderId<u64>, Self::Payload>;
    type Responder<T>
        = ProposalResponder<T>
    where
        T: Send + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: Send + 'static;
    type AsyncRuntime = crate::coalesced_timers::CoalescedTimers;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

pub(crate) type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
pub(crate) type ReplicatedEntry = openraft::type_config::alias::EntryOf<TypeConfig>;
pub(crate) type RaftPayload = openraft::type_config::alias::PayloadOf<TypeConfig>;
pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type Metrics = openraft::RaftMetrics<TypeConfig>;

/// The bytes of one entry, opaque to this crate.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct EntryData(pub(crate) Bytes);

impl fmt::Debug for EntryData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Display for EntryData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Sends the result of a proposal to its caller, who may have stopped waiting.
pub(crate) struct ProposalResponder<T>(oneshot::Sender<T>);

impl<T> ProposalResponder<T> {
    pub(crate) fn new() -> (Self, oneshot::Receiver<T>) {
        let (tx, rx) = oneshot::channel();
        (Self(tx), rx)
    }
}

impl<T: Send + 'static> Responder<TypeConfig, T> for ProposalResponder<T> {
    fn on_complete(self, result: T) {
        // The caller may be gone; its entry is committed all the same.
        let _ = self.0.send(result);
    }
}

/// A log id made of its parts.
pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId::new_term_index(term, index)
}

/// The term of a log id.
pub(crate) fn term_of(id: &LogId) -> u64 {
    id.committed_leader_id().term
}

/// openraft's configuration for one group.
pub(crate) fn config(group: GroupId, timing: &Timing) -> Arc<openraft::Config> {
    let millis =
        |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 4);
    let config = openraft::Config {
        cluster_name: format!("group {group}"),
        heartbeat_interval: millis(timing.heartbeat),
        heartbeat_min_interval: Some(millis(timing.heartbeat * 4 / 5)),
        election_timeout_min: millis(timing.election_min),
        election_timeout_max: millis(timing.election_max),
        install_snapshot_timeout: millis(limits::CHECKPOINT_INSTALL_TIMEOUT),
        max_payload_entries: limits::APPEND_ENTRIES_MAX,
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        api_channel_size: Some(limits::CORE_QUEUE_LENGTH),
        notification_channel_size: Some(limits::CORE_QUEUE_LENGTH),
        enable_pre_vote: Some(true),
        enable_leader_restore: Some(false),
        backoff: "20ms 40ms 80ms ...160ms".to_owned(),
        ..openraft::Config::default()
    };
    // `Timing::check` is stricter than openraft's own validation; a test below holds it to that.
    Arc::new(config.validate().expect("a checked timing is within openraft's own bounds"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn checked_timing_passes_openraft_validation() {
        let ms = Duration::from_millis;
        for (heartbeat, election_min, election_max) in
            [(100, 400, 600), (10, 30, 38), (11, 33, 42), (250, 1500, 2500), (1000, 3000, 3750)]
        {
            let timing = Timing {
                heartbeat: ms(heartbeat),
                election_min: ms(election_min),
                election_max: ms(election_max),
            };
            timing.check().unwrap();
            config(GroupId(1), &timing);
        }
    }
}
