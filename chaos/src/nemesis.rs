//! Nemesis: the faults, each by name: how it strikes, how long it lasts, how it is healed.
//!
//! Promise: a fault does what its name says or the strike fails and is not counted; healing leaves
//! every node running and every wire, disk and clock as they were.

mod bit_flip;
mod injection;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use crate::cluster::{Illness, Link, TestCluster};
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
const fn lethal(
    name: &'static str,
    requires: Requirement,
    duration_ms: (u64, u64),
    about: &'static str,
) -> FaultKind {
    FaultKind { name, about, requires, duration_ms, is_combinable: false, may_end_nodes: true }
}

/// What every node must live through.
const fn survivable(
    name: &'static str,
    requires: Requirement,
    duration_ms: (u64, u64),
    about: &'static str,
) -> FaultKind {
    FaultKind { may_end_nodes: false, ..lethal(name, requires, duration_ms, about) }
}

/// What goes together with another.
const fn combinable(
    name: &'static str,
    requires: Requirement,
    duration_ms: (u64, u64),
    about: &'static str,
) -> FaultKind {
    FaultKind { is_combinable: true, ..survivable(name, requires, duration_ms, about) }
}

/// All kinds.
pub const FAULT_KINDS: [FaultKind; 32] = {
    use Requirement::{Namespaces as Isolated, Nothing as Processes};
    [
        lethal("kill-follower", Processes, (500, 4000), "kill -9 a node that does not lead"),
        lethal("kill-leader", Processes, (500, 4000), "kill -9 the leader"),
        lethal("kill-majority", Processes, (500, 3000), "kill -9 all nodes but one"),
        lethal("kill-all", Processes, (200, 1500), "kill -9 all nodes at once"),
        survivable(
            "pause-leader",
            Processes,
            (1000, 20_000),
            "stop the leader's process, and let it go on",
        ),
        lethal("rolling-restart", Processes, (0, 0), "stop and start one node after another"),
        lethal(
            "restart-leader",
            Processes,
            (500, 2000),
            "stop the leader well, and start it again",
        ),
        lethal(
            "empty-disk",
            Processes,
            (500, 2000),
            "a node comes back with an empty disk, and is not let in",
        ),
        lethal("flip-wal", Processes, (200, 1000), "flip a bit in a killed node's log"),
        lethal(
            "flip-checkpoint",
            Processes,
            (200, 1000),
            "flip a bit in a killed node's checkpoint",
        ),
        lethal("flip-store", Processes, (200, 1000), "flip a bit in a killed node's store"),
        lethal("sync-error", Processes, (500, 3000), "every sync of one node fails"),
        lethal("write-error", Processes, (500, 3000), "every write to a file fails on one node"),
        lethal("memory-kill", Processes, (500, 3000), "a node gets no more memory"),
        lethal("checkpoint-cut", Processes, (300, 1500), "kill a node again while it catches up"),
        combinable("slow-sync", Processes, (3000, 8000), "every sync of one node takes long"),
        combinable("clock-ahead", Processes, (2000, 6000), "a node's wall clock is an hour ahead"),
        combinable(
            "clock-behind",
            Processes,
            (2000, 6000),
            "a node's wall clock is an hour behind",
        ),
        combinable("starve", Processes, (3000, 8000), "a node gets a fifth of the processor"),
        lethal("disk-full", Isolated, (1000, 5000), "a node's disk is full"),
        lethal("disks-full", Isolated, (1000, 5000), "the disks of all nodes are full"),
        lethal(
            "power-one",
            Isolated,
            (500, 2000),
            "a node's power is cut: what was not synced is gone",
        ),
        lethal("power-all", Isolated, (500, 1500), "all nodes' power is cut at once"),
        survivable("isolate-leader", Isolated, (2000, 8000), "the leader reaches no other node"),
        survivable("split", Isolated, (2000, 8000), "one node on this side, the others on that"),
        survivable(
            "ring",
            Isolated,
            (2000, 8000),
            "two nodes reach each other only through the third",
        ),
        survivable(
            "one-way",
            Isolated,
            (2000, 8000),
            "a node hears the others, and they do not hear it",
        ),
        survivable(
            "peer-port",
            Isolated,
            (2000, 6000),
            "the port for peers is closed between two nodes",
        ),
        combinable("delay", Isolated, (3000, 8000), "packets between nodes are 20 to 60 ms late"),
        combinable(
            "loss",
            Isolated,
            (3000, 8000),
            "5 to 20 of a hundred packets between nodes are lost",
        ),
        combinable(
            "twice",
            Isolated,
            (3000, 8000),
            "many packets between nodes arrive twice and out of order",
        ),
        combinable("narrow", Isolated, (3000, 8000), "one megabit a second between nodes"),
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
    let disk_faults =
        [Illness::SyncFails, Illness::SyncIsSlow, Illness::WriteFails, Illness::ClockIsOff];
    for process in &mut cluster.processes {
        for disk_fault in disk_faults {
            process.suffer(disk_fault, 0)?;
        }
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
