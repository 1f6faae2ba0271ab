//! Config: how a node keeps its replicas, and why that may be refused.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::NodeId;

use crate::disk::{Device, RealDevice};
use crate::error::Fatal;
use crate::limits;
use crate::timing::{Timing, TimingError};

/// How a node keeps its replicas.
#[derive(Clone)]
pub struct GroupsConfig {
    /// This node.
    pub node: NodeId,
    /// Where log, checkpoints and store live.
    pub dir: PathBuf,
    /// How soon a silent leader is replaced.
    pub timing: Timing,
    /// A checkpoint is due once this much log has been written since the last one, or a quarter
    /// of what the last one had to write if that is more.
    pub checkpoint_log_bytes: u64,
    /// Size of a log segment, preallocated.
    pub log_segment_bytes: u64,
    /// The disk; tests put a failing one here.
    pub device: Arc<dyn Device>,
    /// Called once, with the reason, when the whole disk can no longer be trusted: after a failed
    /// fsync nothing that follows can be promised, so the process must end.
    pub on_fatal: Arc<dyn Fn(String) + Send + Sync>,
    /// For simulations: the log has no threads; this is how long the disk takes for a turn.
    pub disk_latency: Option<DiskLatency>,
}

/// How long a disk takes for its next turn.
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
