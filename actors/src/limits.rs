//! Every bound of this room, in one table, with units and reasons.

use std::time::Duration;

/// How long a request may take in all, from the gateway's door (decision 16).
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// Commands in one Raft entry: packing them is the biggest lever on CPU per command.
pub const BATCH_COMMANDS_MAX: usize = 512;
/// Bytes of commands in one Raft entry: an entry must not hold up a heartbeat.
pub const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Raft entries of one partition in flight at once.
pub const ENTRIES_IN_FLIGHT_MAX: usize = 2;
/// Commands waiting for one branch; the next is refused with 429.
pub const BRANCH_PERMITS: usize = 1024;
/// Commands waiting on one node; the next is refused with 429.
pub const NODE_PERMITS: usize = 8192;
/// Calls buffered while a branch actor is being stopped.
pub const PASSIVATION_BUFFER_MAX: usize = 64;
/// How long a branch actor stays without work.
pub const PASSIVATE_AFTER: Duration = Duration::from_secs(300);
/// Deltas queued for one follower before it is told it lagged.
pub const FOLLOWER_QUEUE_DELTAS: usize = 256;
