//! Schedule: which faults are injected when, drawn from the seed before anything runs.
//!
//! Promise: one seed, one length: one schedule, whatever the cluster does meanwhile. A fault that
//! means "the leader" says so; which node that is, is decided when it is injected.

use std::fmt;
use std::time::Duration;

use raft::disk::DamageTarget;
use raft::simulated::Rng;

/// Nodes of a simulated cluster.
pub(super) const NODES: u64 = 3;
/// Partitions of it; group 0 is one more group.
pub(super) const PARTITIONS: u16 = 2;
/// To the year 2343 and back, in milliseconds.
const CENTURIES_MS: i64 = 317 * 365 * 86_400_000;
/// The first fault, for most seeds: the cluster has formed by then. Other seeds inject faults while
/// it forms.
const WARM_UP: Duration = Duration::from_secs(4);

/// The node that a fault is injected into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeSelector {
    /// This node.
    Node(u64),
    /// The leader of this group at that moment.
    Leader(u16),
}

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SimulatedFault {
    /// The process is killed.
    Kill(NodeSelector),
    /// The machine loses power: each write that was not synced may be lost.
    PowerLoss(NodeSelector),
    /// All machines lose power together.
    PowerLossAll,
    /// Power fails during one of the next calls of the log, counted from now: a torn write.
    TornWrite(NodeSelector, u64),
    /// A bit of its files flips while it is down.
    BitFlip(NodeSelector, DamageTarget),
    /// It starts again without its working store.
    StoreRemoved(NodeSelector),
    /// Nothing passes between it and the others.
    Isolate(NodeSelector),
    /// Nothing passes from the first to the second.
    OneWay(u64, u64),
    /// The longest latency of messages, in milliseconds.
    Latency(u64),
    /// How many of a thousand calls or answers are lost.
    Loss(u64),
    /// Its disk is full.
    DiskFull(NodeSelector),
    /// Its next write or sync fails; the process exits.
    DiskError(NodeSelector),
    /// The longest latency of its disk, in milliseconds.
    SlowDisk(NodeSelector, u64),
    /// Its wall clock shows so many milliseconds more, or less, and then the right time again.
    ClockLeap(NodeSelector, i64),
}

impl SimulatedFault {
    /// Its kind, by which reports count it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Kill(_) => "kill",
            Self::PowerLoss(_) => "power-loss",
            Self::PowerLossAll => "power-loss-all",
            Self::TornWrite(..) => "torn-write",
            Self::BitFlip(_, DamageTarget::Log) => "flip-log",
            Self::BitFlip(_, DamageTarget::Checkpoint) => "flip-checkpoint",
            Self::BitFlip(_, DamageTarget::Store) => "flip-store",
            Self::StoreRemoved(_) => "store-gone",
            Self::Isolate(_) => "isolate",
            Self::OneWay(..) => "one-way",
            Self::Latency(_) => "late",
            Self::Loss(_) => "lossy",
            Self::DiskFull(_) => "disk-full",
            Self::DiskError(_) => "disk-fails",
            Self::SlowDisk(..) => "slow-disk",
            Self::ClockLeap(..) => "clock-leap",
        }
    }
}

/// A fault and its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScheduledFault {
    /// Virtual time since the beginning.
    pub at: Duration,
    /// How long it lasts; a node that it stops is started again after that time.
    pub duration: Duration,
    /// The fault.
    pub fault: SimulatedFault,
}

impl fmt::Display for ScheduledFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} s for {:.3} s: ", self.at.as_secs_f64(), self.duration.as_secs_f64())?;
        write!(f, "{:?}", self.fault)
    }
}

