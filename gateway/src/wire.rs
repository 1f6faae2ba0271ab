//! Wire: how events, records and snapshots look outside, member by member, in the documents'
//! order.
//!
//! Everything here borrows: a frame is written straight out of the rows the branch shares.

mod cursor;
mod event;
mod flag;
mod log_head;
mod module_event;
mod query;
mod snapshot;
mod topic;

pub(crate) use cursor::WireCursor;
pub(crate) use event::{Ack, LogLine, Notice, RecordEvent, RecordRef, record_ref};
pub(crate) use flag::{Directive, Flag};
pub(crate) use log_head::{EventLogShape, EventMeta, Purged};
pub(crate) use module_event::ModuleEvent;
pub(crate) use query::QueryFrame;
pub(crate) use snapshot::{ModuleMeta, ModuleShape, SnapshotFrame, SnapshotReason, by_id};
pub(crate) use topic::{
    EventRenderer, SNAPSHOT, Stand, TopicFrame, TopicUpdate, channel_data, sync_data,
};

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
