//! Codec: the only file that calls postcard. Every value that outlives the process or leaves the
//! node is written in an envelope that says what it is and in which version.
//!
//! ```text
//! value          kind u8 · version u8 · postcard bytes
//! log entry      level u16 (little endian) · value
//! ```
//!
//! postcard does not describe itself: without the envelope an inserted field would silently change
//! what old bytes mean. Promise: a value is written in the oldest version that can hold it, so that
//! bytes written once are the same bytes for ever (an event's hash is taken over them), and every
//! version ever released is read. A log entry's level is read before anything of its content, so
//! that an entry of a newer build is "upgrade this node", never "damaged". Refused: bytes of
//! another kind, of a newer version, damaged bytes, and bytes with more behind them.
//!
//! How a type gets a new version: docs/decisions/0006-every-byte-that-outlives-us-has-a-version.md.

use serde::{Serialize, de::DeserializeOwned};

/// The level of these sources. Whoever adds what an older build could not read raises it by one.
const CURRENT_LEVEL: u16 = 1;

/// The level after it: that of a build with the feature `next-level`, which tests upgrade to.
pub const NEXT_LEVEL: u16 = CURRENT_LEVEL + 1;

/// The highest level this build writes and applies. A level is agreed by the whole cluster
/// ([`CatalogueChange::RaiseLevel`](crate::CatalogueChange::RaiseLevel)); what an older build could
/// not read is not written before its level is agreed
/// ([`Catalogue::check_level`](crate::Catalogue::check_level)).
pub const LEVEL: u16 = if cfg!(feature = "next-level") { NEXT_LEVEL } else { CURRENT_LEVEL };

/// The level a new cluster begins with.
pub const FIRST_LEVEL: u16 = 1;

/// Bytes of the level in front of a log entry.
const LEVEL_BYTES: usize = 2;

/// What some bytes hold. Append-only: a number is never given twice.
///
/// Numbers below 16 are not used: development builds before level 1 wrote a version there, and
/// their data is so refused by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FormatKind {
    /// A partition's log entry.
    Batch = 16,
    /// A log entry of group 0.
    CatalogueEntry = 17,
    /// The state of group 0.
    Catalogue = 18,
    /// An event, in the store and within a segment.
    Event = 19,
    /// A record in the store.
    Record = 20,
    /// A module's schema in a checkpoint.
    Schema = 21,
    /// What a partition's checkpoint says of the whole partition.
    PartitionHead = 32,
    /// What a checkpoint says of one branch:module.
    BranchHead = 33,
    /// Records of one table in a checkpoint.
    RecordPage = 34,
    /// Names of lately removed rows in a checkpoint.
    RemovedRows = 35,
    /// Decisions of the dedup table in a checkpoint.
    DedupPage = 36,
    /// A number that was taken, beside its decision.
    DedupReservation = 37,
    /// A refusal, beside its decision.
    DedupRejection = 38,
    /// What a checkpoint says of one entry of the archive.
    ArchiveHead = 39,
    /// Records of one entry of the archive in a checkpoint.
    ArchivePage = 40,
    /// Events of one branch:module in a checkpoint.
    EventSegment = 41,
    /// What a stored procedure is called with.
    ProcedureArguments = 42,
    /// What a stored procedure answers.
    ProcedureAnswer = 43,
    /// A partition's log entry: a piece of a batch that is too large for one.
    BatchPiece = 44,
    /// The pieces of such a batch in a checkpoint.
    StagedBatch = 45,
    /// Something that only a build with the feature `next-level` writes.
    NextLevel = 63,
    /// A vote of a Raft group.
    RaftVote = 64,
    /// A position in a Raft log.
    RaftLogId = 65,
    /// The members of a Raft group.
    RaftMembership = 66,
    /// What a checkpoint of a replica consists of.
    CheckpointManifest = 67,
    /// A call between the replicas of a Raft group.
    RaftCall = 68,
    /// The answer to such a call.
    RaftResponse = 69,
    /// A request of one node to another.
    PeerRequest = 96,
    /// The answer to such a request.
    PeerReply = 97,
    /// What one node sends another without waiting for an answer.
    PeerCast = 98,
    /// What a test writes.
    Test = 240,
}

