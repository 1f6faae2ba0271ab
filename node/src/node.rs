//! Node: one member of a cluster, built bottom-up and stopped top-down.
//!
//! ```text
//!   data directory ─ peer link ─ replicas (raft) ─ actors ─ gateway
//! ```
//!
//! Promise: a node that cannot start leaves nothing running and says why and what to do. `stop`
//! first makes it not ready and hands its leaderships over, then closes the gateway, then the rest.
//! Refused: nothing is checked here that `config` has not checked.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use actors::status::FileBudget;
use actors::{ActorTree, Memory, Store};
use gateway::{Files, Gateway, GatewayConfig};
use metrics_exporter_prometheus::PrometheusHandle;
use model::NodeRecord;
use raft::{Groups, GroupsConfig};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::catalogue::{self, CatalogueSourceError, LoadedCatalogue};
use crate::config::{CatalogueSource, Config};
use crate::data_dir::{DataDir, DataDirError};
use crate::file_limit::{self, TooFewFiles};
use crate::files::StaticFiles;
use crate::limits::{BOOK_EVERY, GATEWAY_STOP_MAX, LISTEN_BACKLOG, METRICS_UPKEEP_EVERY};
use crate::memory;
use crate::peer::{AddressBook, PeerAddress, PeerConfig, PeerLink, PlainTcp};
use crate::telemetry;

