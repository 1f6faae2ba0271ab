//! Store: every branch of the cluster, as the crates above see it: one trait, so that the gateway's
//! tests can run against branches in memory instead of a cluster.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use model::{
    Answer, BranchKey, Catalogue, CatalogueChange, CatalogueError, Command, Delta, Incarnation,
    ModuleSnapshot, Object, Offset, Outcome, PriorRecords, Read, ReadLevel, Reject,
};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, watch};

use crate::memory::MemoryFull;
use crate::partition::branch_quota::BranchQuotaReached;
use crate::shares::{Requester, Share};
use crate::status::{ClusterStatus, LocalReplicas};

/// Every branch of the cluster, wherever it lives.
pub trait Store: Send + Sync + 'static {
    /// Has a command decided by the branch it names, once. Waits at most `REQUEST_DEADLINE`, or
    /// `LONG_DEADLINE` for a bulk operation and a command larger than `PIECE_BYTES`.
    /// A refusal by the branch is an `Ok(Outcome::Rejected)`.
    fn submit(&self, command: Command) -> BoxFuture<'static, Result<Outcome, RouteError>> {
        self.submit_for(Requester::default(), command)
    }

    /// The same for a client: commands of different clients take turns.
    fn submit_for(
        &self,
        requester: Requester,
        command: Command,
    ) -> BoxFuture<'static, Result<Outcome, RouteError>>;

    /// Whether a client's write would find a place now, as far as its head tells. Never waits; what
    /// passes may still be refused by [`Self::submit_for`].
    ///
    /// # Errors
    /// `Busy` and `MemoryFull`, as the write itself would be refused.
    fn check_write(&self, requester: Requester, head: &WriteHead) -> Result<(), RouteError>;

    /// Looks something up. A branch:module that was never written to is answered as its
    /// definition and seed would make it, without being created.
    fn read(
        &self,
        key: BranchKey,
        read: Read,
        level: ReadLevel,
    ) -> BoxFuture<'static, Result<Answer, RouteError>> {
        self.read_for(Requester::default(), key, read, level)
    }

    /// The same for a client: its queries are counted among those of its address.
    fn read_for(
        &self,
        requester: Requester,
        key: BranchKey,
        read: Read,
        level: ReadLevel,
    ) -> BoxFuture<'static, Result<Answer, RouteError>>;

    /// Follows a branch:module: `None` begins with a snapshot of now; a cursor begins with the
    /// event after it. Nothing is missed or given twice in between.
    fn follow(
        &self,
        key: BranchKey,
        after: Option<Cursor>,
    ) -> BoxFuture<'static, Result<Follow, RouteError>>;

    /// This node's copy of the catalogue.
    fn catalogue(&self) -> Arc<Catalogue>;

    /// This node's copy of the catalogue, and each later one.
    fn catalogues(&self) -> watch::Receiver<Arc<Catalogue>>;

    /// Whether this node's copy of the catalogue can be answered from: one that began with nothing
    /// has to receive it from group 0 first, or it would deny what there is.
    fn is_initialized(&self) -> bool;

    /// Brings this node's copy of the catalogue up to now: what was agreed on before, by whatever
    /// node, is in it afterwards. For those about to deny that there is such a thing.
    fn catch_up(&self) -> BoxFuture<'static, Result<(), RouteError>>;

    /// Has group 0 take a change, once under this id. When it returns, this node's copy has it.
    fn change(
        &self,
        id: String,
        change: CatalogueChange,
    ) -> BoxFuture<'static, Result<(), ChangeError>>;

    /// Publishes under a topic, to all its subscribers in the cluster. Topics are forgotten sooner
    /// or later; nothing of them is on a disk.
    fn publish(&self, post: Post) -> BoxFuture<'static, Result<(), RouteError>>;

    /// Subscribes to a topic: the last post, if it is known, and all that follow.
    fn subscribe(
        &self,
        topic: String,
    ) -> BoxFuture<'static, Result<TopicSubscription, RouteError>> {
        self.subscribe_for(Requester::default(), topic)
    }

    /// The same for a client: its topics are counted among those of its address.
    fn subscribe_for(
        &self,
        requester: Requester,
        topic: String,
    ) -> BoxFuture<'static, Result<TopicSubscription, RouteError>>;

    /// The cluster as this node sees it.
    fn status(&self) -> BoxFuture<'static, ClusterStatus>;

    /// The replicas this node holds itself, each with a hash of its whole state. `verify`: their
    /// logs are walked too, from the oldest event held. Takes as long as reading all of that does.
    fn replicas(&self, verify: bool) -> BoxFuture<'static, LocalReplicas>;

    /// Whether this node can serve: formed, a majority of each partition at work, not draining.
    ///
    /// # Errors
    /// What is missing.
    fn ready(&self) -> Result<(), NotReady>;

    /// Why this node should lead nothing now, each reason by its stable name and in words:
    /// `disk-full`, `disk-slow`, `memory-pressure`, `clock-off`. Empty where it may. It serves
    /// either way: others lead.
    fn unfit(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

/// What is known of a client's write before its body is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteHead {
    /// The branch:module that it changes.
    pub key: BranchKey,
    /// How many bytes its body has.
    pub bytes: u64,
    /// Whether it surely adds to what the branch holds.
    pub adds: bool,
}

