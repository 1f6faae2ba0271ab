//! History: what clients did to a cluster and what it showed them, as plain records, and the
//! [`checker`] that judges it. Simulated runs, chaos runs and drills all write this one form.
//!
//! The words are those of Jepsen: a client invokes an operation, and it completes as `ok`, `fail`
//! or `info`.
//!
//! Promise: an operation without a clear response is [`Completion::Info`]: it may have happened, it
//! never counts as failed. Nothing here knows how it was observed, so that checkers judge a history
//! of any origin, also one written by hand.
//! Refused: clocks, files and sockets; whoever observes has them. New names in `history.jsonl`: the
//! serde names there are older than the Rust names.

pub mod checker;
mod record;

pub use record::{
    Attempt, BranchModule, Completion, DiskStall, Fault, History, Invocation, LogEvent,
    LogPosition, MonotonicTime, NodeId, Operation, ReceivedMessage, ReplicaReading, Response,
    ReturnValue, RowJson, SubscriptionMessage, TableReading, row_from_json,
};
