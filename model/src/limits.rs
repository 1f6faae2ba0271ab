//! Limits: every bound of this room, with its unit and its reason. What an operator may set is in
//! the definition instead.

/// Most verbs of one write: a purge of a busy day's orders fits, a table copied whole does not.
pub const VERBS_MAX: usize = 10_000;
/// Events every branch keeps in memory, so that a client back within a moment needs no disk.
pub const EVENTS_KEPT_MIN: usize = 256;
/// Events of one sealed segment. Part of the checkpoint's format: boundaries must be equal on all
/// replicas, for ever.
pub const SEGMENT_EVENTS: u64 = 256;
/// Ordinals of one record page. Part of the checkpoint's format.
pub const RECORD_PAGE: u64 = 256;
/// Serials of one page of outcomes. Part of the checkpoint's format.
pub const OUTCOME_PAGE: u64 = 1024;
/// Expired outcomes forgotten by one command: two would keep up, more catches up after a burst,
/// few enough that no command is slow.
pub const EVICTIONS_PER_COMMAND: usize = 8;
/// Reservations listed, the newest; older ones are still in the log.
pub const RESERVATIONS_KEPT: usize = 1_000;
/// Sequences a module may make by itself, out of reservations for fields without a rule.
pub const RULES_MADE_MAX: usize = 256;
