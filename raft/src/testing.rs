//! Testing: a network in memory for several nodes in one process, and a machine whose state can be
//! read.
//!
//! Not part of the product. Promise: [`MemoryNetwork`] delivers encoded messages, as sockets do,
//! and both sides notice a disconnection at once. Refused: random delays; the caller sets them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use model::NodeId;
use model::codec;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::error::Fatal;
use crate::groups::Groups;
use crate::machine::{
    ApplyStep, ChunkSink, ChunkSource, FrozenState, Machine, StoreWrite, WorkingStore,
};
use crate::network::{Network, NetworkError, Priority};

/// Connects the [`Groups`] of several nodes in one process.
#[derive(Clone, Default)]
pub struct MemoryNetwork(Arc<Links>);

#[derive(Default)]
struct Links {
    nodes: Mutex<BTreeMap<NodeId, Groups>>,
    disconnected: Mutex<BTreeSet<(NodeId, NodeId)>>,
    delay: Mutex<Duration>,
    gates: Mutex<BTreeMap<(NodeId, NodeId, Priority), Arc<ResponseGate>>>,
    messages_sent: [AtomicU64; 5],
    bytes_sent: [AtomicU64; 5],
}

impl MemoryNetwork {
    /// A network without nodes.
    pub fn new() -> Self {
        Self::default()
    }

    /// The network as one node uses it.
    pub fn endpoint(&self, node: NodeId) -> Arc<dyn Network> {
        Arc::new(Endpoint { links: self.0.clone(), node })
    }

    /// Makes a node reachable.
    pub fn join(&self, node: NodeId, groups: Groups) {
        self.0.nodes.lock().insert(node, groups);
    }

    /// Makes a node unreachable.
    pub fn leave(&self, node: NodeId) {
        self.0.nodes.lock().remove(&node);
    }

    /// Disconnects two nodes in both directions. Responses in flight are lost.
    pub fn disconnect(&self, a: NodeId, b: NodeId) {
        self.0.disconnected.lock().extend([(a, b), (b, a)]);
    }

    /// Disconnects a node from all others.
    pub fn isolate(&self, node: NodeId) {
        let others: Vec<NodeId> = self.0.nodes.lock().keys().copied().collect();
        others
            .into_iter()
            .filter(|&other| other != node)
            .for_each(|other| self.disconnect(node, other));
    }

    /// Connects two nodes again.
    pub fn reconnect(&self, a: NodeId, b: NodeId) {
        let mut disconnected = self.0.disconnected.lock();
        disconnected.remove(&(a, b));
        disconnected.remove(&(b, a));
    }

    /// Connects all nodes again.
    pub fn reconnect_all(&self) {
        self.0.disconnected.lock().clear();
    }

    /// Sets the delay of each message.
    pub fn delay(&self, delay: Duration) {
        *self.0.delay.lock() = delay;
    }

    /// Holds back the responses to requests of this priority from one node to another, as if the
    /// requesting node were paused. They wait until [`HeldResponses::release`], also if the nodes
    /// are disconnected meanwhile.
    pub fn hold_responses(&self, from: NodeId, to: NodeId, priority: Priority) -> HeldResponses {
        let gate = Arc::new(ResponseGate {
            requests: AtomicU64::new(0),
            responses: AtomicU64::new(0),
            gate: Semaphore::new(0),
        });
        self.0.gates.lock().insert((from, to, priority), gate.clone());
        HeldResponses { links: self.0.clone(), gate }
    }

    /// Requests of this priority so far.
    pub fn messages_sent(&self, priority: Priority) -> u64 {
        self.0.messages_sent[priority as usize].load(Ordering::Relaxed)
    }

    /// Bytes of requests of this priority so far.
    pub fn bytes_sent(&self, priority: Priority) -> u64 {
        self.0.bytes_sent[priority as usize].load(Ordering::Relaxed)
    }
}

/// Counts and holds back responses until `gate` is closed.
struct ResponseGate {
    requests: AtomicU64,
    responses: AtomicU64,
    gate: Semaphore,
}

/// Responses that are held back.
pub struct HeldResponses {
    links: Arc<Links>,
    gate: Arc<ResponseGate>,
}

impl HeldResponses {
    /// Requests since the hold began.
    pub fn requests(&self) -> u64 {
        self.gate.requests.load(Ordering::SeqCst)
    }

    /// Responses that are or were held back.
    pub fn responses(&self) -> u64 {
        self.gate.responses.load(Ordering::SeqCst)
    }

