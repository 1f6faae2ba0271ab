//! Remote: one peer as this node has it: its two connections, and who is notified when they change.
//!
//! Promise: at most one connection of each class is in use; a new one takes the place of the old
//! one, which ends. `link_changed` is called in the order things happened. Bulk ends with control.
//! Refused: a second connection dialled by the node that should wait to be dialled, while the
//! first is well; a connection from another data directory while the known one is connected.

use std::sync::Arc;
use std::time::Instant;

use model::NodeId;
use parking_lot::{Mutex, RwLock};
use raft::Priority;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::connection::Connection;
use super::hello::{ConnectionClass, HandshakeRejection, PeerHello};
use super::serve::Inboxes;
use crate::limits::{PING_EVERY, SILENCE_MAX};

/// One peer.
pub(super) struct Remote {
    pub(super) node: NodeId,
    connections: RwLock<PeerConnections>,
    /// Held while a change is made and notified, so that notifications keep the order of changes.
    notifying: Mutex<()>,
    /// Which connections stand.
    pub(super) connections_up: watch::Sender<ConnectionsUp>,
    /// The peer left the address book, or this node stops.
    pub(super) gone: CancellationToken,
    /// Why there is no connection, in words.
    pub(super) trouble: Mutex<Option<String>>,
}

/// Which connections stand.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ConnectionsUp {
    pub(super) control: bool,
    pub(super) bulk: bool,
}

#[derive(Default, Clone)]
struct PeerConnections {
    control: Option<Arc<Connection>>,
    bulk: Option<Arc<Connection>>,
}

impl PeerConnections {
    fn of(&mut self, class: ConnectionClass) -> &mut Option<Arc<Connection>> {
        match class {
            ConnectionClass::Control => &mut self.control,
            ConnectionClass::Bulk => &mut self.bulk,
        }
    }
}

impl Remote {
    pub(super) fn new(node: NodeId, gone: CancellationToken) -> Self {
        Self {
            node,
            connections: RwLock::default(),
            notifying: Mutex::new(()),
            connections_up: watch::Sender::default(),
            gone,
            trouble: Mutex::new(None),
        }
    }

    /// The connection that carries a priority.
    pub(super) fn carrier(&self, priority: Priority) -> Option<Arc<Connection>> {
        let connections = self.connections.read();
        match priority {
            Priority::Urgent | Priority::Log | Priority::Call | Priority::Feed => {
                connections.control.clone()
            }
            Priority::Bulk => connections.bulk.clone(),
        }
    }

    /// Tells the dialling tasks which connections stand.
    fn notify_diallers(&self) {
        let connections = self.connections.read();
        self.connections_up.send_replace(ConnectionsUp {
            control: connections.control.is_some(),
            bulk: connections.bulk.is_some(),
        });
    }

    /// Whether a connection may take its place here.
    pub(super) fn admit(
        &self,
        hello: &PeerHello,
        dialled_here: bool,
    ) -> Result<(), HandshakeRejection> {
        let mut connections = self.connections.read().clone();
        let now = Instant::now();
        let is_well = |connection: &Connection| connection.silence(now) < SILENCE_MAX;
        if let Some(control) = &connections.control
            && control.data_id != hello.data_id
            && is_well(control)
        {
            return Err(HandshakeRejection::OtherData { node: hello.from });
        }
        if let Some(current) = connections.of(hello.class)
            && current.boot == hello.boot
            && is_well(current)
        {
            // Both nodes dialled at once. Each side sees the two connections in another order, so
            // the choice must not depend on order: the one dialled by the lower number stays.
            // Without this rule each side could end the connection that the other kept.
            let dialler = if dialled_here { hello.to } else { hello.from };
            let other = if dialled_here { hello.from } else { hello.to };
            let current_is_regular = current.dialled_here == (hello.to < hello.from);
            if dialler > other && current_is_regular {
                return Err(HandshakeRejection::Duplicate);
            }
        }
        Ok(())
    }

    /// Puts a connection in its place. The one before it ends.
    pub(super) fn install(&self, connection: &Arc<Connection>, inboxes: &Inboxes) {
        let _telling = self.notifying.lock();
        let mut ended = Vec::new();
        {
            let mut connections = self.connections.write();
            ended.extend(connections.of(connection.class).replace(Arc::clone(connection)));
            let is_of_another_start = |bulk: &mut Arc<Connection>| bulk.boot != connection.boot;
            // A bulk connection of an earlier start of the peer leads to a process that is gone.
            if connection.class == ConnectionClass::Control {
                ended.extend(connections.bulk.take_if(is_of_another_start));
            }
        }
        // Outside the lock: its task comes to `remove`, which takes it.
        for old in ended {
            old.end("a newer connection took its place");
        }
        if connection.class == ConnectionClass::Control {
            *self.trouble.lock() = None;
            tracing::info!(peer = self.node.0, "linked");
            self.notify(inboxes, true);
        }
        self.notify_diallers();
    }

    /// Takes an ended connection out of its place, unless another has taken it already.
    pub(super) fn remove(&self, connection: &Arc<Connection>, reason: &str, inboxes: &Inboxes) {
        let _telling = self.notifying.lock();
        let bulk = {
            let mut connections = self.connections.write();
            let place = connections.of(connection.class);
            // The place may hold a newer connection by now, which must not go with the old one.
            if place.take_if(|current| Arc::ptr_eq(current, connection)).is_none() {
                return;
            }
            match connection.class {
                ConnectionClass::Control => connections.bulk.take(),
                ConnectionClass::Bulk => None,
            }
        };
        // Before anything else is told: the dialling task can begin while the rest goes on.
        self.notify_diallers();
        if connection.class == ConnectionClass::Bulk {
            tracing::debug!(peer = self.node.0, reason, "bulk connection lost");
            return;
        }
        if let Some(bulk) = bulk {
            bulk.end("the control connection ended");
        }
        *self.trouble.lock() = Some(reason.to_owned());
        tracing::warn!(peer = self.node.0, reason, "link lost");
        self.notify(inboxes, false);
    }

    fn notify(&self, inboxes: &Inboxes, up: bool) {
        inboxes.link_changed(self.node, up);
    }

    /// Tells an inbox that came later what it missed.
    pub(super) fn notify_if_up(&self, inboxes: &Inboxes) {
        let _telling = self.notifying.lock();
        if self.connections_up.borrow().control {
            self.notify(inboxes, true);
        }
    }

    /// Ends overdue calls; with `pinging`, asks a silent peer for a sign of life and cuts it when
    /// none came for too long.
    pub(super) fn tick(&self, now: Instant, pinging: bool) {
        let connections = self.connections.read().clone();
        for connection in [&connections.control, &connections.bulk].into_iter().flatten() {
            connection.calls.sweep(now);
        }
        // Only control is pinged: bulk ends with it, and may be silent behind a long write.
        let Some(control) = connections.control.filter(|_| pinging) else { return };
        let silence = control.silence(now);
        if silence >= SILENCE_MAX {
            control.end(&format!("no sign of life for {} s", SILENCE_MAX.as_secs()));
        } else if silence >= PING_EVERY / 2 {
            control.ping();
        }
    }

    /// Ends both connections.
    pub(super) fn end(&self, reason: &str) {
        let connections = self.connections.read().clone();
        for connection in [connections.control, connections.bulk].into_iter().flatten() {
            connection.end(reason);
        }
    }
}