/// Bytes that are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// There is not even an envelope.
    #[error("{found} bytes where a {what:?} should be")]
    Short {
        /// What was expected.
        what: FormatKind,
        /// How many bytes there are.
        found: usize,
    },
    /// Written by a development build before level 1.
    #[error(
        "a {what:?} of a development build before level 1, which is not read: begin with an empty \
         data directory"
    )]
    BeforeLevelOne {
        /// What was expected.
        what: FormatKind,
    },
    /// Another value than was expected.
    #[error("a value of kind {found} where a {what:?} should be")]
    FormatKind {
        /// What was expected.
        what: FormatKind,
        /// The kind that was found.
        found: u8,
    },
    /// Written by a newer build.
    #[error("a {what:?} of version {found}; this build reads up to {known}: upgrade this node")]
    Newer {
        /// What was expected.
        what: FormatKind,
        /// The version that was found.
        found: u8,
        /// The newest version this build reads.
        known: u8,
    },
    /// The right kind and version, but not a value of the type.
    #[error("damaged {what:?}: {reason}")]
    Damaged {
        /// What was expected.
        what: FormatKind,
        /// What the decoder said.
        reason: String,
    },
}

/// A log entry that this build must not apply, or cannot read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// The cluster has agreed on a level this build does not know.
    #[error("the log needs level {needed}, this build has {LEVEL}: upgrade this node")]
    Level {
        /// The level the entry asks for.
        needed: u16,
    },
    /// The bytes are not an entry.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// A type that is written in an envelope.
///
/// A type of one version is declared by [`versioned!`](crate::versioned). When it gets a second,
/// the old struct stays beside it, `write` writes the old version of every value that the old
/// version can hold, and `read` migrates it.
pub trait Versioned: Sized {
    /// What it is.
    const KIND: FormatKind;
    /// The newest version this build reads and writes.
    const VERSION: u8;

    /// Appends the value's bytes; the version they are of.
    fn write(&self, to: &mut Vec<u8>) -> u8;

    /// Reads the bytes of a version from 1 to [`VERSION`](Versioned::VERSION).
    ///
    /// # Errors
    /// [`CodecError::Damaged`].
    fn read(version: u8, bytes: &[u8]) -> Result<Self, CodecError>;
}

/// Declares types of one version: `versioned!(Batch => Batch, Event => Event)`, each with its
/// [`FormatKind`](crate::codec::FormatKind).
#[macro_export]
macro_rules! versioned {
    ($($type:ty => $kind:ident),+ $(,)?) => {$(
        impl $crate::codec::Versioned for $type {
            const KIND: $crate::codec::FormatKind = $crate::codec::FormatKind::$kind;
            const VERSION: u8 = 1;

            fn write(&self, to: &mut Vec<u8>) -> u8 {
                $crate::codec::append(self, to);
                Self::VERSION
            }

            fn read(_: u8, bytes: &[u8]) -> Result<Self, $crate::codec::CodecError> {
                $crate::codec::take(Self::KIND, bytes)
            }
        }
    )+};
}

/// Encodes a value in its envelope.
pub fn encode<T: Versioned>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    enclose(value, &mut bytes);
    bytes
}

/// Appends a value in its envelope.
fn enclose<T: Versioned>(value: &T, to: &mut Vec<u8>) {
    to.push(T::KIND as u8);
    // Which version it is, is known once it is written.
    let version_at = to.len();
    to.push(0);
    to[version_at] = value.write(to);
}

/// Decodes a value written by [`encode`], of this version or an older one.
///
/// # Errors
/// [`CodecError`]: what the bytes are instead.
pub fn decode<T: Versioned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (version, body) = open(T::KIND, T::VERSION, bytes)?;
    T::read(version, body)
}

/// Encodes a log entry that every node of this level and above may apply.
pub fn encode_entry<T: Versioned>(level: u16, value: &T) -> Vec<u8> {
    // The level lies outside the envelope: a build that knows neither the kind nor the version of a
    // newer entry still reads that it must be upgraded.
    let mut bytes = level.to_le_bytes().to_vec();
    enclose(value, &mut bytes);
    bytes
}

/// Decodes a log entry and its level, which is looked at first.
///
/// # Errors
/// [`EntryError`]: this build must not apply it, or cannot read it.
pub fn decode_entry<T: Versioned>(bytes: &[u8]) -> Result<(u16, T), EntryError> {
    let short = CodecError::Short { what: T::KIND, found: bytes.len() };
    let (level, value) = bytes.split_first_chunk::<LEVEL_BYTES>().ok_or(short)?;
    let level = u16::from_le_bytes(*level);
    // Before `decode`: an entry of a newer level may hold what this build takes for damage.
    if level > LEVEL {
        return Err(EntryError::Level { needed: level });
    }
    Ok((level, decode(value)?))
}

/// Which kind a log entry is of, by its envelope; `None` where it is too short to have one.
pub(crate) fn entry_kind(bytes: &[u8]) -> Option<u8> {
    bytes.get(LEVEL_BYTES).copied()
}

