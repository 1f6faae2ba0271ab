//! Entry codec: the bytes of an entry in the log: a version, a kind, then the payload unchanged.
//!
//! Refused: an unknown version or kind; the error names the index of the entry.

use bytes::Bytes;
use model::codec;
use openraft::EntryPayload;

use crate::consensus::{EntryData, RaftPayload, ReplicatedEntry, log_id};
use crate::disk;
use crate::error::Fatal;

/// The format of an entry's bytes in the log.
const FORMAT: u8 = 1;
const BLANK: u8 = 0;
const NORMAL: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// Encodes the payload of an entry for the log.
pub(super) fn encode(payload: &RaftPayload) -> Bytes {
    let (kind, body): (u8, &[u8]) = match payload {
        EntryPayload::Blank => (BLANK, &[]),
        EntryPayload::Normal(EntryData(bytes)) => (NORMAL, bytes),
        EntryPayload::Membership(membership) => {
            (MEMBERSHIP, &codec::encode_as(codec::FormatKind::RaftMembership, membership))
        }
    };
    let mut bytes = Vec::with_capacity(2 + body.len());
    bytes.extend([FORMAT, kind]);
    bytes.extend(body);
    bytes.into()
}

/// Decodes an entry of the log.
pub(super) fn decode(entry: &disk::StoredEntry) -> Result<ReplicatedEntry, Fatal> {
    let disk::StoredEntry { index, term, bytes } = entry;
    let bad = |reason: String| Fatal(format!("log entry {index} {reason}"));
    let payload = match *bytes.as_ref() {
        [FORMAT, BLANK] => EntryPayload::Blank,
        [FORMAT, NORMAL, ..] => EntryPayload::Normal(EntryData(bytes.slice(2..))),
        [FORMAT, MEMBERSHIP, ref body @ ..] => EntryPayload::Membership(
            codec::decode_as(codec::FormatKind::RaftMembership, body)
                .map_err(|error| bad(format!("cannot be read: {error}")))?,
        ),
        [FORMAT, kind, ..] => return Err(bad(format!("is of an unknown kind, {kind}"))),
        [format, ..] => {
            return Err(bad(format!("has format {format}; this build reads format {FORMAT}")));
        }
        [] => return Err(bad("is empty".to_owned())),
    };
    Ok(ReplicatedEntry { log_id: log_id(*term, *index), payload })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::types::Member;

    #[test]
    fn entries_round_trip_and_unknown_bytes_are_rejected() {
        let membership = openraft::Membership::new(
            vec![BTreeSet::from([7])],
            BTreeMap::from([(7, Member::default())]),
        )
        .unwrap();
        for payload in [
            EntryPayload::Blank,
            EntryPayload::Normal(EntryData(Bytes::from_static(b"x"))),
            EntryPayload::Membership(membership),
        ] {
            let bytes = encode(&payload);
            let back = decode(&disk::StoredEntry { index: 4, term: 2, bytes }).unwrap();
            assert_eq!(back, ReplicatedEntry { log_id: log_id(2, 4), payload });
        }
        for bad in [&b""[..], &[9, 1], &[1, 9], &[1, 2, 3]] {
            let bytes = Bytes::copy_from_slice(bad);
            let error = decode(&disk::StoredEntry { index: 4, term: 2, bytes }).unwrap_err();
            assert!(error.to_string().starts_with("log entry 4 "), "{error}");
        }
    }
}