    /// Delivers all of them, and later ones at once.
    pub fn release(self) {
        self.links.gates.lock().retain(|_, gate| !Arc::ptr_eq(gate, &self.gate));
        self.gate.gate.close();
    }
}

/// The network as one node uses it.
struct Endpoint {
    links: Arc<Links>,
    node: NodeId,
}

impl Links {
    fn resolve(&self, from: NodeId, to: NodeId) -> Result<Groups, NetworkError> {
        let unreachable =
            |reason: &str| NetworkError::Unreachable { node: to, reason: reason.into() };
        if self.disconnected.lock().contains(&(from, to)) {
            return Err(unreachable("the nodes are disconnected"));
        }
        self.nodes.lock().get(&to).cloned().ok_or_else(|| unreachable("the node has not joined"))
    }

    async fn deliver(
        self: Arc<Self>,
        from: NodeId,
        to: NodeId,
        priority: Priority,
        message: Bytes,
    ) -> Result<Bytes, NetworkError> {
        self.messages_sent[priority as usize].fetch_add(1, Ordering::Relaxed);
        self.bytes_sent[priority as usize].fetch_add(message.len() as u64, Ordering::Relaxed);
        let lost = |reason: String| NetworkError::NoAnswer { node: to, reason };
        let delay = *self.delay.lock();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let groups = self.resolve(from, to)?;
        // A task of its own, as over sockets: a caller that gives up does not cancel the request.
        let handled = tokio::spawn(async move { groups.handle(from, message).await }).await;
        let response = handled.map_err(|error| lost(error.to_string()))?;
        self.resolve(from, to).map_err(|error| lost(error.to_string()))?;
        Ok(response)
    }
}

impl Network for Endpoint {
    fn call(
        &self,
        to: NodeId,
        priority: Priority,
        message: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, NetworkError>> {
        let delivery = self.links.clone().deliver(self.node, to, priority, message);
        let gate = self.links.gates.lock().get(&(self.node, to, priority)).cloned();
        if let Some(gate) = &gate {
            gate.requests.fetch_add(1, Ordering::SeqCst);
        }
        async move {
            let response = tokio::time::timeout(timeout, delivery).await.unwrap_or_else(|_| {
                Err(NetworkError::NoAnswer { node: to, reason: "no response in time".into() })
            })?;
            if let Some(gate) = gate {
                gate.responses.fetch_add(1, Ordering::SeqCst);
                // Waits until `release` closes the semaphore.
                let _ = gate.gate.acquire().await;
            }
            Ok(response)
        }
        .boxed()
    }
}

/// Entries in a full chunk of a [`RecordingMachine`]'s checkpoint.
const ENTRIES_PER_CHUNK: usize = 64;

/// A machine that remembers every entry in order. Its response is the number of entries so
/// far. Two entries make it fail: `panic` and `fatal`. `long` takes long, and what begins with
/// `behind` or `long` waits until it is finished.
#[derive(Clone, Default)]
pub struct RecordingMachine(Arc<Mutex<Recording>>);

#[derive(Default)]
struct Recording {
    entries: Vec<Bytes>,
    last_index: u64,
    /// Full chunks that the last checkpoint holds.
    kept_chunks: usize,
    /// Full chunks when the state was last frozen.
    frozen_chunks: usize,
    store: Option<Arc<dyn WorkingStore>>,
    restored: u64,
    rebuilt: u64,
    /// How many entries there were before the long one that is not finished.
    before_long: Option<usize>,
    /// What the work of the next long entry waits for.
    long_gate: Option<std::sync::mpsc::Receiver<()>>,
}

impl RecordingMachine {
    /// A machine without entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of entries.
    pub fn count(&self) -> usize {
        self.0.lock().entries.len()
    }

    /// The entries, in order.
    pub fn entries(&self) -> Vec<Bytes> {
        self.0.lock().entries.clone()
    }

    /// How often it was restored from a checkpoint, and how often its store was rebuilt.
    pub fn restored(&self) -> (u64, u64) {
        let recording = self.0.lock();
        (recording.restored, recording.rebuilt)
    }

    /// The work of the next long entry waits until this is sent to or dropped.
    pub fn hold_long(&self) -> std::sync::mpsc::Sender<()> {
        let (release, gate) = std::sync::mpsc::channel();
        self.0.lock().long_gate = Some(gate);
        release
    }

    /// Its working store.
    pub fn store(&self) -> Option<Arc<dyn WorkingStore>> {
        self.0.lock().store.clone()
    }
}

/// Name and content of a chunk that every checkpoint of a [`RecordingMachine`] has, and that is not
/// read when it is restored, like the chunks of old events.
pub const UNREAD_CHUNK: &str = "read by nobody at a start";

/// The store's key of the n-th entry.
fn key(number: usize) -> Bytes {
    Bytes::copy_from_slice(&(number as u64).to_be_bytes())
}

impl Machine for RecordingMachine {
    type Response = u64;

