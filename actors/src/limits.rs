//! Every bound on what clients and other nodes may take of this crate, in one table, with units and
//! reasons. How often a task does its own work stands beside the task.

use std::time::Duration;

/// How long a request may take in all, from where the gateway takes it (decision 25).
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// The same of a bulk operation and of a command larger than [`PIECE_BYTES`]: those of others
/// before it take their turns, and a million rows some seconds.
pub const LONG_DEADLINE: Duration = Duration::from_secs(60);
/// Commands in one Raft entry: packing them is the biggest lever on CPU per command.
pub const BATCH_COMMANDS_MAX: usize = 512;
/// Bytes of commands in one Raft entry: an entry must not hold up a heartbeat.
pub const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of a command from which it goes into the log in pieces of so many, others in between: what
/// one disk and one link take in some milliseconds.
pub const PIECE_BYTES: usize = 128 * 1024;
/// Rows of a branch from which its bulk operations are applied beside the partition, as those in
/// pieces are: below it that takes some milliseconds.
pub const LONG_ROWS: u64 = 1_000;
/// How long a read waits for a large change of its branch that is being applied.
pub const SETTLE_TIMEOUT: Duration = Duration::from_secs(3);
/// Changes in one Raft entry, where it holds more than one command: nothing else of its partition
/// is decided while an entry is, so that a single write never waits for more than one batch.
pub const BATCH_CHANGES_MAX: u64 = 512;
/// Weight from which a command waits while its partition's store is busy, and those below it go on:
/// more than an order with its lines, less than a batch.
pub const BACKGROUND_WEIGHT: u64 = 64;
/// How often some of them go all the same: a store that is always busy holds up nothing for ever.
pub const BACKGROUND_PERIOD: Duration = Duration::from_secs(1);
/// Weight of the writes of clients that wait for one branch; the next is refused with 429. A write
/// weighs its changes, and one more for each KiB.
pub const BRANCH_WEIGHT_MAX: u64 = 16 * 1024;
/// What one command weighs at most: the largest finds room beside some addresses that hold all they
/// may.
pub const COMMAND_WEIGHT_MAX: u64 = 2 * 1024;
/// Bytes that weigh as much as a change.
pub const BYTES_OF_WEIGHT: usize = 1024;
/// Bulk operations waiting for one branch; the next is refused with 429. Each may be megabytes, and
/// rewrites a module while the branch's writes wait.
pub const BRANCH_BULK_PERMITS: u64 = 64;
/// Weight of all commands that wait on one node; the next is refused with 429.
pub const NODE_WEIGHT_MAX: u64 = 64 * 1024;
/// Branches of one partition for which a leader has commands of its own waiting, such as
/// definitions; it tries the rest a second later.
pub const LEADER_BRANCHES_MAX: usize = 8192;
/// Of a bound that all clients of a node share, what one address may hold alone, in percent, unless
/// a node is set up otherwise: the other half is for everybody else.
pub const ADDRESS_PERCENT: u8 = 50;
/// Shortest wait that is asked of a client before it tries again: some entries of the log.
pub const RETRY_AFTER_MIN: Duration = Duration::from_millis(100);
/// Longest such wait: what then still waits is no queue, but held for long.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(10);
/// How long the refusal of a leader on another node stands for the next writes of the same kind: a
/// full leader has enough to do for much longer.
pub const RECENT_REFUSAL_MAX: Duration = Duration::from_millis(250);
/// Such refusals that one node remembers, each of some hundred bytes; beyond it, it begins anew.
pub const RECENT_REFUSALS_MAX: usize = 4096;
/// Calls buffered while a branch actor is being stopped.
pub const PASSIVATION_BUFFER_MAX: usize = 64;
/// How long a branch actor stays without work.
pub const PASSIVATE_AFTER: Duration = Duration::from_secs(300);
/// Deltas queued for one follower before it has to read the log.
pub const FOLLOWER_QUEUE_DELTAS: usize = 256;
/// How long one attempt waits for its outcome before the same command is sent again: above a
/// healthy commit by far. An attempt at a deposed leader ends when its successor is
/// known.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(4);
/// How long a read waits for a replica that lags before it goes to the leader: above what a healthy
/// one lags. One that just started may have the log of minutes before it.
pub const LAG_TIMEOUT: Duration = Duration::from_millis(100);
/// How long a leader whose disk is full leaves its callers to another attempt, while another node
/// can take over: that takes two seconds. After that it refuses them at once.
pub const HANDOVER_WAIT: Duration = Duration::from_secs(5);
/// Entries that a replica may lack at most that is to lead next: while it catches up nobody leads.
pub const LEAD_LAG_MAX: u64 = 64;
/// When a client may ask again where nobody has space: somebody has to make some first.
pub const DISK_FULL_RETRY_AFTER: Duration = Duration::from_secs(5);
/// How far this node's clock may be from the median of all clocks before it hands over and stamps
/// theirs: more than a network delays an answer, and less than people notice in a record.
pub const CLOCK_OFF_MAX: Duration = Duration::from_secs(5);
/// How far the clock of a node that can ask no other may leap: beyond it, the leap is not stamped.
pub const CLOCK_LEAP_MAX: Duration = Duration::from_mins(1);
/// How long such a leap must last before it is believed: somebody may have set the clock right.
pub const CLOCK_LEAP_BELIEVED_AFTER: Duration = Duration::from_mins(10);
/// How far ahead of now a branch's commit time may be before an operator is told, in milliseconds:
/// further ahead, it can be brought back.
pub const CLOCK_AHEAD_MAX_MS: i64 = 60_000;
/// How old what a peer's clock showed may be: several times the interval at which it is asked.
pub const CLOCK_READING_AGE_MAX: Duration = Duration::from_secs(5);
/// Pause between two attempts: a new leader is noticed within it, and nobody spins.
pub const RETRY_PAUSE: Duration = Duration::from_millis(25);
/// Events read from the log at once by a follower that catches up.
pub const CATCH_UP_EVENTS: u32 = 1024;
/// Feeds one node may have open at another: one for each branch:module followed there.
pub const FEEDS_MAX: usize = 65_536;
/// Deltas of one remote feed waiting on this node; beyond it the feed catches up from the log.
pub const FEED_QUEUE_DELTAS: usize = 1024;
/// A command larger than this goes to its leader with the bulk: calls behind it would wait for it.
pub const LARGE_COMMAND_BYTES: usize = 1024 * 1024;
/// Bytes from which a message is written and read beside the thread that sends heartbeats: below it
/// that takes a millisecond at most.
pub const OFFLOAD_BYTES: usize = 256 * 1024;
/// Bytes of events in one answer to another node; at least one event is in it.
pub const CATCH_UP_BYTES: usize = 8 * 1024 * 1024;
/// A delta larger than this is not pushed to other nodes: they receive where the log stands and
/// read it.
pub const PUSHED_BYTES_MAX: usize = 1024 * 1024;
/// Topics one node knows; beyond it the longest unused are forgotten.
pub const TOPICS_MAX: usize = 10_000;
/// Topics that clients of one node may be subscribed to, of these: some are left for posts.
pub const TOPICS_SUBSCRIBED_MAX: u64 = 7_500;
/// Bytes of the last posts of all topics of a node.
pub const TOPICS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Posts of one topic queued for one subscriber before it receives only later ones.
pub const TOPIC_QUEUE_POSTS: usize = 64;
/// Branch:modules one partition may hold: what writes may create is bounded, and 16 partitions
/// of them are far more than a chain of shops has.
pub const BRANCHES_PER_PARTITION_MAX: usize = 10_000;
/// Branches that one address may make by writes at once, where nothing else is set: more than a
/// chain of shops opens in a day.
pub const BRANCHES_PER_ADDRESS: u32 = 2_000;
/// Branches that it may make in a second besides, where nothing else is set: all partitions are
/// full after two hours, and an operator has been warned of memory long before.
pub const BRANCHES_PER_ADDRESS_PER_SECOND: u32 = 20;
/// Addresses of which a partition knows how many branches they made lately.
pub const BRANCH_BUCKETS_MAX: usize = 10_000;
/// Stored events read at once while a log is verified.
pub const VERIFY_EVENTS: usize = 1024;
/// How long a working store may take to be filled anew while a log is verified: its replica tries
/// that every five seconds.
pub const VERIFY_TIMEOUT: Duration = Duration::from_secs(20);
/// Remembered outcomes that gave way before their time, for one line in the log.
pub const DISPLACED_PER_LINE: u64 = 100_000;
/// Warnings of one kind about the branches of a partition in a report: enough to look there.
pub const BRANCH_WARNINGS_MAX: usize = 5;
/// Rows times conditions that a read may look at on a thread that serves everybody: some tenths of
/// a millisecond, at the 20 ns for each that the attack `query-patterns` measures.
pub const READ_INLINE_WORK: u64 = 10_000;
/// Threads of low priority for work of many milliseconds.
pub const BACKGROUND_THREADS: usize = 8;
/// Threads of these that queries may have at once: the others are for snapshots, bodies and
/// answers.
pub const QUERY_THREADS: usize = 5;
/// Queries of many rows that run or wait on one node; the next is refused with 429. One address
/// alone has half of them.
pub const QUERIES_AT_ONCE: u64 = 512;
/// How long such a query may take: less than an attempt at another node, which would be repeated.
pub const READ_TIMEOUT: Duration = Duration::from_secs(3);
/// The share of a node's memory that each class may hold, in hundredths, in the order of
/// `MemoryClass::ALL`: requests, answers, sockets, topics, catalogue, branches. Half of it is for
/// what a node is there to keep; the other half for what is on its way.
pub const MEMORY_SHARES: [u64; 6] = [15, 12, 13, 2, 8, 50];
/// When work that was refused for want of memory is worth asking for again: others are served
/// meanwhile.
pub const MEMORY_RETRY_AFTER: Duration = Duration::from_secs(2);
/// The same where only deleting makes room.
pub const MEMORY_RETRY_AFTER_BRANCHES: Duration = Duration::from_secs(30);
