//! Rpc: what replicas of a group say to each other, and how it looks on the wire.
//!
//! Promise: every message names the group and both replicas, so that a message meant for a replica
//! that is gone is never taken by the one that followed it. Refusals are answers, by name.
//! Refused: bytes of another format version (see `model::codec`).

use bytes::Bytes;
use model::ReplicaId;
use model::codec::{self, CodecError};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize};

use crate::consensus::{Types, Vote};
use crate::types::GroupId;

/// A call from one replica to another.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Call {
    pub(crate) group: GroupId,
    pub(crate) from: ReplicaId,
    pub(crate) to: ReplicaId,
    pub(crate) body: Body,
}

/// What is asked.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Body {
    /// Entries, or a heartbeat. Entries that are sent without waiting carry their turn.
    Append(Option<Turn>, AppendEntriesRequest<Types>),
    /// An election.
    Vote(VoteRequest<Types>),
    /// Whether an election would be won, before disturbing anybody.
    PreVote(VoteRequest<Types>),
    /// The leader asks the receiver to take over.
    Transfer(TransferLeaderRequest<Types>),
    /// A checkpoint is offered; the answer says which chunks are missing.
    CheckpointBegin { vote: Vote, manifest: Bytes },
    /// A piece of a missing chunk.
    CheckpointPiece { checkpoint: u64, hash: [u8; 32], offset: u64, bytes: Bytes },
    /// Everything was sent: install it.
    CheckpointEnd { vote: Vote, checkpoint: u64 },
    /// A piece of a chunk that is damaged at the sender's.
    ChunkPiece { hash: [u8; 32], offset: u64 },
}

/// The place of an append among those sent without waiting for each other's answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Turn {
    /// Which stream; a sender never uses a number twice.
    pub(crate) stream: u64,
    /// Which one of it, from 0 without gaps.
    pub(crate) number: u64,
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Response {
    Append(AppendEntriesResponse<Types>),
    Vote(VoteResponse<Types>),
    Transfer(TransferLeaderResponse<Types>),
    /// The hashes of the chunks the receiver lacks.
    CheckpointNeeds(Vec<[u8; 32]>),
    /// A piece was stored.
    PieceTaken,
    Checkpoint(SnapshotResponse<Types>),
    Refused(Refusal),
    /// From the offset that was asked on.
    ChunkPiece(Bytes),
}

/// Why a call was not acted upon.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub(crate) enum Refusal {
    /// No replica of the group runs here.
    #[error("no replica of this group runs there")]
    NoReplica,
    /// Meant for a replica that is not, or no longer, here.
    #[error("it was meant for another replica than {here}, which runs there")]
    OtherReplica { here: ReplicaId },
    /// The sender does not live on the node the message came from.
    #[error("the sending replica does not live on the node it came from")]
    Impostor,
    /// The replica stopped.
    #[error("the replica stopped: {0}")]
    Stopped(String),
    /// An earlier append of the same stream never came.
    #[error("an earlier append of the stream is missing")]
    OutOfTurn,
    /// The disk takes no writes now.
    #[error("{0}")]
    DiskFull(String),
    /// The checkpoint cannot be taken.
    #[error("{0}")]
    Checkpoint(String),
    /// Not understood.
    #[error("{0}")]
    Damaged(String),
}

model::versioned!(Call => RaftCall, Response => RaftResponse);

impl Call {
    pub(crate) fn encode(&self) -> Bytes {
        codec::encode(self).into()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(bytes)
    }
}

impl Response {
    pub(crate) fn encode(&self) -> Bytes {
        codec::encode(self).into()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use model::NodeId;
    use openraft::entry::RaftEntry;

    use super::*;
    use crate::consensus::{Entry, LogEntry, log_id};
    use crate::types::Member;

    #[test]
    fn every_kind_of_entry_survives_the_wire() {
        let members = BTreeMap::from([(7, Member { node: NodeId(1) })]);
        let membership = openraft::Membership::new(vec![BTreeSet::from([7])], members).unwrap();
        let entries = vec![
            LogEntry::new_blank(log_id(2, 4)),
            LogEntry::new_normal(log_id(2, 5), Entry(Bytes::from_static(b"five"))),
            LogEntry::new_membership(log_id(2, 6), membership),
        ];
        let request = AppendEntriesRequest::<Types> {
            vote: Vote::new_committed(2, 7),
            prev_log_id: Some(log_id(1, 3)),
            entries: entries.clone(),
            leader_commit: None,
        };
        let call = Call {
            group: GroupId(3),
            from: ReplicaId(7),
            to: ReplicaId(8),
            body: Body::Append(Some(Turn { stream: 9, number: 0 }), request),
        };
        let back = Call::decode(&call.encode()).unwrap();
        assert_eq!((back.group, back.from, back.to), (GroupId(3), ReplicaId(7), ReplicaId(8)));
        let Body::Append(turn, request) = back.body else { panic!("another body") };
        assert_eq!(turn, Some(Turn { stream: 9, number: 0 }));
        assert_eq!(request.entries, entries);
    }

    #[test]
    fn a_refusal_survives_the_wire() {
        let refusal = Refusal::OtherReplica { here: ReplicaId(3) };
        let bytes = Response::Refused(refusal.clone()).encode();
        assert!(matches!(Response::decode(&bytes), Ok(Response::Refused(back)) if back == refusal));
        assert!(Response::decode(&bytes[..1]).is_err());
    }
}
