//! Business day: the day by which client and server tell whether they mean the same day.
//!
//! It is the UTC day of the commit time, so all replicas agree on it.

use model::{Object, Timestamp};

use crate::publish::text;

/// Every name under which clients send the business day they believe in.
pub(crate) const MARKERS: [&str; 8] = [
    "snapshotMarker",
    "snapshot_marker",
    "dayMarker",
    "day_marker",
    "businessDate",
    "business_date",
    "businessDay",
    "snapshotDay",
];

/// The day a client believes in, if it says so.
pub(crate) fn sent(body: &Object) -> Option<String> {
    text(body, &MARKERS)
}

/// The day something is committed on.
pub(crate) fn of(at: Timestamp) -> String {
    at.to_day()
}
