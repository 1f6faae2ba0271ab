//! Property: what must hold of every history, one file each. A property judges [`History`] alone
//! and never asks how it came to be.

use serde::Serialize;

use crate::history::History;

mod at_most_once;
mod bank;
mod bounded_unavailability;
mod chain_intact;
mod counters_and_stock;
mod cross_check;
mod events;
#[cfg(test)]
mod examples;
pub mod fields;
mod history_index;
mod linearizable;
mod lists;
mod logs_equal;
mod minority_silent;
mod no_lost_acknowledgement;
mod no_phantom;
#[cfg(test)]
mod reference_store;
mod registers;
mod replicas_equal;
mod sequences;
#[cfg(test)]
mod tests;
mod timeline;
mod wgl;

pub use bounded_unavailability::{GAP_MAX, RECOVERY_MAX, WriteGap, write_gaps};

/// Violations shown of one property; the count tells of all.
pub const DETAILS_MAX: usize = 10;

/// What a property says of a history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The property's name, such as `no-lost-acknowledgement`.
    pub property: &'static str,
    /// What it promises, in a sentence.
    pub promise: &'static str,
    /// How many facts were checked: none means that the history says nothing about it.
    pub checked: u64,
    /// How many were wrong.
    pub violations: u64,
    /// The first of them, in words that name operation, place and moment.
    #[serde(rename = "shown")]
    pub details: Vec<String>,
}

impl Verdict {
    /// A verdict nothing speaks against yet.
    pub fn new(property: &'static str, promise: &'static str) -> Self {
        Self { property, promise, checked: 0, violations: 0, details: Vec::new() }
    }

    /// Counts a fact, and what is wrong with it.
    pub fn record(&mut self, violation: Option<String>) {
        self.checked += 1;
        if let Some(violation) = violation {
            self.violations += 1;
            if self.details.len() < DETAILS_MAX {
                self.details.push(violation);
            }
        }
    }

    /// Whether nothing speaks against it.
    pub fn holds(&self) -> bool {
        self.violations == 0
    }
}

/// A property.
pub type Checker = fn(&History) -> Verdict;

/// All properties, in the order a report shows them.
pub fn all_checkers() -> Vec<Checker> {
    vec![
        no_lost_acknowledgement::check,
        no_phantom::check,
        at_most_once::check,
        linearizable::check,
        cross_check::check,
        lists::check,
        bank::check,
        sequences::check,
        counters_and_stock::check,
        events::check,
        logs_equal::check,
        replicas_equal::check,
        chain_intact::check,
        minority_silent::check,
        bounded_unavailability::check,
    ]
}
