//! Actors: who owns what, who restarts whom, who sends what to whom.
//!
//! ```text
//!   RootActor
//!     ├── ControlActor        group 0: the catalogue; on its leader: observe, plan, one step
//!     ├── PartitionActor × P  one replica group and its branches; leader watch
//!     │     ├── Proposer      stamps, batches, proposes; one per partition
//!     │     └── BranchActor*  the single activation of a branch:module, on the leader only
//!     └── FeedSupervisor
//!           └── FeedActor*    one per branch:module that is followed on another node
//! ```
//!
//! Callers use [`ClusterStore`]: it finds the leader, here or on another node, within a deadline.

mod background;
mod client;
mod clock;
mod condition;
mod control;
mod fair_queue;
mod follow;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod handover;
mod level_gate;
pub mod limits;
mod liveness;
mod memory;
mod message;
mod offload;
mod partition;
mod peers;
mod read_pool;
mod root;
mod shares;
#[cfg(any(test, feature = "simulation"))]
pub mod simulation;
mod snapshots;
pub mod status;
mod store;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod topics;
mod turns;

pub use background::in_background;
pub use client::ClusterStore;
pub use clock::WallClock;
pub use memory::{HeldMemory, Memory, MemoryClass, MemoryClassStatus, MemoryFull, MemoryStatus};
pub use offload::offload;
pub use partition::branch_quota::{BranchQuota, BranchQuotaReached};
pub use peers::{Inbox, PeerError, Peers, Priority};
pub use root::{ActorTree, Config, StartError, start};
pub use shares::{Exhausted, Requester, Share, ShareLimiter, ShareScope};
pub use store::{
    ChangeError, Cursor, DeltaStream, Follow, FollowItem, FrameKey, Frames, NotReady, Post,
    RouteError, SharedDelta, Store, TopicPosts, TopicSubscription, WriteHead,
};
pub use turns::{TurnQueue, WorkPermit};
