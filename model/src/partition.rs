//! Partition: the state one Raft group replicates: its branches, its log uptime, its time.
//!
//! Given the same batches in the same order, two partitions are equal, byte for byte.

use crate::branch::Branch;
use crate::command::Batch;
use crate::delta::Hash;
use crate::ids::{BranchKey, Offset};
use crate::outcome::Outcome;

/// The highest feature level this build can apply.
pub const LEVEL: u16 = 1;

/// The state one Raft group replicates. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Partition {}

/// What applying one command gave.
#[derive(Debug, Clone)]
pub struct Applied {
    /// Whose command it was.
    pub key: BranchKey,
    /// What was decided. For a repeated command whose events memory no longer holds,
    /// `repeated_at` tells where they are and the delta is empty.
    pub outcome: Outcome,
    /// First offset and number of events to read back from the store, for such a command.
    pub repeated_at: Option<(Offset, u32)>,
}

/// An entry this build must not apply: it stops the replica, with these words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// Needs a newer build.
    #[error("the log needs feature level {needed}, this build has {LEVEL}: upgrade this node")]
    Level {
        /// The level the entry asks for.
        needed: u16,
    },
}

impl Partition {
    /// Applies one agreed batch: every command is planned and committed in order.
    ///
    /// # Errors
    /// [`Halt`] when this build must not apply it; nothing changed.
    pub fn apply(&mut self, batch: &Batch) -> Result<Vec<Applied>, Halt> {
        let _ = batch;
        unimplemented!()
    }

    /// One branch's state.
    pub fn branch(&self, key: &BranchKey) -> Option<&Branch> {
        let _ = key;
        None
    }

    /// All branches, in key order.
    pub fn branches(&self) -> impl Iterator<Item = &Branch> {
        std::iter::empty()
    }

    /// The hash of everything two replicas must agree on.
    pub fn state_hash(&self) -> Hash {
        unimplemented!()
    }

    /// Lets go of events a store now holds, down to the recent window every branch keeps.
    pub fn forget_events(&mut self, stored: impl Fn(&BranchKey) -> Offset) {
        let _ = stored;
    }

    /// Writes the whole state as named chunks, in an order and with boundaries that are functions
    /// of the log alone. A chunk whose content did not change has the same bytes as before; a
    /// sealed event segment that memory no longer holds is kept by name.
    pub fn chunks(&self, sink: &mut dyn ChunkSink) {
        let _ = sink;
    }

    /// Reads back what `chunks` wrote. Old sealed event segments are not loaded into memory.
    ///
    /// # Errors
    /// What is missing or damaged, by chunk name.
    pub fn from_chunks(source: &dyn ChunkSource) -> Result<Self, BadChunk> {
        let _ = source;
        unimplemented!()
    }
}

/// Where a checkpoint's chunks go.
pub trait ChunkSink {
    /// A chunk with this content.
    fn put(&mut self, name: &str, bytes: Vec<u8>);
    /// The chunk of this name is unchanged since the last checkpoint or restore.
    fn keep(&mut self, name: &str);
}

/// Where a checkpoint's chunks come from.
pub trait ChunkSource {
    /// The content of a chunk, `None` if there is none of this name.
    fn get(&self, name: &str) -> Option<Vec<u8>>;
    /// All names, in order.
    fn names(&self) -> Vec<String>;
}

/// A chunk that is missing or damaged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("checkpoint chunk {name:?}: {reason}")]
pub struct BadChunk {
    /// Which.
    pub name: String,
    /// What is wrong with it.
    pub reason: String,
}
