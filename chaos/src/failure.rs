//! Failure: what goes wrong in a run that no property covers.
//!
//! Promise: a run with any failure exits as broken. Only some kinds prove a bug of the build; a
//! machine that is too slow causes the others as well.
//! Refused: a new spelling in `report.json`. The serde names there are older than the Rust names.

use serde::{Deserialize, Serialize};

/// The kind of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// A node exited although no injected fault may end it.
    #[serde(rename = "ended-by-itself")]
    NodeExited,
    /// A node does not become ready although every fault is healed.
    #[serde(rename = "does-not-come-back")]
    NodeNotRecovered,
    /// Writes are not acknowledged although every fault is healed.
    #[serde(rename = "does-not-go-on")]
    WritesNotResumed,
    /// A client received a response that no correct store gives.
    #[serde(rename = "impossible-answers")]
    ImpossibleResponses,
    /// The logs or the replicas cannot be read at the end.
    #[serde(rename = "cannot-be-read")]
    StateUnreadable,
    /// Leaders changed while hostile clients were all that happened.
    #[serde(rename = "clients-cost-elections")]
    ElectionsByClients,
}

/// One failure.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunFailure {
    /// Its kind.
    #[serde(rename = "what")]
    pub kind: FailureKind,
    /// What happened, for people.
    #[serde(rename = "words")]
    pub description: String,
}

impl FailureKind {
    /// A failure of this kind.
    pub fn with_description(self, description: impl Into<String>) -> RunFailure {
        RunFailure { kind: self, description: description.into() }
    }

    /// Whether a failure of this kind alone proves a bug of the build.
    pub fn indicts_build(self) -> bool {
        match self {
            Self::NodeExited | Self::NodeNotRecovered | Self::ImpossibleResponses => true,
            Self::WritesNotResumed | Self::StateUnreadable | Self::ElectionsByClients => false,
        }
    }
}
