//! Rows: what each kind of request may say.

use super::KnownMembers;
use crate::business_day::MARKERS;
use crate::preconditions;

/// What a table is named by.
pub(crate) const TABLE: &[&str] = &["table", "tableName", "targetTable"];
/// Only what was created later.
pub(crate) const CREATED_AFTER: &[&str] =
    &["afterCreatedAt", "after_created_at", "since", "begin_date", "create_date", "created_after"];
/// Only what was changed later.
pub(crate) const UPDATED_AFTER: &[&str] = &["updatedAfter", "updated_after"];

/// By table, the last row that a client of `…/delta` holds.
pub(crate) const CURSORS: [&str; 3] = ["lastTableIds", "lastIds", "tableCursors"];
/// The tables that such a client asks for.
pub(crate) const TABLES: [&str; 5] =
    ["tables", "tableNames", "requestTables", "includeTables", "tablesRequested"];
/// The version of the state that such a client holds.
pub(crate) const VERSIONS: [&str; 3] = ["version", "clientVersion", "snapshotVersion"];

/// `POST /api/modules`.
pub(crate) const NEW_MODULE: KnownMembers = KnownMembers {
    what: "a new module",
    names: &[
        &["id", "moduleId"],
        &["name"],
        &["label"],
        &["description"],
        &["tables"],
        &["schema"],
        &["schemaFallbackPath"],
        &["seedFallbackPath"],
        &["validation"],
        &["versionRule"],
        &["dedupBytes"],
    ],
};
/// `PATCH /api/modules/{module}`.
pub(crate) const MODULE_SETTINGS: KnownMembers = KnownMembers {
    what: "the settings of a module",
    names: &[&["label"], &["description"], &["validation"], &["versionRule"], &["dedupBytes"]],
};
/// `POST /api/branches`.
pub(crate) const NEW_BRANCH: KnownMembers = KnownMembers {
    what: "a new branch",
    names: &[&["id", "branchId"], &["name"], &["label"], &["modules"], &["schemas"]],
};
/// `POST /api/branches/{branch}/modules`.
pub(crate) const GIVEN_MODULE: KnownMembers = KnownMembers {
    what: "a module of a branch",
    names: &[&["id", "moduleId"], &["name"], &["schema"]],
};
/// `POST /api/schemas/…`.
pub(crate) const STORED_DEFINITION: KnownMembers =
    KnownMembers { what: "a stored definition", names: &[&["schema"]] };
/// `POST /api/query/module`.
pub(crate) const QUERY: KnownMembers = KnownMembers {
    what: "a query",
    names: &[
        &["branchId"],
        &["moduleId"],
        TABLE,
        &["where", "filter"],
        &["orderBy", "sortBy"],
        &["limit"],
        &["offset"],
        &["lang"],
        &["fallbackLang"],
    ],
};
/// Parameters of a query, which says all in its body.
pub(crate) const QUERY_PARAMS: KnownMembers =
    KnownMembers { what: "a query's address", names: &[] };
/// One condition of a query.
pub(crate) const CONDITION: KnownMembers =
    KnownMembers { what: "a condition", names: &[&["operator"], &["value"]] };
/// One field to sort by.
pub(crate) const ORDER_BY: KnownMembers =
    KnownMembers { what: "orderBy", names: &[&["field"], &["direction", "dir"]] };
