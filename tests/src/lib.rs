//! The product seen from outside: what its stories and drills share.
//!
//! Real nodes on real sockets: in this process where a story only talks to them, as processes of
//! their own where it kills them. Nothing here looks inside a node; what is judged is what a
//! client was answered and what it can read afterwards.
//!
//! - [`client`]: calls to one node, as a till would make them; [`session`]: a live session with
//!   it; [`status`]: the cluster as it sees it;
//! - [`writer`]: writes until the outcome is known, whatever happens to nodes meanwhile;
//!   [`recording`]: what was answered and what nodes show, and the verdicts of the checkers;
//! - [`cluster`]: nodes inside this process; [`process_cluster`]: nodes as processes, to be killed;
//!   [`demo`]: as a newcomer starts them; [`binary`]: where their program comes from;
//! - [`contract`]: recordings of a server played against nodes, and every difference listed;
//! - [`levels`]: data directories of every level of the formats, to be opened by later builds;
//! - [`disk`]: a disk whose power can be cut; [`process`]: what the kernel knows of a process;
//!   [`drill`]: options and figures of the programs in `faults`; [`load`]: clients that write as
//!   fast as they are answered; [`chart`]: figures as a picture;
//! - [`browser`]: a real browser, and an attacker's server for it to visit;
//! - [`wait`]: waiting for something to become true, with a timeout and a clear message.

pub mod binary;
pub mod browser;
pub mod chart;
pub mod client;
pub mod cluster;
pub mod contract;
pub mod demo;
pub mod disk;
pub mod drill;
pub mod levels;
pub mod load;
pub mod process;
pub mod process_cluster;
pub mod recording;
pub mod session;
pub mod status;
pub mod wait;
pub mod writer;
