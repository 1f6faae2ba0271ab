//! Checker: one function for each property that must hold of every history.
//!
//! Promise: a checker sees a [`History`] and nothing else, so that it judges a history of any
//! origin. Each counts the facts that it checked: a verdict without facts does not say that a
//! property holds.
//! Refused: leniency. What cannot be decided counts as a violation.

use serde::Serialize;

use crate::History;

mod answers_agree;
mod at_most_once;
mod bank;
mod bounded_unavailability;
mod chain_intact;
mod counters_and_stock;
mod cross_check;
mod cursors_in_order;
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
mod tables_follow_logs;
#[cfg(test)]
mod tests;
mod timeline;
mod wgl;

pub use bounded_unavailability::{GAP_MAX, RECOVERY_MAX, WriteGap, write_gaps};

/// The most violations of one property that are described. All are counted.
pub const DETAILS_MAX: usize = 10;

/// What a checker says of a history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The property's name, such as `no-lost-acknowledgement`.
    pub property: &'static str,
    /// What the property promises, in a sentence.
    pub promise: &'static str,
    /// How many facts were checked; with 0 the history says nothing about the property.
    pub checked: u64,
    /// How many facts violate the property.
    pub violations: u64,
    /// Descriptions of the first violations, with operation, branch and time.
    #[serde(rename = "shown")]
    pub details: Vec<String>,
}

impl Verdict {
    /// A verdict without facts.
    pub fn new(property: &'static str, promise: &'static str) -> Self {
        Self { property, promise, checked: 0, violations: 0, details: Vec::new() }
    }

    /// Counts a fact, and its violation if there is one.
    pub fn record(&mut self, violation: Option<String>) {
        self.checked += 1;
        if let Some(violation) = violation {
            self.violations += 1;
            if self.details.len() < DETAILS_MAX {
                self.details.push(violation);
            }
        }
    }

    /// Whether no violation was found.
    pub fn holds(&self) -> bool {
        self.violations == 0
    }
}

/// Judges a history by one property.
pub type Checker = fn(&History) -> Verdict;

/// All checkers, in the order in which a report shows their properties.
pub fn all_checkers() -> Vec<Checker> {
    vec![
        no_lost_acknowledgement::check,
        no_phantom::check,
        at_most_once::check,
        answers_agree::check,
        cursors_in_order::check,
        linearizable::check,
        cross_check::check,
        lists::check,
        bank::check,
        sequences::check,
        counters_and_stock::check,
        events::check,
        logs_equal::check,
        tables_follow_logs::check,
        replicas_equal::check,
        chain_intact::check,
        minority_silent::check,
        bounded_unavailability::check,
    ]
}
