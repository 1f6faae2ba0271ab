//! The machine: everything that touches the outside world, assembled once.
//!
//! ```text
//!   cli ── config ── node ──┬── boot       the data directory
//!                           ├── catalogue  modules and branches from files, or the sample
//!                           ├── peer       the link to other nodes
//!                           └── raft, actors, gateway
//! ```
//!
//! Disk, sockets, environment and signals are touched here and in `raft/disk` and `gateway` only.

pub mod catalogue;
pub mod cli;
pub mod config;
pub mod data_dir;
pub mod file_limit;
mod files;
pub mod limits;
pub mod memory;
mod node;
pub mod peer;
pub mod sample;
pub mod signals;
pub mod telemetry;

pub use config::{CatalogueSource, Config, ConfigError};
pub use node::{Node, NodeStartError, OnFatal, Sockets};