/// Encodes a value of a type that is not ours to declare; its only version is 1.
pub fn encode_as<T: Serialize + ?Sized>(kind: FormatKind, value: &T) -> Vec<u8> {
    // Types of other crates have one version: who owns them cannot give them a second one here.
    let mut bytes = vec![kind as u8, 1];
    append(value, &mut bytes);
    bytes
}

/// Decodes a value written by [`encode_as`].
///
/// # Errors
/// [`CodecError`]: what the bytes are instead.
pub fn decode_as<T: DeserializeOwned>(kind: FormatKind, bytes: &[u8]) -> Result<T, CodecError> {
    let (_, body) = open(kind, 1, bytes)?;
    take(kind, body)
}

/// The bytes of a value without an envelope, for hashes and sizes: they are never stored.
pub fn bare<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    append(value, &mut bytes);
    bytes
}

/// How many bytes [`bare`] would give, without writing them.
///
/// # Panics
/// As [`append`].
pub fn encoded_len<T: Serialize + ?Sized>(value: &T) -> u64 {
    let size = postcard::serialize_with_flavor(value, postcard::ser_flavors::Size::default());
    size.expect("our types are sized for postcard") as u64
}

/// Checks an envelope; the version and what is behind it.
fn open(kind: FormatKind, known: u8, bytes: &[u8]) -> Result<(u8, &[u8]), CodecError> {
    // Kind and version before anything else: postcard would read bytes of another type without an
    // error, as it does not describe itself.
    let [found, version, body @ ..] = bytes else {
        return Err(CodecError::Short { what: kind, found: bytes.len() });
    };
    match (*found, *version) {
        // Development builds wrote a version where the kind is now: theirs is refused by name, or
        // it would be told as damage.
        (1..16, _) => Err(CodecError::BeforeLevelOne { what: kind }),
        (found, _) if found != kind as u8 => Err(CodecError::FormatKind { what: kind, found }),
        // No build ever wrote version 0: these are zeroed or torn bytes, not an old format.
        (_, 0) => Err(CodecError::Damaged { what: kind, reason: "version 0".to_owned() }),
        (_, found) if found > known => Err(CodecError::Newer { what: kind, found, known }),
        (_, version) => Ok((version, body)),
    }
}

/// Appends a value's postcard bytes.
///
/// # Panics
/// When a type cannot be encoded by postcard at all (an unsized sequence): a defect of the type,
/// found by its first test.
pub fn append<T: Serialize + ?Sized>(value: &T, to: &mut Vec<u8>) {
    // Into the buffer that is there: an entry is encoded once, behind its level, without a copy.
    *to = postcard::to_extend(value, std::mem::take(to)).expect("our types are sized for postcard");
}

/// Reads a value's postcard bytes, all of them.
///
/// # Errors
/// [`CodecError::Damaged`].
pub fn take<T: DeserializeOwned>(what: FormatKind, bytes: &[u8]) -> Result<T, CodecError> {
    let damaged = |reason: String| CodecError::Damaged { what, reason };
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        // A shorter type reads a prefix of a longer one without complaint. Only the rest tells.
        Ok((_, rest)) => Err(damaged(format!("{} bytes too many", rest.len()))),
        Err(error) => Err(damaged(error.to_string())),
    }
}

