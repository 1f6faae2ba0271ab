//! Limits: every bound of this crate, with units and reasons.
//!
//! A bound that matters to operators is also in a configuration struct, and this is its default. A
//! bound that is only here should never need to change.

use std::time::Duration;

// --- the shared log (disk/wal) ---------------------------------------------------------------

/// Size of a log segment, preallocated. Larger: fewer files; smaller: space is freed sooner.
pub const WAL_SEGMENT_BYTES: u64 = 16 << 20;
/// The smallest segment accepted: a header, a batch and the reserve must fit.
pub const WAL_SEGMENT_BYTES_MIN: u64 = 4 << 10;
/// Payload bytes that may wait for the log's writer before `submit` blocks. One batch takes all.
pub const WAL_QUEUE_BYTES: usize = 8 << 20;
/// Submissions that may wait for the log's writer before `submit` blocks.
pub const WAL_QUEUE_LENGTH: usize = 16 << 10;
/// Payload bytes of recent entries kept in memory for all groups together, so that replication to
/// followers that keep up never reads the disk.
pub const WAL_CACHE_BYTES: usize = 8 << 20;
/// Recent entries kept in memory, whatever their size.
pub const WAL_CACHE_ENTRIES: usize = 64 << 10;
/// Live bytes of the oldest segment that one batch copies: bounds what compaction adds to a batch.
pub const WAL_COMPACTION_BYTES: usize = 256 << 10;
/// Full segments that may exist before the oldest is compacted.
pub const WAL_COMPACT_AFTER_SEGMENTS: usize = 4;
/// A submission up to this size may use the reserve of a segment while the disk is full: votes,
/// metadata and the blank entry of a new leader.
pub const WAL_SMALL_WRITE_BYTES: usize = 4 << 10;
/// How often a full disk is tried again when nobody writes.
pub const WAL_FULL_RETRY: Duration = Duration::from_millis(500);
/// Free bytes below which the disk counts as full, although the next segment is there already:
/// checkpoints and the working store fail soon, and a leader should go while it can still write.
pub const DISK_FREE_BYTES_MIN: u64 = 4 << 20;
/// How often the disk is looked at: what it is like is known, and leaderships go, within 2 s.
pub const DISK_CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// A sync that takes longer is slow, where nothing else is configured: clients wait for it.
pub const SYNC_SLOW_AFTER: Duration = Duration::from_secs(1);
/// The time over which syncs are counted: shorter, and one burst decides; longer, and clients wait.
pub const SYNC_WINDOW: Duration = Duration::from_secs(10);
/// Slow syncs within that time that are no accident. One that hangs counts once for each time the
/// bound has passed.
pub const SYNC_SLOW_COUNT_MIN: u32 = 3;
/// After this long without a sync a disk that was slow is believed to be quick: nothing else would
/// ever show it on a node that writes nothing.
pub const SYNC_IDLE_FIT_AFTER: Duration = Duration::from_mins(1);
/// Most bytes of one entry: a submission with a larger one is rejected.
pub const WAL_ENTRY_BYTES_MAX: usize = 64 << 20;

// --- checkpoints (disk/checkpoint) -----------------------------------------------------------

/// Checkpoints that are kept of a replica. The log reaches back to the older one, so that nothing
/// is lost if the newest is damaged.
pub const CHECKPOINTS_KEPT: usize = 2;

// --- the working store (disk/store) ----------------------------------------------------------

/// Jobs that may wait for the store's writer before a caller waits: seconds of entries of all
/// replicas, most of them small; their bytes are bounded by [`STORE_QUEUE_BYTES`].
pub const STORE_QUEUE_LENGTH: usize = 8 << 10;
/// Bytes of changes of one replica that may wait for the store's writer before its caller waits.
/// Of each replica by itself: none waits because another changes much.
pub const STORE_QUEUE_BYTES: usize = 4 << 20;
/// Bytes of changes of one replica that wait for its store from which it is busy: the rest of
/// [`STORE_QUEUE_BYTES`] is for what cannot wait while the writer is at a write.
pub const STORE_BUSY_BYTES: usize = 1 << 20;
/// Bytes of changes of one replica behind an entry that takes long, before applying waits for it.
pub const STORE_BACKLOG_BYTES: usize = 16 << 20;
/// Bytes of changes of one replica that are kept while its store is rebuilt before a caller waits.
pub const STORE_REBUILD_BACKLOG_BYTES: usize = 16 << 20;
/// How long changes are buffered before they are written; of each key only the last is written.
pub const STORE_BUFFER_TIME: Duration = Duration::from_secs(1);
/// Bytes of buffered changes after which they are written before that.
pub const STORE_BUFFER_BYTES: usize = 4 << 20;
/// Records of one batch: sled stops every reader and writer of the process for it.
pub const STORE_BATCH_RECORDS: usize = 256;
/// Bytes of one batch.
pub const STORE_BATCH_BYTES: usize = 1 << 20;
/// Longest value in one record: sled would put a leaf of larger ones into a file that is not
/// synced.
pub const STORE_VALUE_BYTES: usize = 32 << 10;
/// Changes of a rebuild that are given to the writer at once.
pub const STORE_REBUILD_HANDOVER_CHANGES: usize = 256;
/// Memory for pages of the database, in bytes.
pub const STORE_CACHE_BYTES: u64 = 16 << 20;
/// Size of the database's segments; a power of two. See [`STORE_VALUE_BYTES`].
pub const STORE_SEGMENT_BYTES: usize = 4 << 20;
/// Databases that were moved aside and are kept for inspection.
pub const STORE_BROKEN_KEPT: usize = 2;

