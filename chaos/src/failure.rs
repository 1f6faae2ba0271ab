//! Trouble: what goes wrong in a run besides what the properties judge.
//!
//! Promise: every trouble makes the run a broken one. Only some of them speak against the build
//! that was run; a machine that is too slow gives rise to the others too.

use serde::{Deserialize, Serialize};

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// A node ended although nothing was done to it that may end it.
    EndedByItself,
    /// Everything is healed, and a node does not serve.
    DoesNotComeBack,
    /// Everything is healed, and writes are not acknowledged.
    DoesNotGoOn,
    /// Answers that cannot be right.
    ImpossibleAnswers,
    /// What the nodes hold cannot be read at the end.
    CannotBeRead,
}

/// What went wrong, and how.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunFailure {
    /// What.
    pub what: FailureKind,
    /// How, for people.
    pub words: String,
}

impl FailureKind {
    /// With words.
    pub fn told(self, words: impl Into<String>) -> RunFailure {
        RunFailure { what: self, words: words.into() }
    }

    /// Whether this alone shows that a build has a bug.
    pub fn speaks_against_the_build(self) -> bool {
        match self {
            Self::EndedByItself | Self::DoesNotComeBack | Self::ImpossibleAnswers => true,
            Self::DoesNotGoOn | Self::CannotBeRead => false,
        }
    }
}
