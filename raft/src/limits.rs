//! Every bound of this room, in one table, with units and reasons.
//!
//! A bound that matters to operators is also in a configuration struct; what stands here is its
//! default. A bound that stands only here is one nobody should need to turn.

use std::time::Duration;

// --- the shared log (disk/wal) ---------------------------------------------------------------

/// Size of a log segment, preallocated. Larger: fewer of them; smaller: space returns sooner.
pub const WAL_SEGMENT_BYTES: u64 = 16 << 20;
/// The smallest segment accepted: a header, a turn and the reserve must fit.
pub const WAL_SEGMENT_BYTES_MIN: u64 = 4 << 10;
/// Payload bytes that may wait for the log's writer before `submit` blocks. One turn takes all.
pub const WAL_QUEUE_BYTES: usize = 8 << 20;
/// Submissions that may wait for the log's writer before `submit` blocks.
pub const WAL_QUEUE_LENGTH: usize = 16 << 10;
/// Payload bytes of recent entries kept in memory for all groups together, so that replication to
/// followers that keep up never reads the disk.
pub const WAL_CACHE_BYTES: usize = 8 << 20;
/// Recent entries kept in memory, whatever their size.
pub const WAL_CACHE_ENTRIES: usize = 64 << 10;
/// Live bytes of the oldest segment that are rewritten by one turn: bounds what a turn waits for.
pub const WAL_COMPACTION_BYTES: usize = 256 << 10;
/// Sealed segments that may stand before the oldest is emptied by rewriting what still lives in it.
pub const WAL_COMPACT_AFTER_SEGMENTS: usize = 4;
/// A submission up to this size may use the reserve that is kept while the disk is full: votes,
/// marks and the blank entry of a new leader.
pub const WAL_SMALL_WRITE_BYTES: usize = 4 << 10;
/// How often a full disk is asked again when nobody writes.
pub const WAL_FULL_RETRY: Duration = Duration::from_millis(500);
/// Most bytes one entry may have: above it a submission is refused, not written.
pub const WAL_ENTRY_BYTES_MAX: usize = 64 << 20;

// --- checkpoints (disk/checkpoint) -----------------------------------------------------------

/// Checkpoints of a replica that stand: the log reaches back to the older one, so that a damaged
/// newest one costs nothing.
pub const CHECKPOINTS_KEPT: usize = 2;

// --- the working store (disk/store) ----------------------------------------------------------

/// Jobs that may wait for the store's writer before a caller waits.
pub const STORE_QUEUE_LENGTH: usize = 64;
/// Bytes of changes that may wait for the store's writer before a caller waits.
pub const STORE_QUEUE_BYTES: usize = 8 << 20;
/// Bytes of changes of one replica that are kept while its store is rebuilt before a caller waits.
pub const STORE_REBUILD_BACKLOG_BYTES: usize = 16 << 20;
/// How long changes are gathered before they are written: of one key only the last is.
pub const STORE_BUFFER_TIME: Duration = Duration::from_secs(1);
/// Bytes of gathered changes that are written at once.
pub const STORE_BUFFER_BYTES: usize = 4 << 20;
/// Records of one batch: sled stops every reader and writer of the process for it.
pub const STORE_BATCH_RECORDS: usize = 256;
/// Bytes of one batch.
pub const STORE_BATCH_BYTES: usize = 1 << 20;
/// Longest value in one piece: a leaf of larger ones would leave the database's synced file.
pub const STORE_VALUE_BYTES: usize = 32 << 10;
/// Changes of a rebuild handed over at once.
pub const STORE_REBUILD_HANDOVER_CHANGES: usize = 256;
/// Memory for pages of the database.
pub const STORE_CACHE_BYTES: u64 = 16 << 20;
/// Size of the database's segments; a power of two. See [`STORE_VALUE_BYTES`].
pub const STORE_SEGMENT_BYTES: usize = 4 << 20;
/// Databases that were moved aside and are kept for somebody to look at.
pub const STORE_BROKEN_KEPT: usize = 2;

// --- replica groups --------------------------------------------------------------------------

