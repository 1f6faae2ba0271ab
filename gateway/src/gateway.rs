//! Gateway: the REST and WebSocket server of one node, as its assembler holds it.
//!
//! Draining goes in this order: `readyz` says no, so that balancers look elsewhere; sockets are
//! closed, spread over a while, each after its last acknowledgement; then the listener closes and
//! requests under way are finished.

use std::future::Future;
use std::io;
use std::sync::Arc;

use actors::Store;
use axum::Router;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;

use crate::app::{App, AppState};
use crate::config::GatewayConfig;
use crate::connection::Connections;
use crate::rest::router;
use crate::scoped_store::StoreHandle;

/// The REST and WebSocket server of one node. Cheap to clone: clones share all state.
#[derive(Clone)]
pub struct Gateway {
    app: App,
}

impl Gateway {
    /// A gateway to this store; `metrics` renders `GET /metrics`. The recorder must be
    /// installed before, as counters are taken here.
    pub fn new(config: GatewayConfig, store: Arc<dyn Store>, metrics: PrometheusHandle) -> Self {
        Self { app: Arc::new(AppState::new(config, StoreHandle::new(store), metrics)) }
    }

    /// Every route, ready to be served or called.
    pub fn routes(&self) -> Router {
        router::build(App::clone(&self.app))
    }

    /// Serves until `shutdown` resolves, then drains; returns when the last request is answered,
    /// or has had its time.
    ///
    /// # Errors
    /// What the listener reports.
    pub async fn serve(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let gateway = self.clone();
        let stop = async move {
            shutdown.await;
            gateway.drain().await;
        };
        let limits = Arc::new(self.app.limits.clone());
        let connections = Connections::new(listener, self.app.arrivals.clone(), limits);
        crate::accept::serve(connections, self.routes(), stop, &self.app.limits).await
    }

    /// Stops taking new work: `readyz` says so, and every socket is closed once its last
    /// acknowledgement is written. Returns when they are gone or have had their time.
    pub async fn drain(&self) {
        self.app.draining.cancel();
        self.app.sockets.close();
        let limits = &self.app.limits;
        let timeout = limits.drain_spread + limits.drain_max;
        if tokio::time::timeout(timeout, self.app.sockets.wait()).await.is_err() {
            tracing::warn!(left = self.app.sockets.len(), "sockets did not end in time");
        }
    }
}
