//! The names of things: newtypes, so that a branch can never be passed where a module is meant.
//!
//! Promise: a name that exists here has passed decision 25's limits; `parse` is the only way in.
//! Refused: names are never normalised or trimmed; what a client sent is what is stored.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::limits::VERSION_MAX;

/// Longest branch id, in bytes.
pub const BRANCH_ID_BYTES_MAX: usize = 128;
/// Longest module id, in bytes.
pub const MODULE_ID_BYTES_MAX: usize = 63;
/// Longest table name, in bytes.
pub const TABLE_NAME_BYTES_MAX: usize = 63;

/// A name that breaks its rule: what kind of name, what was given, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {given:?} is not allowed: {rule}")]
pub struct BadName {
    /// What the name was meant for: `branch id`, `module id`, `table name`.
    pub kind: &'static str,
    /// The name as sent, cut at 128 bytes.
    pub given: String,
    /// The rule in words.
    pub rule: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $rule:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $type(Arc<str>);

        impl $type {
            /// Checks the name against its rule.
            ///
            /// # Errors
            /// [`BadName`] when the rule is broken.
            pub fn parse(name: &str) -> Result<Self, BadName> {
                let check: fn(&str) -> bool = $check;
                if check(name) {
                    return Ok(Self(name.into()));
                }
                // The refusal shows the name; one of megabytes would be sent back whole.
                let mut cut = name.len().min(128);
                while !name.is_char_boundary(cut) {
                    cut -= 1;
                }
                Err(BadName { kind: $kind, given: name[..cut].to_owned(), rule: $rule })
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let name = String::deserialize(from)?;
                Self::parse(&name).map_err(serde::de::Error::custom)
            }
        }
    };
}

name!(
    /// A shop's whole world, for example `dar` or `lab:test-pad`.
    BranchId,
    "branch id",
    "1 to 128 bytes without control characters, '/' or '\\', and not '.' or '..'",
    |name| {
        !name.is_empty()
            && name.len() <= BRANCH_ID_BYTES_MAX
            && name != "."
            && name != ".."
            && !name.chars().any(|c| c.is_control() || c == '/' || c == '\\')
    }
);

name!(
    /// A named set of tables inside a branch, for example `pos`.
    ModuleId,
    "module id",
    "1 to 63 characters out of a-z, 0-9, '_' and '-'",
    |name| {
        !name.is_empty()
            && name.len() <= MODULE_ID_BYTES_MAX
            && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
    }
);

name!(
    /// A table's canonical name, for example `order_header`.
    TableName,
    "table name",
    "a letter or '_', then up to 62 letters, digits or '_'",
    |name| {
        name.len() <= TABLE_NAME_BYTES_MAX
            && name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    }
);

/// The unit of order and ownership: one module of one branch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BranchKey {
    /// The shop.
    pub branch: BranchId,
    /// The set of tables.
    pub module: ModuleId,
}

impl BranchKey {
    /// Joins two checked names.
    pub fn new(branch: BranchId, module: ModuleId) -> Self {
        Self { branch, module }
    }
}

impl fmt::Display for BranchKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.branch, self.module)
    }
}

/// A record's primary-key values as one text, equal exactly where the values are (decision 17).
/// Made by [`Table::key_of`](crate::Table::key_of) and its siblings alone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RecordKey(pub Arc<str>);

impl RecordKey {
    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names one command for ever: the same id is the same command, after any number of retries
/// (decision 13). One outcome is remembered per branch:module and id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CommandId {
    /// The client's id or session; empty where the request id alone names the command, as with
    /// the REST header `Idempotency-Key`. With one `@` in front: a server's own; see
    /// [`Self::is_server_named`].
    pub session: String,
    /// The request's id within the session, 1 to 256 bytes.
    pub request: String,
}

/// The session of commands whose clients gave no id: a server made it up.
pub const SERVER_SESSION: &str = "@server";

impl CommandId {
    /// The id of a command that its client did not name. The text must be one no other request
    /// has, such as a UUID.
    pub fn server_named(request: impl Into<String>) -> Self {
        Self { session: SERVER_SESSION.to_owned(), request: request.into() }
    }

