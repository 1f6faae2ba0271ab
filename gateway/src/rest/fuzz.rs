//! Fuzz: the bodies that only this folder reads.

use model::Object;

use crate::rest::{orders, query, sync};

/// Reads a body in every way a handler would; a refusal is an answer like any other.
pub(crate) fn read_bodies(body: &Object) {
    orders::read_any(body.clone());
    sync::read_any(body);
    query::read_any(body);
}
