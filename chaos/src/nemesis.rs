//! Nemesis: the kinds of faults, their injection and their healing.
//!
//! Promise: a fault does what its name says, or the injection fails and is not counted. Healing
//! leaves every node running and every link, disk and clock as before.
//! Refused: a repair that a node must do by itself. Only what an operator would restore from a copy
//! is given back: a flipped bit, and the directory of a node whose disk was empty.

mod bit_flip;
mod hostile;
mod injection;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use crate::cluster::{DiskFault, LinkQuality, TestCluster};
use crate::rng::Rng;
use history::NodeId;

/// How long nodes may take to become ready after everything is healed.
pub const RECOVERY_TIMEOUT: Duration = Duration::from_secs(60);

/// The word in the log of a node that found its files corrupt.
const CORRUPTION_MESSAGE: &str = "damaged";

/// The fault whose elections are counted: in a run of nothing else there must be none.
pub const HOSTILE_CLIENT: &str = "hostile-client";

/// How long a node with a flipped bit may take to become ready or to find the corruption.
const CORRUPTION_TIMEOUT: Duration = Duration::from_secs(12);

/// What a fault requires of the environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requirement {
    /// Nothing: it acts on processes of this user.
    Nothing,
    /// Namespaces: it acts on links, or on a disk of each node's own.
    Namespaces,
}

/// A kind of fault.
#[derive(Debug, Clone, Copy)]
pub struct FaultKind {
    /// Its name.
    pub name: &'static str,
    /// What it does, for people.
    pub about: &'static str,
    /// What it requires.
    pub requires: Requirement,
    /// The shortest and the longest duration, in milliseconds.
    pub duration_ms: (u64, u64),
    /// Whether it may be combined with another fault.
    pub is_combinable: bool,
    /// Whether a node that it acts on may exit.
    pub may_end_nodes: bool,
}

/// A fault by which a node may exit.
const fn exit_allowed(
    name: &'static str,
    requires: Requirement,
    duration_ms: (u64, u64),
    about: &'static str,
) -> FaultKind {
    FaultKind { name, about, requires, duration_ms, is_combinable: false, may_end_nodes: true }
}

/// A fault during which no node may exit.
const fn exit_forbidden(
    name: &'static str,
    requires: Requirement,
    duration_ms: (u64, u64),
    about: &'static str,
) -> FaultKind {
    FaultKind { may_end_nodes: false, ..exit_allowed(name, requires, duration_ms, about) }
}

/// A fault that may be combined with another; no node may exit.
const fn combinable(
    name: &'static str,
    requires: Requirement,
    duration_ms: (u64, u64),
    about: &'static str,
) -> FaultKind {
    FaultKind { is_combinable: true, ..exit_forbidden(name, requires, duration_ms, about) }
}

