//! App: what all handlers and sockets of a node share. Nothing here knows a route or a frame.

use std::sync::{Arc, OnceLock};

use actors::{FrameKey, Frames, Memory, MemoryClass, Requester, ShareLimiter, TurnQueue};
use bytes::Bytes;
use metrics_exporter_prometheus::PrometheusHandle;
use model::{BranchKey, Incarnation, Offset};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::arrivals::Arrivals;
use crate::auth::Principal;
use crate::config::GatewayConfig;
use crate::files::Files;
use crate::limits::{ARRIVAL_BYTES_MIN, BODIES_AT_ONCE, LARGE_AT_ONCE, Limits, RENDERS_AT_ONCE};
use crate::metrics::Counters;
use crate::origins::{OriginPolicy, host_and_port};
use crate::render::Renderer;
use crate::scoped_store::{NodeView, ScopedStore, StoreHandle};

/// What all handlers and sockets share, as they hold it.
pub(crate) type App = Arc<AppState>;

/// What all handlers and sockets share.
pub(crate) struct AppState {
    pub(crate) server_id: Arc<str>,
    /// Where the data is: reached through [`AppState::store`] and [`AppState::node`] only.
    store: StoreHandle,
    pub(crate) metrics: PrometheusHandle,
    pub(crate) counters: Counters,
    pub(crate) origins: OriginPolicy,
    pub(crate) limits: Limits,
    /// What this node may hold in memory, and what it holds.
    pub(crate) memory: Memory,
    pub(crate) files: Option<Arc<dyn Files>>,
    /// The description of every route, written when they are made.
    pub(crate) document: OnceLock<Bytes>,
    /// One place for each socket, shared by addresses.
    pub(crate) socket_places: ShareLimiter,
    /// One for each large answer being written.
    render_turns: TurnQueue,
    /// What is on its way to this node.
    pub(crate) arrivals: Arrivals,
    /// One for each body being read that is neither small nor large.
    pub(crate) body_turns: TurnQueue,
    /// One for each large body or message being read and decided.
    pub(crate) large_turns: TurnQueue,
    /// The last frames that carry a snapshot. Locked while they are written: one session reads the
    /// snapshot, and all others that send the same events wait for its frames.
    pub(crate) snapshot_frames: tokio::sync::Mutex<Option<SnapshotFrames>>,
    /// Set for good when the node goes away.
    pub(crate) draining: CancellationToken,
    /// The sockets that have not ended.
    pub(crate) sockets: TaskTracker,
}

/// The frames of a delta one of whose events carries its module's snapshot.
pub(crate) struct SnapshotFrames {
    /// Whose log.
    pub(crate) key: BranchKey,
    /// The incarnation of that log.
    pub(crate) incarnation: Incarnation,
    /// Its first and its last event.
    pub(crate) events: (Offset, Offset),
    /// By dialect and policy class.
    pub(crate) frames: Vec<(FrameKey, Frames)>,
}

/// How many bytes may be arriving: on a small node half of what requests may hold, so that others
/// find room beside them; one large body always finds some.
fn arrival_bytes_max(config: &GatewayConfig) -> usize {
    let share = config.memory.share(MemoryClass::Requests) / 2;
    let share = usize::try_from(share).unwrap_or(usize::MAX);
    config.limits.arrival_bytes_max.min(share.max(ARRIVAL_BYTES_MIN))
}

impl AppState {
    /// The state of a node's gateway. The metrics recorder must be installed before, as counters
    /// are taken here.
    pub(crate) fn new(
        config: GatewayConfig,
        store: StoreHandle,
        metrics: PrometheusHandle,
    ) -> Self {
        let arrivals = Arrivals::new(arrival_bytes_max(&config), &config.memory);
        let own_hosts = config.advertised.as_deref().and_then(host_and_port);
        let origins = OriginPolicy {
            allowed: config.allowed_origins,
            checks_host: config.checks_host,
            own_hosts: own_hosts.into_iter().map(|(host, _)| host).collect(),
        };
        Self {
            server_id: config.server_id.into(),
            store,
            metrics,
            counters: Counters::new(config.open_to_all, origins.allowed.is_every()),
            origins,
            socket_places: ShareLimiter::new(
                config.limits.sockets_max as u64,
                config.limits.address_percent,
            ),
            render_turns: TurnQueue::new(RENDERS_AT_ONCE),
            arrivals,
            body_turns: TurnQueue::new(BODIES_AT_ONCE),
            large_turns: TurnQueue::new(LARGE_AT_ONCE),
            snapshot_frames: tokio::sync::Mutex::default(),
            draining: CancellationToken::new(),
            sockets: TaskTracker::new(),
            limits: config.limits,
            memory: config.memory,
            files: config.files,
            document: OnceLock::new(),
        }
    }

    /// The data of the cluster as this principal may see and change it, from where they ask.
    pub(crate) fn store(&self, principal: &Principal, requester: Requester) -> ScopedStore {
        self.store.scoped(principal, requester)
    }

    /// Writes large answers for whoever asks this store.
    pub(crate) fn renderer(&self, store: &ScopedStore) -> Renderer {
        Renderer {
            turns: self.render_turns.clone(),
            requester: store.requester(),
            bytes_max: self.limits.snapshot_bytes_max,
        }
    }

    /// What this node says of itself to anybody.
    pub(crate) fn node(&self) -> NodeView<'_> {
        self.store.node()
    }
}

/// Now, as this node's clock has it: for what is shown, never for what is decided.
pub(crate) fn now() -> model::Timestamp {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    model::Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
