//! Every bound of this room, in one table, with units and reasons.
//!
//! A bound that matters to operators is also in a configuration struct; what stands here is its
//! default. A bound that stands only here is one nobody should need to turn.

use std::time::Duration;

// --- the shared log (disk/wal) ---------------------------------------------------------------

/// Size of a log segment, preallocated. Larger: fewer preallocations; smaller: space returns sooner.
pub const WAL_SEGMENT_BYTES: u64 = 16 << 20;
/// The smallest segment accepted: a header, a turn and the reserve must fit.
pub const WAL_SEGMENT_BYTES_MIN: u64 = 4 << 10;
/// Payload bytes that may wait for the log's writer before `submit` blocks. One turn writes them all.
pub const WAL_QUEUE_BYTES: usize = 8 << 20;
/// Submissions that may wait for the log's writer before `submit` blocks.
pub const WAL_QUEUE_LENGTH: usize = 16 << 10;
/// Payload bytes of recent entries kept in memory for all groups together, so that replication to
/// followers that keep up never reads the disk.
pub const WAL_CACHE_BYTES: usize = 8 << 20;
/// Live bytes of the oldest segment that are rewritten by one turn: bounds what a turn waits for.
pub const WAL_CARRY_BYTES: usize = 256 << 10;
/// Sealed segments that may stand before the oldest is emptied by rewriting what still lives in it.
pub const WAL_CARRY_AFTER_SEGMENTS: usize = 4;
/// A submission up to this size may use the reserve that is kept while the disk is full: votes,
/// marks and the blank entry of a new leader.
pub const WAL_TINY_BYTES: usize = 4 << 10;
/// How often a full disk is asked again when nobody writes.
pub const WAL_FULL_RETRY: Duration = Duration::from_millis(500);
/// Most bytes one entry may have: above it a submission is refused, not written.
pub const WAL_ENTRY_BYTES_MAX: usize = 64 << 20;
