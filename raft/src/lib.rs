//! Agreement and durability: replicates bytes between replicas and keeps them on disk.
//!
//! This room has never heard of a branch. What it is given are opaque entries; what it promises
//! is that every replica's [`Machine`] is given the same entries in the same order, and that an
//! entry is only reported committed once a majority of replicas have it on disk, fsynced.
//!
//! ```text
//!   Groups ── one per node ──┬── Wal     one log file for all groups, one fdatasync per turn
//!     │                      ├── Checkpoints   the second form of the truth
//!     │                      └── Store   sled, the working store, never the only copy
//!     └── ReplicaGroup ── one per partition: propose, read_barrier, members, transfer
//!            └── openraft ── Network (a trait: sockets live in `node`)
//! ```

mod blocking;
mod checkpoint_task;
mod checkpoint_transfer;
mod coalesced_timers;
#[cfg(test)]
mod conformance;
mod consensus;
pub mod disk;
mod error;
mod group;
mod groups;
pub mod limits;
mod log_storage;
mod machine;
mod network;
mod peer;
mod replica;
mod rpc;
mod rpc_handler;
#[cfg(any(test, feature = "testing"))]
pub mod simulated;
mod state_machine;
mod status;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod timing;
mod types;
mod verifier;

pub use blocking::blocking;
pub use error::{Fatal, ProposeError, ReadError};
pub use group::ReplicaGroup;
pub use groups::{DiskLatency, Groups, GroupsConfig, OpenError};
pub use machine::{Answer, Change, ChunkSink, ChunkSource, FrozenState, Machine, Store};
pub use network::{Network, NetworkError, Priority};
pub use timing::{Timing, TimingError};
pub use types::{AppliedEntry, DiskCounters, GroupId, GroupStatus, Member};
