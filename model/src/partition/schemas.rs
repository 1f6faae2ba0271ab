//! Schemas: equal schemas of a partition's branches, held once. A thousand shops of one chain
//! have one schema, and each command brings its own copy of it.

use std::sync::Arc;

use imbl::OrdMap;

use crate::codec;
use crate::definition::{Definition, Validation};
use crate::hash::Hash;
use crate::module::Relations;
use crate::schema::Schema;

/// The schemas in use, by content.
#[derive(Debug, Clone, Default)]
pub(crate) struct Schemas(OrdMap<Hash, SharedSchema>);

/// A schema, and what is derived of it where it is enforced and where it is not.
#[derive(Debug, Clone)]
struct SharedSchema {
    schema: Arc<Schema>,
    strict: Option<Arc<Relations>>,
    lenient: Option<Arc<Relations>>,
}

impl Schemas {
    /// The one already held that equals this one, else this one, held from now on.
    pub(crate) fn share(&mut self, schema: Arc<Schema>) -> Arc<Schema> {
        let hash = schema_hash(&schema);
        if let Some(held) = self.0.get(&hash) {
            return Arc::clone(&held.schema);
        }
        // Only when a new one comes: definitions change rarely, and looking through all costs
        // little then. A count of 1 is this map's own.
        let unused: Vec<Hash> = self
            .0
            .iter()
            .filter(|(_, held)| Arc::strong_count(&held.schema) == 1)
            .map(|(hash, _)| *hash)
            .collect();
        for hash in &unused {
            self.0.remove(hash);
        }
        let held = SharedSchema { schema: Arc::clone(&schema), strict: None, lenient: None };
        self.0.insert(hash, held);
        schema
    }

    /// What is derived of a definition whose schema is held here: of a hundred tables it takes
    /// more memory than an idle branch may. `derived` is held from now on where none is yet.
    pub(crate) fn share_relations(
        &mut self,
        definition: &Definition,
        derived: Arc<Relations>,
    ) -> Arc<Relations> {
        // Few: by the schema itself, so that it needs not be hashed again.
        let is_its = |held: &SharedSchema| Arc::ptr_eq(&held.schema, &definition.schema);
        let hash = self.0.iter().find(|(_, held)| is_its(held)).map(|(hash, _)| *hash);
        let Some(held) = hash.and_then(|hash| self.0.get_mut(&hash)) else { return derived };
        let place = match definition.validation {
            Validation::Strict => &mut held.strict,
            Validation::Lenient => &mut held.lenient,
        };
        Arc::clone(place.get_or_insert(derived))
    }
}

/// Names a schema by its content.
pub(crate) fn schema_hash(schema: &Schema) -> Hash {
    Hash(*blake3::hash(&codec::bare(schema)).as_bytes())
}