/// Entries one append may carry; its bytes are bounded by [`APPEND_BYTES`] as well.
pub const APPEND_ENTRIES_MAX: u64 = 1024;
/// Payload bytes of one append, unless a single entry is larger.
pub const APPEND_BYTES: usize = 1 << 20;
/// A call larger than this goes over the bulk connection: the other refuses what is much larger.
pub const LARGE_CALL_BYTES: usize = 2 << 20;
/// What a large call may count on from a link between nodes, in bytes a second.
pub const SLOWEST_LINK_BYTES_PER_SECOND: u64 = 4 << 20;
/// Appends under way to one follower without an answer: covers a round trip, bounds memory.
pub const APPENDS_IN_FLIGHT: usize = 8;
/// Messages that may wait for the core of one group before its callers wait.
pub const CORE_QUEUE_LENGTH: u64 = 4096;
/// Payload bytes handed to the log and not yet on disk, of all groups together: less than
/// [`WAL_QUEUE_BYTES`], so that waiting happens where it costs no thread.
pub const LOG_IN_FLIGHT_BYTES: usize = 6 << 20;
/// Recent entries of one group kept decoded, for apply and for followers that keep up.
pub const TAIL_BYTES: usize = 256 << 10;
/// Entries applied in one go before others may run on the thread.
pub const APPLY_ENTRIES: usize = 256;
/// Payload bytes read from the log at once, to be applied.
pub const APPLY_BYTES: usize = 1 << 20;
/// Log since the last checkpoint that makes a new one due; a quarter of what the last one had to
/// write if that is more.
pub const CHECKPOINT_LOG_BYTES: u64 = 16 << 20;
/// Checkpoints written at the same time on one node.
pub const CHECKPOINTS_AT_ONCE: usize = 2;
/// Wait after a checkpoint that could not be written, or a working store that could not be filled.
pub const CHECKPOINT_RETRY: Duration = Duration::from_secs(5);
/// How often it is asked whose entries keep the oldest log segment alive.
pub const OLD_SEGMENT_CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// How long filling a store and verifying chunks let replicas that start go first: many times what
/// a start takes that succeeds.
pub const START_WAIT_MAX: Duration = Duration::from_secs(30);
/// Wait before the other replicas are asked once more for chunks that are damaged here.
pub const CHUNK_RETRY: Duration = Duration::from_mins(1);
/// One message of a checkpoint on its way to another replica.
pub const CHECKPOINT_PIECE_BYTES: usize = 256 << 10;
/// Chunks of a checkpoint under way at the same time.
pub const CHECKPOINT_CHUNKS_IN_FLIGHT: usize = 4;
/// A piece that is not taken by then is sent again.
pub const CHECKPOINT_PIECE_TIMEOUT: Duration = Duration::from_secs(10);
/// A checkpoint that is not installed by then is offered again.
pub const CHECKPOINT_INSTALL_TIMEOUT: Duration = Duration::from_secs(120);
/// Requests for a checkpoint that may wait for a group's keeper.
pub const CHECKPOINT_REQUESTS: usize = 8;
/// Shortest time between two reports of figures that merely move.
pub const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// When it makes sense to try again where nobody knows better.
pub const RETRY_AFTER: Duration = Duration::from_millis(200);
/// How often a closing node looks whether its log is still in use, and how long at most.
pub const CLOSE_POLL_INTERVAL: Duration = Duration::from_millis(5);
/// See [`CLOSE_POLL_INTERVAL`].
pub const CLOSE_POLLS_MAX: u32 = 1000;

/// After this long without a sign of its leader (or, of a leader, of a quorum) a replica says that
/// its group has no majority: above what an election takes, so that a failover is not told as one,
/// and short enough to be told within two seconds.
pub const LEADER_CONTACT_TIMEOUT: Duration = Duration::from_millis(1_500);
/// How long a file that cannot be opened for want of files or memory is tried again at once, by a
/// thread that may block; past it the caller does what it does on a full disk.
pub const SHORTAGE_WAIT: Duration = Duration::from_millis(500);
/// Pause between two such tries.
pub const SHORTAGE_PAUSE: Duration = Duration::from_millis(20);
