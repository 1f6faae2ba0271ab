//! Table: the limits a client can meet, as docs/protocol.md shows them, with the values they have.

use std::fmt::Write as _;
use std::time::Duration;

use actors::limits::{BRANCHES_PER_ADDRESS, BRANCHES_PER_ADDRESS_PER_SECOND, READ_TIMEOUT};
use model::CatalogueKind;
use model::limits::{
    CATALOGUE_BRANCHES_MAX, CATALOGUE_FLAGS_MAX, CATALOGUE_MODULES_MAX, CATALOGUE_SCHEMAS_MAX,
    QUERY_CONDITIONS_MAX, QUERY_SORT_FIELDS_MAX, QUERY_VALUES_MAX, QUERY_WORK_MAX,
    RECORD_KEY_BYTES_MAX, SEQUENCE_NOTE_BYTES_MAX, SEQUENCE_TEXT_BYTES_MAX, VERSION_LEAP_MAX,
    VERSION_MAX,
};

use super::{
    BATCH_VERBS_MAX, BODY_BYTES_MAX, CONNECTIONS_MAX, DELTA_EVENTS_MAX, EVENT_FRAME_BYTES_MAX,
    EVENTS_PAGE, EVENTS_PAGE_BYTES, EVENTS_PAGE_MAX, FLAG_META_BYTES_MAX, HEADER_BYTES_MAX,
    ID_BYTES_MAX, LARGE_AT_ONCE, LARGE_BODY_BYTES_MAX, Limits, MESSAGE_BYTES_MAX, META_BYTES_MAX,
    NAMES_MAX, PIECE_BYTES, POSTS_WAITING_MAX, PUBLISH_BYTES_WAITING_MAX, PUBLISHES_WAITING_MAX,
    QUERIES_AT_ONCE, RECENT_EVENTS, SCHEMA_NAME_BYTES_MAX, SLOWEST_ARRIVAL_BYTES_PER_SECOND,
    SLOWEST_BYTES_PER_SECOND, SMALL_BODY_BYTES_MAX, SYNC_MESSAGES_WAITING_MAX,
    TOPIC_DATA_BYTES_MAX, TOPIC_NAME_BYTES_MAX, TOPICS_MAX, URI_BYTES_MAX, WHOLE_BYTES_MAX,
    WORDS_BYTES_MAX,
};

fn bytes(count: usize) -> String {
    const KIB: usize = 1024;
    match count {
        _ if count.is_multiple_of(KIB * KIB) => format!("{} MiB", count / KIB / KIB),
        _ if count.is_multiple_of(KIB) => format!("{} KiB", count / KIB),
        _ => format!("{count} bytes"),
    }
}

fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs())
}

fn two(first: String, second: String) -> String {
    format!("{first}; {second}")
}

/// What is limited, to what, and what a client sees beyond it.
type LimitRow = (&'static str, String, &'static str);

/// Of queries, over REST and over sockets.
fn queries() -> Vec<LimitRow> {
    vec![
        (
            "Conditions of a query; values one lists; fields to sort by",
            format!("{QUERY_CONDITIONS_MAX}; {QUERY_VALUES_MAX}; {QUERY_SORT_FIELDS_MAX}"),
            "400 `query-too-large`",
        ),
        ("Rows times conditions of a query", QUERY_WORK_MAX.to_string(), "400 `query-too-large`"),
        ("Time for a query of many rows", seconds(READ_TIMEOUT), "503 `read-timeout`"),
        (
            "Queries of many rows that run or wait on a node",
            actors::limits::QUERIES_AT_ONCE.to_string(),
            "429 `busy`",
        ),
    ]
}

