//! Peer: the link to the other nodes: what carries Raft's messages and the actors' between them.
//!
//! ```text
//!   raft::Network ─┐                         ┌─ raft::Groups::handle
//!                  ├─ PeerLink ── peers ── PeerLink ─┤
//!   actors::Peers ─┘   control | bulk        └─ actors::Inbox
//! ```
//!
//! Two connections to every peer: control for what is small and soon, bulk for what is large, so
//! that no checkpoint is ever ahead of a heartbeat. The node with the lower number dials.
//!
//! Promise: a call ends by its answer, its deadline, or at once when the link breaks; whether it
//! can have done anything is part of the error. Every queue is bounded and says when it is full.
//! Within a priority messages of the control connection arrive in the order they were sent; bulk
//! messages take turns in pieces, so a short one may pass a long one.
//! Refused: peers of another cluster, another link version, another number than was dialled, or
//! another data directory than is known, each by name.

mod calls;
mod connection;
mod dial;
mod frame;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod handshake;
mod hello;
mod listener;
mod priority_queues;
mod remote;
mod serve;
mod transport;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actors::{Inbox, PeerError, Peers};
use bytes::Bytes;
use futures::future::BoxFuture;
use model::NodeId;
use parking_lot::RwLock;
use raft::{Network, NetworkError, Priority};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use calls::PeerCallError;
use connection::Connection;
use frame::PeerFrameKind;
use hello::ConnectionClass;
use remote::Remote;
use serve::Inboxes;

pub use hello::{HandshakeError, HandshakeRejection, PROTO_MAX, PROTO_MIN};
pub use transport::{PeerStream, PlainTcp, Transport};

use crate::limits::{PING_EVERY, SWEEP_EVERY};

/// Takes Raft's messages from other nodes and answers them: `raft::Groups`.
pub trait RaftInbox: Send + Sync + 'static {
    /// Answers a message of another node's replica. Must not block the thread it is polled on.
    fn handle(&self, from: NodeId, message: Bytes) -> BoxFuture<'static, Bytes>;
}

impl RaftInbox for raft::Groups {
    fn handle(&self, from: NodeId, message: Bytes) -> BoxFuture<'static, Bytes> {
        let groups = self.clone();
        Box::pin(async move { groups.handle(from, message).await })
    }
}

/// Where a peer is reached, and who it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAddress {
    /// `host:port`.
    pub address: String,
    /// Its data directory, if it is known.
    pub data_id: Option<String>,
}

/// All peers this node should be linked with; this node itself is left out where it is named.
pub type AddressBook = BTreeMap<NodeId, PeerAddress>;

/// What a link needs to begin.
pub struct PeerConfig {
    /// This node.
    pub node: NodeId,
    /// The cluster's name; peers with another one are refused.
    pub cluster: String,
    /// Names this node's data directory.
    pub data_id: String,
    /// Where peers dial in; bound by the caller, so that a busy port is found before anything
    /// else is opened.
    pub listener: std::net::TcpListener,
    /// The other nodes, now and whenever that changes.
    pub book: watch::Receiver<Arc<AddressBook>>,
    /// How streams are made.
    pub transport: Arc<dyn Transport>,
}

/// How the link to one peer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkState {
    /// The peer.
    pub node: NodeId,
    /// Whether the control connection stands.
    pub up: bool,
    /// Why not, in words, if anything is known.
    pub trouble: Option<String>,
}

/// The link to all peers. Cheap to clone.
#[derive(Clone)]
pub struct PeerLink(Arc<Inner>);

struct Inner {
    node: NodeId,
    cluster: String,
    data_id: String,
    /// Tells this start of the process from its other starts.
    boot: u128,
    address: SocketAddr,
    book: watch::Receiver<Arc<AddressBook>>,
    transport: Arc<dyn Transport>,
    inboxes: Inboxes,
    remotes: RwLock<BTreeMap<NodeId, Arc<Remote>>>,
    stopping: CancellationToken,
    tasks: TaskTracker,
}

