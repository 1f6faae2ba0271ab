//! Every bound of this crate, in one table, with units and reasons.

use std::time::Duration;

mod table;

pub use table::markdown;

/// Largest body of a request, in bytes (decision 25). Beyond it: 413.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Largest body of a request that carries no records, in bytes: a query with three lists of as many
/// ids as one may name. Beyond it: 413.
pub const SMALL_BODY_BYTES_MAX: usize = 128 * 1024;
/// Bodies and messages beyond `BODY_BYTES_MAX` that are read and decided at the same time on this
/// node, each with a few times its size in memory. They wait for their turn when they are whole.
pub const LARGE_AT_ONCE: usize = 8;
/// The same for bodies up to it that are beyond `READ_INLINE_BYTES`: read, but not decided.
pub const BODIES_AT_ONCE: usize = 16;
/// Events of one delta answer: more than a shop makes while a till is away for an hour.
pub const DELTA_EVENTS_MAX: u32 = 1_000;
/// Largest body with whole tables, definitions or seeds, in bytes (decision 25). Beyond it: 413.
pub const LARGE_BODY_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Largest change of the catalogue, in bytes as it is written to the log, which takes 64 MiB: a
/// definition is in it as it was sent and as it is understood.
pub const CHANGE_BYTES_MAX: usize = 48 * 1024 * 1024;
/// How slowly a body or a message may arrive, in bytes a second over `Limits::pace_window`: half of
/// what a bad mobile link brings.
pub const SLOWEST_ARRIVAL_BYTES_PER_SECOND: usize = 8 * 1024;
/// Most bytes of a head that are kept before it is whole, and of a body before it is gathered, in
/// bytes: above `URI_BYTES_MAX` and `HEADER_BYTES_MAX` together, which are refused in words.
pub const HTTP_BUFFER_BYTES_MAX: usize = 64 * 1024;
/// How long a connection reads on whose client is sending what nobody wants, so that its answer is
/// not lost.
pub const LINGER_MAX: Duration = Duration::from_secs(2);
/// The same in bytes: twice what most bodies may have.
pub const LINGER_BYTES_MAX: usize = 2 * 1024 * 1024;
/// How often it is looked whether a client has left whose next request waits already.
pub const LEFT_CHECK_EVERY: Duration = Duration::from_millis(100);
/// Connections served at once; the next one waits in the system's queue. Above the sockets a node
/// holds, so that requests come through beside them.
pub const CONNECTIONS_MAX: usize = 24_000;
/// How long a connection may say nothing from its beginning while all places are taken and another
/// waits: a client that wants something says so at once.
pub const SILENCE_MAX_WHEN_FULL: Duration = Duration::from_secs(1);
/// Pause after a connection could not be taken: usually the process is out of files.
pub const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// Longest path and query, in bytes. Beyond it: 414.
pub const URI_BYTES_MAX: usize = 8 * 1024;
/// All header names and values together, in bytes. Beyond it: 431.
pub const HEADER_BYTES_MAX: usize = 16 * 1024;
/// Longest idempotency key, request id, client id or event id, in bytes: each is kept for a day.
pub const ID_BYTES_MAX: usize = 256;
/// Longest name of a stored definition, in bytes: a file name of the original, without its ending.
pub const SCHEMA_NAME_BYTES_MAX: usize = 128;
/// Modules whose counters are read at once for one list of branches.
pub const HEADS_AT_ONCE: usize = 16;
/// How long the branches of a module may take to follow a new definition before it is answered.
pub const ADOPTION_WAIT: Duration = Duration::from_secs(3);

/// Changes of one batch: they are decided in one turn, and others wait meanwhile.
pub const BATCH_VERBS_MAX: usize = 500;
/// Events of one page of the log, where nothing else was asked for.
pub const EVENTS_PAGE: usize = 100;
/// Events of one page of the log.
pub const EVENTS_PAGE_MAX: usize = 1_000;
/// The same in bytes: a page that reaches it ends there, and has one event at least.
pub const EVENTS_PAGE_BYTES: usize = 8 * 1024 * 1024;
/// Tables or modules one request may name: more than any branch has.
pub const NAMES_MAX: usize = 256;
/// Longest reason or name of who asked, in bytes: each is kept in the history or the catalogue.
pub const WORDS_BYTES_MAX: usize = 1024;
/// Longest `meta` of a full-sync flag, in bytes: every node keeps it in memory.
pub const FLAG_META_BYTES_MAX: usize = 4 * 1024;
/// Longest `meta` or `publishState` of a change, in bytes as they are encoded: each of its events
/// repeats them, on every disk and to every subscriber.
pub const META_BYTES_MAX: u64 = 16 * 1024;
/// Modules reset at once by one request for a whole branch.
pub const RESETS_AT_ONCE: usize = 4;

