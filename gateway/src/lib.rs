//! The gateway: JSON outside, types inside. REST and WebSocket say the same things.
//!
//! ```text
//!   request ── rest/middleware ── rest/<resource> ──┐
//!                                                   ├── ScopedStore ── actors::Store
//!   socket ─── ws/socket ──────── ws/session ───────┘
//! ```
//!
//! Promises:
//! - names and shapes are those of docs/protocol.md, in that order of members;
//! - data is reached through a `ScopedStore` only, and that is made for a principal;
//! - every refusal goes through the one table of [`error`], and every bound is named in [`limits`];
//! - a slow session costs nobody else anything: its queue is bounded, and when it is full its
//!   streams are simply not pulled.
//!
//! Refused: this crate decides nothing about data. It checks shape, and the branch decides.

mod accept;
mod app;
mod arrivals;
pub mod auth;
mod batch;
mod business_day;
mod client_address;
mod config;
mod connection;
mod connection_place;
pub mod error;
mod files;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod gateway;
mod held;
mod intake;
mod known_members;
pub mod limits;
mod metrics;
mod origins;
mod params;
mod preconditions;
mod publish;
mod render;
mod rest;
mod scoped_store;
mod wire;
mod ws;

pub use config::GatewayConfig;
pub use files::{File, Files};
pub use gateway::Gateway;
pub use origins::{AllowedOrigins, WebOrigin};
pub use rest::router::{RouteCalls, route_calls};
pub use scoped_store::StoreCall;
pub use ws::frame_calls;