/// `client:query`.
pub(crate) const SOCKET_QUERY: KnownMembers = KnownMembers {
    what: "a query",
    names: &[
        &["type"],
        &["branchId"],
        &["moduleId", "module"],
        TABLE,
        &["queryType"],
        &["id", "recordId"],
        &["filter"],
        &["populate"],
        &["requestId"],
    ],
};
/// `GET …/tables/{table}`.
pub(crate) const RECORDS: KnownMembers = KnownMembers {
    what: "a list of records",
    names: &[
        &["limit", "take"],
        &["afterPosition"],
        &["afterKey", "cursor"],
        &["afterId", "after"],
        &["after_id"],
        &["lastId"],
        CREATED_AFTER,
        UPDATED_AFTER,
        &["order", "sort"],
        &["lang", "locale"],
        &["fallback", "fallbackLang"],
    ],
};
/// `POST`, `PATCH`, `PUT …/tables/{table}` with the record in a member of its own.
pub(crate) const WRITTEN: KnownMembers = KnownMembers {
    what: "a record's write",
    names: &[&["record", "data"], &["meta"], &["userId"]],
};
/// `POST /api/manage/purge-live-data`.
pub(crate) const PURGE: KnownMembers = KnownMembers {
    what: "a purge",
    names: &[
        &["branchId", "branch"],
        &["moduleId", "module", "targetModule"],
        &["tables", "table", "tableNames", "targetTables", "transactionTables", "purgeTables"],
        &["resetEvents"],
        &["broadcast"],
        &["reason"],
        &["requestedBy"],
        &["userId"],
    ],
};
/// `POST /api/manage/daily-reset`.
pub(crate) const RESET: KnownMembers = KnownMembers {
    what: "a reset",
    names: &[
        &["branchId", "branch"],
        &["modules", "moduleIds", "moduleId", "module"],
        &["reason"],
        &["requestedBy"],
        &["userId"],
        &["flagFullSync"],
        &["broadcast"],
    ],
};
/// `concurrency` of a save; `lookup` is how the original's clients say how they found the record.
pub(crate) const CONDITIONS: KnownMembers = KnownMembers {
    what: "the conditions of a write",
    names: &[
        &["requireExisting", "disallowCreate"],
        &["requireSnapshotMarker"],
        &["enforceSnapshot"],
        &["expectedPaymentState", "paymentState"],
        &["rejectPaymentStates"],
        &["allowedPaymentStates"],
        &["ifNotModifiedSince", "ifModifiedBefore", "expectedUpdatedAt"],
        &["lastKnownId"],
        &["expectedVersion"],
        &["lookup"],
    ],
};
/// `POST …/save`.
pub(crate) const SAVED: KnownMembers = KnownMembers {
    what: "a save",
    names: &[
        TABLE,
        &["record", "data"],
        &["meta"],
        &["source"],
        &["userId"],
        &["requestId"],
        &["includeRecord"],
        &MARKERS,
        &preconditions::NAMES,
        &["lastKnownId"],
    ],
};
/// `POST …/batch`, and `client:batch` beside what a frame says of itself.
pub(crate) const BATCH: KnownMembers = KnownMembers {
    what: "a batch",
    names: &[
        &["verbs"],
        &["requestId"],
        &["meta"],
        &["userId"],
        &["type"],
        &["branchId"],
        &["moduleId", "module"],
        &["source"],
        &["includeRecord"],
    ],
};
/// One change of a batch.
pub(crate) const BATCH_MUTATION: KnownMembers = KnownMembers {
    what: "a change of a batch",
    names: &[
        &["action"],
        TABLE,
        &["record", "data"],
        &["expectedVersion"],
        &["includeRecord"],
        &["eventId"],
        &["meta"],
        &["source"],
        &["userId"],
        &MARKERS,
        &preconditions::NAMES,
        &["lastKnownId"],
    ],
};
/// `POST …/events`, and `client:publish` beside what a frame says of itself.
pub(crate) const PUBLISH: KnownMembers = KnownMembers {
    what: "a publish",
    names: &[
        &["action"],
        TABLE,
        &["record", "data"],
        &["meta"],
        &["source"],
        &["userId"],
        &["requestId"],
        &["eventId", "id"],
        &["includeRecord"],
        &["includeSnapshot"],
        &["publishState"],
        &["type"],
        &["branchId"],
        &["moduleId", "module"],
    ],
};
/// `POST …/events/batch`.
pub(crate) const INGESTED: KnownMembers = KnownMembers {
    what: "a batch of events",
    names: &[
        &["lastAckId"],
        &["events"],
        &["requestId"],
        &["userId"],
        &["meta"],
        &["branchId"],
        &["moduleId"],
    ],
};
/// One event of `POST …/events/batch`: what an insert says, and what an event that was read says
/// of where it stood, which a client may send back.
pub(crate) const INGESTED_EVENT: KnownMembers = KnownMembers {
    what: "an event to be taken in",
    names: &[
        &["action"],
        TABLE,
        &["record", "data"],
        &["meta"],
        &["source"],
        &["userId"],
        &["eventId", "id"],
        &["includeRecord"],
        &["publishState"],
        &["branchId"],
        &["moduleId"],
        &["recordRef"],
        &["version"],
        &["sequence"],
        &["createdAt"],
        &["recordedAt"],
        &["serverId"],
    ],
};
/// `POST …/orders`, around the order.
pub(crate) const SAVED_ORDER: KnownMembers = KnownMembers {
    what: "an order's save",
    names: &[&["order", "data", "record"], &["actorId", "userId"], &["requestId"], &["meta"]],
};
/// `POST …/sequences`.
pub(crate) const RESERVE: KnownMembers = KnownMembers {
    what: "a number to take",
    names: &[
        &["table", "tableName"],
        &["field", "fieldName"],
        &["record"],
        &["meta"],
        &["userId"],
        &["requestId"],
    ],
};
/// `PUT /api/cluster/level`.
pub(crate) const LEVEL: KnownMembers =
    KnownMembers { what: "a level to agree on", names: &[&["level"]] };
/// `POST /api/seeds`.
pub(crate) const SEEDS: KnownMembers = KnownMembers {
    what: "seeds",
    names: &[&["branchId"], &["moduleId"], &["seeds"], &["requestId"]],
};
/// `POST …/clock`.
pub(crate) const CLOCK: KnownMembers =
    KnownMembers { what: "a commit time to bring back", names: &[&["reason"], &["requestedBy"]] };