/// How many times its bytes a body counts for in memory: as it came, as values, as a command, and
/// encoded for the log.
pub const REQUEST_COST: u64 = 4;
/// Answers below this size are not counted in memory: the system takes them at once.
pub const ANSWER_COUNTED_FROM: u64 = 4 * 1024;
/// What an answer in pieces counts for besides the pieces it has given away: the next one, and a
/// row.
pub const STREAMED_ANSWER_BYTES: u64 = 2 * PIECE_BYTES as u64;
/// What a socket counts for in memory by itself: its task, its session, the buffers of its
/// connection and of its library.
pub const SOCKET_BYTES: u64 = 24 * 1024;

/// Largest body that is read as JSON on a thread that serves everybody: a millisecond.
pub const READ_INLINE_BYTES: usize = 16 * 1024;
/// Rows from which a snapshot is rendered away from the threads that serve everybody: below it,
/// rendering takes about as long as handing it over would.
pub const ROWS_INLINE_MAX: u64 = 2_000;
/// Large snapshots rendered at the same time on this node: each may take a core.
pub const RENDERS_AT_ONCE: usize = 4;

/// Largest message a client may send, in bytes (decision 25). A post with a snapshot under a sync
/// topic may have `LARGE_BODY_BYTES_MAX`, and counts among `LARGE_AT_ONCE`.
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of a client's control frame besides its data: head and mask.
pub const CONTROL_FRAME_BYTES: usize = 6;
/// What a socket reads at once, in bytes. The library allocates this for every socket, idle ones
/// too.
pub const READ_BUFFER_BYTES: usize = 4 * 1024;
/// Bytes read that count as one step of tokio's cooperative scheduling, of which a task has 128 in
/// a turn: 64 KiB, some tens of microseconds.
pub const BYTES_OF_BUDGET: usize = 512;
/// What is gathered before the operating system is called, in bytes.
pub const WRITE_BUFFER_BYTES: usize = 16 * 1024;
/// Largest snapshot or answer of many rows that is written at once, in bytes; larger ones are
/// written in pieces as they are sent.
pub const WHOLE_BYTES_MAX: usize = 1024 * 1024;
/// Largest piece of such a text, in bytes: what a socket holds of a snapshot.
pub const PIECE_BYTES: usize = 64 * 1024;
/// Pieces a socket writes before it lets others of its thread have their turn.
pub const PIECES_A_TURN: usize = 4;
/// Largest event with a module's state, in bytes: it is not written in pieces. A larger one comes
/// without the state.
pub const EVENT_FRAME_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Most bytes between a socket's queue and the operating system: well above the largest frame that
/// is not written in pieces, an event with a large record.
pub const WRITE_BUFFER_BYTES_MAX: usize = 136 * 1024 * 1024;
/// Characters of an unreadable message that are shown back.
pub const PREVIEW_CHARS: usize = 80;

/// Publishes of one socket that wait for those before them; at this number the socket is not read.
pub const PUBLISHES_WAITING_MAX: usize = 64;
/// The same in bytes as they were sent.
pub const PUBLISH_BYTES_WAITING_MAX: usize = 2 * 1024 * 1024;
/// Publishes without a known outcome whose event would still be acknowledged.
pub const UNKNOWN_OUTCOMES_MAX: usize = 64;
/// How long to wait before following again what could not be followed; doubled for each try.
pub const FOLLOW_AGAIN_AFTER: Duration = Duration::from_millis(200);
/// The longest such wait.
pub const FOLLOW_AGAIN_AFTER_MAX: Duration = Duration::from_secs(5);
/// Queries of one socket that are being answered; at this number the socket is not read.
pub const QUERIES_AT_ONCE: usize = 8;
/// Topics one socket may subscribe to.
pub const TOPICS_MAX: usize = 200;
/// Longest name of a topic, in bytes: above `sync-table::{b}::{m}::{t}` with the longest names.
pub const TOPIC_NAME_BYTES_MAX: usize = 512;
/// Largest data posted under a topic, in bytes as JSON: every subscriber's node keeps the last.
pub const TOPIC_DATA_BYTES_MAX: usize = 64 * 1024;
/// Posts of one socket that wait for those before them; at this number the socket is not read.
pub const POSTS_WAITING_MAX: usize = 64;
/// Words of one sync topic that wait for the state they are shown with; beyond, the oldest go.
pub const SYNC_MESSAGES_WAITING_MAX: usize = 32;
/// How far back a module's log is searched for what a topic said last, in events.
pub const RECENT_EVENTS: u32 = 256;

/// How slow a client may take a large frame before it counts as stalled, in bytes a second: a
/// bad mobile link.
pub const SLOWEST_BYTES_PER_SECOND: u64 = 16 * 1024;
/// How long a close frame may take to be written, and to be answered.
pub const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// How many bytes of memory each byte of a socket's message takes until the message is whole: in
/// the buffer it is read into, and in the message, whose own buffer doubles. Measured: 2.8 for
/// messages of 1 MiB.
pub const MESSAGE_MEMORY_FACTOR: usize = 3;
/// Least bytes that may be arriving at a node, however little memory it has: one of the largest
/// bodies, and half as much beside it.
pub const ARRIVAL_BYTES_MIN: usize = LARGE_BODY_BYTES_MAX / 2 * 3;

