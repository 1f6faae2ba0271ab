//! CatalogueWriter: what one request changes in the catalogue of the whole cluster.
//!
//! Promise: under an `Idempotency-Key` each change is made once, also where the request ended
//! between two of them. Refused: the same key with another request.

use std::sync::Arc;

use model::{CatalogueChange, Object, Value};

use crate::app::App;
use crate::error::{ApiError, Problem};
use crate::limits::CHANGE_BYTES_MAX;
use crate::rest::extractors::IdempotencyKey;
use crate::scoped_store::ScopedStore;

/// The changes of the catalogue that one request makes, each once under the request's key.
pub(crate) struct CatalogueWriter<'a> {
    store: &'a ScopedStore,
    id: String,
}

impl<'a> CatalogueWriter<'a> {
    /// The changes of this request.
    ///
    /// # Errors
    /// `idempotency-key-reused` where its key came with another path or body.
    pub(crate) fn of(
        app: &App,
        store: &'a ScopedStore,
        IdempotencyKey(id): &IdempotencyKey,
        path: &str,
        body: &Object,
    ) -> Result<Self, ApiError> {
        let key = format!("rest:{}:", blake3::hash(id.request.as_bytes()).to_hex());
        // Of what the body means: a client may write its request anew, in another order.
        let id = format!("{key}{}:", model::canonical_hash(&(path, body)));
        let catalogue = app.node().catalogue();
        if catalogue.last_applied_under(&key).is_some_and(|earlier| !earlier.starts_with(&id)) {
            let message = "this Idempotency-Key came with another request; use a new one";
            return Err(ApiError::new(Problem::KeyReused, message));
        }
        Ok(Self { store, id })
    }

    /// Has the catalogue take one of them.
    ///
    /// # Errors
    /// Where it is too large, or the catalogue refuses it.
    pub(crate) async fn make(&self, step: &str, change: CatalogueChange) -> Result<(), ApiError> {
        // Measured as it will lie in every node's catalogue, and not as it was sent.
        let bytes = model::codec::bare(&change).len();
        if bytes > CHANGE_BYTES_MAX {
            let message =
                format!("this would be {bytes} bytes, at most {CHANGE_BYTES_MAX} are kept");
            return Err(ApiError::new(Problem::BodyTooLarge, message));
        }
        Ok(self.store.administer(format!("{}{step}", self.id), change).await?)
    }

    /// Has the catalogue keep a definition under this name. It changes no module: who made one of
    /// it says so in a change of its own.
    ///
    /// # Errors
    /// As `make`.
    pub(crate) async fn keep_schema(
        &self,
        step: &str,
        name: String,
        source: Arc<Value>,
    ) -> Result<(), ApiError> {
        let change = CatalogueChange::PutSchema { name, source, module: None, fill: false };
        self.make(step, change).await
    }
}
