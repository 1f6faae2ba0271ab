//! Every bound of this crate, in one table, with units and reasons.

use std::time::Duration;

/// Longest frame body on the control connection, header included: 4 MiB and the header. Longer
/// messages would hold up a heartbeat; they travel in pieces on the bulk connection.
pub const CONTROL_FRAME_BYTES_MAX: usize = CONTROL_PAYLOAD_BYTES_MAX + 16;
/// Longest payload on the control connection.
pub const CONTROL_PAYLOAD_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Longest piece of a bulk transfer: small enough that transfers take turns.
pub const BULK_PIECE_BYTES_MAX: usize = 256 * 1024;
/// Longest message on the bulk connection, all pieces together.
pub const BULK_MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Longest answer to a call, on either connection: a module's snapshot of the largest size that is
/// sent to a client (512 MiB as JSON), and half as much. Longer ones fail by name.
pub const ANSWER_BYTES_MAX: usize = 768 * 1024 * 1024;
/// Answers above this size travel in pieces, whatever the priority of their call, and wait for the
/// budget below.
pub const LARGE_ANSWER_BYTES: usize = 1024 * 1024;
/// Bytes of large answers on their way over one connection at once: the longest, or many; more
/// wait for their turn.
pub const LARGE_ANSWERS_BYTES_AT_ONCE: usize = ANSWER_BYTES_MAX;
/// The unit in which that budget is counted.
pub const BUDGET_UNIT_BYTES: usize = 64 * 1024;
/// Bulk calls of one connection worked on at once; more wait before they begin, so
/// that the answers held in memory have a bound.
pub const BULK_CALLS_AT_ONCE: usize = 64;
/// How long a call waits for the next piece of an answer that is coming, if its own deadline is
/// sooner.
pub const NEXT_PIECE_MAX: Duration = Duration::from_secs(4);
/// Bytes of unfinished messages kept for one connection; a peer that exceeds it is cut.
pub const UNFINISHED_BYTES_MAX: usize = 2 * BULK_MESSAGE_BYTES_MAX + LARGE_ANSWERS_BYTES_AT_ONCE;
/// What the kernel may hold unsent of one connection: so much of a bulk transfer is ahead of a
/// heartbeat at the line.
pub const SEND_BUFFER_BYTES: usize = 1024 * 1024;
/// Bytes copied together for one write: a write batch. Larger payloads are written as they are.
pub const WRITE_BATCH_BYTES: usize = 64 * 1024;
/// Payloads up to this size are copied into the batch's buffer; larger ones are written in place.
pub const COPY_BYTES_MAX: usize = 16 * 1024;
/// What a connection's reader asks of the kernel at once.
pub const READ_BUFFER_BYTES: usize = 16 * 1024;

/// Frames waiting in one priority queue of one connection.
pub const QUEUE_FRAMES_MAX: usize = 4096;
/// Bytes waiting in the urgent queue: heartbeats and votes are small.
pub const URGENT_QUEUE_BYTES_MAX: usize = 1024 * 1024;
/// Bytes waiting in the log queue: a few of Raft's largest messages.
pub const LOG_QUEUE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes waiting in the call queue.
pub const CALL_QUEUE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes waiting in the feed queue: past this a feed learns that it lost its place.
pub const FEED_QUEUE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes waiting in the bulk queue: two of the largest messages.
pub const BULK_QUEUE_BYTES_MAX: usize = 2 * BULK_MESSAGE_BYTES_MAX;

/// Calls of this node waiting for one peer's answer on one connection.
pub const PENDING_CALLS_MAX: usize = 16 * 1024;
/// Raft calls of one connection being answered here at once: every group has a few.
pub const RAFT_CALLS_SERVED_MAX: usize = 2048;
/// Actor calls of one connection being answered here at once.
pub const ACTOR_CALLS_SERVED_MAX: usize = 4096;

/// How often overdue calls are looked for: a call may be given up this much late.
pub const SWEEP_EVERY: Duration = Duration::from_millis(50);
/// A silent peer is asked for a sign of life this often.
pub const PING_EVERY: Duration = Duration::from_secs(1);
/// A peer that gave no sign of life for three pings is cut.
pub const SILENCE_MAX: Duration = Duration::from_secs(3);
/// How long the kernel may retry bytes a peer does not confirm.
pub const UNCONFIRMED_MAX: Duration = Duration::from_secs(10);
/// A hello must be complete by then.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest hello body: names and numbers, with room for later versions.
pub const HELLO_BYTES_MAX: usize = 1024;
/// Longest cluster name and data-directory id in a hello, in bytes.
pub const HELLO_NAME_BYTES_MAX: usize = 128;
/// Handshakes under way at once; more wait in the kernel's queue.
pub const HANDSHAKES_MAX: usize = 64;
/// First wait before a peer is dialled again; doubles up to [`REDIAL_MAX`], with jitter.
pub const REDIAL_MIN: Duration = Duration::from_millis(100);
/// Longest wait before a peer is dialled again. One that comes back takes its clients in at once
/// and cannot serve them before it is linked: this is what they wait for.
pub const REDIAL_MAX: Duration = Duration::from_secs(1);
/// How long the node with the higher number waits to be dialled before it dials itself: a node
/// that joins is not yet known by those it knows.
pub const DIALLED_WITHIN: Duration = Duration::from_millis(500);
/// The same, of a node that has just started: long enough for one that starts with it.
pub const FIRST_DIALLED_WITHIN: Duration = Duration::from_millis(50);

/// Files of a directory of the original that are looked at.
pub const ORIGINAL_FILES_MAX: usize = 100_000;
/// Directories within directories of the original that are looked into.
pub const ORIGINAL_DEPTH_MAX: usize = 16;
/// Largest file of the original that is read, in bytes: a seed or a schema (decision 25).
pub const ORIGINAL_FILE_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// How often the catalogue is looked at for nodes and addresses to link with.
pub const BOOK_EVERY: Duration = Duration::from_millis(500);
/// How often the metrics' recorder tidies up.
pub const METRICS_UPKEEP_EVERY: Duration = Duration::from_secs(10);
/// How often it is looked at what the process holds in memory.
pub const MEMORY_EVERY: Duration = Duration::from_secs(1);
/// Least memory a node is started with, in MiB: twice what an idle one takes.
pub const MEMORY_MIB_MIN: u64 = 128;
/// How long the gateway may take to say goodbye to its clients when the node stops.
pub const GATEWAY_STOP_MAX: Duration = Duration::from_secs(20);
/// How much of a file for browsers is read at once, in bytes: what a slow client holds of it.
pub const STATIC_PIECE_BYTES: usize = 64 * 1024;
/// Open files kept for the log, checkpoints, the store and the process itself, before any client:
/// a small log's segments (16), checkpoints written and read at once (8), the store (8), files for
/// browsers being read (16), listeners, timers and the rest (24), and as many again to be safe.
pub const FILES_RESERVED: u64 = 96;
/// Open files kept for one peer: two connections, and two while they are made anew.
pub const FILES_PER_PEER: u64 = 4;
/// One part in so many of all files is kept besides: where there are many files there is much data,
/// and a long log has many segments.
pub const FILES_RESERVED_PART: u64 = 16;
/// Fewest connections a node is started for.
pub const CONNECTIONS_MIN: u64 = 16;
/// Connections of clients that wait to be accepted, as far as the system lets them; the
/// library's own 128 are fewer than one crowd.
pub const LISTEN_BACKLOG: i32 = 4096;