/// Why a node does not serve now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct NotReady {
    /// Stable: `draining`, `forming`, `definitions-missing`, `no-majority`.
    pub reason: &'static str,
    /// In words.
    pub message: String,
    /// Partitions that have no majority at work, of those this node serves.
    pub without_leader: usize,
}

impl NotReady {
    /// For a reason that is not about partitions.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), without_leader: 0 }
    }
}

/// Why a request has no outcome.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RouteError {
    /// There is no such module in the catalogue.
    #[error("Module \"{0}\" not defined in modules.json")]
    UnknownModule(String),
    /// No branch of this name is configured, and no pattern allows one.
    #[error("there is no branch {0:?}; make it with POST /api/branches")]
    UnknownBranch(String),
    /// A read was refused by the branch (an unknown table).
    #[error(transparent)]
    Rejected(Reject),
    /// Too many requests wait; nothing was done.
    #[error("too many requests are waiting for {what}; retry later")]
    Busy {
        /// `this branch` or `this node`; and whose share of it, if it is one's own.
        what: &'static str,
        /// When a retry makes sense.
        retry_after: Duration,
    },
    /// Clients are subscribed to as many topics as they may be; nothing was done.
    #[error(
        "{whose} has subscribed to as many topics as it may now: leave some, or come again later"
    )]
    TopicsFull {
        /// `this node`, `this address` or `this connection`.
        whose: &'static str,
        /// When a retry makes sense.
        retry_after: Duration,
    },
    /// Nobody can take it now; nothing was done.
    #[error("{reason}")]
    Unavailable {
        /// In words.
        reason: String,
        /// When a retry makes sense.
        retry_after: Duration,
    },
    /// The node that would do it holds as much in memory as it may; nothing was done.
    #[error(transparent)]
    MemoryFull(#[from] MemoryFull),
    /// The branch would be a new one, and its maker has made as many as it may; nothing was done.
    #[error(transparent)]
    BranchQuota(#[from] BranchQuotaReached),
    /// It may or may not have happened: retry with the same id.
    #[error("the outcome is not known yet; retry with the same id")]
    Indeterminate,
}

impl RouteError {
    /// Whether asking again later may help.
    pub(crate) fn is_temporary(&self) -> bool {
        match self {
            Self::UnknownModule(_) | Self::UnknownBranch(_) | Self::Rejected(_) => false,
            Self::Busy { .. }
            | Self::Unavailable { .. }
            | Self::MemoryFull(_)
            | Self::BranchQuota(_)
            | Self::TopicsFull { .. }
            | Self::Indeterminate => true,
        }
    }
}

/// What a client publishes under a topic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Post {
    /// The topic.
    pub topic: String,
    /// What: it replaces the post before.
    pub data: Object,
}

/// A subscription to one topic. What is published faster than it is received is lost; the last
/// post is not.
pub struct TopicSubscription {
    /// The last post so far.
    pub last: Option<Arc<Post>>,
    /// The posts from now on.
    pub posts: TopicPosts,
}

/// The posts of one topic from some time on. While it lives, the topic has its place on this node.
pub struct TopicPosts {
    posts: broadcast::Receiver<Arc<Post>>,
    _place: Option<Arc<Share>>,
}

impl TopicPosts {
    /// Those of a topic that has this place.
    pub(crate) fn new(posts: broadcast::Receiver<Arc<Post>>, place: Arc<Share>) -> Self {
        Self { posts, _place: Some(place) }
    }

    /// The next one. Cancel-safe.
    ///
    /// # Errors
    /// Some were missed, or there will be no more.
    pub async fn recv(&mut self) -> Result<Arc<Post>, broadcast::error::RecvError> {
        self.posts.recv().await
    }
}

impl From<broadcast::Receiver<Arc<Post>>> for TopicPosts {
    /// Those of a topic without a bound.
    fn from(posts: broadcast::Receiver<Arc<Post>>) -> Self {
        Self { posts, _place: None }
    }
}

/// Why a change of the catalogue was not made.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ChangeError {
    /// The catalogue refused it: trying again will not help.
    #[error(transparent)]
    Refused(#[from] CatalogueError),
    /// It could not be decided now, or its outcome is not known: retry under the same id.
    #[error("group 0 did not decide: {0}")]
    Undecided(String),
}

/// A place in one incarnation of a branch:module's log: the last event seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// JSON `epoch`.
    pub incarnation: Incarnation,
    /// JSON `sequence`.
    pub offset: Offset,
}

