//! Long: a large command on its branch, apart from its partition.
//!
//! Promise: what it comes to is what it would have come to at its place in the log, whatever other
//! branches did meanwhile. Refused: a branch that changes meanwhile; the caller keeps others out.

use crate::batch_piece::StagedBatch;
use crate::branch::{ApplyContext, Branch};
use crate::codec::{CodecError, EntryError, FormatKind};
use crate::command::Request;
use crate::entropy::Entropy;
use crate::ids::BranchKey;
use crate::partition::AppliedCommand;

/// A command whose pieces are all there: what is left is work on its branch alone, which another
/// thread can do while the partition goes on with other branches.
#[derive(Debug)]
pub struct LongCommand {
    pub(super) staged: StagedBatch,
    pub(super) branch: Branch,
    pub(super) uptime_ms: u64,
    pub(crate) level: u16,
}

/// What it came to.
#[derive(Debug)]
pub struct LongOutcome {
    /// Its branch after it.
    pub(super) branch: Branch,
    /// The request, where other branches may begin with the same.
    pub(super) begins: Option<Request>,
    /// What was decided.
    pub applied: AppliedCommand,
}

impl LongOutcome {
    /// Whether it was a seed, which makes records without events.
    pub fn is_seed(&self) -> bool {
        matches!(self.begins, Some(Request::Seed(_)))
    }
}

impl LongCommand {
    /// Whose it is.
    pub fn key(&self) -> &BranchKey {
        self.staged.key()
    }

    /// Decides it on its branch. Takes time in proportion to what it changes.
    ///
    /// # Errors
    /// [`EntryError`]: the pieces are no batch of one command, or of a newer level.
    pub fn run(self) -> Result<LongOutcome, EntryError> {
        let Self { staged, mut branch, uptime_ms, level } = self;
        #[cfg(not(feature = "next-level"))]
        let _ = level;
        let batch = staged.batch()?;
        let (at, entropy) = (batch.stamped, Entropy::new(batch.entropy, 0));
        let mut commands = batch.commands.into_iter();
        let (Some(command), None) = (commands.next(), commands.next()) else {
            let reason = "a batch in pieces has one command".to_owned();
            return Err(CodecError::Damaged { what: FormatKind::Batch, reason }.into());
        };
        let context = ApplyContext {
            at,
            uptime_ms,
            entropy,
            #[cfg(feature = "next-level")]
            level,
        };
        let applied = branch.apply(&command, context);
        // The rest is let go of here, value by value, and not where the partition waits for it.
        let begins =
            matches!(command.request, Request::Define(_) | Request::Fill(_) | Request::Seed(_));
        Ok(LongOutcome { branch, begins: begins.then_some(command.request), applied })
    }
}
