//! Heavy: work on large messages, kept off the thread that keeps the cluster together.
//!
//! One thread of a process sends heartbeats and answers peers. Writing or reading a message of many
//! megabytes on it would hold them up long enough for others to believe that this node is gone.

use model::{Answer, EventChange, Outcome};
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::limits::HEAVY_BYTES;
use crate::message::Reply;

/// What one record takes, near enough to tell large from small.
const RECORD_BYTES: usize = 512;

/// Does work on about so many bytes; if they are many, other tasks go on elsewhere meanwhile.
pub(crate) fn heavy<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    let flavor = Handle::try_current().map(|handle| handle.runtime_flavor());
    if bytes > HEAVY_BYTES && flavor.is_ok_and(|flavor| flavor == RuntimeFlavor::MultiThread) {
        return tokio::task::block_in_place(work);
    }
    work()
}

/// About how many bytes an event's records take.
pub(crate) fn event_bytes(change: &EventChange) -> usize {
    match change {
        EventChange::Record(_) => RECORD_BYTES,
        EventChange::Module(change) => RECORD_BYTES * (1 + change.records.len()),
    }
}

/// About how many bytes an answer takes.
pub(crate) fn reply_bytes(reply: &Reply) -> usize {
    let rows = match reply {
        Reply::Outcome(Outcome::Accepted(accepted)) => {
            return accepted.delta.events.iter().map(|event| event_bytes(&event.change)).sum();
        }
        Reply::Answer(Answer::Events(found)) => {
            let events = found.events.iter().flatten();
            return events.map(|event| event_bytes(&event.change)).sum();
        }
        Reply::Answer(Answer::Snapshot(snapshot)) => {
            usize::try_from(snapshot.head.rows).unwrap_or(usize::MAX)
        }
        Reply::Answer(Answer::Page(page)) => page.rows.len(),
        Reply::Answer(Answer::Query(page)) => page.rows.len(),
        Reply::Answer(Answer::Orders(orders)) => orders.orders.len(),
        Reply::Answer(Answer::Sync(delta)) => delta.tables.iter().map(|t| t.rows.len()).sum(),
        Reply::Answer(Answer::Archive(entries)) => {
            entries.iter().flat_map(|entry| &entry.tables).map(|table| table.records.len()).sum()
        }
        Reply::Answer(
            Answer::Head(_) | Answer::Log(_) | Answer::Sequences(_) | Answer::DefinitionCheck(_),
        )
        | Reply::Outcome(Outcome::Rejected(_))
        | Reply::Index(_)
        | Reply::Changed(_)
        | Reply::Status(_)
        | Reply::Refused(_)
        | Reply::Rejected(_)
        | Reply::Following(_)
        | Reply::Posted
        | Reply::LastPost(_) => 0,
    };
    rows.saturating_mul(RECORD_BYTES)
}
