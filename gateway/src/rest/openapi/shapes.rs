//! Shapes: what the document calls by name, in the notation, so that it is written once.

/// What the document begins with.
pub(super) const ABOUT: &str = "A real-time data store for shops with many branches. Any node \
answers for any branch. A write is acknowledged when it is on the disks of a majority. Changes are \
followed over a WebSocket on the same port, on any path: docs/protocol.md tells its frames.";

/// The names in paths.
pub(super) const PATH_PARTS: &[(&str, &str)] = &[
    ("branch", "A branch's id, percent-encoded where needed: `dar`, `lab:test-pad`"),
    ("module", "A module's id, such as `pos`"),
    ("table", "A table's registered name, such as `order_header`"),
    ("field", "A field of a table, such as `id`"),
    ("rest", "A member of the module's snapshot: `version`, `meta`, `meta/counter`, `tables`"),
    ("name", "A stored definition's name, such as `pos_schema`"),
    ("key", "A record's key, as `recordRef.key` shows it, percent-encoded where needed"),
    ("id", "An id"),
    ("order", "An order's id, such as `DAR-001001`"),
];

/// The shapes by name.
pub(super) const NAMED: &[(&str, &str)] = &[
    (
        "Refusal",
        "{error: text, message: text, details: object, type: text, title: text, status: int, \
         detail: text, instance: text, *: any}",
    ),
    ("Record", "{*: any}"),
    (
        "RecordRef",
        "{table: text, key: text, primaryKey: {*: any}, id?: any, uuid?: any, uid?: any}",
    ),
    (
        "PageCursor",
        "{table: text, key: text, primaryKey: {*: any}, id?: any, uuid?: any, uid?: any, \
         position: text}",
    ),
    ("ModuleMeta", "{lastUpdatedAt: text, counter: int, labCounter: int}"),
    (
        "ModuleSnapshot",
        "{moduleId: text, branchId: text, version: int, tables: {*: [Record]}, meta: ModuleMeta}",
    ),
    (
        "BranchSnapshot",
        "{branchId: text, modules: {*: ModuleSnapshot}, updatedAt: text, serverId: text}",
    ),
    (
        "EventMeta",
        "{serverId: text, branchId: text, moduleId: text, table: text, timestamp: text, \
         source?: text, clientMeta?: any, recordKey: text, recordId?: any, eventId: text, \
         sequence: int, recordRef: RecordRef}",
    ),
    (
        "Entry",
        "{id: any, table: text, action: text, recordRef: RecordRef, meta: EventMeta, \
         created: flag, deleted: flag, record?: Record}",
    ),
    (
        "Notice",
        "{action: text, recordRef: RecordRef, eventId: text, sequence: int, version: int, \
         timestamp: text, created: flag, deleted: flag, meta: EventMeta}",
    ),
    (
        "Ack",
        "{type: 'server:ack', action: text, branchId: text, moduleId: text, version: int, \
         table: text, recordRef: RecordRef, eventId: text, sequence: int, publishState: object, \
         meta: EventMeta, entry: Entry, created: flag, deleted?: flag}",
    ),
    ("Sent", "{record?: Record, data?: Record, meta?: any, *: any}"),
    (
        "Changed",
        "{status: 'created'|'updated'|'saved', branchId: text, moduleId: text, table: text, \
         record: Record, ack: Ack, notice: Notice}",
    ),
    (
        "Deleted",
        "{status: 'deleted', branchId: text, moduleId: text, table: text, recordRef: RecordRef, \
         notice: Notice, ack: Ack}",
    ),
];
