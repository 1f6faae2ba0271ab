//! Machine: what this room asks of the state it replicates, and the working store it lends it.
//!
//! Contract of `apply`: the same entries in the same order give the same state on every replica.
//! A deterministic refusal is an answer. An error is a replica that cannot go on and stops.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
pub use model::partition::{ChunkSink, ChunkSource};

use crate::error::Fatal;

/// What a machine answers to the proposer, on the proposing replica only; opaque to this room.
#[derive(Clone)]
pub struct Answer(pub Arc<dyn Any + Send + Sync>);

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answer(..)")
    }
}

/// A replicated state.
pub trait Machine: Send + 'static {
    /// Applies the committed entry at `index`. Runs on a thread that may block briefly. `changes`
    /// are put into the store behind apply, in order, together with the index.
    ///
    /// # Errors
    /// [`Fatal`] stops this replica: an entry above its ability, a damaged entry.
    fn apply(
        &mut self,
        index: u64,
        entry: &[u8],
        changes: &mut Vec<Change>,
    ) -> Result<Answer, Fatal>;

    /// The state at this moment, cheaply, to be written out by another thread.
    fn freeze(&self) -> Box<dyn FrozenState>;

    /// Replaces the state by a checkpoint's. The store is filled by itself, where it lacks any of
    /// that; see [`FrozenState::fill`].
    ///
    /// # Errors
    /// [`Fatal`] when the checkpoint is not one of this machine's.
    fn restore(&mut self, index: u64, source: &dyn ChunkSource) -> Result<(), Fatal>;

    /// A checkpoint of the frozen state has become durable: what it holds may leave memory.
    fn checkpointed(&mut self, index: u64);

    /// Lends the machine its working store. Called once, before anything else.
    fn attach(&mut self, store: Arc<dyn Store>);
}

/// A state that no longer changes.
pub trait FrozenState: Send {
    /// Writes it as named chunks; see `model::Partition::chunks`.
    fn write(self: Box<Self>, sink: &mut dyn ChunkSink);

    /// Puts everything the working store holds of this state, out of `source`, a checkpoint of it,
    /// where memory no longer has it. Takes long; entries are applied to the machine meanwhile. By
    /// default nothing: the machine puts nothing into its store.
    ///
    /// # Errors
    /// [`Fatal`] when the checkpoint cannot be read: nothing stops, it is tried again.
    fn fill(&self, _source: &dyn ChunkSource, _put: &mut dyn FnMut(Change)) -> Result<(), Fatal> {
        Ok(())
    }
}

/// One change of the working store. Keys are the machine's own; the group is added here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Set a value. At most 32 KiB; larger values are split by the store.
    Put(Bytes, Bytes),
    /// Remove a key.
    Delete(Bytes),
}

/// The working store of one replica: what its machine wrote, some moments behind `apply`.
pub trait Store: Send + Sync + 'static {
    /// The index up to which changes can be read.
    fn stored(&self) -> u64;
    /// The values of the keys from `from` on, below `to`, at most `limit`, in key order. Blocks on
    /// disk: never called from an async task or a request path without `spawn_blocking`.
    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, Fatal>;
}
