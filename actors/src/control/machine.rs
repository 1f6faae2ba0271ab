//! The machine of group 0: the catalogue, published to this node after each change.
//!
//! Promise: whoever watches the catalogue sees each change after the entry that made it was
//! applied, and a checkpoint that replaces the state as one change more.
//! What is published is a copy that shares all that did not change: it costs the same whatever the
//! catalogue holds.
//! Refused: a working store; the catalogue is bounded, and its checkpoint holds all of it.

use std::sync::Arc;

use model::{Catalogue, CatalogueEntry, CatalogueError, codec};
use parking_lot::Mutex;
use raft::{ApplyStep, ChunkSink, ChunkSource, Fatal, FrozenState, StoreWrite, WorkingStore};
use tokio::sync::watch;

/// The one chunk of a catalogue's checkpoint.
const CHUNK: &str = "catalogue";

/// This node's copy of the catalogue.
pub(crate) struct CatalogueMachine {
    state: Catalogue,
    published: watch::Sender<Arc<Catalogue>>,
    applied_catalogue: AppliedCatalogue,
}

/// The catalogue after the last entry applied here, and that entry's index. openraft's own entries
/// do not reach the machine, so the group's applied index may be higher.
#[derive(Clone, Default)]
pub(crate) struct AppliedCatalogue(Arc<Mutex<(u64, Arc<Catalogue>)>>);

impl AppliedCatalogue {
    /// Both, of one moment.
    pub(crate) fn indexed_view(&self) -> (u64, Arc<Catalogue>) {
        self.0.lock().clone()
    }
}

impl CatalogueMachine {
    pub(crate) fn new() -> (Self, watch::Receiver<Arc<Catalogue>>) {
        let (published, watched) = watch::channel(Arc::default());
        let applied_catalogue = AppliedCatalogue::default();
        (Self { state: Catalogue::default(), published, applied_catalogue }, watched)
    }

    /// What is applied, as long as the machine lives.
    pub(crate) fn applied_catalogue(&self) -> AppliedCatalogue {
        self.applied_catalogue.clone()
    }

    fn publish(&self, index: u64) {
        for used in self.state.used() {
            let gauge = metrics::gauge!("mishkah_catalogue_bytes", "kind" => used.kind.name());
            gauge.set(used.bytes as f64);
        }
        let state = Arc::new(self.state.clone());
        // Before the watchers are woken: who asks for the index then must not get the one before.
        *self.applied_catalogue.0.lock() = (index, Arc::clone(&state));
        // Replaced also while nobody watches: the next one to watch begins with it.
        self.published.send_replace(state);
    }
}

impl raft::Machine for CatalogueMachine {
    type Response = Result<(), CatalogueError>;

    fn apply(
        &mut self,
        index: u64,
        entry: &[u8],
        _writes: &mut Vec<StoreWrite>,
    ) -> Result<ApplyStep<Self::Response>, Fatal> {
        let (_, entry): (_, CatalogueEntry) =
            codec::decode_entry(entry).map_err(|error| Fatal(error.to_string()))?;
        let result = self.state.apply(&entry);
        match result {
            Ok(()) => self.publish(index),
            // A change that is refused changes nothing but how far this is.
            Err(_) => self.applied_catalogue.0.lock().0 = index,
        }
        Ok(ApplyStep::Done(result))
    }

    fn freeze(&self) -> Box<dyn FrozenState> {
        Box::new(FrozenCatalogue(self.state.clone()))
    }

    fn restore(&mut self, index: u64, source: &dyn ChunkSource) -> Result<(), Fatal> {
        let bytes =
            source.get(CHUNK).ok_or_else(|| Fatal(format!("a checkpoint without {CHUNK:?}")))?;
        self.state = codec::decode(&bytes).map_err(|error| Fatal(error.to_string()))?;
        self.publish(index);
        Ok(())
    }

    fn checkpoint_durable(&mut self, _index: u64) {}

    fn attach(&mut self, _store: Arc<dyn WorkingStore>) {}
}

struct FrozenCatalogue(Catalogue);

impl FrozenState for FrozenCatalogue {
    fn write(self: Box<Self>, sink: &mut dyn ChunkSink) {
        sink.put(CHUNK, codec::encode(&self.0));
    }
}