/// A followed branch:module.
pub struct Follow {
    /// The state to begin with, if the follow began without a cursor, or with one that is too old
    /// or of another incarnation.
    pub snapshot: Option<Arc<ModuleSnapshot>>,
    /// What comes after it.
    pub stream: Box<dyn DeltaStream>,
}

/// The deltas of a followed branch:module. Dropping it ends the follow.
pub trait DeltaStream: Send {
    /// The next item. Cancel-safe. `None`: this node is going away, or there is no such
    /// branch:module any more.
    fn next(&mut self) -> BoxFuture<'_, Option<FollowItem>>;
}

/// One item of a follow.
#[derive(Debug, Clone)]
pub enum FollowItem {
    /// The next change, in order, without gaps.
    Delta(Arc<SharedDelta>),
    /// The follower fell so far behind that the log no longer holds what it missed: begin again
    /// from here.
    Resync(Arc<ModuleSnapshot>),
}

/// A delta on its way to many sessions of one node, with the frames written for them, so that each
/// is written once.
#[derive(Debug)]
pub struct SharedDelta {
    /// What changed.
    pub delta: Arc<Delta>,
    prior: Option<Vec<PriorRecords>>,
    frames: RwLock<Vec<(FrameKey, Arc<OnceLock<Frames>>)>>,
}

/// The frames of a delta, one for each event.
pub type Frames = Arc<[Bytes]>;

/// Which sessions share a delta's frames: those that speak one dialect, may see the same, and
/// want as much of it. The gateway decides what the numbers stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameKey {
    /// How frames are written.
    pub dialect: u16,
    /// What the session may see of a record.
    pub policy_class: u16,
    /// Whether the session asked for the record of every event.
    pub with_records: bool,
}

impl SharedDelta {
    /// A delta of which nobody knows what its records were before: it came from another node or
    /// from the log.
    pub fn new(delta: Arc<Delta>) -> Self {
        Self { delta, prior: None, frames: RwLock::default() }
    }

    /// A delta as it was applied on this node. `prior` has one entry for each of its events.
    pub fn with_prior(delta: Arc<Delta>, prior: Vec<PriorRecords>) -> Self {
        Self { delta, prior: Some(prior), frames: RwLock::default() }
    }

    /// What the records were before, one entry for each event. `None`: nobody here knows.
    pub fn prior(&self) -> Option<&[PriorRecords]> {
        self.prior.as_deref()
    }

    /// The delta's frames for this key, written by the first session that asks for them.
    pub fn frames(&self, key: FrameKey, render: impl FnOnce(&Delta) -> Vec<Bytes>) -> Frames {
        let cell = self.cell(key);
        // Written without the lock: sessions of another key do not wait, those of this key do.
        Arc::clone(cell.get_or_init(|| render(&self.delta).into()))
    }

    /// Whether the frames for this key are written.
    pub fn has_frames(&self, key: FrameKey) -> bool {
        let cells = self.frames.read();
        cells.iter().any(|(of, cell)| *of == key && cell.get().is_some())
    }

    fn cell(&self, key: FrameKey) -> Arc<OnceLock<Frames>> {
        let find = |cells: &[(FrameKey, Arc<OnceLock<Frames>>)]| {
            cells.iter().find(|(of, _)| *of == key).map(|(_, cell)| Arc::clone(cell))
        };
        if let Some(cell) = find(&self.frames.read()) {
            return cell;
        }
        let mut cells = self.frames.write();
        // Another session may have been quicker between the two locks.
        find(&cells).unwrap_or_else(|| {
            let cell = Arc::default();
            cells.push((key, Arc::clone(&cell)));
            cell
        })
    }
}

#[cfg(test)]
mod tests {
    use model::{BranchId, BranchKey, ModuleId};

    use super::*;

    #[test]
    fn frames_are_written_once_for_each_key() {
        let key = BranchKey::new(BranchId::parse("dar").unwrap(), ModuleId::parse("pos").unwrap());
        let delta = Delta { key, incarnation: Incarnation(1), events: Vec::new() };
        let shared = SharedDelta::new(Arc::new(delta));
        let key = FrameKey { dialect: 0, policy_class: 0, with_records: false };
        let write = |key, text: &'static [u8]| shared.frames(key, |_| vec![Bytes::from(text)]);
        assert!(!shared.has_frames(key));
        assert_eq!(&*write(key, b"one"), [Bytes::from("one")]);
        assert_eq!(&*write(key, b"two"), [Bytes::from("one")]);
        assert!(shared.has_frames(key));
        assert!(!shared.has_frames(FrameKey { dialect: 1, ..key }), "each dialect has its own");
        assert!(!shared.has_frames(FrameKey { policy_class: 1, ..key }), "and each policy class");
        assert_eq!(&*write(FrameKey { with_records: true, ..key }, b"two"), [Bytes::from("two")]);
        assert_eq!(&*write(FrameKey { policy_class: 1, ..key }, b"three"), [Bytes::from("three")]);
    }
}
