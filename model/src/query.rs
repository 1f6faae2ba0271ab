//! Query: lookups over one module's records, on a copy that no write disturbs.

mod compare;
pub(crate) mod condition;
mod letters;
pub(crate) mod page;
mod populate;
#[allow(clippy::module_inception, reason = "a query among the queries")]
pub(crate) mod query;
pub(crate) mod sync;
pub(crate) mod times;
mod translate;
mod value_set;

pub use letters::folded;
pub use times::{saved as saved_at, updated as updated_at};
