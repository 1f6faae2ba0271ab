//! Fitness: why this node should lead no group now, if it should not.
//!
//! A node that is slow, full or wrong about the time still answers heartbeats, so no election would
//! ever replace it. It therefore says itself that it is unfit, and whoever transfers leaderships
//! reads it here. This crate says what its disk is like; the crates above set the other reasons.
//!
//! Promise: each change is logged once, and everybody who watches sees it. A reason that was set
//! stays until it is cleared by whoever set it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// Why a node should not lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum UnfitReason {
    /// Its disk takes no more of the log, or is about to take no more.
    DiskFull,
    /// Its disk takes too long to make writes durable.
    DiskSlow,
    /// It has too little memory left.
    MemoryPressure,
    /// Its wall clock differs from that of its peers.
    ClockOff,
}

impl UnfitReason {
    /// Every reason.
    pub const ALL: [Self; 4] =
        [Self::DiskFull, Self::DiskSlow, Self::MemoryPressure, Self::ClockOff];

    /// Its stable name: `disk-full`, `disk-slow`, `memory-pressure`, `clock-off`.
    pub fn name(self) -> &'static str {
        match self {
            Self::DiskFull => "disk-full",
            Self::DiskSlow => "disk-slow",
            Self::MemoryPressure => "memory-pressure",
            Self::ClockOff => "clock-off",
        }
    }
}

/// A reason that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    /// In words, for an operator.
    pub words: String,
    /// Since when it holds.
    pub since: Instant,
}

/// The reasons that hold now. Empty: the node is fit.
pub type UnfitReasons = BTreeMap<UnfitReason, Unfit>;

/// Whether this node may lead. All clones are of one node.
#[derive(Debug, Clone)]
pub struct NodeFitness(Arc<watch::Sender<UnfitReasons>>);

impl Default for NodeFitness {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(UnfitReasons::new())))
    }
}

impl NodeFitness {
    /// Sets a reason, in words for an operator, or clears it. Cheap where nothing changes; never
    /// waits.
    pub fn set(&self, reason: UnfitReason, words: Option<String>) {
        self.0.send_if_modified(|reasons| match (words, reasons.get_mut(&reason)) {
            (Some(words), None) => {
                tracing::warn!(reason = reason.name(), "this node should lead nothing: {words}");
                reasons.insert(reason, Unfit { words, since: Instant::now() });
                true
            }
            (Some(words), Some(unfit)) => {
                // New words are not worth waking anybody: whoever reads finds them.
                unfit.words = words;
                false
            }
            (None, held) => {
                let was_held = held.is_some();
                reasons.remove(&reason);
                if was_held {
                    tracing::info!(reason = reason.name(), "a reason to lead nothing is gone");
                }
                was_held
            }
        });
    }

    /// The reasons that hold now.
    pub fn reasons(&self) -> UnfitReasons {
        self.0.borrow().clone()
    }

    /// Whether this reason holds now.
    pub fn has(&self, reason: UnfitReason) -> bool {
        self.0.borrow().contains_key(&reason)
    }

    /// How long this node has had a reason to lead nothing; zero where it is fit.
    pub fn unfit_for(&self) -> Duration {
        let first = self.0.borrow().values().map(|unfit| unfit.since).min();
        first.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Whether none holds.
    pub fn is_fit(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Tells of every reason that comes or goes.
    pub fn watch(&self) -> watch::Receiver<UnfitReasons> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_holds_until_it_is_cleared() {
        let fitness = NodeFitness::default();
        let mut watch = fitness.watch();
        assert!(fitness.is_fit());
        fitness.set(UnfitReason::DiskFull, Some("full".to_owned()));
        fitness.set(UnfitReason::MemoryPressure, Some("short".to_owned()));
        assert!(watch.has_changed().unwrap());
        fitness.set(UnfitReason::DiskFull, None);
        assert!(!fitness.is_fit(), "the other one holds");
        fitness.set(UnfitReason::MemoryPressure, None);
        watch.mark_unchanged();
        fitness.set(UnfitReason::MemoryPressure, None);
        assert!(!watch.has_changed().unwrap(), "nothing changed");
        assert!(fitness.is_fit());
    }
}
