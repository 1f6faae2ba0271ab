//! Gateway: the doors of one node, as its assembler holds them.
//!
//! Draining goes in this order: `readyz` says no, so that balancers look elsewhere; sockets are
//! closed, spread over a while, each after its last acknowledgement; then the listener closes and
//! requests under way are finished.

use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use actors::Store;
use axum::Router;
use bytes::Bytes;
use metrics_exporter_prometheus::PrometheusHandle;
use model::{
    Accepted, Answer, BranchKey, Command, ModuleSnapshot, Offset, Outcome, Read, ReadLevel,
};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::{ApiError, Problem};
use crate::http::Files;
use crate::intake::Connections;
use crate::limits::{Limits, RENDERS_AT_ONCE, SYNC_BODIES_AT_ONCE};
use crate::metrics::Counters;
use crate::origins::{AllowedOrigins, OriginPolicy, host_and_port};

/// What the doors are told when they are built.
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
    /// The bounds.
    pub limits: Limits,
    /// Files that clients may have besides the API.
    pub files: Option<Arc<dyn Files>>,
}

impl GatewayConfig {
    /// The usual doors of a node of this name: its `serverId` is `ws-<node>`.
    pub fn new(node: &str) -> Self {
        Self {
            server_id: format!("ws-{node}"),
            open_to_all: false,
            allowed_origins: AllowedOrigins::default(),
            checks_host: true,
            advertised: None,
            limits: Limits::default(),
            files: None,
        }
    }
}

/// The doors of one node. Cheap to clone: clones are the same doors.
#[derive(Clone)]
pub struct Gateway {
    app: App,
}

impl Gateway {
    /// Doors before these branches; `metrics` renders `GET /metrics`. The recorder must be
    /// installed before, as counters are taken here.
    pub fn new(config: GatewayConfig, branches: Arc<dyn Store>, metrics: PrometheusHandle) -> Self {
        let own_hosts = config.advertised.as_deref().and_then(host_and_port);
        let origins = OriginPolicy {
            allowed: config.allowed_origins,
            checks_host: config.checks_host,
            own_hosts: own_hosts.into_iter().map(|(host, _)| host).collect(),
        };
        let app = Arc::new(Shared {
            server_id: config.server_id.into(),
            branches,
            metrics,
            counters: Counters::new(config.open_to_all, origins.allowed.is_every()),
            origins,
            seats: Arc::new(Semaphore::new(config.limits.sockets_max)),
            renders: Arc::new(Semaphore::new(RENDERS_AT_ONCE)),
            large_bodies: Arc::new(Semaphore::new(SYNC_BODIES_AT_ONCE)),
            including: Semaphore::new(1),
            included: Mutex::new(None),
            draining: CancellationToken::new(),
            sockets: TaskTracker::new(),
            limits: config.limits,
            files: config.files,
            document: OnceLock::new(),
        });
        Self { app }
    }

    /// Every route, ready to be served or called.
    pub fn routes(&self) -> Router {
        crate::http::routes(Arc::clone(&self.app))
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
        let connections = Connections::new(listener, Arc::clone(&self.app.large_bodies));
        crate::accept::serve(connections, self.routes(), stop, &self.app.limits).await
    }

    /// Stops taking new work: `readyz` says so, and every socket is closed once its last
    /// acknowledgement is written. Returns when they are gone or have had their time.
    pub async fn drain(&self) {
        self.app.draining.cancel();
        self.app.sockets.close();
        let limits = &self.app.limits;
        let patience = limits.drain_spread + limits.drain_max;
        if tokio::time::timeout(patience, self.app.sockets.wait()).await.is_err() {
            tracing::warn!(left = self.app.sockets.len(), "sockets did not end in time");
        }
    }
}

/// What all handlers and sockets share.
pub(crate) type App = Arc<Shared>;

/// What all handlers and sockets share.
pub(crate) struct Shared {
    pub(crate) server_id: Arc<str>,
    pub(crate) branches: Arc<dyn Store>,
    pub(crate) metrics: PrometheusHandle,
    pub(crate) counters: Counters,
    pub(crate) origins: OriginPolicy,
    pub(crate) limits: Limits,
    pub(crate) files: Option<Arc<dyn Files>>,
    /// The description of every route, written when they are made.
    pub(crate) document: OnceLock<Bytes>,
    /// One permit for each socket.
    pub(crate) seats: Arc<Semaphore>,
    /// One permit for each large snapshot being written.
    pub(crate) renders: Arc<Semaphore>,
    /// One permit for each body or message of whole tables being read.
    pub(crate) large_bodies: Arc<Semaphore>,
    /// The turn to read a snapshot that an event is to carry.
    pub(crate) including: Semaphore,
    /// The last event such a snapshot was read for.
    included: Mutex<Option<(BranchKey, Offset)>>,
    /// Set for good when the node goes away.
    pub(crate) draining: CancellationToken,
    /// The sockets that have not ended.
    pub(crate) sockets: TaskTracker,
}

impl Shared {
    /// Has a command decided; a refusal is an error here.
    pub(crate) async fn submit(&self, command: Command) -> Result<Accepted, ApiError> {
        match self.branches.submit(command).await? {
            Outcome::Accepted(accepted) => Ok(accepted),
            Outcome::Rejected(reject) => Err(reject.into()),
        }
    }

    /// Whether no session has read the snapshot yet that this event is to carry.
    pub(crate) fn is_first_to_include(&self, key: &BranchKey, offset: Offset) -> bool {
        let mut included = self.included.lock().unwrap_or_else(PoisonError::into_inner);
        let this = Some((key.clone(), offset));
        std::mem::replace(&mut *included, this.clone()) != this
    }

    /// A module's whole state.
    pub(crate) async fn snapshot(
        &self,
        key: BranchKey,
        level: ReadLevel,
    ) -> Result<Arc<ModuleSnapshot>, ApiError> {
        let answer = self.branches.read(key, Read::Snapshot, level).await?;
        let Answer::Snapshot(snapshot) = answer else { return Err(unasked(&answer)) };
        Ok(snapshot)
    }
}

/// An answer to another question than the one asked.
pub(crate) fn unasked(answer: &Answer) -> ApiError {
    let what = match answer {
        Answer::Snapshot(_) => "a snapshot",
        Answer::Page(_) => "a page",
        Answer::Head(_) => "counters",
        Answer::Events(_) => "events",
        Answer::Query(_) => "rows",
        Answer::Call(_) => "a procedure's answer",
        Answer::Sync(_) => "what is missing",
        Answer::Archive(_) => "the history",
        Answer::Log(_) => "the log's head",
        Answer::Sequences(_) => "sequences",
        Answer::Fit(_) => "whether records fit",
    };
    tracing::error!(what, "a read was answered with something else");
    ApiError::new(Problem::Defect, "the read was answered with something else")
}

/// Now, as this node's clock has it: for what is shown, never for what is decided.
pub(crate) fn now() -> model::Timestamp {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    model::Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
