//! Node: one member of a cluster, built bottom-up and stopped top-down.
//!
//! ```text
//!   data directory ─ peer link ─ replicas (raft) ─ actors ─ gateway
//! ```
//!
//! Promise: a node that cannot start leaves nothing running and says why and what to do. `stop`
//! first makes it not ready and hands its leaderships over, then closes the doors, then the rest.
//! Refused: nothing is checked here that `config` has not checked.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use actors::status::FileBudget;
use actors::{ActorTree, Store};
use gateway::{Files, Gateway, GatewayConfig};
use model::NodeRecord;
use raft::{Groups, GroupsConfig};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::boot::{BootError, DataDir};
use crate::catalogue::{self, CatalogueError, Loaded};
use crate::config::{CatalogueSource, Config};
use crate::file_limit::{self, TooFewFiles};
use crate::files::StaticFiles;
use crate::limits::{BOOK_EVERY, GATEWAY_STOP_MAX, LISTEN_BACKLOG, METRICS_UPKEEP_EVERY};
use crate::peer::{AddressBook, PeerAddress, PeerConfig, PeerLink, Plain};
use crate::telemetry;

/// Told, once, that the disk can no longer be trusted: the process must end.
pub type OnFatal = Arc<dyn Fn(String) + Send + Sync>;

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
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
    Data(#[from] BootError),
    /// Its modules and branches cannot be read.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
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
    /// The threads of its doors did not start.
    #[error("the threads that serve clients did not start: {0}")]
    Doors(#[source] std::io::Error),
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
    /// [`StartError::Listen`].
    pub fn bind(config: &Config) -> Result<Self, StartError> {
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
                StartError::Listen { address, source, advice }
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
    doors: JoinHandle<std::io::Result<()>>,
    threads: Threads,
    closing: CancellationToken,
    chores: CancellationToken,
    /// Let go of last: until then nobody else may have the directory.
    data: DataDir,
}

impl Node {
    /// Starts a node. If its disk fails later, that is logged and the process is aborted.
    ///
    /// # Errors
    /// [`StartError`], with what to do.
    pub async fn start(config: Config) -> Result<Self, StartError> {
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
    /// [`StartError`], with what to do.
    pub async fn start_on(
        config: Config,
        sockets: Sockets,
        on_fatal: OnFatal,
    ) -> Result<Self, StartError> {
        let address = config.listen;
        let listen = |source| StartError::Listen { address, source, advice: String::new() };
        sockets.http.set_nonblocking(true).map_err(listen)?;
        let http_address = sockets.http.local_addr().map_err(listen)?;
        tracing::info!(%config, "configured");
        let metrics = telemetry::metrics();
        // Before anything is opened: what is not enough now is not enough later.
        let files_budget = file_limit::budget(file_limit::raise_open_files(), config.peers.len())?;

        let threads = Threads::start().map_err(StartError::Doors)?;
        let data = DataDir::open(&config.data, config.node, &config.cluster)?;
        let loaded = load(&config.catalogue)?;
        let files = open_files(config.static_files.as_deref())?;
        let told = told_book(&config);
        let (book, followed) = watch::channel(Arc::new(told.clone()));
        let link = PeerLink::start(PeerConfig {
            node: config.node,
            cluster: config.cluster.clone(),
            data_id: data.data_id().to_owned(),
            listener: sockets.peer,
            book: followed,
            transport: Arc::new(Plain),
        })
        .map_err(StartError::Link)?;
        let upper = Upper {
            config: &config,
            http: http_address,
            data: &data,
            link: &link,
            files: files_budget,
        };
        let (groups, actors) = match Box::pin(upper.start(loaded, on_fatal)).await {
            Ok(started) => started,
            Err(error) => {
                link.stop().await;
                return Err(error);
            }
        };

        let router: Arc<dyn Store> = Arc::new(actors.store());
        let chores = CancellationToken::new();
        tokio::spawn(chores.clone().run_until_cancelled_owned(keep_book(
            Arc::clone(&router),
            told,
            book,
        )));
        let upkeep = metrics.clone();
        tokio::spawn(chores.clone().run_until_cancelled_owned(async move {
            let mut timer = interval(METRICS_UPKEEP_EVERY);
            loop {
                timer.tick().await;
                upkeep.run_upkeep();
            }
        }));
        let doors = gateway_config(&config, http_address, files, files_budget);
        let gateway = Gateway::new(doors, router, metrics);
        let closing = CancellationToken::new();
        let closed = closing.clone().cancelled_owned();
        let doors = threads.spawn(async move {
            let http = tokio::net::TcpListener::from_std(sockets.http)?;
            gateway.serve(http, closed).await
        });
        tracing::info!(node = config.node.0, http = %http_address, peers = %link.address(), "started");
        let http = http_address;
        Ok(Self { http, link, groups, actors, doors, threads, closing, chores, data })
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

    /// The door to branches, without the gateway before it.
    pub fn branches(&self) -> Arc<dyn Store> {
        Arc::new(self.actors.store())
    }

    /// Not ready any more, and leaderships handed over to other nodes, as far as they take them.
    pub async fn drain(&self) {
        tracing::info!("stopping: handing over");
        self.actors.drain().await;
    }

    /// Drains, closes the doors, stops everything and syncs the disk.
    pub async fn stop(self) {
        self.drain().await;
        self.close().await;
    }

    /// Stops without handing over: others find out by themselves.
    pub async fn close(self) {
        let Self { link, groups, actors, doors, threads, closing, chores, data, .. } = self;
        closing.cancel();
        match timeout(GATEWAY_STOP_MAX, doors).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::warn!(%error, "the gateway did not end well"),
            Ok(Err(error)) => tracing::warn!(%error, "the gateway did not end well"),
            Err(_) => tracing::warn!("some clients did not leave in time"),
        }
        drop(threads);
        chores.cancel();
        actors.stop().await;
        drop(actors);
        // Before the replicas: they hold the link, and it holds them.
        link.stop().await;
        groups.shutdown().await;
        drop(data);
        tracing::info!("stopped");
    }
}

/// What the gateway is told: connections up to what the open files leave.
fn gateway_config(
    config: &Config,
    http: SocketAddr,
    files: Option<Arc<dyn Files>>,
    budget: FileBudget,
) -> GatewayConfig {
    let mut told = GatewayConfig {
        open_to_all: config.open_addresses().next().is_some(),
        allowed_origins: config.allowed_origins.clone(),
        checks_host: http.ip().is_loopback(),
        advertised: config.advertise.clone(),
        files,
        ..GatewayConfig::new(&config.name)
    };
    let connections = usize::try_from(budget.connections_max).unwrap_or(usize::MAX);
    told.limits.connections_max = told.limits.connections_max.min(connections);
    told.limits.snapshot_bytes_max = config.snapshot_bytes_max;
    told
}

/// The threads that serve clients. They are apart from those that keep the cluster together, so
/// that no amount of requests delays a heartbeat; without clients they sleep.
struct Threads(Option<tokio::runtime::Runtime>);

impl Threads {
    fn start() -> std::io::Result<Self> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.thread_name("doors").enable_all().build().map(|runtime| Self(Some(runtime)))
    }

    fn spawn<F>(&self, work: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.0.as_ref().expect("taken only when dropped").spawn(work)
    }
}

impl Drop for Threads {
    /// A runtime must not wait for its tasks inside another one.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// What is needed to start what stands on the link.
struct Upper<'a> {
    config: &'a Config,
    http: SocketAddr,
    data: &'a DataDir,
    link: &'a PeerLink,
    files: FileBudget,
}

impl Upper<'_> {
    async fn start(
        &self,
        loaded: Loaded,
        on_fatal: OnFatal,
    ) -> Result<(Groups, ActorTree), StartError> {
        let config = self.config;
        let groups_config = GroupsConfig {
            timing: config.timing,
            checkpoint_log_bytes: config.checkpoint_log_bytes,
            ..GroupsConfig::new(config.node, self.data.replicas(), move |reason| on_fatal(reason))
        };
        let groups = Groups::open(groups_config, Arc::new(self.link.clone())).await?;
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
        })
        .await;
        match started {
            Ok(actors) => {
                self.link.serve_actors(Arc::new(actors.store()));
                Ok((groups, actors))
            }
            Err(error) => {
                groups.shutdown().await;
                Err(error.into())
            }
        }
    }

    /// This node as the others shall know it.
    fn record(&self) -> NodeRecord {
        let told = self.config.peers.get(&self.config.node).filter(|address| !address.is_empty());
        NodeRecord {
            id: self.config.node,
            name: self.config.name.clone(),
            http: self.config.http_address(self.http),
            peer: told.cloned().unwrap_or_else(|| self.link.address().to_string()),
            data_id: self.data.data_id().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            level: model::codec::LEVEL,
        }
    }
}

