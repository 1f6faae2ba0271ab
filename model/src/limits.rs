//! Limits: every bound of this room, with its unit and its reason. What an operator may set is in
//! the definition instead.

/// Most verbs of one write: a purge of a busy day's orders fits, a table copied whole does not.
pub const VERBS_MAX: usize = 10_000;
/// Events every branch keeps in memory, so that a client back within a moment needs no disk.
pub const EVENTS_KEPT_MIN: usize = 256;
/// Events of one sealed segment. Part of the checkpoint's format: boundaries must be equal on all
/// replicas, for ever.
pub const SEGMENT_EVENTS: u64 = 256;
/// Ordinals of one record page. Part of the checkpoint's format.
pub const RECORD_PAGE: u64 = 256;
/// Serials of one page of outcomes. Part of the checkpoint's format.
pub const OUTCOME_PAGE: u64 = 1024;
/// Expired outcomes forgotten by one command: two would keep up, more catches up after a burst,
/// few enough that no command is slow.
pub const EVICTIONS_PER_COMMAND: usize = 8;
/// Tables one command may name: more than any module has.
pub const TABLES_NAMED_MAX: usize = 256;
/// Highest revision a client may set: every number up to it is exact in JavaScript, and counting on
/// from it never ends.
pub const REVISION_MAX: u64 = (1 << 53) - 1;
/// Entries a module's history keeps, the newest: a purge and a reset a day for most of a month.
pub const HISTORY_ENTRIES_MAX: usize = 50;
/// Records a module's history keeps over all entries. The newest entry is always kept whole, or a
/// purge would lose what it took.
pub const HISTORY_RECORDS_MAX: u64 = 100_000;
/// Bytes of such records, as a checkpoint holds them.
pub const HISTORY_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Records of one page of a history entry. Part of the checkpoint's format.
pub const HISTORY_PAGE: usize = 256;
/// Records of a history entry's table that are named where the entry is shown in short.
pub const HISTORY_SAMPLE: usize = 5;
/// Reservations listed, the newest; older ones are still in the log.
pub const RESERVATIONS_KEPT: usize = 1_000;
/// Sequences a module may make by itself, out of reservations for fields without a rule.
pub const RULES_MADE_MAX: usize = 256;
/// Digits and places up to which a number in a key is written without an exponent: beyond every
/// amount and bar code, short of a key of hundreds of zeros. Part of the keys' format.
pub const PLAIN_DIGITS_MAX: usize = 64;
/// Names of removed rows a table remembers the places of, the newest, so that a list goes on from a
/// row that is gone: more than go while somebody turns a page, half a megabyte at most in practice.
pub const REMOVED_NAMES_MAX: usize = 4_096;
/// Longest such name, in bytes; a row with a longer one is not remembered.
pub const REMOVED_NAME_BYTES_MAX: usize = 256;
