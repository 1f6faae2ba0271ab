//! Mutant: one thing done wrong on purpose, so that a chaos run can prove that it notices.
//!
//! Promise: without the feature `mutants` there is none: [`is`] is `false` before the program is
//! made, and nothing it guards is in it. With the feature all is right until one is chosen
//! by name, once for the life of a process. It stands here because every crate above can see this
//! one. Refused: names that are not listed, and a second choice. `docs/mutants.md` lists them.

/// What may be done wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// A leader answers a write before anybody else has it.
    AcknowledgeBeforeCommit,
    /// The log says that a turn is on disk without asking the disk.
    AcknowledgeBeforeFsync,
    /// A leader answers reads without asking whether it still is one.
    ReadFromDeposedLeader,
    /// What a checkpoint remembers of requests already answered is not read back.
    ForgetExactlyOnceInCheckpoint,
    /// New names in a directory are not made durable.
    SkipDirectoryFsync,
    /// A socket whose queue is full loses its next events, and nobody notices.
    DropEventWhenQueueFull,
    /// Of two events that wait for a socket the later one leaves first.
    ReorderTwoEvents,
    /// A new leader gives the last number of each sequence once more.
    ReuseSequenceNumberAfterFailover,
    /// What a restart reads from the log again is applied twice.
    ApplyTwiceAfterRestart,
    /// The log is cut up to the newest checkpoint, which may not be on disk yet.
    PurgeWalBeforeCheckpointDurable,
    /// The copy of the log's last segment that opening makes is not made durable.
    SkipTailSyncAtOpen,
}

/// How a leader under [`Mutant::ReuseSequenceNumberAfterFailover`] marks its first batch: what the
/// entropy of the batch begins with.
pub const FIRST_OF_TERM: [u8; 8] = *b"failover";

/// Whether this is done wrong in this process.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub const fn is(_: Mutant) -> bool {
    false
}

#[cfg(feature = "mutants")]
pub use chosen::{ALL, UnknownMutant, choose, is};

/// The choice, where there is one.
#[cfg(feature = "mutants")]
mod chosen {
    use std::sync::OnceLock;

    use super::Mutant;

    static CHOSEN: OnceLock<Mutant> = OnceLock::new();

    /// Every mutant by its name.
    pub const ALL: [(&str, Mutant); 11] = [
        ("acknowledge-before-commit", Mutant::AcknowledgeBeforeCommit),
        ("acknowledge-before-fsync", Mutant::AcknowledgeBeforeFsync),
        ("read-from-deposed-leader", Mutant::ReadFromDeposedLeader),
        ("forget-exactly-once-in-checkpoint", Mutant::ForgetExactlyOnceInCheckpoint),
        ("skip-directory-fsync", Mutant::SkipDirectoryFsync),
        ("drop-event-when-queue-full", Mutant::DropEventWhenQueueFull),
        ("reorder-two-events", Mutant::ReorderTwoEvents),
        ("reuse-sequence-number-after-failover", Mutant::ReuseSequenceNumberAfterFailover),
        ("apply-twice-after-restart", Mutant::ApplyTwiceAfterRestart),
        ("purge-wal-before-checkpoint-durable", Mutant::PurgeWalBeforeCheckpointDurable),
        ("skip-tail-sync-at-open", Mutant::SkipTailSyncAtOpen),
    ];

    /// There is no mutant of this name.
    #[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
    #[error("there is no mutant {0:?}; there are {names}", names = names())]
    pub struct UnknownMutant(String);

    fn names() -> String {
        ALL.map(|(name, _)| name).join(", ")
    }

    /// Whether this is done wrong in this process.
    pub fn is(mutant: Mutant) -> bool {
        CHOSEN.get() == Some(&mutant)
    }

    /// From now on this is done wrong, until the process ends. The first choice stays.
    ///
    /// # Errors
    /// [`UnknownMutant`] with all the names.
    pub fn choose(name: &str) -> Result<(), UnknownMutant> {
        let known = ALL.iter().find(|(known, _)| *known == name);
        let (_, mutant) = known.ok_or_else(|| UnknownMutant(name.to_owned()))?;
        CHOSEN.get_or_init(|| *mutant);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// That it can be asked while the program is made says that nothing of it is left.
    #[cfg(not(feature = "mutants"))]
    #[test]
    fn without_the_feature_nothing_is_ever_done_wrong() {
        const {
            assert!(!is(Mutant::AcknowledgeBeforeCommit));
            assert!(!is(Mutant::SkipTailSyncAtOpen));
        }
    }

    #[cfg(feature = "mutants")]
    #[test]
    fn a_mutant_is_chosen_by_a_known_name_only() {
        assert!(ALL.iter().all(|(_, mutant)| !is(*mutant)));
        let refused = choose("skip-everything").unwrap_err().to_string();
        assert!(ALL.iter().all(|(name, _)| refused.contains(name)), "{refused}");
        assert!(ALL.iter().all(|(_, mutant)| !is(*mutant)));
    }
}
