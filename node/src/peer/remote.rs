//! Remote: one peer as this node has it: its two connections, and who is told when they change.
//!
//! Promise: at most one connection of each class is in use; a new one takes the place of the old
//! one, which ends. `link_changed` is told in the order things happened. Bulk ends with control.
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
use super::hello::{Class, Hello, Refusal};
use super::serve::Served;
use crate::limits::{PING_EVERY, SILENCE_MAX};

/// One peer.
pub(super) struct Remote {
    pub(super) node: NodeId,
    connections: RwLock<Connections>,
    /// Held while a change is made and told, so that changes are told in order.
    telling: Mutex<()>,
    /// Which connections stand.
    pub(super) occupied: watch::Sender<Occupied>,
    /// The peer left the address book, or this node stops.
    pub(super) gone: CancellationToken,
    /// Why there is no connection, in words.
    pub(super) trouble: Mutex<Option<String>>,
}

/// Which connections stand.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Occupied {
    pub(super) control: bool,
    pub(super) bulk: bool,
}

#[derive(Default, Clone)]
struct Connections {
    control: Option<Arc<Connection>>,
    bulk: Option<Arc<Connection>>,
}

impl Connections {
    fn of(&mut self, class: Class) -> &mut Option<Arc<Connection>> {
        match class {
            Class::Control => &mut self.control,
            Class::Bulk => &mut self.bulk,
        }
    }
}

impl Remote {
    pub(super) fn new(node: NodeId, gone: CancellationToken) -> Self {
        Self {
            node,
            connections: RwLock::default(),
            telling: Mutex::new(()),
            occupied: watch::Sender::default(),
            gone,
            trouble: Mutex::new(None),
        }
    }

    /// The connection that carries a lane.
    pub(super) fn carrier(&self, lane: Priority) -> Option<Arc<Connection>> {
        let connections = self.connections.read();
        match lane {
            Priority::Urgent | Priority::Log | Priority::Call | Priority::Feed => {
                connections.control.clone()
            }
            Priority::Bulk => connections.bulk.clone(),
        }
    }

    /// Tells the dialling tasks which connections stand.
    fn tell_dialling(&self) {
        let connections = self.connections.read();
        self.occupied.send_replace(Occupied {
            control: connections.control.is_some(),
            bulk: connections.bulk.is_some(),
        });
    }

    /// Whether a greeted connection may take its place here.
    pub(super) fn admit(&self, hello: &Hello, dialled_here: bool) -> Result<(), Refusal> {
        let mut connections = self.connections.read().clone();
        let now = Instant::now();
        let is_well = |connection: &Connection| connection.silence(now) < SILENCE_MAX;
        if let Some(control) = &connections.control
            && control.data_id != hello.data_id
            && is_well(control)
        {
            return Err(Refusal::OtherData { node: hello.from });
        }
        if let Some(current) = connections.of(hello.class)
            && current.boot == hello.boot
            && is_well(current)
        {
            let dialler = if dialled_here { hello.to } else { hello.from };
            let other = if dialled_here { hello.from } else { hello.to };
            let current_is_regular = current.dialled_here == (hello.to < hello.from);
            if dialler > other && current_is_regular {
                return Err(Refusal::Duplicate);
            }
        }
        Ok(())
    }

    /// Puts a connection in its place. The one before it ends.
    pub(super) fn install(&self, connection: &Arc<Connection>, served: &Served) {
        let _telling = self.telling.lock();
        let mut ended = Vec::new();
        {
            let mut connections = self.connections.write();
            ended.extend(connections.of(connection.class).replace(Arc::clone(connection)));
            let is_of_another_start = |bulk: &mut Arc<Connection>| bulk.boot != connection.boot;
            if connection.class == Class::Control {
                ended.extend(connections.bulk.take_if(is_of_another_start));
            }
        }
        for old in ended {
            old.end("a newer connection took its place");
        }
        if connection.class == Class::Control {
            *self.trouble.lock() = None;
            tracing::info!(peer = self.node.0, "linked");
            self.tell(served, true);
        }
        self.tell_dialling();
    }

    /// Takes an ended connection out of its place, unless another has taken it already.
    pub(super) fn remove(&self, connection: &Arc<Connection>, reason: &str, served: &Served) {
        let _telling = self.telling.lock();
        let bulk = {
            let mut connections = self.connections.write();
            let place = connections.of(connection.class);
            if place.take_if(|current| Arc::ptr_eq(current, connection)).is_none() {
                return;
            }
            match connection.class {
                Class::Control => connections.bulk.take(),
                Class::Bulk => None,
            }
        };
        self.tell_dialling();
        if connection.class == Class::Bulk {
            tracing::debug!(peer = self.node.0, reason, "bulk connection lost");
            return;
        }
        if let Some(bulk) = bulk {
            bulk.end("the control connection ended");
        }
        *self.trouble.lock() = Some(reason.to_owned());
        tracing::warn!(peer = self.node.0, reason, "link lost");
        self.tell(served, false);
    }

    fn tell(&self, served: &Served, up: bool) {
        served.link_changed(self.node, up);
    }

    /// Tells an inbox that came later what it missed.
    pub(super) fn tell_if_up(&self, served: &Served) {
        let _telling = self.telling.lock();
        if self.occupied.borrow().control {
            self.tell(served, true);
        }
    }

    /// Ends overdue calls; with `pinging`, asks a silent peer for a sign of life and cuts it when
    /// none came for too long.
    pub(super) fn tick(&self, now: Instant, pinging: bool) {
        let connections = self.connections.read().clone();
        for connection in [&connections.control, &connections.bulk].into_iter().flatten() {
            connection.calls.sweep(now);
        }
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
