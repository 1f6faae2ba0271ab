//! Agreement and durability: replicates bytes between replicas and keeps them on disk.
//!
//! This crate knows nothing of branches. Entries are opaque to it. Promise: the [`Machine`] of
//! every replica gets the same entries in the same order, and an entry is reported as committed
//! only once a majority of the replicas has it on disk, fsynced. Refused: decoding an entry.
//!
//! ```text
//!   Groups ── one per node ──┬── Wal     one log for all groups, one fdatasync per write batch
//!     │                      ├── Checkpoints   the state of a replica at one index
//!     │                      └── WorkingStore  sled, never the only copy
//!     └── TypedGroup<Machine> ── one per partition: propose, read_barrier, members, transfer
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
mod erased;
mod error;
mod fitness;
mod group;
mod groups;
pub mod limits;
mod log_storage;
mod long_entry;
mod machine;
mod network;
mod peer;
mod random;
mod replica;
mod rpc;
mod rpc_handler;
#[cfg(any(test, feature = "testing"))]
pub mod simulated;
mod state_machine;
mod status;
mod store_backlog;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod timing;
mod typed_group;
mod types;
mod verifier;

pub use blocking::{blocking, drop_beside};
pub use error::{Fatal, ProposeError, ReadError};
pub use fitness::{NodeFitness, Unfit, UnfitReason, UnfitReasons};
pub use group::ReplicaGroup;
pub use groups::{DiskLatency, Groups, GroupsConfig, OpenError};
pub use machine::{
    ApplyStep, ChunkSink, ChunkSource, FrozenState, LongWork, Machine, ScanLimit, StoreWrite,
    WorkingStore,
};
pub use network::{Network, NetworkError, Priority};
pub use timing::{Timing, TimingError};
pub use typed_group::TypedGroup;
pub use types::{AppliedEntry, DiskCounters, GroupId, GroupStatus, Member};
