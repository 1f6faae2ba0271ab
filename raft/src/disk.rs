//! Disk: the only part of this crate that touches files.
//!
//! It has three parts, from the most to the least trusted. The **log** ([`Wal`]): one for all
//! groups of a node; every acknowledged byte is in it, fsynced. **Checkpoints** ([`Checkpoints`]):
//! the state of a replica at one index; the log is purged only below the older of the last two. The
//! **store** ([`StoreFiles`]): a sled database that is written after apply; it is never the only
//! copy, and it is rebuilt when in doubt.
//!
//! Everything here is blocking code on threads; nothing is async. Promise: all that is written to
//! the log and to checkpoints carries a version and a checksum. Refused: to guess. Damage that is
//! not a torn last write is an error that names file and offset, never a shorter log.

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
pub(crate) use store::write_size;
pub use store::{GroupStore, StoreFiles, StoreRebuild};
pub use wal::{
    GroupLogState, LogOp, RecoveredLog, StoredEntry, SubmitCallback, Wal, WalConfig, WalCounters,
    WalError,
};

/// The key of a replica's data on this disk. Replica ids are never reused, so the data of an
/// earlier replica of a group is never taken for that of a later one.
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
