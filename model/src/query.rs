//! Query: lookups over one module's records, on a copy that no write disturbs.

pub(crate) mod page;
pub(crate) mod times;
mod translate;
