//! Compat: all that exists only because the original did. Pure, like `model`, on which alone it
//! stands; `model` knows nothing of it.
//!
//! - `conventions` is what the original's clients take for granted about tables.
//! - `original` reads the original's configuration directory.
//! - `orders` is the stored procedure that saves and lists point-of-sale orders.
//! - `payments` makes conditions on an order's payment state into conditions on a field.

mod conventions;
mod orders;
mod original;
mod payments;
mod procedures;
#[cfg(test)]
mod testing;

pub use conventions::conventions;
pub use orders::{Orders, OrdersQuery, SaveOrder};
pub use original::{BadOriginal, Original, OriginalBranch, OriginalModule, live_data};
pub use payments::{payment_state_allowed, payment_state_is, payment_state_is_not};
pub use procedures::procedures;