/// For `#[serde(with = "codec::enveloped")]`: values within another value, each in an envelope of
/// its own. So a list of events stays readable when the version of an event rises.
pub mod enveloped {
    use std::sync::Arc;

    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};
    use serde_bytes::ByteBuf;

    use super::{CodecError, Versioned, decode, encode};

    /// Writes each value in its envelope.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<T: Versioned, S: Serializer>(
        values: &[Arc<T>],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(values.iter().map(|value| ByteBuf::from(encode(&**value))))
    }

    /// Reads each value out of its envelope.
    ///
    /// # Errors
    /// The deserializer's, and what is wrong with an envelope.
    pub fn deserialize<'de, T: Versioned, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<Arc<T>>, D::Error> {
        opened(Vec::deserialize(from)?).map_err(D::Error::custom)
    }

    fn opened<T: Versioned>(values: Vec<ByteBuf>) -> Result<Vec<Arc<T>>, CodecError> {
        values.into_iter().map(|bytes| decode(&bytes).map(Arc::new)).collect()
    }

    /// The same for values that may not be there at all.
    pub mod optional {
        use super::*;

        /// As [`serialize`](super::serialize).
        ///
        /// # Errors
        /// The serializer's.
        pub fn serialize<T: Versioned, S: Serializer>(
            values: &Option<Vec<Arc<T>>>,
            to: S,
        ) -> Result<S::Ok, S::Error> {
            let written = |values: &Vec<Arc<T>>| {
                values.iter().map(|value| ByteBuf::from(encode(&**value))).collect::<Vec<_>>()
            };
            match values.as_ref().map(written) {
                Some(values) => to.serialize_some(&values),
                None => to.serialize_none(),
            }
        }

        /// As [`deserialize`](super::deserialize).
        ///
        /// # Errors
        /// The deserializer's, and what is wrong with an envelope.
        pub fn deserialize<'de, T: Versioned, D: Deserializer<'de>>(
            from: D,
        ) -> Result<Option<Vec<Arc<T>>>, D::Error> {
            let values = Option::<Vec<ByteBuf>>::deserialize(from)?;
            values.map(opened).transpose().map_err(D::Error::custom)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Pair(String, u64);

    versioned!(Pair => Test);

    /// The second version of a type: what the first can hold is written as the first.
    #[derive(Debug, PartialEq)]
    struct Grown {
        pair: Pair,
        note: Option<u8>,
    }

    impl Versioned for Grown {
        const KIND: FormatKind = FormatKind::Test;
        const VERSION: u8 = 2;

        fn write(&self, to: &mut Vec<u8>) -> u8 {
            match self.note {
                None => self.pair.write(to),
                Some(note) => {
                    append(&(&self.pair, note), to);
                    Self::VERSION
                }
            }
        }

        fn read(version: u8, bytes: &[u8]) -> Result<Self, CodecError> {
            if version == Pair::VERSION {
                return Ok(Self { pair: take(Self::KIND, bytes)?, note: None });
            }
            let (pair, note) = take(Self::KIND, bytes)?;
            Ok(Self { pair, note: Some(note) })
        }
    }

    fn pair() -> Pair {
        Pair("dar".to_owned(), 7)
    }

    #[test]
    fn what_is_encoded_is_decoded_and_says_its_kind_and_version() {
        let bytes = encode(&pair());
        assert_eq!(bytes, [240, 1, 3, b'd', b'a', b'r', 7], "golden bytes");
        assert_eq!(decode::<Pair>(&bytes), Ok(pair()));
        assert_eq!(decode_as::<(String, u64)>(FormatKind::Test, &bytes), Ok(("dar".to_owned(), 7)));
        assert_eq!(encode_as(FormatKind::Test, &("dar", 7_u64)), bytes);
    }

    #[test]
    fn a_value_is_written_in_the_oldest_version_that_can_hold_it() {
        let (old, new) =
            (Grown { pair: pair(), note: None }, Grown { pair: pair(), note: Some(3) });
        assert_eq!(encode(&old), encode(&pair()));
        assert_eq!(encode(&new), [240, 2, 3, b'd', b'a', b'r', 7, 3]);
        assert_eq!(decode::<Grown>(&encode(&old)), Ok(old));
        assert_eq!(decode::<Grown>(&encode(&new)), Ok(new));
    }

    #[test]
    fn foreign_newer_and_damaged_bytes_are_refused_by_name() {
        let what = FormatKind::Test;
        let refused = |bytes: &[u8]| decode::<Pair>(bytes).unwrap_err();
        assert_eq!(refused(&[240]), CodecError::Short { what, found: 1 });
        assert_eq!(refused(&[4, 1, 3]), CodecError::BeforeLevelOne { what });
        assert_eq!(refused(&[16, 1, 3]), CodecError::FormatKind { what, found: 16 });
        assert_eq!(refused(&[240, 2, 3]), CodecError::Newer { what, found: 2, known: 1 });
        assert!(matches!(refused(&[240, 1, 3]), CodecError::Damaged { .. }));
        assert!(matches!(refused(&[240, 1, 0, 0, 0]), CodecError::Damaged { .. }), "one too many");
        assert!(matches!(refused(&[240, 0, 0, 0]), CodecError::Damaged { .. }), "no version");
    }

    #[test]
    fn the_level_of_an_entry_is_read_before_its_content() {
        let mut entry = encode_entry(LEVEL, &pair());
        assert_eq!(decode_entry::<Pair>(&entry), Ok((LEVEL, pair())));
        entry[..2].copy_from_slice(&(LEVEL + 1).to_le_bytes());
        entry.truncate(2);
        let newer = decode_entry::<Pair>(&entry).unwrap_err();
        assert_eq!(newer, EntryError::Level { needed: LEVEL + 1 });
        assert!(newer.to_string().ends_with("upgrade this node"), "{newer}");
    }
}
