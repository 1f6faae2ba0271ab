//! Wire: how events, records and snapshots look outside, member by member, in the documents'
//! order.
//!
//! Everything here borrows: a frame is written straight out of the rows the branch shares.

mod event;
mod log_head;
mod snapshot;

pub(crate) use event::{Ack, LogLine, Notice, RecordRef, Shown, event_frames, record_ref};
pub(crate) use log_head::{EventLog, EventMeta, Purged};
pub(crate) use snapshot::{Module, ModuleMeta, SnapshotFrame, by_id};

use serde::{Serialize, Serializer};

/// Members given one by one, in order.
pub(crate) struct Members<T>(pub(crate) T);

impl<T, K, V> Serialize for Members<T>
where
    T: Clone + IntoIterator<Item = (K, V)>,
    K: Serialize,
    V: Serialize,
{
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.0.clone())
    }
}
