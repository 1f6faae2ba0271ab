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
pub const RECOVERY_TIME: Duration = Duration::from_secs(60);

/// What a node says that finds its files damaged.
const DAMAGED: &str = "damaged";

/// How long a node with a flipped bit may take to serve or to refuse.
const REFUSAL_TIME: Duration = Duration::from_secs(12);

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
    pub needs: Requirement,
    /// How long it lasts, in milliseconds, from and to.
    pub lasts_ms: (u64, u64),
    /// Whether it goes together with another.
    pub is_mild: bool,
    /// Whether a node it struck may end of it.
    pub ends_nodes: bool,
}

/// What a node may end of.
const fn harsh(
    name: &'static str,
    needs: Requirement,
    lasts_ms: (u64, u64),
    about: &'static str,
) -> FaultKind {
    FaultKind { name, about, needs, lasts_ms, is_mild: false, ends_nodes: true }
}

/// What every node must live through.
const fn sparing(
    name: &'static str,
    needs: Requirement,
    lasts_ms: (u64, u64),
    about: &'static str,
) -> FaultKind {
    FaultKind { ends_nodes: false, ..harsh(name, needs, lasts_ms, about) }
}

/// What goes together with another.
const fn mild(
    name: &'static str,
    needs: Requirement,
    lasts_ms: (u64, u64),
    about: &'static str,
) -> FaultKind {
    FaultKind { is_mild: true, ..sparing(name, needs, lasts_ms, about) }
}

/// All kinds.
pub const FAULT_KINDS: [FaultKind; 32] = {
    use Requirement::{Namespaces as Own, Nothing as Any};
    [
        harsh("kill-follower", Any, (500, 4000), "kill -9 a node that does not lead"),
        harsh("kill-leader", Any, (500, 4000), "kill -9 the leader"),
        harsh("kill-majority", Any, (500, 3000), "kill -9 all nodes but one"),
        harsh("kill-all", Any, (200, 1500), "kill -9 all nodes at once"),
        sparing("pause-leader", Any, (1000, 20_000), "stop the leader's process, and let it go on"),
        harsh("rolling-restart", Any, (0, 0), "stop and start one node after another"),
        harsh("restart-leader", Any, (500, 2000), "stop the leader well, and start it again"),
        harsh(
            "empty-disk",
            Any,
            (500, 2000),
            "a node comes back with an empty disk, and is not let in",
        ),
        harsh("flip-wal", Any, (200, 1000), "flip a bit in a killed node's log"),
        harsh("flip-checkpoint", Any, (200, 1000), "flip a bit in a killed node's checkpoint"),
        harsh("flip-store", Any, (200, 1000), "flip a bit in a killed node's store"),
        harsh("sync-error", Any, (500, 3000), "every sync of one node fails"),
        harsh("write-error", Any, (500, 3000), "every write to a file fails on one node"),
        harsh("memory-kill", Any, (500, 3000), "a node gets no more memory"),
        harsh("checkpoint-cut", Any, (300, 1500), "kill a node again while it catches up"),
        mild("slow-sync", Any, (3000, 8000), "every sync of one node takes long"),
        mild("clock-ahead", Any, (2000, 6000), "a node's wall clock is an hour ahead"),
        mild("clock-behind", Any, (2000, 6000), "a node's wall clock is an hour behind"),
        mild("starve", Any, (3000, 8000), "a node gets a fifth of the processor"),
        harsh("disk-full", Own, (1000, 5000), "a node's disk is full"),
        harsh("disks-full", Own, (1000, 5000), "the disks of all nodes are full"),
        harsh("power-one", Own, (500, 2000), "a node's power is cut: what was not synced is gone"),
        harsh("power-all", Own, (500, 1500), "all nodes' power is cut at once"),
        sparing("isolate-leader", Own, (2000, 8000), "the leader reaches no other node"),
        sparing("split", Own, (2000, 8000), "one node on this side, the others on that"),
        sparing("ring", Own, (2000, 8000), "two nodes reach each other only through the third"),
        sparing("one-way", Own, (2000, 8000), "a node hears the others, and they do not hear it"),
        sparing("peer-port", Own, (2000, 6000), "the port for peers is closed between two nodes"),
        mild("delay", Own, (3000, 8000), "packets between nodes are 20 to 60 ms late"),
        mild("loss", Own, (3000, 8000), "5 to 20 of a hundred packets between nodes are lost"),
        mild(
            "twice",
            Own,
            (3000, 8000),
            "many packets between nodes arrive twice and out of order",
        ),
        mild("narrow", Own, (3000, 8000), "one megabit a second between nodes"),
    ]
};

