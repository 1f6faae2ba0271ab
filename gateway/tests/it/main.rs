//! The gateway seen from outside: stories over HTTP and WebSocket before branches in memory.
#![allow(clippy::unwrap_used, reason = "a story that cannot go on has failed")]
#![allow(clippy::wildcard_enum_match_arm, reason = "a test names what it expects")]

mod access;
mod admission;
mod arrivals;
mod bad_input;
mod batch;
mod client;
mod configure;
mod connections;
mod contradictions;
mod definitions;
mod events;
mod fake;
mod files;
mod keys;
mod large;
mod lifetime;
mod manage;
mod mutations;
mod names;
mod openapi;
mod orders;
mod origins;
mod query;
mod rest;
mod resume;
mod socket;
mod spellings;
mod sync;
mod topics;
mod versions;
