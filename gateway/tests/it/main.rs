//! The doors seen from outside: stories over HTTP and WebSocket before branches in memory.
#![allow(clippy::unwrap_used, reason = "a story that cannot go on has failed")]
#![allow(clippy::wildcard_enum_match_arm, reason = "a test names what it expects")]

mod bad_input;
mod client;
mod fake;
mod lifetime;
mod rest;
mod resume;
mod socket;
mod topics;
mod verbs;
