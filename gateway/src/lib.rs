//! The doors: JSON outside, types inside. REST and WebSocket say the same things.
//!
//! ```text
//!   request ── http/door ── http/<resource> ──┐                 ┌── Store::submit / read
//!                                             ├── auth, publish ┤
//!   socket ─── ws/socket ── ws/session ───────┘                 └── Store::follow / subscribe
//! ```
//!
//! Promises:
//! - names and shapes are those of docs/protocol.md, in that order of members;
//! - every path that shows or changes data passes [`auth::authorize`];
//! - every refusal goes through the one table of [`error`], and every bound is named in [`limits`];
//! - a slow session costs nobody else anything: its queue is bounded, and when it is full its
//!   streams are simply not pulled.
//!
//! Refused: this room decides nothing about data. It checks shape, and the branch decides.

mod accept;
pub mod auth;
mod batch;
pub mod error;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod gateway;
mod http;
mod intake;
pub mod limits;
mod metrics;
mod origins;
mod preconditions;
mod publish;
mod render;
mod wire;
mod ws;

pub use gateway::{Gateway, GatewayConfig};
pub use http::{File, Files};
pub use origins::{AllowedOrigins, WebOrigin};
