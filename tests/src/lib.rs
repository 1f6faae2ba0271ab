//! The house seen from outside: what its stories and drills share.
//!
//! Real nodes on real sockets: in this process where a story only talks to them, as processes of
//! their own where it kills them. Nothing here looks behind a door; what is judged is what a
//! client was told and what it can read afterwards.
//!
//! - [`client`]: one node's door for calls, as a till would use it; [`session`]: its door for
//!   live sessions; [`status`]: the cluster as it sees it;
//! - [`writer`]: writes until the outcome is known, whatever happens to nodes meanwhile;
//!   [`recording`]: what was answered and what nodes show, and the verdicts of the checkers;
//! - [`cluster`]: nodes inside this process; [`fleet`]: nodes as processes, to be killed;
//!   [`demo`]: as a newcomer starts them; [`binary`]: where their program comes from;
//! - [`contract`]: recordings of a server played against nodes, and every difference told;
//! - [`disk`]: a disk whose power can be cut; [`process`]: what the kernel knows of a process;
//!   [`drill`]: options and figures of the programs in `faults`;
//! - [`browser`]: a real browser, and an attacker's server for it to visit;
//! - [`patience`]: waiting for something to become true, with a safety net and a clear message.

pub mod binary;
pub mod browser;
pub mod client;
pub mod cluster;
pub mod contract;
pub mod demo;
pub mod disk;
pub mod drill;
pub mod fleet;
pub mod patience;
pub mod process;
pub mod recording;
pub mod session;
pub mod status;
pub mod writer;
