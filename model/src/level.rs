//! Level: what each command and each change of the catalogue needs of the cluster (decision 6).
//!
//! Promise: nothing is written that a build of a lower level could not read or would decide in
//! another way: whoever proposes asks [`check_level`](crate::Catalogue::check_level) first. Each
//! request, precondition and change of the catalogue is named here, so that none is added without
//! its level. A new variant *within* one (an action, an operator, a rule) needs a line here as
//! well; the compiler does not ask for that one.

use crate::cluster::CatalogueChange;
use crate::codec::FIRST_LEVEL;
use crate::command::{Command, Mutation, Precondition, Request, Transaction};
use crate::procedure::Procedures;

/// What is to be written needs a level that the cluster has not agreed on. Nothing was done, and
/// asking again helps only once an operator has finished the upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this needs level {needed} and the cluster has agreed on level {agreed}: an operator must \
     upgrade every node, then raise the level"
)]
pub struct LevelNotAgreed {
    /// The level it needs.
    pub needed: u16,
    /// The level the cluster has agreed on.
    pub agreed: u16,
}

impl Command {
    /// The level from which on every build reads this command and decides it in the same way, by
    /// the procedures that this build knows.
    pub fn level(&self, procedures: &Procedures) -> u16 {
        match &self.request {
            Request::Transaction(transaction) => transaction_level(transaction),
            Request::Call(call) => procedures.level(call),
            Request::Define(_)
            | Request::Seed(_)
            | Request::Reserve(_)
            | Request::Purge(_)
            | Request::Restore(_)
            | Request::Reset(_)
            | Request::Replace(_)
            | Request::SetSequence(_)
            | Request::MendClock(_)
            | Request::Fill(_) => FIRST_LEVEL,
            #[cfg(feature = "next-level")]
            Request::ReserveAtNextLevel(_) => crate::codec::NEXT_LEVEL,
        }
    }
}

fn transaction_level(transaction: &Transaction) -> u16 {
    let of_mutations = transaction.mutations.iter().flat_map(|mutation| match mutation {
        Mutation::Record(mutation) => mutation.preconditions.as_slice(),
        Mutation::ReplaceChildren(_) => &[],
    });
    let preconditions = transaction.preconditions.iter().chain(of_mutations);
    preconditions.map(precondition_level).max().unwrap_or(FIRST_LEVEL)
}

fn precondition_level(precondition: &Precondition) -> u16 {
    match precondition {
        Precondition::MustExist
        | Precondition::VersionIs(_)
        | Precondition::Field(_)
        | Precondition::UnmodifiedSince(_)
        | Precondition::LastKnown(_)
        | Precondition::CommitDay { .. }
        | Precondition::LastEvent(_)
        | Precondition::Change(_) => FIRST_LEVEL,
    }
}

impl CatalogueChange {
    /// The level from which on every build reads this change and takes it in the same way.
    pub fn level(&self) -> u16 {
        match self {
            Self::Form { .. }
            | Self::Node(_)
            | Self::Module(_)
            | Self::Branch(_)
            | Self::Patterns { .. }
            | Self::Sequences(_)
            | Self::AddModule(_)
            | Self::AddBranch(_)
            | Self::GiveModule { .. }
            | Self::PutSchema { .. }
            | Self::PutSeedFile { .. }
            | Self::FullSync(_)
            | Self::SetModule { .. }
            | Self::RaiseLevel(_) => FIRST_LEVEL,
        }
    }
}
