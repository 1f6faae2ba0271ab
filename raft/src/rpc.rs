//! Rpc: the messages between replicas of a group, and their encoding.
//!
//! Promise: each message names the group and both replicas, so that a message for a replica that
//! was removed is never handled by its successor. A rejection is a response with a reason. Refused:
//! bytes of another format version (see `model::codec`).
//!
//! The order of enum variants and of fields is part of the encoding.

use bytes::Bytes;
use model::ReplicaId;
use model::codec::{self, CodecError};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize};

use crate::consensus::{TypeConfig, Vote};
use crate::types::GroupId;

/// A request with its group, its sender and its receiver.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RpcCall {
    pub(crate) group: GroupId,
    pub(crate) from: ReplicaId,
    pub(crate) to: ReplicaId,
    pub(crate) body: RpcRequest,
}

/// A request.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum RpcRequest {
    /// AppendEntries: entries or a heartbeat. Pipelined appends carry their position.
    Append(Option<PipelinePosition>, AppendEntriesRequest<TypeConfig>),
    /// RequestVote.
    Vote(VoteRequest<TypeConfig>),
    /// Pre-vote: asks whether an election would be won, without starting one.
    PreVote(VoteRequest<TypeConfig>),
    /// The leader asks the receiver to become leader.
    TransferLeader(TransferLeaderRequest<TypeConfig>),
    /// Offers a checkpoint; the response lists the chunks that are missing.
    CheckpointBegin { vote: Vote, manifest: Bytes },
    /// A piece of a missing chunk.
    CheckpointPiece { checkpoint: u64, hash: [u8; 32], offset: u64, bytes: Bytes },
    /// Everything was sent: the receiver installs it.
    CheckpointEnd { vote: Vote, checkpoint: u64 },
    /// Requests a piece of a chunk that is damaged at the sender of this request.
    ChunkPiece { hash: [u8; 32], offset: u64 },
}

/// The position of an append in a stream of pipelined appends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PipelinePosition {
    /// The stream; a sender never uses a number twice.
    pub(crate) stream: u64,
    /// The position in the stream, from 0 without gaps.
    pub(crate) number: u64,
}

/// A response.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum RpcResponse {
    Append(AppendEntriesResponse<TypeConfig>),
    Vote(VoteResponse<TypeConfig>),
    TransferLeader(TransferLeaderResponse<TypeConfig>),
    /// The hashes of the chunks the receiver lacks.
    MissingChunks(Vec<[u8; 32]>),
    /// The piece was stored.
    PieceStored,
    Checkpoint(SnapshotResponse<TypeConfig>),
    Rejected(RpcRejection),
    /// Bytes of the chunk from the requested offset on.
    ChunkPiece(Bytes),
}

/// Why a request was not handled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub(crate) enum RpcRejection {
    /// No replica of the group runs here.
    #[error("no replica of this group runs there")]
    NoReplica,
    /// It was sent to a replica that is not, or no longer, on this node.
    #[error("it was meant for another replica than {here}, which runs there")]
    WrongReplica { here: ReplicaId },
    /// The sender is a member on another node than the one the message came from.
    #[error("the sending replica does not live on the node it came from")]
    WrongSenderNode,
    /// The replica stopped.
    #[error("the replica stopped: {0}")]
    Stopped(String),
    /// An earlier append of the stream did not come in time.
    #[error("an earlier append of the stream is missing")]
    OutOfOrder,
    /// The disk takes no writes now.
    #[error("{0}")]
    DiskFull(String),
    /// The checkpoint cannot be received or read.
    #[error("{0}")]
    Checkpoint(String),
    /// The message cannot be decoded.
    #[error("{0}")]
    Damaged(String),
}

model::versioned!(RpcCall => RaftCall, RpcResponse => RaftResponse);

impl RpcCall {
    pub(crate) fn encode(&self) -> Bytes {
        codec::encode(self).into()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(bytes)
    }
}

impl RpcResponse {
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
    use crate::consensus::{EntryData, ReplicatedEntry, log_id};
    use crate::types::Member;

    #[test]
    fn every_kind_of_entry_round_trips() {
        let members = BTreeMap::from([(7, Member { node: NodeId(1) })]);
        let membership = openraft::Membership::new(vec![BTreeSet::from([7])], members).unwrap();
        let entries = vec![
            ReplicatedEntry::new_blank(log_id(2, 4)),
            ReplicatedEntry::new_normal(log_id(2, 5), EntryData(Bytes::from_static(b"five"))),
            ReplicatedEntry::new_membership(log_id(2, 6), membership),
        ];
        let request = AppendEntriesRequest::<TypeConfig> {
            vote: Vote::new_committed(2, 7),
            prev_log_id: Some(log_id(1, 3)),
            entries: entries.clone(),
            leader_commit: None,
        };
        let call = RpcCall {
            group: GroupId(3),
            from: ReplicaId(7),
            to: ReplicaId(8),
            body: RpcRequest::Append(Some(PipelinePosition { stream: 9, number: 0 }), request),
        };
        let back = RpcCall::decode(&call.encode()).unwrap();
        assert_eq!((back.group, back.from, back.to), (GroupId(3), ReplicaId(7), ReplicaId(8)));
        let RpcRequest::Append(position, request) = back.body else { panic!("another body") };
        assert_eq!(position, Some(PipelinePosition { stream: 9, number: 0 }));
        assert_eq!(request.entries, entries);
    }

    #[test]
    fn rejection_round_trips() {
        let rejection = RpcRejection::WrongReplica { here: ReplicaId(3) };
        let bytes = RpcResponse::Rejected(rejection.clone()).encode();
        assert!(
            matches!(RpcResponse::decode(&bytes), Ok(RpcResponse::Rejected(r)) if r == rejection)
        );
        assert!(RpcResponse::decode(&bytes[..1]).is_err());
    }
}