impl PeerLink {
    /// Begins to listen and to dial. Calls that arrive before [`Self::serve_raft`] and
    /// [`Self::serve_actors`] are refused as not begun.
    ///
    /// # Errors
    /// Where the listener cannot be used, or the system has no randomness.
    pub fn start(config: PeerConfig) -> std::io::Result<Self> {
        config.listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(config.listener)?;
        let mut boot = [0; 16];
        getrandom::fill(&mut boot).map_err(std::io::Error::other)?;
        let shared = Arc::new(Inner {
            node: config.node,
            cluster: config.cluster,
            data_id: config.data_id,
            boot: u128::from_be_bytes(boot),
            address: listener.local_addr()?,
            book: config.book,
            transport: config.transport,
            inboxes: Inboxes::default(),
            remotes: RwLock::default(),
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        shared.spawn(Arc::clone(&shared).listen(listener));
        shared.spawn(Arc::clone(&shared).follow_book());
        shared.spawn(Arc::clone(&shared).tick());
        Ok(Self(shared))
    }

    /// Where peers dial in.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// Says who answers Raft's messages.
    pub fn serve_raft(&self, raft: Arc<dyn RaftInbox>) {
        self.0.inboxes.set_raft(raft);
    }

    /// Says who answers the actors' messages, and tells it which links stand already.
    pub fn serve_actors(&self, inbox: Arc<dyn Inbox>) {
        self.0.inboxes.set_inbox(inbox);
        let remotes: Vec<_> = self.0.remotes.read().values().cloned().collect();
        for remote in remotes {
            remote.notify_if_up(&self.0.inboxes);
        }
    }

    /// How the links are, by peer.
    pub fn links(&self) -> Vec<LinkState> {
        let remotes = self.0.remotes.read();
        let state = |remote: &Arc<Remote>| LinkState {
            node: remote.node,
            up: remote.connections_up.borrow().control,
            trouble: remote.trouble.lock().clone(),
        };
        remotes.values().map(state).collect()
    }

    /// Ends all connections and tasks, and lets go of those it served. Calls that wait end at
    /// once.
    pub async fn stop(&self) {
        self.0.inboxes.clear();
        self.0.stopping.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    fn ask(
        &self,
        kind: PeerFrameKind,
        to: NodeId,
        priority: Priority,
        message: Bytes,
        limit: Duration,
    ) -> BoxFuture<'static, Result<Bytes, NetworkError>> {
        let shared = Arc::clone(&self.0);
        Box::pin(async move {
            let connection = shared.carrier(to, priority)?;
            connection
                .call(kind, priority, message, limit)
                .await
                .map_err(|error| explain(to, error))
        })
    }
}

impl Network for PeerLink {
    fn call(
        &self,
        to: NodeId,
        priority: Priority,
        message: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, NetworkError>> {
        self.ask(PeerFrameKind::RaftCall, to, priority, message, timeout)
    }
}

impl Peers for PeerLink {
    fn call(
        &self,
        to: NodeId,
        priority: Priority,
        message: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, PeerError>> {
        self.ask(PeerFrameKind::ActorCall, to, priority, message, timeout)
    }

    fn cast(&self, to: NodeId, priority: Priority, message: Bytes) -> Result<(), PeerError> {
        let connection = self.0.carrier(to, priority)?;
        connection.cast(priority, message).map_err(|error| explain(to, error))
    }

    fn troubles(&self) -> Vec<(NodeId, String)> {
        let down = self.links().into_iter().filter(|link| !link.up);
        down.filter_map(|link| Some((link.node, link.trouble?))).collect()
    }
}

fn explain(node: NodeId, error: PeerCallError) -> NetworkError {
    match error {
        PeerCallError::NotSent(reason) => NetworkError::Unreachable { node, reason },
        PeerCallError::NoAnswer(reason) => NetworkError::NoAnswer { node, reason },
        PeerCallError::Busy => NetworkError::Full { node },
    }
}

impl Inner {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stopping = self.stopping.clone();
        self.tasks.spawn(async move {
            stopping.run_until_cancelled(task).await;
        });
    }

    /// The peer, which is made known if it was not: one that dials in may not be in the book yet.
    fn remote(&self, node: NodeId) -> Arc<Remote> {
        if let Some(remote) = self.remotes.read().get(&node) {
            return Arc::clone(remote);
        }
        // Another task may have made it between the two locks: the entry decides.
        let mut remotes = self.remotes.write();
        let remote = remotes
            .entry(node)
            .or_insert_with(|| Arc::new(Remote::new(node, self.stopping.child_token())));
        Arc::clone(remote)
    }

    fn carrier(&self, to: NodeId, priority: Priority) -> Result<Arc<Connection>, NetworkError> {
        let remote = self.remotes.read().get(&to).cloned();
        let unreachable =
            |reason: &str| NetworkError::Unreachable { node: to, reason: reason.into() };
        let Some(remote) = remote else {
            return Err(unreachable(if to == self.node {
                "it is this node"
            } else {
                "it is not known"
            }));
        };
        remote.carrier(priority).ok_or_else(|| {
            let trouble = remote.trouble.lock();
            unreachable(trouble.as_deref().unwrap_or("it is not linked yet"))
        })
    }

    /// Puts a connection whose handshake is done in its place and runs it to its end.
    async fn run(&self, connection: Arc<Connection>, stream: PeerStream) {
        let remote = self.remote(connection.peer);
        remote.install(&connection, &self.inboxes);
        let ended = connection.run(stream, &self.inboxes).await;
        remote.remove(&connection, &ended.to_string(), &self.inboxes);
    }

    /// Dials whoever is in the address book, and stops for whoever is not any more.
    async fn follow_book(self: Arc<Self>) {
        let mut book = self.book.clone();
        let mut dialled: BTreeMap<NodeId, Arc<Remote>> = BTreeMap::new();
        loop {
            let named = Arc::clone(&book.borrow_and_update());
            for node in named.keys().filter(|node| **node != self.node) {
                if dialled.contains_key(node) {
                    continue;
                }
                let remote = self.remote(*node);
                for class in [ConnectionClass::Control, ConnectionClass::Bulk] {
                    let gone = remote.gone.clone();
                    let dialling = Arc::clone(&self).keep_dialled(Arc::clone(&remote), class);
                    self.spawn(async move {
                        gone.run_until_cancelled(dialling).await;
                    });
                }
                dialled.insert(*node, remote);
            }
            for (node, remote) in dialled.extract_if(.., |node, _| !named.contains_key(node)) {
                self.remotes.write().remove(&node);
                remote.gone.cancel();
                remote.end("the peer left the cluster");
            }
            // `borrow_and_update` above marked what was seen: a change since then returns at once.
            if book.changed().await.is_err() {
                return; // The book's owner is gone: it stays as it is.
            }
        }
    }

    /// Ends overdue calls, pings silent peers, cuts dead ones: one timer for all connections.
    async fn tick(self: Arc<Self>) {
        let mut timer = tokio::time::interval(SWEEP_EVERY);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut pinged = Instant::now();
        loop {
            timer.tick().await;
            let now = Instant::now();
            let pinging = now.duration_since(pinged) >= PING_EVERY;
            if pinging {
                pinged = now;
            }
            for remote in self.remotes.read().values() {
                remote.tick(now, pinging);
            }
        }
    }
}
