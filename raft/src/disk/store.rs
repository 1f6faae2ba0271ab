//! Store: sled, the working store, never the only copy.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::disk::GroupKey;
use crate::error::Fatal;
use crate::machine::{Change, Store};

/// The working stores of all replicas of a node: one sled database, one writer thread.
pub struct StoreFiles {}

impl StoreFiles {
    /// Opens the database below `dir`. One that does not open is moved aside and a new one started:
    /// every group then finds `stored()` 0.
    ///
    /// # Errors
    /// When not even a new one can be made.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let _ = dir;
        unimplemented!()
    }

    /// One replica's part of it. The same object for the same replica.
    ///
    /// # Errors
    /// When not even a new database can be made.
    pub fn open_group(&self, group: GroupKey) -> Result<Arc<GroupStore>, Fatal> {
        let _ = group;
        unimplemented!()
    }

    /// Bytes of the database's files.
    pub fn size_on_disk(&self) -> u64 {
        unimplemented!()
    }
}

/// One replica's working store.
pub struct GroupStore {}

impl GroupStore {
    /// Hands over the changes of an index, to be written within about a second. Changes of an index
    /// already stored are skipped; a store that is lost or being rebuilt ignores them. Blocks only
    /// while the bounded queue is full.
    pub fn write(&self, index: u64, changes: Vec<Change>) {
        let _ = (index, changes);
        unimplemented!()
    }

    /// Waits until `index` can be read, urging the writer. `false`: it did not come to that in time,
    /// or the store is lost. Blocks.
    pub fn wait(&self, index: u64, timeout: Duration) -> bool {
        let _ = (index, timeout);
        unimplemented!()
    }

    /// Whether what is stored cannot be used: the database was lost, or a rebuild did not finish.
    /// Stays so until [`GroupStore::rebuild`] was finished.
    pub fn needs_rebuild(&self) -> bool {
        unimplemented!()
    }

    /// Calls `lost` (on a thread of the store) when the database fails and this replica must rebuild.
    pub fn on_lost(&self, lost: Box<dyn Fn() + Send + Sync>) {
        let _ = lost;
        unimplemented!()
    }

    /// Empties the replica's part and begins to fill it anew from a checkpoint. Blocks.
    ///
    /// # Errors
    /// When not even a new database can be made.
    pub fn rebuild(self: &Arc<Self>) -> Result<Rebuild, Fatal> {
        unimplemented!()
    }

    /// Removes everything of this replica. Blocks.
    pub fn clear(&self) {
        unimplemented!()
    }
}

impl Store for GroupStore {
    fn stored(&self) -> u64 {
        unimplemented!()
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, Fatal> {
        let _ = (from, to, limit);
        unimplemented!()
    }
}

/// A working store being filled anew. Dropped before [`Rebuild::finish`], the store still needs one.
pub struct Rebuild {}

impl Rebuild {
    /// The next change. Blocks while the bounded queue is full. A failing database is noticed at the
    /// end.
    pub fn put(&mut self, change: Change) {
        let _ = change;
        unimplemented!()
    }

    /// All changes up to `index` were put. Blocks until they can be read.
    ///
    /// # Errors
    /// When the database failed meanwhile: begin again.
    pub fn finish(self, index: u64) -> Result<(), Fatal> {
        let _ = index;
        unimplemented!()
    }
}
