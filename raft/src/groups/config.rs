//! Config: the settings of a node's replicas, and the errors of opening them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::NodeId;

use crate::disk::{Device, RealDevice};
use crate::error::Fatal;
use crate::fitness::NodeFitness;
use crate::limits;
use crate::timing::{Timing, TimingError};

/// The settings of a node's replicas.
#[derive(Clone)]
pub struct GroupsConfig {
    /// This node.
    pub node: NodeId,
    /// The directory of log, checkpoints and store.
    pub dir: PathBuf,
    /// Heartbeat and election timeouts.
    pub timing: Timing,
    /// A checkpoint is due once this much log has been written since the last one, or a quarter
    /// of what the last one had to write if that is more.
    pub checkpoint_log_bytes: u64,
    /// Size of a log segment in bytes, preallocated.
    pub log_segment_bytes: u64,
    /// A sync of the log that takes longer is slow; see [`limits::SYNC_SLOW_AFTER`].
    pub sync_slow_after: Duration,
    /// Whether this node may lead. Made anew with each configuration; whoever has a reason of its
    /// own why the node should not lead keeps a clone and sets it.
    pub fitness: NodeFitness,
    /// The disk; tests set a failing one.
    pub device: Arc<dyn Device>,
    /// Called once, with the reason, when the whole disk can no longer be trusted: after a failed
    /// fsync nothing that follows can be promised, so the process must end.
    pub on_fatal: Arc<dyn Fn(String) + Send + Sync>,
    /// For simulations: makes the log inline, and gives the duration of each of its writes.
    pub disk_latency: Option<DiskLatency>,
}

/// Gives the latency of the next write of a simulated disk.
pub type DiskLatency = Arc<dyn Fn() -> Duration + Send + Sync>;

impl GroupsConfig {
    /// The defaults.
    pub fn new(
        node: NodeId,
        dir: impl Into<PathBuf>,
        on_fatal: impl Fn(String) + Send + Sync + 'static,
    ) -> Self {
        Self {
            node,
            dir: dir.into(),
            timing: Timing::default(),
            checkpoint_log_bytes: limits::CHECKPOINT_LOG_BYTES,
            log_segment_bytes: limits::WAL_SEGMENT_BYTES,
            sync_slow_after: limits::SYNC_SLOW_AFTER,
            fitness: NodeFitness::default(),
            device: Arc::new(RealDevice),
            on_fatal: Arc::new(on_fatal),
            disk_latency: None,
        }
    }
}

/// Why the groups of a node cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The timing contradicts itself.
    #[error(transparent)]
    Timing(#[from] TimingError),
    /// The disk's content is refused, or cannot be read.
    #[error(transparent)]
    Disk(#[from] Fatal),
}
