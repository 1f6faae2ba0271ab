//! Compat: all that exists only because the original did. Pure, like `model`, on which alone it
//! stands; `model` knows nothing of it.
//!
//! `original` reads the original's configuration directory.

pub mod original;
#[cfg(test)]
mod testing;

pub use original::{BadOriginal, Original, OriginalBranch, OriginalModule, live_data};