/// A first node before it has told about itself.
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

fn load(source: &CatalogueSource) -> Result<Loaded, StartError> {
    let loaded = catalogue::load(source)?;
    for note in &loaded.notes {
        tracing::warn!("{note}");
    }
    if matches!(source, CatalogueSource::Nothing) {
        tracing::info!("no modules brought along; to begin with some, say --sample or --original");
    }
    Ok(loaded)
}

/// The addresses this node was told.
fn told_book(config: &Config) -> AddressBook {
    let others = config.peers.iter().filter(|(node, _)| **node != config.node);
    let address = |address: &String| PeerAddress { address: address.clone(), data_id: None };
    others.map(|(node, told)| (*node, address(told))).collect()
}

/// Keeps the address book as the catalogue has it. An address this node was told itself stands
/// over the catalogue's: it may be the only one that is right after all nodes moved.
async fn keep_book(
    router: Arc<dyn Store>,
    told: AddressBook,
    book: watch::Sender<Arc<AddressBook>>,
) {
    let mut timer = interval(BOOK_EVERY);
    let mut seen = BTreeMap::new();
    loop {
        timer.tick().await;
        let catalogue = router.catalogue();
        if catalogue.nodes == seen {
            continue;
        }
        seen.clone_from(&catalogue.nodes);
        let mut now = told.clone();
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
fn open_files(dir: Option<&Path>) -> Result<Option<Arc<dyn Files>>, StartError> {
    let Some(dir) = dir else { return Ok(None) };
    let files = StaticFiles::open(dir)
        .map_err(|source| StartError::Files { dir: dir.to_owned(), source })?;
    Ok(Some(Arc::new(files)))
}