/// Of what arrives, and of answers that are not taken.
fn arrivals(usual: &Limits) -> Vec<LimitRow> {
    vec![
        ("Body of a request", bytes(BODY_BYTES_MAX), "413 `body-too-large`"),
        ("Body of a query", bytes(SMALL_BODY_BYTES_MAX), "413 `body-too-large`"),
        (
            "Body with whole tables, a definition or seeds",
            format!("{}, {LARGE_AT_ONCE} decided at once on a node", bytes(LARGE_BODY_BYTES_MAX)),
            "413 `body-too-large`; 429 `busy`",
        ),
        (
            "How slowly a body arrives",
            format!(
                "{} a second over {}",
                bytes(SLOWEST_ARRIVAL_BYTES_PER_SECOND),
                seconds(usual.pace_window)
            ),
            "408 `request-timeout`",
        ),
        (
            "Heads, bodies and messages, these times three, on their way to a node, together",
            bytes(usual.arrival_bytes_max),
            "the address that sends most loses its largest: 429 `busy`, close code 1013",
        ),
        (
            "Time to say something; for a request's head; until the next request",
            format!(
                "{}; {}; {}",
                seconds(usual.first_byte_max),
                seconds(usual.head_read_max),
                seconds(usual.keep_alive_max)
            ),
            "the connection ends",
        ),
        (
            "Time that a read goes on for a client that has closed its side",
            format!("{} ms", usual.half_closed_read_max.as_millis()),
            "503 `read-timeout`",
        ),
        (
            "Time in which nothing of an answer is taken",
            seconds(usual.answer_stall_max),
            "the connection ends",
        ),
    ]
}

/// Of requests.
fn requests() -> Vec<LimitRow> {
    vec![
        ("Path and query", bytes(URI_BYTES_MAX), "414 `uri-too-long`"),
        ("Headers of a request", bytes(HEADER_BYTES_MAX), "431 `headers-too-large`"),
        (
            "An `idempotency-key`, a request's, client's or event's id",
            bytes(ID_BYTES_MAX),
            "400 `invalid-header`, `invalid-request-id`",
        ),
        (
            "Key of a record, all its fields together",
            bytes(RECORD_KEY_BYTES_MAX),
            "400 `key-too-long`",
        ),
        ("Changes of one batch", BATCH_VERBS_MAX.to_string(), "400"),
        (
            "Events of a page of the log",
            format!("{EVENTS_PAGE}, up to {EVENTS_PAGE_MAX} or {}", bytes(EVENTS_PAGE_BYTES)),
            "the page ends: ask for the next",
        ),
        ("Events of one delta", DELTA_EVENTS_MAX.to_string(), "`more:true`: ask again"),
        ("Tables or modules one request names", NAMES_MAX.to_string(), "400"),
        (
            "`reason`, `requestedBy`; `meta` of a flag",
            two(bytes(WORDS_BYTES_MAX), bytes(FLAG_META_BYTES_MAX)),
            "400",
        ),
        (
            "`source`, `userId` and a table's name in a change; its `meta`, its `publishState`",
            two(bytes(ID_BYTES_MAX), bytes(usize::try_from(META_BYTES_MAX).unwrap_or(usize::MAX))),
            "400",
        ),
        (
            "`label` of a module or branch; `description`",
            two(bytes(ID_BYTES_MAX), bytes(WORDS_BYTES_MAX)),
            "400 `invalid-body`",
        ),
        (
            "A text of a sequence's rule, and all around its number; its `description`",
            two(bytes(SEQUENCE_TEXT_BYTES_MAX), bytes(SEQUENCE_NOTE_BYTES_MAX)),
            "400 `invalid-sequence`, `invalid-definition`",
        ),
        (
            "A version of a record, and of a module; of a strict module's snapshot",
            two(VERSION_MAX.to_string(), format!("{VERSION_LEAP_MAX} over the module's")),
            "400; in a seed as if it were not sent",
        ),
        ("Name of a stored definition", bytes(SCHEMA_NAME_BYTES_MAX), "400 `invalid-path`"),
    ]
}