/// The bounds an assembler may set.
///
/// No state of a connection lasts for ever:
///
/// | it | for at most | then |
/// |---|---|---|
/// | says nothing from its beginning | `first_byte_max` | it ends |
/// | sends a head | `head_read_max` | it ends |
/// | sends a head beyond its address's share | `SILENCE_MAX_WHEN_FULL` | it ends |
/// | sends a body or message | as `SLOWEST_ARRIVAL_BYTES_PER_SECOND` says | 408, close code 1008 |
/// | waits with a large body or message for its turn | `turn_wait_max` | 429, close code 1013 |
/// | has closed its side while a read goes on | `half_closed_read_max` | 503 |
/// | has closed its side while a change goes on | as the change takes | it is answered |
/// | takes nothing of an answer, that to an upgrade too | `answer_stall_max` | it ends |
/// | asks for nothing more | `keep_alive_max` | it ends |
/// | is a socket and silent, or takes nothing | `idle_max`, `stall_max` | close code 1001, 1013 |
/// | is told goodbye | `GOODBYE_MAX`, and as long again | it ends |
/// | still sends what is refused | `LINGER_MAX` | it ends |
#[derive(Debug, Clone)]
pub struct Limits {
    /// Of connections and of sockets, what one address may hold alone, 1 to 100 percent; 100:
    /// addresses have no bound.
    pub address_percent: u8,
    /// Sockets at once; the next is refused with 503.
    pub sockets_max: usize,
    /// Connections at once, sockets among them; the next waits in the system's queue. A node sets
    /// it to what its open files leave.
    pub connections_max: usize,
    /// Frames queued for one socket, besides snapshots. Full: its streams are not pulled.
    pub outbox_frames_max: usize,
    /// The same in bytes.
    pub outbox_bytes_max: usize,
    /// Largest snapshot that is sent, in bytes of its JSON. Beyond it: `snapshot-too-large`.
    pub snapshot_bytes_max: u64,
    /// Bytes of heads, bodies and messages that are on their way to the node and not whole. Beyond
    /// it the address that holds most gives up its largest: 429, or close code 1013.
    pub arrival_bytes_max: usize,
    /// How long a new connection may say nothing: browsers open some before they need them.
    pub first_byte_max: Duration,
    /// How long a head may take to come, from its first byte on.
    pub head_read_max: Duration,
    /// Over how long it is judged whether a body or message comes fast enough.
    pub pace_window: Duration,
    /// How long a whole body or message waits for its turn: as long as eight large ones before it
    /// take. Beyond it: 429, or close code 1013.
    pub turn_wait_max: Duration,
    /// How long a connection may stay without a request after the last one: above what browsers
    /// and proxies keep one for.
    pub keep_alive_max: Duration,
    /// How long a read goes on for a client that has closed its side: it may be gone.
    pub half_closed_read_max: Duration,
    /// How often a socket is pinged: below the idle limit of common proxies.
    pub ping_every: Duration,
    /// A socket from which nothing came for so long is closed: two pings went unanswered.
    pub idle_max: Duration,
    /// A socket that took nothing for so long, and longer for large frames, is closed with 1013.
    pub stall_max: Duration,
    /// A connection that takes nothing of an answer for so long ends. The system says that bytes
    /// were taken only once a third of its buffer is free again, more than a megabyte: a link of
    /// 16 KiB a second must have time for that.
    pub answer_stall_max: Duration,
    /// Over how long the sockets of a draining node are closed, so that they do not all come to
    /// the next node at once.
    pub drain_spread: Duration,
    /// How long requests and sockets have to finish when the node drains.
    pub drain_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            address_percent: actors::limits::ADDRESS_PERCENT,
            sockets_max: 20_000,
            connections_max: CONNECTIONS_MAX,
            outbox_frames_max: 256,
            outbox_bytes_max: 1024 * 1024,
            snapshot_bytes_max: 512 * 1024 * 1024,
            arrival_bytes_max: 256 * 1024 * 1024,
            first_byte_max: Duration::from_secs(30),
            head_read_max: Duration::from_secs(15),
            pace_window: Duration::from_secs(10),
            turn_wait_max: Duration::from_secs(10),
            keep_alive_max: Duration::from_secs(90),
            half_closed_read_max: Duration::from_millis(500),
            ping_every: Duration::from_secs(25),
            idle_max: Duration::from_secs(60),
            stall_max: Duration::from_secs(30),
            answer_stall_max: Duration::from_secs(120),
            drain_spread: Duration::from_secs(2),
            drain_max: Duration::from_secs(15),
        }
    }
}