    fn apply(
        &mut self,
        index: u64,
        entry: &[u8],
        writes: &mut Vec<StoreWrite>,
    ) -> Result<ApplyStep<u64>, Fatal> {
        match entry {
            b"panic" => panic!("as the entry demands"),
            b"fatal" => return Err(Fatal("as the entry demands".to_owned())),
            _ => {}
        }
        let mut recording = self.0.lock();
        let waits = entry.starts_with(b"behind") || entry.starts_with(b"long");
        if waits && recording.before_long.is_some() {
            return Ok(ApplyStep::Blocked);
        }
        assert!(index > recording.last_index || recording.last_index == 0, "an entry came twice");
        let entry = Bytes::copy_from_slice(entry);
        let number = recording.entries.len();
        recording.entries.push(entry.clone());
        recording.last_index = index;
        if entry.starts_with(b"long") {
            recording.before_long = Some(number);
            let gate = recording.long_gate.take();
            return Ok(ApplyStep::Long(Box::new(move || {
                if let Some(gate) = gate {
                    let _ = gate.recv(); // Sent or dropped: it may go on.
                }
                assert!(entry != "long panic", "as the entry demands");
            })));
        }
        writes.push(StoreWrite::Put(key(number), entry));
        Ok(ApplyStep::Done(number as u64 + 1))
    }

    fn finish_long(&mut self, writes: &mut Vec<StoreWrite>) -> Result<u64, Fatal> {
        let mut recording = self.0.lock();
        let nothing = || Fatal("no long entry".to_owned());
        let number = recording.before_long.take().ok_or_else(nothing)?;
        writes.push(StoreWrite::Put(key(number), recording.entries[number].clone()));
        Ok(number as u64 + 1)
    }

    fn freeze(&self) -> Box<dyn FrozenState> {
        let mut recording = self.0.lock();
        let count = recording.before_long.unwrap_or(recording.entries.len());
        recording.frozen_chunks = count / ENTRIES_PER_CHUNK;
        let (entries, kept_chunks) = (recording.entries[..count].to_vec(), recording.kept_chunks);
        Box::new(FrozenRecording { entries, kept_chunks, machine: self.clone() })
    }

    fn restore(&mut self, index: u64, source: &dyn ChunkSource) -> Result<(), Fatal> {
        let mut entries = Vec::new();
        for name in source.names().into_iter().filter(|name| name != UNREAD_CHUNK) {
            let chunk = source.get(&name).ok_or_else(|| Fatal(format!("no chunk {name}")))?;
            let chunk: Vec<Bytes> = codec::decode_as(codec::FormatKind::Test, &chunk)
                .map_err(|error| Fatal(error.to_string()))?;
            entries.extend(chunk);
        }
        let mut recording = self.0.lock();
        recording.restored += 1;
        recording.before_long = None;
        recording.kept_chunks = entries.len() / ENTRIES_PER_CHUNK;
        recording.entries = entries;
        recording.last_index = index;
        Ok(())
    }

    fn checkpoint_durable(&mut self, _: u64) {
        let mut recording = self.0.lock();
        recording.kept_chunks = recording.frozen_chunks;
    }

    fn attach(&mut self, store: Arc<dyn WorkingStore>) {
        self.0.lock().store = Some(store);
    }
}

struct FrozenRecording {
    entries: Vec<Bytes>,
    kept_chunks: usize,
    machine: RecordingMachine,
}

impl FrozenState for FrozenRecording {
    fn write(self: Box<Self>, sink: &mut dyn ChunkSink) {
        sink.put(UNREAD_CHUNK, UNREAD_CHUNK.as_bytes().to_vec());
        for (number, chunk) in self.entries.chunks(ENTRIES_PER_CHUNK).enumerate() {
            let name = format!("entries/{number:08}");
            if number < self.kept_chunks {
                sink.keep(&name);
            } else {
                sink.put(&name, codec::encode_as(codec::FormatKind::Test, chunk));
            }
        }
    }

    fn fill(&self, _: &dyn ChunkSource, put: &mut dyn FnMut(StoreWrite)) -> Result<(), Fatal> {
        self.machine.0.lock().rebuilt += 1;
        for (number, entry) in self.entries.iter().enumerate() {
            put(StoreWrite::Put(key(number), entry.clone()));
        }
        Ok(())
    }
}