/// The schedule of a seed for a run of this length.
pub fn schedule(seed: u64, length: Duration) -> Vec<ScheduledFault> {
    let mut rng = Rng(seed ^ 0x005E_ED0F_FA17);
    let (ms, s) = (Duration::from_millis, Duration::from_secs);
    let mut faults = Vec::new();
    let warm_up = if rng.random_bool(250) { Duration::ZERO } else { WARM_UP };
    let mut at = warm_up + rng.between(ms(0), s(2));
    while at < length {
        let fault = draw(&mut rng);
        let duration = match fault {
            SimulatedFault::DiskFull(_)
            | SimulatedFault::Isolate(_)
            | SimulatedFault::OneWay(..) => rng.between(ms(500), s(8)),
            SimulatedFault::Latency(_) | SimulatedFault::Loss(_) | SimulatedFault::SlowDisk(..) => {
                rng.between(s(1), s(6))
            }
            SimulatedFault::Kill(_)
            | SimulatedFault::PowerLoss(_)
            | SimulatedFault::PowerLossAll
            | SimulatedFault::TornWrite(..)
            | SimulatedFault::BitFlip(..)
            | SimulatedFault::StoreRemoved(_)
            | SimulatedFault::ClockLeap(..)
            | SimulatedFault::DiskError(_) => rng.between(ms(100), s(4)),
        };
        faults.push(ScheduledFault { at, duration, fault });
        at += rng.between(ms(200), ms(5000));
    }
    faults.extend(schedule_unfitness(seed, length));
    faults.sort_by_key(|fault| fault.at);
    faults
}

/// Faults that leave a node alive and unfit to lead. Out of a stream of their own, so that the
/// other faults of a seed stay what they were.
fn schedule_unfitness(seed: u64, length: Duration) -> Vec<ScheduledFault> {
    let mut rng = Rng(seed ^ 0x0000_F17E_55AA);
    let (ms, s) = (Duration::from_millis, Duration::from_secs);
    let mut faults = Vec::new();
    let mut at = WARM_UP + rng.between(ms(0), s(8));
    while at < length {
        let node = select_node(&mut rng);
        // A clock is wrong for a moment, a disk for some seconds.
        let (fault, longest) = match rng.below(5) {
            0 => (SimulatedFault::DiskFull(node), s(8)),
            1 => (SimulatedFault::SlowDisk(node, 2_500), s(8)),
            2 => (SimulatedFault::ClockLeap(node, -CENTURIES_MS), s(3)),
            3 => (SimulatedFault::ClockLeap(node, 61_000), s(3)),
            _ => (SimulatedFault::ClockLeap(node, CENTURIES_MS), s(3)),
        };
        let duration = rng.between(ms(50), longest);
        faults.push(ScheduledFault { at, duration, fault });
        at += rng.between(s(3), s(15));
    }
    faults
}

fn select_node(rng: &mut Rng) -> NodeSelector {
    if rng.random_bool(500) {
        NodeSelector::Node(1 + rng.below(NODES))
    } else {
        NodeSelector::Leader(u16::try_from(rng.below(u64::from(PARTITIONS) + 1)).unwrap_or(0))
    }
}

fn draw(rng: &mut Rng) -> SimulatedFault {
    let node = select_node(rng);
    match rng.below(16) {
        0 | 1 => SimulatedFault::Kill(node),
        2 | 3 => SimulatedFault::PowerLoss(node),
        4 => SimulatedFault::PowerLossAll,
        5 | 6 => SimulatedFault::TornWrite(node, rng.below(12)),
        7 => match rng.below(3) {
            0 => SimulatedFault::BitFlip(node, DamageTarget::Log),
            1 => SimulatedFault::BitFlip(node, DamageTarget::Checkpoint),
            _ => SimulatedFault::BitFlip(node, DamageTarget::Store),
        },
        8 => SimulatedFault::StoreRemoved(node),
        9 | 10 => SimulatedFault::Isolate(node),
        11 => {
            let from = 1 + rng.below(NODES);
            SimulatedFault::OneWay(from, 1 + (from + rng.below(NODES - 1)) % NODES)
        }
        12 => SimulatedFault::Latency(20 + rng.below(400)),
        13 => SimulatedFault::Loss(20 + rng.below(250)),
        14 => match rng.random_bool(500) {
            true => SimulatedFault::DiskFull(node),
            false => SimulatedFault::DiskError(node),
        },
        _ => SimulatedFault::SlowDisk(node, 20 + rng.below(300)),
    }
}