/// All kinds of faults, in the order of `mishkah-chaos kinds`.
pub const FAULT_KINDS: [FaultKind; 36] = {
    use Requirement::{Namespaces as Own, Nothing as Any};
    [
        exit_allowed("kill-follower", Any, (500, 4000), "kill -9 a node that does not lead"),
        exit_allowed("kill-leader", Any, (500, 4000), "kill -9 the leader"),
        exit_allowed("kill-majority", Any, (500, 3000), "kill -9 all nodes but one"),
        exit_allowed("kill-all", Any, (200, 1500), "kill -9 all nodes at once"),
        exit_forbidden(
            "pause-leader",
            Any,
            (1000, 20_000),
            "stop the leader's process with SIGSTOP, and resume it",
        ),
        exit_allowed("rolling-restart", Any, (0, 0), "stop and start one node after another"),
        exit_allowed(
            "restart-leader",
            Any,
            (500, 2000),
            "stop the leader with SIGTERM, and start it again",
        ),
        exit_allowed(
            "empty-disk",
            Any,
            (500, 2000),
            "a node starts with an empty disk, and the others reject it",
        ),
        exit_allowed("flip-wal", Any, (200, 1000), "flip a bit in a killed node's log"),
        exit_allowed(
            "flip-checkpoint",
            Any,
            (200, 1000),
            "flip a bit in a killed node's checkpoint",
        ),
        exit_allowed("flip-store", Any, (200, 1000), "flip a bit in a killed node's store"),
        exit_allowed("sync-error", Any, (500, 3000), "every sync of one node fails"),
        exit_allowed("write-error", Any, (500, 3000), "every write to a file fails on one node"),
        exit_allowed("memory-kill", Any, (500, 3000), "a node gets no more memory"),
        exit_allowed("checkpoint-cut", Any, (300, 1500), "kill a node again while it catches up"),
        combinable("slow-sync", Any, (3000, 8000), "every sync of one node takes long"),
        exit_forbidden(
            "slow-disk",
            Any,
            (12_000, 20_000),
            "the leader's syncs take over a second: it hands over",
        ),
        exit_forbidden(
            "clock-leap",
            Any,
            (200, 3000),
            "the leader's wall clock is centuries ahead for a moment",
        ),
        combinable("clock-ahead", Any, (2000, 6000), "a node's wall clock is an hour ahead"),
        combinable("clock-behind", Any, (2000, 6000), "a node's wall clock is an hour behind"),
        combinable("starve", Any, (3000, 8000), "a node gets a fifth of the processor"),
        combinable(
            HOSTILE_CLIENT,
            Any,
            (3000, 10_000),
            "a client holds connections, or sends a node too much",
        ),
        exit_allowed("disk-full", Own, (1000, 5000), "a node's disk is full"),
        exit_allowed(
            "disk-full-leader",
            Own,
            (4000, 12_000),
            "the leader's disk is full: it hands over",
        ),
        exit_allowed("disks-full", Own, (1000, 5000), "the disks of all nodes are full"),
        exit_allowed(
            "power-one",
            Own,
            (500, 2000),
            "a node's power is cut: what was not synced is gone",
        ),
        exit_allowed("power-all", Own, (500, 1500), "all nodes' power is cut at once"),
        exit_forbidden("isolate-leader", Own, (2000, 8000), "the leader reaches no other node"),
        exit_forbidden("split", Own, (2000, 8000), "one node is cut off from all others"),
        exit_forbidden(
            "ring",
            Own,
            (2000, 8000),
            "two nodes reach each other only through the third",
        ),
        exit_forbidden(
            "one-way",
            Own,
            (2000, 8000),
            "a node receives from the others, and they do not receive from it",
        ),
        exit_forbidden(
            "peer-port",
            Own,
            (2000, 6000),
            "the port for peers is closed between two nodes",
        ),
        combinable("delay", Own, (3000, 8000), "packets between nodes are 20 to 60 ms late"),
        combinable(
            "loss",
            Own,
            (3000, 8000),
            "5 to 20 of a hundred packets between nodes are lost",
        ),
        combinable(
            "twice",
            Own,
            (3000, 8000),
            "many packets between nodes arrive twice and out of order",
        ),
        combinable("narrow", Own, (3000, 8000), "one megabit a second between nodes"),
    ]
};

/// The kind of fault of this name.
pub fn fault_kind(name: &str) -> Option<&'static FaultKind> {
    FAULT_KINDS.iter().find(|kind| kind.name == name)
}

/// What a fault acts on.
#[derive(Debug)]
pub struct FaultTarget {
    /// The leader of a randomly chosen branch; any node if no leader is known.
    pub leader: NodeId,
    /// The source of all other random choices of the injection.
    pub rng: Rng,
}

/// A fault in effect, with what its healing needs.
#[derive(Debug)]
pub struct InjectedFault {
    /// Its kind.
    pub kind: &'static FaultKind,
    /// The nodes that it acts on.
    pub nodes: Vec<NodeId>,
    /// What was done, for people.
    pub description: String,
    /// The nodes that cannot reach a majority.
    pub minority: Vec<NodeId>,
    /// A task that runs while the fault lasts.
    background_task: Option<tokio::task::JoinHandle<()>>,
    /// What must be given back to a node.
    repair: Option<Repair>,
}

