//! The stories of this room: several nodes in one process, real files, real time.
//!
//! They assert what happened and in which order, never how long it took.
#![allow(clippy::unwrap_used, reason = "a story that cannot go on has failed")]

mod cluster;
mod failures;
mod groups;
mod members;
#[cfg(feature = "mutants")]
mod mutants;
mod random_faults;
mod recovery;
