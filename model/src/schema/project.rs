//! Project: from what a client sent to the record that is stored.
//!
//! Promise: a projected record has exactly the schema's fields, in the schema's order, whatever
//! order or spelling (field name or its snake_case twin) was sent. Versions are the caller's.

use crate::definition::Validation;
use crate::entropy::Entropy;
use crate::ids::{BranchId, Timestamp};
use crate::reject::Reject;
use crate::schema::Table;
use crate::value::Object;

/// What an insert may draw on besides the record sent.
#[derive(Debug)]
pub struct InsertContext<'a> {
    /// How much is enforced.
    pub validation: Validation,
    /// Fills a `branchId` field.
    pub branch: &'a BranchId,
    /// The socket's id, fills a `clientId` field.
    pub client: Option<&'a str>,
    /// The commit time.
    pub at: Timestamp,
    /// Fills a missing key.
    pub entropy: &'a mut Entropy,
}

impl Table {
    /// The record an insert stores: every field of the schema, in order, defaults filled in.
    ///
    /// # Errors
    /// Strict only: [`Reject::Invalid`], naming the field and the rule it breaks.
    pub fn project_insert(
        &self,
        sent: &Object,
        ctx: &mut InsertContext<'_>,
    ) -> Result<Object, Reject> {
        let _ = (sent, ctx);
        unimplemented!()
    }

    /// The record a merge stores: the current one with the fields sent changed.
    ///
    /// # Errors
    /// Strict only: [`Reject::Invalid`], naming the field and the rule it breaks.
    pub fn project_merge(
        &self,
        current: &Object,
        patch: &Object,
        validation: Validation,
        at: Timestamp,
    ) -> Result<Object, Reject> {
        let _ = (current, patch, validation, at);
        unimplemented!()
    }
}
