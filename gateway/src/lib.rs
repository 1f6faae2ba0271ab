//! The doors: JSON outside, types inside. REST and WebSocket say the same things.
//!
//! ```text
//!   request ── rest/middleware ── rest/<resource> ┐                 ┌── Branches::submit / read
//!                                             ├── auth, publish ┤
//!   socket ─── ws/socket ── ws/session ───────┘                 └── Branches::follow / listen
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
mod app;
pub mod auth;
mod batch;
mod business_day;
mod config;
pub mod error;
mod files;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod gateway;
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
pub mod scoped_store;
mod wire;
mod ws;

pub use config::GatewayConfig;
pub use files::{File, Files};
pub use gateway::Gateway;
pub use origins::{AllowedOrigins, WebOrigin};
pub use rest::router::{RouteCalls, route_calls};
