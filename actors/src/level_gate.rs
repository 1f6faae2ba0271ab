//! LevelGate: no command is sent to a leader or written before the cluster has agreed on the level
//! that it needs (decision 6).

use std::sync::Arc;

use model::{Catalogue, Command, Procedures};
use tokio::sync::watch;

use crate::message::Refusal;

/// Asked where a command comes into the store and where it goes into the log. Cheap to clone.
#[derive(Clone)]
pub(crate) struct LevelGate {
    catalogue: watch::Receiver<Arc<Catalogue>>,
    procedures: Procedures,
}

impl LevelGate {
    pub(crate) fn new(catalogue: watch::Receiver<Arc<Catalogue>>, procedures: Procedures) -> Self {
        Self { catalogue, procedures }
    }

    /// Whether a command may be written now. As levels never fall, one that may, may for ever.
    ///
    /// # Errors
    /// `Unavailable`, which says that an operator must finish the upgrade; nothing was done.
    pub(crate) fn check(&self, command: &Command) -> Result<(), Refusal> {
        let needed = command.level(&self.procedures);
        Ok(self.catalogue.borrow().check_level(needed)?)
    }

    /// The level of what is written now: what the cluster has agreed on, not what this build knows,
    /// so that a member that is not upgraded yet can read it.
    pub(crate) fn writing_level(&self) -> u16 {
        self.catalogue.borrow().writing_level()
    }
}

#[cfg(test)]
mod tests {
    use model::codec::NEXT_LEVEL;
    use model::{Procedure, ProcedureCall, ProcedureContext, ProcedureView, Reject, Request};

    use super::*;
    use crate::testing::insert;

    /// A procedure that builds of the level before do not have.
    #[derive(Debug)]
    struct NewProcedure;

    impl Procedure for NewProcedure {
        fn name(&self) -> &'static str {
            "new"
        }

        fn level(&self, _: &[u8]) -> u16 {
            NEXT_LEVEL
        }

        fn run(&self, _: &mut ProcedureContext<'_, '_>, _: &[u8]) -> Result<(), Reject> {
            Ok(())
        }

        fn read(&self, _: &ProcedureView<'_>, _: &[u8]) -> Result<Vec<u8>, Reject> {
            Ok(Vec::new())
        }
    }

    #[test]
    fn a_command_waits_until_its_level_is_agreed() {
        let (agreed, catalogue) = watch::channel(Arc::new(Catalogue::default()));
        let gate = LevelGate::new(catalogue, Procedures::new([Arc::new(NewProcedure) as _]));
        let old = insert("dar", "n1", "x");
        let call = ProcedureCall { procedure: "new".to_owned(), arguments: Vec::new() };
        let new = Command { request: Request::Call(call), ..old.clone() };
        assert_eq!(gate.check(&old), Ok(()));
        let Err(Refusal::Unavailable { reason, .. }) = gate.check(&new) else {
            panic!("the cluster has agreed on nothing")
        };
        assert!(reason.contains("an operator must upgrade every node"), "{reason}");

        agreed.send_modify(|catalogue| Arc::make_mut(catalogue).level = NEXT_LEVEL);
        assert_eq!(gate.check(&new), Ok(()));
        assert_eq!((gate.check(&old), gate.writing_level()), (Ok(()), NEXT_LEVEL));
    }
}
