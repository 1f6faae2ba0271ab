//! Integration tests of this crate: several nodes in one process, real files, real time.
//!
//! They assert what happened and in which order, never how long it took.
#![allow(clippy::unwrap_used, reason = "a test that cannot continue has failed")]

mod cluster;
mod failures;
mod groups;
mod members;
#[cfg(feature = "mutants")]
mod mutants;
mod random_faults;
mod recovery;
