//! Config: what the assembler of a node says of its gateway.

use std::sync::Arc;

use actors::Memory;

use crate::files::Files;
use crate::limits::Limits;
use crate::origins::AllowedOrigins;

/// How a gateway is set up.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// What frames and answers show as `serverId`.
    pub server_id: String,
    /// Whether this node listens beyond loopback without authentication.
    pub open_to_all: bool,
    /// The origins whose pages may change data, besides this node's own.
    pub allowed_origins: AllowedOrigins,
    /// Whether it listens on loopback: only hosts known as its own are then answered.
    pub checks_host: bool,
    /// Where clients are told to reach it, `HOST:PORT`, if that is not where it listens.
    pub advertised: Option<String>,
    /// What the node may hold in memory, and what it holds.
    pub memory: Memory,
    /// The bounds.
    pub limits: Limits,
    /// Files that clients may have besides the API.
    pub files: Option<Arc<dyn Files>>,
}

impl GatewayConfig {
    /// The usual gateway of a node of this name: its `serverId` is `ws-<node>`.
    pub fn new(node: &str) -> Self {
        Self {
            server_id: format!("ws-{node}"),
            open_to_all: false,
            allowed_origins: AllowedOrigins::default(),
            checks_host: true,
            advertised: None,
            memory: Memory::unlimited(),
            limits: Limits::default(),
            files: None,
        }
    }
}
