//! What two nodes send each other: requests, which have a reply, and casts, which have none.
//!
//! Append-only: these bytes travel between nodes of different builds, behind `model::codec`.

use std::time::Duration;

use bytes::Bytes;
use model::codec::Versioned;
use model::{
    Answer, BranchKey, CatalogueEntry, CatalogueError, Command, Delta, LevelNotAgreed, NodeId,
    Offset, Outcome, PartitionId, Read, ReadLevel, Reject,
};
use serde::{Deserialize, Serialize};

use crate::limits::DISK_FULL_RETRY_AFTER;
use crate::memory::MemoryFull;
use crate::partition::branch_quota::BranchQuotaReached;
use crate::shares::{Exhausted, Requester, ShareScope};
use crate::status::{BranchStatus, PartitionStatus};
use crate::store::Post;

/// A request to another node.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum PeerRequest {
    /// Have this decided; you should lead its partition.
    Submit(Command),
    /// Answer this read from your replica.
    Read { key: BranchKey, read: Read, level: ReadLevel },
    /// Confirm that you lead, and up to where a reader must have applied.
    ReadIndex(PartitionId),
    /// Have group 0 take this change; you should lead it.
    Change(CatalogueEntry),
    /// What do you lead, and how far behind are the others?
    Status,
    /// Send me this branch's deltas from now on, under this number of mine.
    Follow { key: BranchKey, feed: u64 },
    /// Publish this under its topic; you should own it.
    Post(Post),
    /// What is the last post of this topic? You should own it.
    LastPost(String),
    /// Confirm that you lead group 0, and up to where a reader must have applied.
    CatalogueIndex,
    /// As `Submit`, with whom the command is from.
    SubmitFor(Requester, Command),
    /// Should you lead?
    Condition,
    /// As `Read`, with whom it is for.
    ReadFor { requester: Requester, key: BranchKey, read: Read, level: ReadLevel },
}

/// The answer to an [`PeerRequest`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum PeerReply {
    Outcome(Outcome),
    Answer(Answer),
    Index(u64),
    Changed(Result<(), CatalogueError>),
    Status(NodeReport),
    Refused(Refusal),
    Rejected(Reject),
    /// Where the feed begins: the events after this follow as casts.
    Following(Offset),
    Posted,
    LastPost(Option<(PostVersion, Post)>),
    Condition(NodeCondition),
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeCondition {
    /// Why it should not lead, by the reasons' stable names; none where it may.
    pub(crate) unfit: Vec<String>,
    /// What its wall clock shows, in milliseconds since 1970, right or wrong.
    pub(crate) clock_millis: i64,
}

impl NodeCondition {
    /// Whether it says this of itself.
    pub(crate) fn has(&self, reason: raft::UnfitReason) -> bool {
        self.unfit.iter().any(|name| name == reason.name())
    }
}

/// What a node leads.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct NodeReport {
    pub(crate) partitions: Vec<PartitionStatus>,
    pub(crate) branches: Vec<BranchStatus>,
    pub(crate) warnings: Vec<String>,
}

/// What another node is sent without an answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum PeerCast {
    /// The next delta of a feed.
    Delta { feed: u64, delta: Delta },
    /// The feed stands here: finds a lost last delta.
    Position { feed: u64, offset: Offset },
    /// No more of this feed: follow again.
    FeedEnded { feed: u64 },
    /// I no longer follow: end this feed.
    Unfollow { feed: u64 },
    /// The owner of its topic numbered this post.
    Posted { version: PostVersion, post: Post },
    /// I stop soon: give me no lead.
    Draining,
    /// Why I should not lead has changed.
    Condition(NodeCondition),
}

/// The order of posts: the owner's term, then its count. Later is greater.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct PostVersion {
    pub(crate) term: u64,
    pub(crate) count: u64,
}

/// Why a node did not do what was requested.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Refusal {
    /// It does not lead (or hold) the partition; nothing was done.
    NotLeader { hint: Option<NodeId> },
    /// Too much waits there; nothing was done.
    Busy { what: BusyScope },
    /// Nobody can do it now; nothing was done.
    Unavailable { reason: String, retry_after: Duration },
    /// It may or may not have happened.
    Indeterminate,
    /// It holds as much in memory as it may; nothing was done.
    MemoryFull(MemoryFull),
    /// Too much waits there, in this share of it; nothing was done.
    Exhausted { what: BusyScope, scope: ShareScope, retry_after: Duration },
    /// Its disk is full, and nobody else can lead; nothing was done, and another attempt now would
    /// change nothing.
    DiskFull { reason: String, retry_after: Duration },
    /// Who asks has made as many branches as it may; nothing was done.
    BranchQuota(BranchQuotaReached),
}

impl Refusal {
    /// A share of what is busy is exhausted.
    pub(crate) fn exhausted(what: BusyScope, exhausted: Exhausted) -> Self {
        let Exhausted { scope, retry_after } = exhausted;
        Self::Exhausted { what, scope, retry_after }
    }
}

/// What is busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum BusyScope {
    Branch,
    Node,
    /// The topics of a node: never sent to another one.
    Topics,
    /// The queries of a node.
    Queries,
}

impl From<raft::ProposeError> for Refusal {
    fn from(error: raft::ProposeError) -> Self {
        match error {
            raft::ProposeError::NotLeader { hint } => Self::NotLeader { hint },
            raft::ProposeError::DiskFull { reason } => {
                Self::DiskFull { reason, retry_after: DISK_FULL_RETRY_AFTER }
            }
            raft::ProposeError::Unavailable { reason, retry_after } => {
                Self::Unavailable { reason, retry_after }
            }
            raft::ProposeError::Indeterminate => Self::Indeterminate,
            raft::ProposeError::Fatal(fatal) => Self::from(fatal),
        }
    }
}

impl From<raft::ReadError> for Refusal {
    fn from(error: raft::ReadError) -> Self {
        match error {
            raft::ReadError::NotLeader { hint } => Self::NotLeader { hint },
            raft::ReadError::Unavailable { reason, retry_after } => {
                Self::Unavailable { reason, retry_after }
            }
            raft::ReadError::Fatal(fatal) => Self::from(fatal),
        }
    }
}

impl From<raft::Fatal> for Refusal {
    fn from(fatal: raft::Fatal) -> Self {
        tracing::error!(%fatal, "a replica on this node stopped");
        Self::Unavailable {
            reason: "this node's replica stopped; another node must serve this branch".to_owned(),
            retry_after: Duration::from_secs(1),
        }
    }
}

impl From<LevelNotAgreed> for Refusal {
    fn from(error: LevelNotAgreed) -> Self {
        // A node may learn of a new level a moment after another, so that it is worth asking again.
        Self::Unavailable { reason: error.to_string(), retry_after: Duration::from_secs(5) }
    }
}

model::versioned!(PeerRequest => PeerRequest, PeerReply => PeerReply, PeerCast => PeerCast);

/// Encodes a message for a peer.
pub(crate) fn encode<T: Versioned>(message: &T) -> Bytes {
    model::codec::encode(message).into()
}

/// Decodes a message of a peer.
pub(crate) fn decode<T: Versioned>(bytes: &[u8]) -> Result<T, model::codec::CodecError> {
    model::codec::decode(bytes)
}