// --- replica groups --------------------------------------------------------------------------

/// Entries one append may carry; its bytes are bounded by [`APPEND_BYTES`] as well.
pub const APPEND_ENTRIES_MAX: u64 = 1024;
/// Payload bytes of one append, unless a single entry is larger.
pub const APPEND_BYTES: usize = 1 << 20;
/// A call larger than this goes over the bulk connection: the other one accepts no large messages.
pub const LARGE_CALL_BYTES: usize = 2 << 20;
/// The speed of the slowest link for which the timeout of a large call is enough, in bytes a
/// second.
pub const SLOWEST_LINK_BYTES_PER_SECOND: u64 = 4 << 20;
/// Appends in flight to one follower: enough for a round trip, and a bound on memory.
pub const APPENDS_IN_FLIGHT: usize = 8;
/// Messages that may wait for openraft's task of one group before its callers wait.
pub const CORE_QUEUE_LENGTH: u64 = 4096;
/// Payload bytes given to the log and not yet on disk, in submissions of up to
/// [`LOG_SMALL_BYTES`], of all groups together. With those of [`LOG_LARGE_IN_FLIGHT_BYTES`] less
/// than [`WAL_QUEUE_BYTES`], so that callers wait in a task and never block a thread.
pub const LOG_IN_FLIGHT_BYTES: usize = 4 << 20;
/// The same in larger submissions: votes and small entries of other groups never wait for these to
/// be queued, and what one write batch holds of them takes milliseconds.
pub const LOG_LARGE_IN_FLIGHT_BYTES: usize = 2 << 20;
/// Payload bytes from which a submission is a large one.
pub const LOG_SMALL_BYTES: usize = 64 << 10;
/// Recent entries of one group kept decoded, for apply and for followers that keep up.
pub const TAIL_BYTES: usize = 256 << 10;
/// Entries that are applied in one call on a blocking thread.
pub const APPLY_ENTRIES: usize = 256;
/// Payload bytes read from the log at once, to be applied.
pub const APPLY_BYTES: usize = 1 << 20;
/// Log since the last checkpoint that makes a new one due; a quarter of what the last one had to
/// write if that is more.
pub const CHECKPOINT_LOG_BYTES: u64 = 16 << 20;
/// Payload bytes applied since the last checkpoint from which one is written although none is due,
/// once less than a sixteenth of so many came within [`CHECKPOINT_REST`].
pub const CHECKPOINT_REST_BYTES: u64 = 2 << 20;
/// How long a replica must be at rest before that: long enough that a busy one writes none so.
pub const CHECKPOINT_REST: Duration = Duration::from_secs(10);
/// Checkpoints written at the same time on one node.
pub const CHECKPOINTS_AT_ONCE: usize = 2;
/// Pause after a checkpoint that could not be written, or a store that could not be rebuilt.
pub const CHECKPOINT_RETRY: Duration = Duration::from_secs(5);
/// How often the replicas whose entries keep the oldest log segment alive are asked for
/// checkpoints.
pub const OLD_SEGMENT_CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// How long rebuilding a store and verifying chunks wait for starting replicas at most: many times
/// the duration of a start that succeeds.
pub const START_WAIT_MAX: Duration = Duration::from_secs(30);
/// Pause before the other replicas are asked again for chunks that are damaged here.
pub const CHUNK_RETRY: Duration = Duration::from_mins(1);
/// Bytes of a chunk in one message of a checkpoint transfer.
pub const CHECKPOINT_PIECE_BYTES: usize = 256 << 10;
/// Chunks of a checkpoint that are sent at the same time.
pub const CHECKPOINT_CHUNKS_IN_FLIGHT: usize = 4;
/// The timeout of one piece; the transfer is then repeated.
pub const CHECKPOINT_PIECE_TIMEOUT: Duration = Duration::from_secs(10);
/// The timeout of installing a received checkpoint; the transfer is then repeated.
pub const CHECKPOINT_INSTALL_TIMEOUT: Duration = Duration::from_secs(120);
/// Requests that may wait for the checkpoint task of a group.
pub const CHECKPOINT_REQUESTS: usize = 8;
/// Shortest time between two publications of figures on which nobody must act.
pub const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// The time after which a retry makes sense, where nothing better is known.
pub const RETRY_AFTER: Duration = Duration::from_millis(200);
/// Pause between two checks of a closing node whether its log is still in use.
pub const CLOSE_POLL_INTERVAL: Duration = Duration::from_millis(5);
/// The number of those checks; see [`CLOSE_POLL_INTERVAL`].
pub const CLOSE_POLLS_MAX: u32 = 1000;

/// After this long without an append from its leader (for a leader: without a quorum) a replica
/// reports that its group has no quorum. Longer than an election, so that a failover is not
/// reported as such, and short enough to be reported within two seconds.
pub const LEADER_CONTACT_TIMEOUT: Duration = Duration::from_millis(1_500);
/// How long opening a file is retried while file handles or memory are short, on a thread that may
/// block. After that the caller does what it does on a full disk.
pub const SHORTAGE_WAIT: Duration = Duration::from_millis(500);
/// Pause between two attempts to open a file while file handles or memory are short.
pub const SHORTAGE_PAUSE: Duration = Duration::from_millis(20);
