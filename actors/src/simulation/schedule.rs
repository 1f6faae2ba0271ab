//! Schedule: which faults strike when, drawn from the seed before anything runs.
//!
//! Promise: one seed, one length: one schedule, whatever the cluster does meanwhile. A fault that
//! means "the leader" says so; who that is, is seen when it strikes.

use std::fmt;
use std::time::Duration;

use raft::disk::DamageTarget;
use raft::simulated::Rng;

/// Nodes of a simulated cluster.
pub(super) const NODES: u64 = 3;
/// Partitions of it; group 0 is one more group.
pub(super) const PARTITIONS: u16 = 2;
/// The first fault, for most seeds: the cluster has formed by then. Others strike while it does.
const CALM: Duration = Duration::from_secs(4);

/// Whom a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    /// This node.
    Node(u64),
    /// Whoever leads this group then.
    Leader(u16),
}

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The process ends at once.
    Kill(Victim),
    /// The machine loses power: what was not synced is lost by chance.
    Power(Victim),
    /// All machines lose power together.
    PowerAll,
    /// Power fails in the middle of the so-manieth call of the log: a torn write.
    Torn(Victim, u64),
    /// A bit of what it keeps turns over while it is down.
    Flip(Victim, DamageTarget),
    /// It comes back without its working store.
    StoreGone(Victim),
    /// Nothing passes between it and the others.
    Isolate(Victim),
    /// Nothing passes from the first to the second.
    OneWay(u64, u64),
    /// Messages are under way for up to so many milliseconds.
    Late(u64),
    /// So many of a thousand calls or answers are lost.
    Lossy(u64),
    /// No room on its disk.
    Full(Victim),
    /// Its next write or sync fails; the process ends.
    DiskFails(Victim),
    /// Its disk takes up to so many milliseconds for a turn.
    SlowDisk(Victim, u64),
}

impl Fault {
    /// Its kind, as reports count it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Kill(_) => "kill",
            Self::Power(_) => "power-loss",
            Self::PowerAll => "power-loss-all",
            Self::Torn(..) => "torn-write",
            Self::Flip(_, DamageTarget::Log) => "flip-log",
            Self::Flip(_, DamageTarget::Checkpoint) => "flip-checkpoint",
            Self::Flip(_, DamageTarget::Store) => "flip-store",
            Self::StoreGone(_) => "store-gone",
            Self::Isolate(_) => "isolate",
            Self::OneWay(..) => "one-way",
            Self::Late(_) => "late",
            Self::Lossy(_) => "lossy",
            Self::Full(_) => "disk-full",
            Self::DiskFails(_) => "disk-fails",
            Self::SlowDisk(..) => "slow-disk",
        }
    }
}

/// A fault and its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strike {
    /// Virtual time since the beginning.
    pub at: Duration,
    /// How long it lasts; a node that ended is down for so long.
    pub lasts: Duration,
    /// What.
    pub fault: Fault,
}

impl fmt::Display for Strike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} s for {:.3} s: ", self.at.as_secs_f64(), self.lasts.as_secs_f64())?;
        write!(f, "{:?}", self.fault)
    }
}

/// The schedule of a seed for a run of this length.
pub fn schedule(seed: u64, length: Duration) -> Vec<Strike> {
    let mut dice = Rng(seed ^ 0x005E_ED0F_FA17);
    let (ms, s) = (Duration::from_millis, Duration::from_secs);
    let mut strikes = Vec::new();
    let calm = if dice.chance(250) { Duration::ZERO } else { CALM };
    let mut at = calm + dice.between(ms(0), s(2));
    while at < length {
        let fault = draw(&mut dice);
        let lasts = match fault {
            Fault::Full(_) | Fault::Isolate(_) | Fault::OneWay(..) => dice.between(ms(500), s(8)),
            Fault::Late(_) | Fault::Lossy(_) | Fault::SlowDisk(..) => dice.between(s(1), s(6)),
            Fault::Kill(_)
            | Fault::Power(_)
            | Fault::PowerAll
            | Fault::Torn(..)
            | Fault::Flip(..)
            | Fault::StoreGone(_)
            | Fault::DiskFails(_) => dice.between(ms(100), s(4)),
        };
        strikes.push(Strike { at, lasts, fault });
        at += dice.between(ms(200), ms(5000));
    }
    strikes
}

fn victim(dice: &mut Rng) -> Victim {
    if dice.chance(500) {
        Victim::Node(1 + dice.below(NODES))
    } else {
        Victim::Leader(u16::try_from(dice.below(u64::from(PARTITIONS) + 1)).unwrap_or(0))
    }
}

fn draw(dice: &mut Rng) -> Fault {
    let victim = victim(dice);
    match dice.below(16) {
        0 | 1 => Fault::Kill(victim),
        2 | 3 => Fault::Power(victim),
        4 => Fault::PowerAll,
        5 | 6 => Fault::Torn(victim, dice.below(12)),
        7 => match dice.below(3) {
            0 => Fault::Flip(victim, DamageTarget::Log),
            1 => Fault::Flip(victim, DamageTarget::Checkpoint),
            _ => Fault::Flip(victim, DamageTarget::Store),
        },
        8 => Fault::StoreGone(victim),
        9 | 10 => Fault::Isolate(victim),
        11 => {
            let from = 1 + dice.below(NODES);
            Fault::OneWay(from, 1 + (from + dice.below(NODES - 1)) % NODES)
        }
        12 => Fault::Late(20 + dice.below(400)),
        13 => Fault::Lossy(20 + dice.below(250)),
        14 => match dice.chance(500) {
            true => Fault::Full(victim),
            false => Fault::DiskFails(victim),
        },
        _ => Fault::SlowDisk(victim, 20 + dice.below(300)),
    }
}