    /// The id of a command that a client named, within its session. A session that begins with `@`
    /// gets one more of them, so that no client speaks as a server.
    pub fn of_client(session: &str, request: impl Into<String>) -> Self {
        let at = if session.starts_with('@') { "@" } else { "" };
        Self { session: format!("{at}{session}"), request: request.into() }
    }

    /// Whether a server made the id up, so that no client can repeat the command later.
    pub fn is_server_named(&self) -> bool {
        self.session.starts_with('@') && !self.session.starts_with("@@")
    }
}

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.session, self.request)
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $type:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $type(pub $inner);

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// A process in the cluster. Numbered from 1; never reused.
    NodeId,
    u64
);
number!(
    /// One node's copy of one partition. Never reused: a copy that lost its log is a new replica.
    ReplicaId,
    u64
);
number!(
    /// A fixed bucket of branches, numbered 1 to P. The same number names its Raft group.
    PartitionId,
    u16
);
number!(
    /// A position in a branch:module's event log (JSON `sequence`); the first event has 1.
    Offset,
    u64
);
number!(
    /// A module's change counter (JSON `version` of a module); a new module has 1.
    Revision,
    u64
);
number!(
    /// The number of a branch's log (JSON `epoch`); changes only when the log is replaced.
    Incarnation,
    u64
);
number!(
    /// The number of an agreed placement table; rises by one with each change of it.
    PlacementEpoch,
    u64
);

impl Revision {
    /// The revision one change on. At the limit it stays: a module that took a client's absurd
    /// revision goes on, and a reset begins again.
    #[must_use]
    pub fn next(self) -> Self {
        // Not an error: a module whose revision a client set to the limit must still take writes.
        if self.0 < VERSION_MAX { Self(self.0 + 1) } else { self }
    }
}

impl Offset {
    /// The position after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Milliseconds since 1970-01-01T00:00Z. A value, never a clock: the leader stamps it.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// As the wire shows it: `2026-11-21T00:19:37.740Z`.
    pub fn to_iso(self) -> String {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => format!("{time:.3}"),
            Err(_) => "1970-01-01T00:00:00.000Z".to_owned(),
        }
    }

    /// The UTC day, `2026-11-21`: what a `date` default and the snapshot marker show.
    pub fn to_day(self) -> String {
        let mut iso = self.to_iso();
        iso.truncate(10);
        iso
    }

    /// Reads an ISO 8601 instant (`Z` or an offset) or a plain day; `None` when it is neither.
    pub fn parse(text: &str) -> Option<Self> {
        Self::instant(text).map(|time| Self(time.as_millisecond()))
    }

    /// Reads the same, to the last digit.
    pub(crate) fn instant(text: &str) -> Option<jiff::Timestamp> {
        if let Ok(time) = text.parse::<jiff::Timestamp>() {
            return Some(time);
        }
        // Clients and seeds write times without a zone; they mean UTC, as in the original.
        let time: jiff::civil::DateTime = text.parse().ok()?;
        time.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_outside_the_rules_are_refused_and_say_why() {
        for bad in ["", ".", "..", "a/b", "a\\b", "a\nb"] {
            assert!(BranchId::parse(bad).is_err(), "{bad:?}");
        }
        assert!(BranchId::parse("lab:test-pad").is_ok());
        assert!(BranchId::parse("دار").is_ok());
        let error = ModuleId::parse("Pos").unwrap_err();
        assert_eq!(
            error.to_string(),
            "module id \"Pos\" is not allowed: 1 to 63 characters out of a-z, 0-9, '_' and '-'"
        );
        assert!(TableName::parse("1st").is_err());
        assert!(TableName::parse("order_header").is_ok());
    }

    #[test]
    fn a_timestamp_reads_back_what_it_shows() {
        let time = Timestamp(1_795_220_377_740);
        assert_eq!(Timestamp::parse(&time.to_iso()), Some(time));
        assert_eq!(Timestamp(0).to_iso(), "1970-01-01T00:00:00.000Z");
        assert_eq!(
            Timestamp::parse("2026-11-21").map(Timestamp::to_day),
            Some("2026-11-21".into())
        );
        assert_eq!(Timestamp::parse("soon"), None);
    }
}
