//! Nemesis: the faults, each by name: how it strikes, how long it lasts, how it is healed.
//!
//! Promise: a fault does what its name says or the strike fails and is not counted; healing leaves
//! every node running and every wire, disk and clock as they were.

mod bit_flip;
mod injection;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use crate::cluster::{DiskFault, Link, TestCluster};
use crate::history::NodeId;
use crate::rng::Rng;

/// How long nodes may take to serve after everything is healed.
pub const RECOVERY_TIMEOUT: Duration = Duration::from_secs(60);

/// What a node says that finds its files damaged.
const CORRUPTION_MESSAGE: &str = "damaged";

/// How long a node with a flipped bit may take to serve or to refuse.
const CORRUPTION_TIMEOUT: Duration = Duration::from_secs(12);

/// What a fault needs of the ground.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requirement {
    /// Nothing but processes of one's own.
    Nothing,
    /// Namespaces: wires, or a disk for each node.
    Namespaces,
}

/// A kind of fault.
#[derive(Debug, Clone, Copy)]
pub struct FaultKind {
    /// Its name.
    pub name: &'static str,
    /// What it does, for people.
    pub about: &'static str,
    /// What it needs.
    pub requires: Requirement,
    /// How long it lasts, in milliseconds, from and to.
    pub duration_ms: (u64, u64),
    /// Whether it goes together with another.
    pub is_combinable: bool,
    /// Whether a node it struck may end of it.
    pub may_end_nodes: bool,
}

/// What a node may end of.
const fn exit_allowed(
    name: &'static str,
    requires: Requirement,
    duration_ms: (u64, u64),
    about: &'static str,
) -> FaultKind {
    FaultKind { name, about, requires, duration_ms, is_combinable: false, may_end_nodes: true }
}

/// What every node must live through.
const fn exit_forbidden(
    name: &'static str,
    requires: Requirement,
    duration_ms: (u64, u64),
    about: &'static str,
) -> FaultKind {
    FaultKind { may_end_nodes: false, ..exit_allowed(name, requires, duration_ms, about) }
}

/// What goes together with another.
const fn combinable(
    name: &'static str,
    requires: Requirement,
    duration_ms: (u64, u64),
    about: &'static str,
) -> FaultKind {
    FaultKind { is_combinable: true, ..exit_forbidden(name, requires, duration_ms, about) }
}

/// All kinds.
pub const FAULT_KINDS: [FaultKind; 32] = {
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
            "stop the leader's process, and let it go on",
        ),
        exit_allowed("rolling-restart", Any, (0, 0), "stop and start one node after another"),
        exit_allowed(
            "restart-leader",
            Any,
            (500, 2000),
            "stop the leader well, and start it again",
        ),
        exit_allowed(
            "empty-disk",
            Any,
            (500, 2000),
            "a node comes back with an empty disk, and is not let in",
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
        combinable("clock-ahead", Any, (2000, 6000), "a node's wall clock is an hour ahead"),
        combinable("clock-behind", Any, (2000, 6000), "a node's wall clock is an hour behind"),
        combinable("starve", Any, (3000, 8000), "a node gets a fifth of the processor"),
        exit_allowed("disk-full", Own, (1000, 5000), "a node's disk is full"),
        exit_allowed("disks-full", Own, (1000, 5000), "the disks of all nodes are full"),
        exit_allowed(
            "power-one",
            Own,
            (500, 2000),
            "a node's power is cut: what was not synced is gone",
        ),
        exit_allowed("power-all", Own, (500, 1500), "all nodes' power is cut at once"),
        exit_forbidden("isolate-leader", Own, (2000, 8000), "the leader reaches no other node"),
        exit_forbidden("split", Own, (2000, 8000), "one node on this side, the others on that"),
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
            "a node hears the others, and they do not hear it",
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

/// A kind by name.
pub fn fault_kind(name: &str) -> Option<&'static FaultKind> {
    FAULT_KINDS.iter().find(|kind| kind.name == name)
}

/// Whom a fault is aimed at.
#[derive(Debug)]
pub struct FaultTarget {
    /// Who leads the place that is watched; any node where nobody is known to.
    pub leader: NodeId,
    /// For what the fault leaves to chance.
    pub rng: Rng,
}

/// A fault that has struck.
#[derive(Debug)]
pub struct InjectedFault {
    /// Its kind.
    pub kind: &'static FaultKind,
    /// The nodes it struck.
    pub nodes: Vec<NodeId>,
    /// What was done, in words.
    pub description: String,
    /// The nodes cut off from every majority.
    pub minority: Vec<NodeId>,
    /// What goes on while it lasts.
    background_task: Option<tokio::task::JoinHandle<()>>,
    /// What gives a node back what was taken from it.
    repair: Option<Repair>,
}

/// What gives a node back what was taken from it.
#[derive(Debug)]
enum Repair {
    /// Its old directory, put away there.
    MovedDirectory { node: NodeId, moved_to: PathBuf },
    /// A bit as it was.
    BitFlip { node: NodeId, bit: bit_flip::BitFlip },
}

/// Strikes.
///
/// # Errors
/// The fault could not be made; the arena may be left half struck: heal it.
pub async fn inject(
    cluster: &mut TestCluster,
    kind: &'static FaultKind,
    target: FaultTarget,
) -> Result<InjectedFault> {
    injection::FaultInjection { cluster, kind, target }.inject().await
}

impl InjectedFault {
    /// Ends what goes on by itself.
    pub fn stop_background_task(&self) {
        if let Some(background_task) = &self.background_task {
            background_task.abort();
        }
    }
}

/// Heals everything: wires, disks, clocks; lets paused nodes go on and starts those that are gone.
///
/// # Errors
/// A node does not come back: a violation, not a trouble of the arena.
pub async fn heal_all(cluster: &mut TestCluster, injected: &[InjectedFault]) -> Result<()> {
    if let Some(network) = &cluster.network {
        network.set_all(Link::default())?;
    }
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
            // It may have needed none while it could have none.
            if let Err(error) = process.lift_memory_limit()
                && process.is_running()
            {
                return Err(error);
            }
        }
    }
    start_or_repair(cluster, injected).await
}

/// Starts what does not run. A node that finds its own files damaged says so and does not serve
/// what is in them: it is given the bit back, as from a copy. One with an empty disk is not let in
/// by the others: it is given its old directory back.
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
    if has_repaired || has_flipped_bit {
        cluster.start_all(RECOVERY_TIMEOUT).await
    } else {
        Err(error)
    }
}