/// `POST …/reset`.
pub(crate) const MODULE_RESET: KnownMembers =
    KnownMembers { what: "a module's reset", names: &[&["requestedBy"], &["requestId"]] };
/// `GET …/purge-history`.
pub(crate) const HISTORY: KnownMembers = KnownMembers {
    what: "a question for the history",
    names: &[&["branchId", "branch"], &["moduleId", "module", "targetModule"], &["entryId", "id"]],
};
/// `POST …/purge-history`.
pub(crate) const RESTORE: KnownMembers = KnownMembers {
    what: "a restoration",
    names: &[
        &["branchId", "branch"],
        &["moduleId", "module", "targetModule"],
        &["entryId", "id", "historyId", "historyEntryId"],
        &["mode"],
        &["fill"],
        &["broadcast"],
        &["reason"],
        &["requestedBy"],
        &["userId"],
    ],
};
/// `POST`, `PATCH` and `DELETE …/full-sync`.
pub(crate) const FULL_SYNC: KnownMembers = KnownMembers {
    what: "a full-sync flag",
    names: &[
        &["branchId", "branch"],
        &["modules", "moduleIds", "moduleId", "module"],
        &["reason"],
        &["requestedBy"],
        &["userId"],
        &["meta"],
        &["status"],
        &["action"],
        &["enabled"],
    ],
};
/// `POST /api/sync/…`.
pub(crate) const REPLACE: KnownMembers = KnownMembers {
    what: "a replacement of tables",
    names: &[&["snapshot"], &["mutationId"], &["requestId"], &["meta"], &["userId"], &["source"]],
};
/// Parameters of `/api/sync/…`.
pub(crate) const WHOLE: KnownMembers = KnownMembers {
    what: "this request",
    names: &[&["branch", "branchId"], &["module", "moduleId"]],
};
/// The snapshot within it.
pub(crate) const REPLACED: KnownMembers = KnownMembers {
    what: "a snapshot to be stored",
    names: &[
        &["tables"],
        &["version"],
        &["branchId"],
        &["moduleId"],
        &["meta"],
        &["updatedAt"],
        &["savedAt"],
    ],
};
/// `POST /api/sync/…/delta`.
pub(crate) const DELTA: KnownMembers = KnownMembers {
    what: "what is missing",
    names: &[
        &TABLES,
        &CURSORS,
        &VERSIONS,
        &MARKERS,
        &["cursor"],
        &["resume"],
        &["branchId"],
        &["moduleId"],
        &["requestId"],
        &["meta"],
        &["lang"],
    ],
};
/// `GET /api/schema`.
pub(crate) const SCHEMA: KnownMembers = KnownMembers {
    what: "a question for definitions",
    names: &[
        &["branch", "branchId"],
        &["module"],
        &["moduleId"],
        &["modules"],
        &["include"],
        &["include[]"],
        &["with"],
        &["seed"],
        &["live"],
    ],
};
/// `client:hello`; the original takes, and passes over, what it says of a history.
pub(crate) const HELLO: KnownMembers = KnownMembers {
    what: "a hello",
    names: &[
        &["type"],
        &["branchId"],
        &["role"],
        &["userId"],
        &["clientId"],
        &["lang"],
        &["records"],
        &["resume"],
        &["requestId"],
        &["historyLimit"],
        &["requestSnapshot"],
        &["requestHistory"],
    ],
};
/// Parameters of a request that has none.
pub(crate) const NONE: KnownMembers = KnownMembers { what: "this request", names: &[] };
/// Parameters of an insert, which has none.
pub(crate) const INSERTING: KnownMembers = KnownMembers { what: "an insert", names: &[] };
/// Parameters of a record's write.
pub(crate) const WRITING: KnownMembers =
    KnownMembers { what: "a record's write", names: &[&["version"]] };
/// Parameters of a change of a definition.
pub(crate) const DEFINING: KnownMembers =
    KnownMembers { what: "a change of a definition", names: &[&["fill"]] };
/// `DELETE …/tables/{table}`.
pub(crate) const REMOVED: KnownMembers = KnownMembers {
    what: "a record's removal",
    names: &[&["id", "recordId", "record_id", "key"], &["version"]],
};
/// `GET …/orders`.
pub(crate) const ORDERS: KnownMembers = KnownMembers {
    what: "a list of orders",
    names: &[
        &["onlyActive"],
        &["status"],
        &["stage"],
        &["type"],
        &["shiftId"],
        UPDATED_AFTER,
        &["savedAfter", "saved_after"],
        &["limit", "take"],
        &["include"],
        &["include[]"],
        &["includeLines"],
        &["includePayments"],
        &["includeStatusLogs"],
        &["includeLineStatusLogs"],
    ],
};
/// `GET …/events`.
pub(crate) const EVENTS: KnownMembers =
    KnownMembers { what: "a list of events", names: &[&["after"], &["limit"], &["epoch"]] };
