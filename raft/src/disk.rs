//! Disk: the only lines of this room that touch files.
//!
//! Three things live here, from most to least trusted. The **log** ([`Wal`]): one for all groups of
//! a node, every acknowledged byte is in it, fsynced. **Checkpoints** ([`Checkpoints`]): the second
//! form of the truth; the log is purged only below the older of the last two. The **store**
//! ([`StoreFiles`]): sled, written behind apply; never the only copy, rebuilt when in doubt.
//!
//! Plain blocking Rust and threads; nothing here is async. Every byte written carries a version and
//! a checksum. What this folder refuses: to guess. Damage that can be told from a torn last write
//! is an error naming file and offset, never a shorter log.

mod checkpoint;
mod device;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod record;
mod segment;
#[cfg(any(test, feature = "testing"))]
mod simulated;
mod store;
#[cfg(test)]
mod testing;
mod wal;

pub use checkpoint::{
    CheckpointError, CheckpointId, CheckpointMeta, Checkpoints, ChunkInfo, IncomingCheckpoint,
    PinnedCheckpoint,
};
pub use device::{Device, RealDevice};
#[cfg(any(test, feature = "testing"))]
pub use simulated::{
    BitFlip, CrashKind, DamageTarget, DiskFaults, SimulatedDir, SimulatedDisk, flip_bit,
};
pub use store::{GroupStore, StoreFiles, StoreRebuild};
pub use wal::{
    GroupLogState, Op, RecoveredLog, StoredEntry, SubmitCallback, Wal, WalConfig, WalCounters,
    WalError,
};

/// One replica's name on this disk. Replica ids are never reused, so what an earlier replica of a
/// group left behind is never mistaken for a later one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupKey {
    /// The partition's group.
    pub group: u16,
    /// The replica of it that lives on this node.
    pub replica: u64,
}

impl std::fmt::Display for GroupKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "group {} replica {}", self.group, self.replica)
    }
}
