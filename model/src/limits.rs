//! Limits: every bound of this crate, with its unit and its reason. What an operator may set is in
//! the definition instead.

/// Most mutations of one write: a purge of a busy day's orders fits, a table copied whole does not.
pub const MUTATIONS_MAX: usize = 10_000;
/// Longest key of a record, all its fields together, in bytes: every event, page, index and answer
/// repeats it. A UUID has 36.
pub const RECORD_KEY_BYTES_MAX: usize = 1024;
/// Comparisons that the conditions over the change of one mutation may make: a table of which of
/// eight states may follow which needs no more, and ten thousand mutations stay quick.
pub const CHANGE_COMPARISONS_MAX: usize = 64;
/// Events every branch keeps in memory, so that a client back within a moment needs no disk.
pub const EVENTS_KEPT_MIN: usize = 256;
/// Memory beyond which a branch keeps fewer of them, once they are on disk, in bytes: events of
/// bulk operations carry whole tables, and 256 of those would fill a node. Well above what 256
/// events of single records take.
pub const EVENTS_BYTES_KEPT: u64 = 8 * 1024 * 1024;
/// Encoded bytes of events that end a part of a segment, so that few large ones can leave memory
/// before their segment is full. Part of the checkpoint's format, as the next is: replicas with
/// other boundaries write the same events under other names.
pub const EVENT_PART_BYTES: usize = 1024 * 1024;
/// Events of one sealed segment. Part of the checkpoint's format: boundaries must be equal on all
/// replicas, for ever.
pub const SEGMENT_EVENTS: u64 = 256;
/// Ordinals of one record page. Part of the checkpoint's format.
pub const RECORD_PAGE: u64 = 256;
/// Serials of one page of the dedup table. Part of the checkpoint's format.
pub const DEDUP_PAGE: u64 = 1024;
/// What one remembered decision counts for in the bound of the dedup table, in bytes: its entry
/// and its part of the index and the trees; a test and an example keep it true.
pub const DEDUP_ENTRY_BYTES: usize = 48;
/// Lowest bound of a dedup table that may be set, in bytes: some thousand entries.
pub const DEDUP_BYTES_MIN: u64 = 64 * 1024;
/// Highest bound of a dedup table that may be set, in bytes: some three hundred million entries.
pub const DEDUP_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;
/// What a client named may give way at the bound when it is so old, in milliseconds of log uptime.
pub const DEDUP_GIVE_WAY_MS: u64 = 3_600_000;
/// How long what a server named is kept, in milliseconds of log uptime: nobody can repeat it later.
pub const DEDUP_SERVER_KEEP_MS: u64 = 60_000;
/// The same, at the bound: longer than the server itself retries (its request's deadline, 10 s).
pub const DEDUP_SERVER_KEEP_MIN_MS: u64 = 15_000;
/// Expired decisions forgotten by one command: two would keep up, more catches up after a burst,
/// few enough that no command is slow.
pub const EVICTIONS_PER_COMMAND: usize = 8;
/// Decisions that may give way for one command: one keeps up; more, where the bound was lowered.
pub const DEDUP_DISPLACED_AT_ONCE: usize = 1024;
/// Bytes of refusals kept whole, the newest; of older ones the code is known. Besides the bound.
pub const REFUSALS_BYTES_MAX: usize = 1024 * 1024;
/// Different codes of refusals told apart once the refusals themselves are gone: twice what there
/// are.
pub const REFUSAL_CODES_MAX: usize = 256;
/// What a reserved number counts for besides its own bytes: its place in the tree.
pub const RESERVED_EXTRA_BYTES: usize = 64;
/// Tables one command may name: more than any module has.
pub const TABLES_NAMED_MAX: usize = 256;
/// Highest version of a record and of a module: 15 digits, exact for every client that reads
/// numbers as doubles, and more changes than there will ever be.
pub const VERSION_MAX: u64 = 999_999_999_999_999;
/// How far over a strict module's version that of a snapshot may be: it counts changes, and no
/// client has seen a million that the store has not.
pub const VERSION_LEAP_MAX: u64 = 1_000_000;
/// Entries a module's archive keeps, the newest: a purge and a reset a day for most of a month.
pub const ARCHIVE_ENTRIES_MAX: usize = 50;
/// Records a module's archive keeps over all entries. The newest entry is always kept whole, or a
/// purge would lose what it took.
pub const ARCHIVE_RECORDS_MAX: u64 = 100_000;
/// Bytes of such records, as a checkpoint holds them.
pub const ARCHIVE_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Records of one page of an archive entry. Part of the checkpoint's format.
pub const ARCHIVE_PAGE: usize = 256;
/// Records of an archive entry's table that are named where the entry is shown in short.
pub const ARCHIVE_SAMPLE: usize = 5;
/// Reservations listed, the newest; older ones are still in the log.
pub const RESERVATIONS_KEPT: usize = 1_000;
/// Sequences a module may make by itself, out of reservations for fields without a rule.
pub const RULES_MADE_MAX: usize = 256;
/// Digits and places up to which a number in a key is written without an exponent: beyond every
/// amount and bar code, short of a key of hundreds of zeros. Part of the keys' format.
pub const PLAIN_DIGITS_MAX: usize = 64;
/// Names of removed rows a table remembers the places of, the newest, so that a list goes on from a
/// row that is gone: more than go while somebody turns a page, half a megabyte at most in practice.
pub const REMOVED_NAMES_MAX: usize = 4_096;
/// Longest such name, in bytes; a row with a longer one is not remembered.
pub const REMOVED_NAME_BYTES_MAX: usize = 256;
/// Highest number of a sequence: 15 digits, exact for every client that reads numbers as doubles.
pub const SEQUENCE_NUMBER_MAX: u64 = 999_999_999_999_999;
/// Longest text of a sequence's rule, and longest text around its number, in bytes: it stands in
/// every record that is numbered, and in keys and URLs.
pub const SEQUENCE_TEXT_BYTES_MAX: usize = 64;
/// Longest description of a sequence's rule, in bytes: a few sentences.
pub const SEQUENCE_NOTE_BYTES_MAX: usize = 1024;
/// How far over its counter a number that was written by somebody else is still followed: a shop
/// writes no million of orders between two looks, a slip of a finger easily does.
pub const SEQUENCE_LEAP_MAX: u64 = 1_000_000;
/// Numbers passed over at once because they are keys of records already: taking one stays quick.
pub const NUMBERS_PASSED_MAX: u64 = 100_000;
/// Records named where a definition is refused because of them: enough to see what is wrong.
pub const VIOLATIONS_SHOWN: usize = 10;
/// Conditions of one query: a page of filters has a dozen.
pub const QUERY_CONDITIONS_MAX: usize = 100;
/// Values that one condition of a query may list: the records of a page, and not a copy of a table.
pub const QUERY_VALUES_MAX: usize = 1_000;
/// Fields that one query may sort by: each is held for every row while it sorts.
pub const QUERY_SORT_FIELDS_MAX: usize = 8;
/// Rows times conditions that one query may look at: a second or two of one processor.
pub const QUERY_WORK_MAX: u64 = 20_000_000;
/// Rows a read looks at before it asks again whether anybody still waits for it: a millisecond.
pub const ROWS_PER_SLICE: usize = 1_000;

