//! The storm: what clients do, what goes wrong, and an oracle that judges what may be seen.

pub mod history;
pub mod property;