/// What must be given back to a node before it can recover.
#[derive(Debug)]
enum Repair {
    /// Its data directory, which was moved away.
    MovedDirectory { node: NodeId, moved_to: PathBuf },
    /// A bit, which was flipped.
    BitFlip { node: NodeId, bit: bit_flip::BitFlip },
}

/// Injects a fault.
///
/// # Errors
/// A step of the injection failed. Earlier steps may be in effect: call [`heal_all`] also then.
pub async fn inject(
    cluster: &mut TestCluster,
    kind: &'static FaultKind,
    target: FaultTarget,
) -> Result<InjectedFault> {
    injection::FaultInjection { cluster, kind, target }.inject().await
}

impl InjectedFault {
    /// Stops the task of the fault, if it has one. Must be called before [`heal_all`].
    pub fn stop_background_task(&self) {
        if let Some(background_task) = &self.background_task {
            background_task.abort();
        }
    }
}

/// Heals links, disks and clocks, resumes paused nodes, and starts nodes that exited. Heals also
/// what an injection that failed halfway left behind.
///
/// # Errors
/// A node does not become ready. This is a failure of the store, not of the test cluster.
pub async fn heal_all(cluster: &mut TestCluster, injected: &[InjectedFault]) -> Result<()> {
    if let Some(network) = &cluster.network {
        network.set_all(LinkQuality::default())?;
    }
    // Everything is reset, whichever fault was in effect: a combined or incomplete injection may
    // have changed more than `injected` says.
    let disk_faults = [DiskFault::SyncFails, DiskFault::SyncIsSlow, DiskFault::WriteFails];
    for process in &mut cluster.processes {
        for disk_fault in disk_faults {
            process.set_disk_fault(disk_fault, 0)?;
        }
        process.set_clock_offset_s(0)?;
        if let Ok(disk) = process.disk() {
            disk.remove_filler()?;
        }
        if process.is_running() {
            process.signal(rustix::process::Signal::CONT)?;
            // The limit may end the process right after the check above; nothing is left to lift
            // then.
            if let Err(error) = process.lift_memory_limit()
                && process.is_running()
            {
                return Err(error);
            }
        }
    }
    start_or_repair(cluster, injected).await
}

/// Starts the nodes that do not run, and waits until all are ready. The other nodes reject a node
/// with an empty disk: its old directory is restored first. A node that finds its own files corrupt
/// refuses to serve: its bit is restored after it has said so, as from a copy.
async fn start_or_repair(cluster: &mut TestCluster, injected: &[InjectedFault]) -> Result<()> {
    for repair in injected.iter().filter_map(|injected| injected.repair.as_ref()) {
        if let Repair::MovedDirectory { node, moved_to } = repair {
            let process = cluster.process(*node);
            process.kill()?;
            process.restore_data(moved_to)?;
        }
    }
    let has_flipped_bit =
        injected.iter().any(|injected| matches!(injected.repair, Some(Repair::BitFlip { .. })));
    let timeout = if has_flipped_bit { CORRUPTION_TIMEOUT } else { RECOVERY_TIMEOUT };
    // The flipped bit stays for now: the node must find it, or not depend on it.
    let Err(error) = cluster.start_all(timeout).await else { return Ok(()) };
    let mut has_repaired = false;
    for repair in injected.iter().filter_map(|injected| injected.repair.as_ref()) {
        if let Repair::BitFlip { node, bit } = repair {
            let process = cluster.process(*node);
            if process.has_logged(CORRUPTION_MESSAGE) {
                process.kill()?;
                bit.toggle()?;
                has_repaired = true;
            }
        }
    }
    // The short timeout only waited for the corruption to be found. A node that is merely slow has
    // the full time to recover.
    if has_repaired || has_flipped_bit {
        cluster.start_all(RECOVERY_TIMEOUT).await
    } else {
        Err(error)
    }
}
