//! Life: who owns what, who restarts whom, who speaks to whom.
//!
//! ```text
//!   RootActor
//!     ├── ControlActor        group 0: the catalogue; on its leader: observe, plan, one step
//!     ├── PartitionActor × P  one replica group and its branches; leader watch
//!     │     ├── Proposer      stamps, batches, proposes; one per partition
//!     │     └── BranchActor*  the single activation of a branch:module, on the leader only
//!     └── FeedActor*          one per followed branch:module on this node
//! ```
//!
//! The door is [`Router`]: it finds the owner, here or on another node, within a deadline.

mod branch;
mod control;
mod door;
mod feed;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod heavy;
pub mod limits;
mod message;
mod partition;
mod peers;
mod reach;
mod root;
mod router;
#[cfg(any(test, feature = "simulation"))]
pub mod simulation;
pub mod status;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod topics;

pub use door::{
    Branches, ChangeError, Cursor, Deltas, Follow, FollowItem, Listening, NotReady, Post,
    RouteError, SharedDelta,
};
pub use peers::{Inbox, PeerError, Peers, Priority};
pub use root::{Config, Running, StartError, start};
pub use router::Router;
