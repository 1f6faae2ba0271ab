//! The doors: JSON outside, types inside. REST and WebSocket say the same things.

mod gateway;
pub mod limits;

pub use gateway::{Gateway, GatewayConfig};