/// Of snapshots and sockets.
fn sockets(usual: &Limits) -> Vec<LimitRow> {
    let snapshot = usize::try_from(usual.snapshot_bytes_max).unwrap_or(usize::MAX);
    vec![
        (
            "A snapshot, and a module or branch read whole",
            format!("{}, a setting (`snapshot_max_mib`)", bytes(snapshot)),
            "413 or `server:error` `snapshot-too-large`",
        ),
        (
            "A snapshot sent in one frame; a frame of a larger one",
            two(bytes(WHOLE_BYTES_MAX), bytes(PIECE_BYTES)),
            "it comes in several frames",
        ),
        (
            "An event or `module:reset` with the module's `snapshot`",
            bytes(EVENT_FRAME_BYTES_MAX),
            "it comes without; ask for a snapshot",
        ),
        (
            "A message of a client; one with `data.snapshot`",
            format!(
                "{}; {}, or a third of what may be on its way",
                bytes(MESSAGE_BYTES_MAX),
                bytes(LARGE_BODY_BYTES_MAX)
            ),
            "close code 1009",
        ),
        (
            "Publishes of a socket that wait",
            format!("{PUBLISHES_WAITING_MAX} or {}", bytes(PUBLISH_BYTES_WAITING_MAX)),
            "the socket is read when some are decided",
        ),
        (
            "Queries of a socket; words under topics that wait",
            format!("{QUERIES_AT_ONCE}; {POSTS_WAITING_MAX}"),
            "the socket is read when some are answered",
        ),
        ("Topics of a socket", TOPICS_MAX.to_string(), "`error` `too-many-topics`"),
        ("Name of a topic", bytes(TOPIC_NAME_BYTES_MAX), "`error` `invalid-topic`"),
        ("Data under a topic", bytes(TOPIC_DATA_BYTES_MAX), "`error` `topic-data-too-large`"),
        (
            "Words of a sync topic that wait for the state",
            SYNC_MESSAGES_WAITING_MAX.to_string(),
            "the oldest are left out",
        ),
        (
            "How far back a topic's last word is looked for",
            format!("{RECENT_EVENTS} events"),
            "it begins with the next one",
        ),
        (
            "Frames that wait for a slow socket",
            format!("{} or {}", usual.outbox_frames_max, bytes(usual.outbox_bytes_max)),
            "changes wait in the log",
        ),
    ]
}

/// Of sockets and connections that are slow, or many.
fn connections(usual: &Limits) -> Vec<LimitRow> {
    vec![
        (
            "How slowly a message arrives",
            format!(
                "{} a second over {}",
                bytes(SLOWEST_ARRIVAL_BYTES_PER_SECOND),
                seconds(usual.pace_window)
            ),
            "close code 1008",
        ),
        ("Silence of a client", seconds(usual.idle_max), "close code 1001"),
        (
            "Time in which a client takes nothing",
            format!(
                "{}, and 1 s more for each {} of a frame",
                seconds(usual.stall_max),
                bytes(usize::try_from(SLOWEST_BYTES_PER_SECOND).unwrap_or(usize::MAX))
            ),
            "close code 1013",
        ),
        ("Sockets of a node", usual.sockets_max.to_string(), "503 `too-many-sockets`"),
        (
            "Connections of a node",
            CONNECTIONS_MAX.to_string(),
            "the next one waits; beyond the share of its address: 503 `too-many-connections`",
        ),
    ]
}

/// Of the catalogue, which every node holds.
fn catalogue() -> Vec<LimitRow> {
    let kinds = CatalogueKind::ALL.into_iter().filter(|kind| *kind != CatalogueKind::Names);
    let most = |kind: CatalogueKind| bytes(usize::try_from(kind.bytes_max()).unwrap_or(usize::MAX));
    let full = "409 `catalogue-full`";
    vec![
        (
            "Modules; configured branches; full-sync flags; stored definitions",
            format!(
                "{CATALOGUE_MODULES_MAX}; {CATALOGUE_BRANCHES_MAX}; {CATALOGUE_FLAGS_MAX}; \
                 {CATALOGUE_SCHEMAS_MAX}"
            ),
            full,
        ),
        (
            "All modules; rows to begin with; configured branches; flags; stored definitions; seed \
             files, as they are encoded",
            kinds.map(most).collect::<Vec<_>>().join("; "),
            full,
        ),
        (
            "Branches that an address makes by writing to them",
            format!(
                "{BRANCHES_PER_ADDRESS} at once, and {BRANCHES_PER_ADDRESS_PER_SECOND} a second: \
                 settings (`branches_per_address_burst`, `branches_per_address_per_second`)"
            ),
            "429 `too-many-new-branches`",
        ),
    ]
}

/// The table as docs/protocol.md shows it.
pub fn markdown() -> String {
    let mut table = String::from("| Of what | At most | Beyond it |\n|---|---|---|\n");
    let usual = Limits::default();
    let rows = [
        arrivals(&usual),
        requests(),
        catalogue(),
        queries(),
        sockets(&usual),
        connections(&usual),
    ];
    for (what, limit, beyond) in rows.into_iter().flatten() {
        writeln!(table, "| {what} | {limit} | {beyond} |").expect("a String takes all");
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_show_every_limit_with_its_value() {
        let documents = include_str!("../../../docs/protocol.md");
        assert!(documents.contains(&markdown()), "docs/protocol.md must contain:\n{}", markdown());
    }
}