/// A kind by name.
pub fn kind(name: &str) -> Option<&'static FaultKind> {
    FAULT_KINDS.iter().find(|kind| kind.name == name)
}

/// Whom a fault is aimed at.
#[derive(Debug)]
pub struct FaultTarget {
    /// Who leads the place that is watched; any node where nobody is known to.
    pub leader: NodeId,
    /// For what the fault leaves to chance.
    pub dice: Rng,
}

/// A fault that has struck.
#[derive(Debug)]
pub struct InjectedFault {
    /// Its kind.
    pub kind: &'static FaultKind,
    /// The nodes it struck.
    pub nodes: Vec<NodeId>,
    /// What was done, in words.
    pub words: String,
    /// The nodes cut off from every majority.
    pub minority: Vec<NodeId>,
    /// What goes on while it lasts.
    duty: Option<tokio::task::JoinHandle<()>>,
    /// What gives a node back what was taken from it.
    mend: Option<Repair>,
}

/// What gives a node back what was taken from it.
#[derive(Debug)]
enum Repair {
    /// Its old directory, put away there.
    Directory { node: NodeId, away: PathBuf },
    /// A bit as it was.
    BitFlip { node: NodeId, bit: bit_flip::BitFlip },
}

/// Strikes.
///
/// # Errors
/// The fault could not be made; the arena may be left half struck: heal it.
pub async fn strike(
    arena: &mut TestCluster,
    kind: &'static FaultKind,
    aim: FaultTarget,
) -> Result<InjectedFault> {
    injection::FaultInjection { arena, kind, aim }.strike().await
}

impl InjectedFault {
    /// Ends what goes on by itself.
    pub fn end(&self) {
        if let Some(duty) = &self.duty {
            duty.abort();
        }
    }
}

/// Heals everything: wires, disks, clocks; lets paused nodes go on and starts those that are gone.
///
/// # Errors
/// A node does not come back: a violation, not a trouble of the arena.
pub async fn heal_all(arena: &mut TestCluster, struck: &[InjectedFault]) -> Result<()> {
    if let Some(network) = &arena.network {
        network.set_all(Link::default())?;
    }
    let illnesses =
        [Illness::SyncFails, Illness::SyncIsSlow, Illness::WriteFails, Illness::ClockIsOff];
    for member in &mut arena.members {
        for illness in illnesses {
            member.suffer(illness, 0)?;
        }
        if let Ok(disk) = member.disk() {
            disk.empty()?;
        }
        if member.is_running() {
            member.signal(rustix::process::Signal::CONT)?;
            // It may have needed none while it could have none.
            if let Err(error) = member.feed_memory()
                && member.is_running()
            {
                return Err(error);
            }
        }
    }
    start_or_mend(arena, struck).await
}

/// Starts what does not run. A node that finds its own files damaged says so and does not serve
/// what is in them: it is given the bit back, as from a copy. One with an empty disk is not let in
/// by the others: it is given its old directory back.
async fn start_or_mend(arena: &mut TestCluster, struck: &[InjectedFault]) -> Result<()> {
    for mend in struck.iter().filter_map(|struck| struck.mend.as_ref()) {
        if let Repair::Directory { node, away } = mend {
            let member = arena.member(*node);
            member.kill()?;
            member.remember(away)?;
        }
    }
    let is_flipped =
        struck.iter().any(|struck| matches!(struck.mend, Some(Repair::BitFlip { .. })));
    let patience = if is_flipped { REFUSAL_TIME } else { RECOVERY_TIME };
    let Err(error) = arena.start_all(patience).await else { return Ok(()) };
    let mut is_mended = false;
    for mend in struck.iter().filter_map(|struck| struck.mend.as_ref()) {
        if let Repair::BitFlip { node, bit } = mend {
            let member = arena.member(*node);
            if member.says(DAMAGED) {
                member.kill()?;
                bit.flip()?;
                is_mended = true;
            }
        }
    }
    if is_mended || is_flipped { arena.start_all(RECOVERY_TIME).await } else { Err(error) }
}
