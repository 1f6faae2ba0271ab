//! Schemas: equal schemas of a partition's branches, held once. A thousand shops of one chain
//! have one schema, and each command brings its own copy of it.

use std::sync::Arc;

use imbl::OrdMap;

use crate::codec;
use crate::hash::Hash;
use crate::schema::Schema;

/// The schemas in use, by content.
#[derive(Debug, Clone, Default)]
pub(crate) struct Schemas(OrdMap<Hash, Arc<Schema>>);

impl Schemas {
    /// The one already held that equals this one, else this one, held from now on.
    pub(crate) fn share(&mut self, schema: Arc<Schema>) -> Arc<Schema> {
        let hash = schema_hash(&schema);
        if let Some(held) = self.0.get(&hash) {
            return Arc::clone(held);
        }
        // Only when a new one comes: definitions change rarely, and looking through all costs
        // little then. A count of 1 is this map's own.
        let unused: Vec<Hash> = self
            .0
            .iter()
            .filter(|(_, held)| Arc::strong_count(held) == 1)
            .map(|(hash, _)| *hash)
            .collect();
        for hash in &unused {
            self.0.remove(hash);
        }
        self.0.insert(hash, Arc::clone(&schema));
        schema
    }
}

/// Names a schema by its content.
pub(crate) fn schema_hash(schema: &Schema) -> Hash {
    Hash(*blake3::hash(&codec::bare(schema)).as_bytes())
}
