//! The machine of group 0: the catalogue, published to this node after each change.

use std::sync::Arc;

use model::{Catalogue, CatalogueEntry, codec};
use raft::{Answer, Change, ChunkSink, ChunkSource, Fatal, Frozen, Store};
use tokio::sync::watch;

/// The one chunk of a catalogue's checkpoint.
const CHUNK: &str = "catalogue";

/// This node's copy of the catalogue.
pub(crate) struct CatalogueMachine {
    state: Catalogue,
    published: watch::Sender<Arc<Catalogue>>,
}

impl CatalogueMachine {
    pub(crate) fn new() -> (Self, watch::Receiver<Arc<Catalogue>>) {
        let (published, watched) = watch::channel(Arc::default());
        (Self { state: Catalogue::default(), published }, watched)
    }

    fn publish(&self) {
        self.published.send_replace(Arc::new(self.state.clone()));
    }
}

impl raft::Machine for CatalogueMachine {
    fn apply(
        &mut self,
        _index: u64,
        entry: &[u8],
        _changes: &mut Vec<Change>,
    ) -> Result<Answer, Fatal> {
        let entry: CatalogueEntry =
            codec::decode(entry).map_err(|error| Fatal(error.to_string()))?;
        let result = self.state.apply(&entry);
        if result.is_ok() {
            self.publish();
        }
        Ok(Answer(Arc::new(result)))
    }

    fn freeze(&self) -> Box<dyn Frozen> {
        Box::new(FrozenCatalogue(self.state.clone()))
    }

    fn restore(
        &mut self,
        _index: u64,
        source: &dyn ChunkSource,
        _rebuild: Option<&mut dyn FnMut(Change)>,
    ) -> Result<(), Fatal> {
        let bytes =
            source.get(CHUNK).ok_or_else(|| Fatal(format!("a checkpoint without {CHUNK:?}")))?;
        self.state = codec::decode(&bytes).map_err(|error| Fatal(error.to_string()))?;
        self.publish();
        Ok(())
    }

    fn checkpointed(&mut self, _index: u64) {}

    fn attach(&mut self, _store: Arc<dyn Store>) {}
}

struct FrozenCatalogue(Catalogue);

impl Frozen for FrozenCatalogue {
    fn write(self: Box<Self>, sink: &mut dyn ChunkSink) {
        sink.put(CHUNK, codec::encode(&self.0));
    }
}
