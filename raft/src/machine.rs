//! Machine: the interface of the replicated state machine and of its working store.
//!
//! Contract of `apply`: the same entries in the same order give the same state on every replica. A
//! deterministic rejection is an answer. An error means that this replica cannot continue, and it
//! stops.

use std::sync::Arc;

use bytes::Bytes;
pub use model::partition::{ChunkSink, ChunkSource};

use crate::error::Fatal;

/// What a machine does with an entry.
pub enum ApplyStep<R> {
    /// It is applied.
    Done(R),
    /// It takes long. The work may run on any thread, while the machine applies the entries behind
    /// this one; [`Machine::finish_long`] takes over what came of it.
    Long(LongWork),
    /// It concerns what a long entry before it is still at, or is a second one: nothing was done.
    /// It is to be applied again once that one is finished.
    Blocked,
}

/// Work on an entry, beside the machine.
pub type LongWork = Box<dyn FnOnce() + Send>;

/// A replicated state.
pub trait Machine: Send + 'static {
    /// The result of an entry for its proposer. It exists on the proposing replica only and never
    /// leaves the process.
    type Response: Send + Sync + 'static;

    /// Applies the committed entry at `index`. Runs on a thread that may block briefly. `writes`
    /// are written to the store later, in order, together with the index.
    ///
    /// # Errors
    /// [`Fatal`] stops this replica: the entry is damaged, or of a version it does not know.
    fn apply(
        &mut self,
        index: u64,
        entry: &[u8],
        writes: &mut Vec<StoreWrite>,
    ) -> Result<ApplyStep<Self::Response>, Fatal>;

    /// Takes over what the work of a long entry came to, which has run. `writes` are those of the
    /// entry. The default is for machines that have none.
    ///
    /// # Errors
    /// [`Fatal`] stops this replica: the entry is damaged, or its work has failed.
    fn finish_long(&mut self, _writes: &mut Vec<StoreWrite>) -> Result<Self::Response, Fatal> {
        Err(Fatal("there is no long entry".to_owned()))
    }

    /// The state at this moment, to be written by another thread; while a long entry is not
    /// finished, the state before it. Must be cheap: nothing is applied meanwhile.
    fn freeze(&self) -> Box<dyn FrozenState>;

    /// Replaces the state by that of a checkpoint. The store is not the machine's concern: if it
    /// lacks anything, it is rebuilt later; see [`FrozenState::fill`].
    ///
    /// # Errors
    /// [`Fatal`] when the checkpoint is not one of this machine's.
    fn restore(&mut self, index: u64, source: &dyn ChunkSource) -> Result<(), Fatal>;

    /// A checkpoint of the last frozen state is durable: the machine may drop from memory what the
    /// checkpoint holds.
    fn checkpoint_durable(&mut self, index: u64);

    /// At rest: what the last durable checkpoint holds and the working store did not hold yet may
    /// leave memory, if the store has it by now. The default is for machines that keep nothing.
    fn drop_stored(&mut self) {}

    /// Gives the machine its working store. Called once, before anything else.
    fn attach(&mut self, store: Arc<dyn WorkingStore>);
}

/// A state that no longer changes.
pub trait FrozenState: Send {
    /// Writes the state as named chunks; see `model::Partition::chunks`.
    fn write(self: Box<Self>, sink: &mut dyn ChunkSink);

    /// Calls `put` with everything that the working store should hold of this state. What is no
    /// longer in memory is read from `source`, a checkpoint of the same state. Takes long; entries
    /// are applied to the machine meanwhile. The default is for machines that store nothing.
    ///
    /// # Errors
    /// [`Fatal`] when the checkpoint cannot be read. Nothing stops; the rebuild is retried.
    fn fill(
        &self,
        _source: &dyn ChunkSource,
        _put: &mut dyn FnMut(StoreWrite),
    ) -> Result<(), Fatal> {
        Ok(())
    }
}

/// One change of the working store. Keys are chosen by the machine; the group is added here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreWrite {
    /// Sets the value of a key. The store splits values above 32 KiB.
    Put(Bytes, Bytes),
    /// Removes a key.
    Delete(Bytes),
}

/// The working store of one replica: what its machine wrote, about a second behind `apply`.
pub trait WorkingStore: Send + Sync + 'static {
    /// The index up to which writes can be read.
    fn stored(&self) -> u64;
    /// The keys and values from `from` (included) to `to` (excluded), in key order, as many as
    /// `limit` says. Blocks on disk: never called from an async task without `spawn_blocking`.
    ///
    /// # Errors
    /// [`Fatal`] when the store cannot be read. The store is then rebuilt; the replica continues.
    fn scan(&self, from: &[u8], to: &[u8], limit: ScanLimit) -> Result<Vec<(Bytes, Bytes)>, Fatal>;
}

/// How much one scan gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanLimit {
    /// So many rows at most.
    pub rows: usize,
    /// None after the one with which their values have so many bytes.
    pub bytes: usize,
}

impl ScanLimit {
    /// So many rows, however large.
    pub fn rows(rows: usize) -> Self {
        Self { rows, bytes: usize::MAX }
    }
}
