//! The machine: everything that touches the outside world, assembled once.

pub mod limits;
pub mod peer;
