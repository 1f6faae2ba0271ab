//! App: what all handlers and sockets of a node share. Nothing here knows a route or a frame.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use actors::Branches;
use bytes::Bytes;
use metrics_exporter_prometheus::PrometheusHandle;
use model::{
    Accepted, Answer, BranchKey, Command, ModuleSnapshot, Offset, Outcome, Read, ReadLevel,
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::GatewayConfig;
use crate::error::{ApiError, Problem};
use crate::files::Files;
use crate::limits::{Limits, RENDERS_AT_ONCE, SYNC_BODIES_AT_ONCE};
use crate::metrics::Counters;
use crate::origins::{OriginPolicy, host_and_port};

/// What all handlers and sockets share, as they hold it.
pub(crate) type App = Arc<AppState>;

/// What all handlers and sockets share.
pub(crate) struct AppState {
    pub(crate) server_id: Arc<str>,
    pub(crate) branches: Arc<dyn Branches>,
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

impl AppState {
    /// The state of a node's gateway. The metrics recorder must be installed before, as counters
    /// are taken here.
    pub(crate) fn new(
        config: GatewayConfig,
        branches: Arc<dyn Branches>,
        metrics: PrometheusHandle,
    ) -> Self {
        let own_hosts = config.advertised.as_deref().and_then(host_and_port);
        let origins = OriginPolicy {
            allowed: config.allowed_origins,
            checks_host: config.checks_host,
            own_hosts: own_hosts.into_iter().map(|(host, _)| host).collect(),
        };
        Self {
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
        }
    }

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
        let Answer::Snapshot(snapshot) = answer else { return Err(unexpected_answer(&answer)) };
        Ok(snapshot)
    }
}

/// An answer to another question than the one asked.
pub(crate) fn unexpected_answer(answer: &Answer) -> ApiError {
    let what = match answer {
        Answer::Snapshot(_) => "a snapshot",
        Answer::Page(_) => "a page",
        Answer::Head(_) => "counters",
        Answer::Events(_) => "events",
        Answer::Query(_) => "rows",
        Answer::Orders(_) => "orders",
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
