//! Erased machine: the one place where the type of a machine's response is not known.
//!
//! Why: all groups of a node share one openraft type configuration, whose response is one type,
//! while each machine has a response of its own. Promise: [`TypedGroup`](crate::TypedGroup) alone
//! reads a response back, and it exists only for the type of machine that its group was started
//! with, so no caller sees a response of another type.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::Fatal;
use crate::machine::{ApplyStep, ChunkSource, FrozenState, Machine, StoreWrite, WorkingStore};

/// A [`Machine`] whose response has no type.
pub(crate) trait ErasedMachine: Send {
    /// See [`Machine::apply`].
    fn apply(
        &mut self,
        index: u64,
        entry: &[u8],
        writes: &mut Vec<StoreWrite>,
    ) -> Result<ApplyStep<ErasedResponse>, Fatal>;
    /// See [`Machine::finish_long`].
    fn finish_long(&mut self, writes: &mut Vec<StoreWrite>) -> Result<ErasedResponse, Fatal>;
    /// See [`Machine::freeze`].
    fn freeze(&self) -> Box<dyn FrozenState>;
    /// See [`Machine::restore`].
    fn restore(&mut self, index: u64, source: &dyn ChunkSource) -> Result<(), Fatal>;
    /// See [`Machine::checkpoint_durable`].
    fn checkpoint_durable(&mut self, index: u64);
    /// See [`Machine::drop_stored`].
    fn drop_stored(&mut self);
    /// See [`Machine::attach`].
    fn attach(&mut self, store: Arc<dyn WorkingStore>);
}

/// The machine without the type of its response.
pub(crate) fn erase<M: Machine>(machine: M) -> Box<dyn ErasedMachine> {
    Box::new(ResponseEraser(machine))
}

/// A type of its own: if every machine were an `ErasedMachine` as well, a call of `apply` would be
/// ambiguous wherever both traits are in scope.
struct ResponseEraser<M>(M);

impl<M: Machine> ErasedMachine for ResponseEraser<M> {
    fn apply(
        &mut self,
        index: u64,
        entry: &[u8],
        writes: &mut Vec<StoreWrite>,
    ) -> Result<ApplyStep<ErasedResponse>, Fatal> {
        Ok(match self.0.apply(index, entry, writes)? {
            ApplyStep::Done(response) => ApplyStep::Done(ErasedResponse::of(response)),
            ApplyStep::Long(work) => ApplyStep::Long(work),
            ApplyStep::Blocked => ApplyStep::Blocked,
        })
    }

    fn finish_long(&mut self, writes: &mut Vec<StoreWrite>) -> Result<ErasedResponse, Fatal> {
        self.0.finish_long(writes).map(ErasedResponse::of)
    }

    fn freeze(&self) -> Box<dyn FrozenState> {
        self.0.freeze()
    }

    fn restore(&mut self, index: u64, source: &dyn ChunkSource) -> Result<(), Fatal> {
        self.0.restore(index, source)
    }

    fn checkpoint_durable(&mut self, index: u64) {
        self.0.checkpoint_durable(index);
    }

    fn drop_stored(&mut self) {
        self.0.drop_stored();
    }

    fn attach(&mut self, store: Arc<dyn WorkingStore>) {
        self.0.attach(store);
    }
}

/// The response of a machine to one entry: `None` for openraft's own entries, which no machine
/// sees. openraft demands serde for it and never uses it here, so both directions are errors.
pub(crate) struct ErasedResponse(Option<Box<dyn Any + Send + Sync>>);

impl ErasedResponse {
    /// The response to one of openraft's own entries.
    pub(crate) const NONE: Self = Self(None);

    fn of(response: impl Any + Send + Sync) -> Self {
        Self(Some(Box::new(response)))
    }

    /// The response of a machine `M`. `None`: there is none, or another machine gave it.
    pub(crate) fn into_response<M: Machine>(self) -> Option<M::Response> {
        let response = self.0?.downcast::<M::Response>();
        response.ok().map(|response| *response)
    }
}

impl fmt::Debug for ErasedResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ErasedResponse(..)")
    }
}

impl Serialize for ErasedResponse {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("a response never leaves the process"))
    }
}

impl<'de> Deserialize<'de> for ErasedResponse {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("a response never comes from outside the process"))
    }
}
