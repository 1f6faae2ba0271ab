//! Offload: work on large messages, kept off the thread that keeps the cluster together.
//!
//! One thread of a process sends heartbeats and answers peers. Writing or reading a message of many
//! megabytes on it would hold them up long enough for others to believe that this node is gone.

use model::{Answer, EventChange, Outcome};
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::limits::OFFLOAD_BYTES;
use crate::message::PeerReply;

/// What one record takes, near enough to tell large from small.
const RECORD_BYTES: usize = 512;

/// Does work on about so many bytes; if they are many, other tasks go on elsewhere meanwhile.
pub fn offload<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    let flavor = Handle::try_current().map(|handle| handle.runtime_flavor());
    if bytes > OFFLOAD_BYTES && flavor.is_ok_and(|flavor| flavor == RuntimeFlavor::MultiThread) {
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
pub(crate) fn reply_bytes(reply: &PeerReply) -> usize {
    let rows = match reply {
        PeerReply::Outcome(Outcome::Accepted(accepted)) => {
            return accepted.delta.events.iter().map(|event| event_bytes(&event.change)).sum();
        }
        PeerReply::Answer(Answer::Events(found)) => {
            let events = found.events.iter().flatten();
            return events.map(|event| event_bytes(&event.change)).sum();
        }
        PeerReply::Answer(Answer::Snapshot(snapshot)) => {
            usize::try_from(snapshot.head.rows).unwrap_or(usize::MAX)
        }
        PeerReply::Answer(Answer::Page(page)) => page.rows.len(),
        PeerReply::Answer(Answer::Query(page)) => page.rows.len(),
        PeerReply::Answer(Answer::Call(answer)) => return answer.len(),
        PeerReply::Answer(Answer::Sync(delta)) => delta.tables.iter().map(|t| t.rows.len()).sum(),
        PeerReply::Answer(Answer::Archive(entries)) => {
            entries.iter().flat_map(|entry| &entry.tables).map(|table| table.records.len()).sum()
        }
        PeerReply::Answer(
            Answer::Head(_) | Answer::Log(_) | Answer::Sequences(_) | Answer::DefinitionCheck(_),
        )
        | PeerReply::Outcome(Outcome::Rejected(_))
        | PeerReply::Index(_)
        | PeerReply::Changed(_)
        | PeerReply::Status(_)
        | PeerReply::Refused(_)
        | PeerReply::Rejected(_)
        | PeerReply::Following(_)
        | PeerReply::Posted
        | PeerReply::LastPost(_)
        | PeerReply::Condition(_) => 0,
    };
    rows.saturating_mul(RECORD_BYTES)
}
