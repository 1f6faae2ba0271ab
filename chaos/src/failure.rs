//! Trouble: what goes wrong in a run besides what the properties judge.
//!
//! Promise: every trouble makes the run a broken one. Only some of them speak against the build
//! that was run; a machine that is too slow gives rise to the others too.

use serde::{Deserialize, Serialize};

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// A node ended although nothing was done to it that may end it.
    #[serde(rename = "ended-by-itself")]
    NodeExited,
    /// Everything is healed, and a node does not serve.
    #[serde(rename = "does-not-come-back")]
    NodeNotRecovered,
    /// Everything is healed, and writes are not acknowledged.
    #[serde(rename = "does-not-go-on")]
    WritesNotResumed,
    /// Answers that cannot be right.
    #[serde(rename = "impossible-answers")]
    ImpossibleResponses,
    /// What the nodes hold cannot be read at the end.
    #[serde(rename = "cannot-be-read")]
    StateUnreadable,
}

/// What went wrong, and how.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunFailure {
    /// What.
    #[serde(rename = "what")]
    pub kind: FailureKind,
    /// How, for people.
    #[serde(rename = "words")]
    pub description: String,
}

impl FailureKind {
    /// With words.
    pub fn with_description(self, description: impl Into<String>) -> RunFailure {
        RunFailure { kind: self, description: description.into() }
    }

    /// Whether this alone shows that a build has a bug.
    pub fn indicts_build(self) -> bool {
        match self {
            Self::NodeExited | Self::NodeNotRecovered | Self::ImpossibleResponses => true,
            Self::WritesNotResumed | Self::StateUnreadable => false,
        }
    }
}