/// What an allocation takes besides its content, on average, where memory is estimated: allocators
/// round up.
pub const ALLOCATION_BYTES: u64 = 8;
/// What a row takes in memory besides its key and its record's members: its places in two ordered
/// maps, and the heads of key and record.
pub const ROW_BYTES: u64 = 144;
/// What an event takes in memory besides the records in it: its ids, its command's id, its origin.
pub const EVENT_BYTES: u64 = 512;
/// What a change of one record takes in an event of many, besides the record.
pub const CHANGE_BYTES: u64 = 48;
/// What a branch:module takes in memory before it has a record.
pub const BRANCH_BYTES: u64 = 8 * 1024;
/// Tables of a partition that are found again where another branch has an equal one: those of a
/// dozen modules' seeds.
pub const SHARED_TABLES_MAX: usize = 256;
/// Rows such a table may have: a menu has hundreds, and looking costs a microsecond for each.
pub const SHARED_TABLE_ROWS_MAX: usize = 1_024;
/// Most modules of a cluster.
pub const CATALOGUE_MODULES_MAX: usize = 1_000;
/// Most configured branches of a cluster.
pub const CATALOGUE_BRANCHES_MAX: usize = 100_000;
/// Most definitions stored by name.
pub const CATALOGUE_SCHEMAS_MAX: usize = 1_000;
/// Seed files kept, the newest by name.
pub const CATALOGUE_SEED_FILES_KEPT: usize = 20;
/// Most full-sync flags, set or cleared.
pub const CATALOGUE_FLAGS_MAX: usize = 100_000;
/// Bytes of all modules with their definitions, encoded: two hundred of a hundred tables. Every
/// node holds the whole catalogue in memory, at about four times its encoded bytes.
pub const CATALOGUE_DEFINITION_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of all rows to begin with, of modules and branches, encoded.
pub const CATALOGUE_SEED_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of all configured branches, encoded: a hundred thousand with long ids and labels.
pub const CATALOGUE_BRANCH_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Bytes of all full-sync flags, encoded: a hundred thousand without what their askers add.
pub const CATALOGUE_FLAG_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Bytes of all definitions stored by name, encoded.
pub const CATALOGUE_SCHEMA_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of all seed files stored by name, encoded: more than the largest body is.
pub const CATALOGUE_SEED_FILE_BYTES_MAX: u64 = 48 * 1024 * 1024;
/// Bytes of the ids of changes that are remembered; the oldest are forgotten beyond. Those of files
/// are counted besides.
pub const CATALOGUE_NAMES_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Most changes whose ids are remembered, oldest forgotten first: far more than are ever retried.
pub const CATALOGUE_CHANGES_REMEMBERED: usize = 10_000;
/// Of one definition out of a file, so many versions are: nodes may bring different ones for a
/// while.
pub const CATALOGUE_VERSIONS_REMEMBERED: usize = 16;
/// Changes of which it is known what they were about: who is further behind looks at everything.
pub const CATALOGUE_RECENT_CHANGES: usize = 1_024;