/// Called, once, when it turns out that the disk can no longer be trusted: the process must end.
pub type OnFatal = Arc<dyn Fn(String) + Send + Sync>;

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeStartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}; {advice}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
        /// What to do.
        advice: String,
    },
    /// It may have too few open files.
    #[error(transparent)]
    OpenFiles(#[from] TooFewFiles),
    /// Its data directory is refused.
    #[error(transparent)]
    Data(#[from] DataDirError),
    /// Its modules and branches cannot be read.
    #[error(transparent)]
    Catalogue(#[from] CatalogueSourceError),
    /// Its files for browsers cannot be had.
    #[error("cannot serve the files of {dir}: {source}; give a directory with --static")]
    Files {
        /// The directory.
        dir: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The link to its peers did not start.
    #[error("the link to other nodes did not start: {0}")]
    Link(#[source] std::io::Error),
    /// The threads that serve clients did not start.
    #[error("the threads that serve clients did not start: {0}")]
    ClientThreads(#[source] std::io::Error),
    /// Its disk is refused.
    #[error(transparent)]
    Disk(#[from] raft::OpenError),
    /// Its actors did not start.
    #[error(transparent)]
    Actors(#[from] actors::StartError),
}

/// The sockets a node listens on.
pub struct Sockets {
    /// For clients.
    pub http: TcpListener,
    /// For peers.
    pub peer: TcpListener,
}

impl Sockets {
    /// Binds what the configuration names.
    ///
    /// # Errors
    /// [`NodeStartError::Listen`].
    pub fn bind(config: &Config) -> Result<Self, NodeStartError> {
        let bind = |address: SocketAddr, flag: &str| {
            TcpListener::bind(address).map_err(|source| {
                let kind = source.kind();
                let advice = if kind == std::io::ErrorKind::AddrInUse {
                    format!(
                        "another program listens there, perhaps another node; stop it, or choose \
                         another address with {flag}"
                    )
                } else if kind == std::io::ErrorKind::PermissionDenied {
                    format!("choose a port from 1024 on with {flag}")
                } else {
                    format!("choose an address of this machine with {flag}")
                };
                NodeStartError::Listen { address, source, advice }
            })
        };
        let http = bind(config.listen, "--listen")?;
        // What is not accepted for now waits here; where the queue is full, clients hang instead.
        if let Err(error) = rustix::net::listen(&http, LISTEN_BACKLOG) {
            tracing::debug!(%error, "the queue of new connections stays as it is");
        }
        Ok(Self { http, peer: bind(config.peer_listen, "--peer-listen")? })
    }
}

/// A running node.
pub struct Node {
    http: SocketAddr,
    link: PeerLink,
    groups: Groups,
    actors: ActorTree,
    gateway_task: JoinHandle<std::io::Result<()>>,
    threads: ClientThreads,
    closing: CancellationToken,
    background_tasks: CancellationToken,
    /// Let go of last: until then nobody else may have the directory.
    data: DataDir,
}

impl Node {
    /// Starts a node. If its disk fails later, that is logged and the process is aborted.
    ///
    /// # Errors
    /// [`NodeStartError`], with what to do.
    pub async fn start(config: Config) -> Result<Self, NodeStartError> {
        let sockets = Sockets::bind(&config)?;
        let on_fatal = |reason| {
            tracing::error!(reason, "the disk can no longer be trusted: the process ends");
            std::process::abort();
        };
        Self::start_on(config, sockets, Arc::new(on_fatal)).await
    }

    /// Starts a node on sockets that are bound already: tests know the addresses of all nodes
    /// before the first one starts.
    ///
    /// # Errors
    /// [`NodeStartError`], with what to do.
    pub async fn start_on(
        config: Config,
        sockets: Sockets,
        on_fatal: OnFatal,
    ) -> Result<Self, NodeStartError> {
        let address = config.listen;
        let listen = |source| NodeStartError::Listen { address, source, advice: String::new() };
        sockets.http.set_nonblocking(true).map_err(listen)?;
        let http_address = sockets.http.local_addr().map_err(listen)?;
        tracing::info!(%config, "configured");
        let metrics = telemetry::metrics();
        // Before anything is opened: what is not enough now is not enough later.
        let files_budget = file_limit::budget(file_limit::raise_open_files(), config.peers.len())?;

        // From here on each step needs the one before it: the directory says which id the link
        // gives itself, the link carries the replicas' messages, and the actors need replicas.
        // Clients come last, so that nobody is taken in who cannot be served.
        let threads = ClientThreads::start().map_err(NodeStartError::ClientThreads)?;
        let data = DataDir::open(&config.data, config.node, &config.cluster)?;
        let loaded = load(&config.catalogue)?;
        let files = open_files(config.static_files.as_deref())?;
        let configured = static_peers(&config);
        let (book, followed) = watch::channel(Arc::new(configured.clone()));
        let link = PeerLink::start(PeerConfig {
            node: config.node,
            cluster: config.cluster.clone(),
            data_id: data.data_id().to_owned(),
            listener: sockets.peer,
            book: followed,
            transport: Arc::new(PlainTcp),
        })
        .map_err(NodeStartError::Link)?;
        let memory = Memory::new(config.memory_max);
        let core = CoreBuilder {
            config: &config,
            memory: memory.clone(),
            http: http_address,
            data: &data,
            link: &link,
            files: files_budget,
        };
        let (groups, actors) = match Box::pin(core.start(loaded, on_fatal)).await {
            Ok(started) => started,
            Err(error) => {
                // Its tasks would go on and keep the port.
                link.stop().await;
                return Err(error);
            }
        };

        let store: Arc<dyn Store> = Arc::new(actors.store());
        let background_tasks = CancellationToken::new();
        tokio::spawn(background_tasks.clone().run_until_cancelled_owned(update_address_book(
            Arc::clone(&store),
            configured,
            book,
        )));
        spawn_watches(&background_tasks, metrics.clone(), memory.clone(), &actors);
        let gateway_task = gateway_config(&config, http_address, files, files_budget, memory);
        let gateway = Gateway::new(gateway_task, store, metrics);
        let closing = CancellationToken::new();
        let closed = closing.clone().cancelled_owned();
        let gateway_task = threads.spawn(async move {
            let http = tokio::net::TcpListener::from_std(sockets.http)?;
            gateway.serve(http, closed).await
        });
        tracing::info!(node = config.node.0, http = %http_address, peers = %link.address(), "started");
        let http = http_address;
        Ok(Self {
            http,
            link,
            groups,
            actors,
            gateway_task,
            threads,
            closing,
            background_tasks,
            data,
        })
    }

    /// Where clients dial in.
    pub fn http_addr(&self) -> SocketAddr {
        self.http
    }

    /// Where peers dial in.
    pub fn peer_addr(&self) -> SocketAddr {
        self.link.address()
    }

    /// The link to the other nodes.
    pub fn link(&self) -> &PeerLink {
        &self.link
    }

    /// Not ready any more, and leaderships handed over to other nodes, as far as they take them.
    pub async fn drain(&self) {
        tracing::info!("stopping: handing over");
        self.actors.drain().await;
    }

    /// Drains, closes the gateway, stops everything and syncs the disk.
    pub async fn stop(self) {
        self.drain().await;
        self.close().await;
    }

    /// Stops without handing over: others find out by themselves.
    pub async fn close(self) {
        let Self {
            link,
            groups,
            actors,
            gateway_task,
            threads,
            closing,
            background_tasks,
            data,
            ..
        } = self;
        // Clients first: what they still ask needs actors and replicas. Those who do not leave in
        // time are cut with their threads.
        closing.cancel();
        match timeout(GATEWAY_STOP_MAX, gateway_task).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::warn!(%error, "the gateway did not end well"),
            Ok(Err(error)) => tracing::warn!(%error, "the gateway did not end well"),
            Err(_) => tracing::warn!("some clients did not leave in time"),
        }
        drop(threads);
        background_tasks.cancel();
        actors.stop().await;
        drop(actors);
        // Before the replicas: they hold the link, and it holds them.
        link.stop().await;
        groups.shutdown().await;
        drop(data);
        tracing::info!("stopped");
    }
}

/// The gateway's configuration: connections up to what the open files leave.
fn gateway_config(
    config: &Config,
    http: SocketAddr,
    files: Option<Arc<dyn Files>>,
    budget: FileBudget,
    memory: Memory,
) -> GatewayConfig {
    let mut gateway = GatewayConfig {
        memory,
        open_to_all: config.open_addresses().next().is_some(),
        allowed_origins: config.allowed_origins.clone(),
        checks_host: http.ip().is_loopback(),
        advertised: config.advertise.clone(),
        files,
        ..GatewayConfig::new(&config.name)
    };
    let connections = usize::try_from(budget.connections_max).unwrap_or(usize::MAX);
    gateway.limits.connections_max = gateway.limits.connections_max.min(connections);
    gateway.limits.snapshot_bytes_max = config.snapshot_bytes_max;
    gateway.limits.address_percent = config.address_percent;
    gateway
}

/// The threads that serve clients. They are apart from those that keep the cluster together, so
/// that no amount of requests delays a heartbeat; without clients they sleep.
struct ClientThreads(Option<tokio::runtime::Runtime>);

impl ClientThreads {
    fn start() -> std::io::Result<Self> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.thread_name("clients").enable_all().build().map(|runtime| Self(Some(runtime)))
    }

    fn spawn<F>(&self, work: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.0.as_ref().expect("taken only when dropped").spawn(work)
    }
}

impl Drop for ClientThreads {
    /// A runtime must not wait for its tasks inside another one.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// What is needed to start the replicas and the actors, which speak over the link.
struct CoreBuilder<'a> {
    config: &'a Config,
    memory: Memory,
    http: SocketAddr,
    data: &'a DataDir,
    link: &'a PeerLink,
    files: FileBudget,
}

impl CoreBuilder<'_> {
    async fn start(
        &self,
        loaded: LoadedCatalogue,
        on_fatal: OnFatal,
    ) -> Result<(Groups, ActorTree), NodeStartError> {
        let config = self.config;
        let groups_config = GroupsConfig {
            timing: config.timing,
            checkpoint_log_bytes: config.checkpoint_log_bytes,
            sync_slow_after: config.sync_slow_after,
            ..GroupsConfig::new(config.node, self.data.replicas(), move |reason| on_fatal(reason))
        };
        let groups = Groups::open(groups_config, Arc::new(self.link.clone())).await?;
        // Before the actors start: they wait for leaders, and those are elected by messages.
        self.link.serve_raft(Arc::new(groups.clone()));
        let started = actors::start(actors::Config {
            node: self.record(),
            initial: config.peers.iter().map(|(id, peer)| initial(*id, peer)).collect(),
            partitions: config.partitions,
            entries: loaded.entries,
            groups: groups.clone(),
            peers: Arc::new(self.link.clone()),
            warnings: config.warnings(),
            files: Some(self.files),
            memory: self.memory.clone(),
            clock: actors::WallClock::default(),
            branch_quota: config.branch_quota,
            procedures: compat::procedures(),
            address_percent: config.address_percent,
        })
        .await;
        match started {
            Ok(actors) => {
                self.link.serve_actors(Arc::new(actors.store()));
                Ok((groups, actors))
            }
            Err(error) => {
                // The groups hold the log's files and threads; nobody else would end them.
                groups.shutdown().await;
                Err(error.into())
            }
        }
    }

    /// This node as the others shall know it.
    fn record(&self) -> NodeRecord {
        let configured =
            self.config.peers.get(&self.config.node).filter(|address| !address.is_empty());
        NodeRecord {
            id: self.config.node,
            name: self.config.name.clone(),
            http: self.config.http_address(self.http),
            peer: configured.cloned().unwrap_or_else(|| self.link.address().to_string()),
            data_id: self.data.data_id().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            level: model::codec::LEVEL,
        }
    }
}

/// A first node before it has recorded itself in the catalogue.
fn initial(id: model::NodeId, peer: &str) -> NodeRecord {
    NodeRecord {
        id,
        name: format!("node-{id}"),
        http: String::new(),
        peer: peer.to_owned(),
        data_id: String::new(),
        version: String::new(),
        level: 0,
    }
}

fn load(source: &CatalogueSource) -> Result<LoadedCatalogue, NodeStartError> {
    let loaded = catalogue::load(source)?;
    for note in &loaded.notes {
        tracing::warn!("{note}");
    }
    if matches!(source, CatalogueSource::Nothing) {
        tracing::info!("no modules brought along; to begin with some, say --sample or --original");
    }
    Ok(loaded)
}

/// The peers' addresses that this node's configuration names.
fn static_peers(config: &Config) -> AddressBook {
    let others = config.peers.iter().filter(|(node, _)| **node != config.node);
    let address = |address: &String| PeerAddress { address: address.clone(), data_id: None };
    others.map(|(node, configured)| (*node, address(configured))).collect()
}

/// Starts what tidies up metrics and looks at memory, until it is cancelled.
fn spawn_watches(
    until: &CancellationToken,
    metrics: PrometheusHandle,
    memory: Memory,
    actors: &ActorTree,
) {
    let memory_watch = memory::watch(memory, actors.store());
    tokio::spawn(until.clone().run_until_cancelled_owned(memory_watch));
    tokio::spawn(until.clone().run_until_cancelled_owned(run_metrics_upkeep(metrics)));
}

/// Lets the recorder forget what it no longer needs: it does so only when it is asked.
async fn run_metrics_upkeep(metrics: PrometheusHandle) {
    let mut timer = interval(METRICS_UPKEEP_EVERY);
    loop {
        timer.tick().await;
        metrics.run_upkeep();
    }
}

/// Keeps the address book as the catalogue has it. A configured address takes precedence over
/// the catalogue's: it may be the only one that is right after all nodes moved.
async fn update_address_book(
    store: Arc<dyn Store>,
    configured: AddressBook,
    book: watch::Sender<Arc<AddressBook>>,
) {
    let mut timer = interval(BOOK_EVERY);
    let mut seen = BTreeMap::new();
    loop {
        timer.tick().await;
        let catalogue = store.catalogue();
        if catalogue.nodes == seen {
            continue;
        }
        seen.clone_from(&catalogue.nodes);
        let mut now = configured.clone();
        for (id, node) in &seen {
            let entry = now
                .entry(*id)
                .or_insert_with(|| PeerAddress { address: node.peer.clone(), data_id: None });
            entry.data_id = Some(node.data_id.clone()).filter(|id| !id.is_empty());
        }
        book.send_if_modified(|book| {
            let is_new = **book != now;
            if is_new {
                *book = Arc::new(now);
            }
            is_new
        });
    }
}

/// The files that browsers may have.
fn open_files(dir: Option<&Path>) -> Result<Option<Arc<dyn Files>>, NodeStartError> {
    let Some(dir) = dir else { return Ok(None) };
    let files = StaticFiles::open(dir)
        .map_err(|source| NodeStartError::Files { dir: dir.to_owned(), source })?;
    Ok(Some(Arc::new(files)))
}
