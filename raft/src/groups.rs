//! Groups: all replicas of one node: one log file, one network, one door for peers' messages.
//!
//! Promise: a group runs at most once here; a replica that stops takes no other with it.
//! Refused: a state directory another process uses, and a log that is not what was written.

mod config;
mod starts;

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use model::{NodeId, ReplicaId};
use openraft::Raft;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

pub use self::config::{GroupsConfig, OpenError, Pace};
use self::starts::Starting;
pub(crate) use self::starts::Starts;
use crate::blocking::blocking;
use crate::consensus;
use crate::disk::{Checkpoints, GroupKey, StoreFiles, Wal, WalConfig};
use crate::error::Fatal;
use crate::group::{Inner as GroupInner, ReplicaGroup};
use crate::inbox::Inbox;
use crate::keeper::Keeper;
use crate::limits;
use crate::log_storage::{Log, SharedLog};
use crate::machine::Machine;
use crate::network::Network;
use crate::peer::Peers;
use crate::replica::Replica;
use crate::rpc::{Call, Refusal, Response};
use crate::state_machine::Applier;
use crate::status;
use crate::types::{DiskCounters, GroupId};
use crate::verifier::Verifier;

/// All replicas of one node. Cheap to clone.
#[derive(Clone)]
pub struct Groups(Arc<Inner>);

struct Inner {
    config: GroupsConfig,
    network: Arc<dyn Network>,
    disk: Mutex<Option<Disk>>,
    local: Vec<(GroupId, ReplicaId)>,
    running: Mutex<HashMap<GroupId, Slot>>,
    permits: Arc<Semaphore>,
    /// Held by the replica whose chunks are looked at.
    verifying: Arc<Semaphore>,
    starts: Starts,
    /// No earlier process of this node counted streams of appends from here.
    stream_base: u64,
    nudging: Mutex<Option<JoinHandle<()>>>,
}

/// What is open on disk; gone after shutdown.
#[derive(Clone)]
struct Disk {
    log: SharedLog,
    checkpoints: Checkpoints,
    store: Arc<StoreFiles>,
}

/// A group's place in the map.
enum Slot {
    /// Somebody is starting it.
    Starting,
    Running(ReplicaGroup, Vec<JoinHandle<()>>),
}

impl Groups {
    /// Opens log, checkpoints and store. No replica runs yet.
    ///
    /// # Errors
    /// [`OpenError`], with what to do about it.
    pub async fn open(config: GroupsConfig, network: Arc<dyn Network>) -> Result<Self, OpenError> {
        config.timing.check()?;
        let opening = config.clone();
        let opened = blocking(move || open_disk(&opening)).await;
        let (disk, local, turns) = opened.map_err(fatal)??;
        if let (Some(turns), Some(pace)) = (turns, config.pace.clone()) {
            tokio::spawn(turn(Arc::downgrade(&disk.log.wal), turns, pace));
        }
        let groups = Self(Arc::new(Inner {
            config,
            network,
            disk: Mutex::new(Some(disk)),
            local,
            running: Mutex::default(),
            permits: Arc::new(Semaphore::new(limits::CHECKPOINTS_AT_ONCE)),
            verifying: Arc::new(Semaphore::new(1)),
            starts: Starts::default(),
            stream_base: unforeseen() >> 1,
            nudging: Mutex::new(None),
        }));
        let nudging = tokio::spawn(nudge(Arc::downgrade(&groups.0)));
        *groups.0.nudging.lock() = Some(nudging);
        Ok(groups)
    }

    /// The replicas that had state on this disk when it was opened, in order.
    pub fn local(&self) -> Vec<(GroupId, ReplicaId)> {
        self.0.local.clone()
    }

    /// Starts a replica: gives the machine its checkpoint, replays what was committed, and joins
    /// the group.
    ///
    /// # Errors
    /// [`Fatal`] when its state on disk is refused, or a replica of the group already runs here.
    pub async fn start(
        &self,
        group: GroupId,
        replica: ReplicaId,
        machine: Box<dyn Machine>,
    ) -> Result<ReplicaGroup, Fatal> {
        let disk = self.disk()?;
        match self.0.running.lock().entry(group) {
            std::collections::hash_map::Entry::Occupied(_) => {
                return Err(Fatal(format!("a replica of group {group} already runs here")));
            }
            std::collections::hash_map::Entry::Vacant(place) => place.insert(Slot::Starting),
        };
        let starting = self.0.starts.begin();
        let place = Place { groups: self.clone(), group, kept: false, _starting: starting };
        let (started, tasks) = Box::pin(self.0.start(disk, group, replica, machine)).await?;
        place.keep(started.clone(), tasks);
        alone(&started).await;
        Ok(started)
    }

    /// The running replica of a group.
    pub fn get(&self, group: GroupId) -> Option<ReplicaGroup> {
        match self.0.running.lock().get(&group)? {
            Slot::Starting => None,
            Slot::Running(running, _) => Some(running.clone()),
        }
    }

    /// All running replicas, by group.
    pub fn all(&self) -> BTreeMap<GroupId, ReplicaGroup> {
        let running = self.0.running.lock();
        let all = running.iter().filter_map(|(&group, slot)| match slot {
            Slot::Starting => None,
            Slot::Running(running, _) => Some((group, running.clone())),
        });
        all.collect()
    }

    /// Answers a message another node's replica sent through [`Network::call`].
    pub async fn handle(&self, from: NodeId, message: Bytes) -> Bytes {
        let call = match Call::decode(&message) {
            Ok(call) => call,
            Err(error) => {
                tracing::warn!(from = from.0, %error, "a message that cannot be read");
                return Response::Refused(Refusal::Damaged(error.to_string())).encode();
            }
        };
        let Some(group) = self.get(call.group) else {
            return Response::Refused(Refusal::NoReplica).encode();
        };
        group.inner().inbox.answer(from, call).await.encode()
    }

    /// Stops the replica of a group; its state stays on disk.
    pub async fn stop(&self, group: GroupId) {
        let slot = {
            let mut running = self.0.running.lock();
            match running.get(&group) {
                Some(Slot::Running(..)) => running.remove(&group),
                Some(Slot::Starting) | None => None,
            }
        };
        if let Some(Slot::Running(running, tasks)) = slot {
            // It never fails: an openraft that ended otherwise has said so in the status.
            let _ = running.inner().raft.shutdown().await;
            let mut status = running.watch();
            let told = status.wait_for(|status| status.stopped.is_some());
            let _ = tokio::time::timeout(limits::RETRY_AFTER, told).await;
            tasks.iter().for_each(JoinHandle::abort);
        }
    }

    /// Removes all that is on disk of a replica that left its group for good. It must not run, and
    /// its id is never used again.
    ///
    /// # Errors
    /// [`Fatal`] when it runs, or the disk refuses.
    pub async fn forget(&self, group: GroupId, replica: ReplicaId) -> Result<(), Fatal> {
        if self.get(group).is_some_and(|running| running.replica() == replica) {
            return Err(Fatal(format!("replica {replica} of group {group} still runs")));
        }
        let disk = self.disk()?;
        let key = GroupKey { group: group.0, replica: replica.0 };
        disk.log.forget(key).await.map_err(fatal)?;
        let removed = blocking(move || {
            disk.store.open_group(key)?.clear();
            disk.checkpoints.forget(key).map_err(fatal)
        });
        removed.await.map_err(fatal)?
    }

    /// Stops every replica, then syncs and closes the disk, so that it can be opened again.
    pub async fn shutdown(&self) {
        if let Some(nudging) = self.0.nudging.lock().take() {
            nudging.abort();
        }
        let groups: Vec<GroupId> = self.all().into_keys().collect();
        futures::future::join_all(groups.into_iter().map(|group| self.stop(group))).await;
        let Some(disk) = self.0.disk.lock().take() else { return };
        // openraft's tasks let go of the log a moment after it has shut down.
        for _ in 0..limits::CLOSE_LOOKS {
            if Arc::strong_count(&disk.log.wal) == 1 && Arc::strong_count(&disk.store) == 1 {
                break;
            }
            tokio::time::sleep(limits::CLOSE_LOOK).await;
        }
        if let Err(error) = blocking(move || drop(disk)).await {
            tracing::error!(%error, "closing the disk failed");
        }
    }

    /// What the disk did since it was opened.
    pub fn disk_counters(&self) -> DiskCounters {
        let Some(disk) = self.0.disk.lock().clone() else { return DiskCounters::default() };
        let wal = disk.log.wal.counters();
        let value = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        DiskCounters {
            turns: value(&wal.turns),
            fsyncs: value(&wal.fsyncs),
            fsync_time: Duration::from_micros(value(&wal.fsync_micros)),
            log_bytes: value(&wal.bytes),
            log_ops: value(&wal.ops),
            refused: value(&wal.refused),
            carried_bytes: value(&wal.carried_bytes),
            log_segments: value(&wal.segments),
            log_disk_reads: value(&wal.disk_reads),
            store_bytes: disk.store.size_on_disk(),
        }
    }

    /// Whether the disk takes writes; if not, why, in words.
    ///
    /// # Errors
    /// The reason, naming the directory.
    pub fn writable(&self) -> Result<(), String> {
        let disk = self.disk().map_err(|error| error.0)?;
        disk.log.wal.writable().map_err(|error| error.to_string())
    }

    fn disk(&self) -> Result<Disk, Fatal> {
        self.0.disk.lock().clone().ok_or_else(|| Fatal("the node is shutting down".to_owned()))
    }
}

impl Inner {
    async fn start(
        &self,
        disk: Disk,
        group: GroupId,
        replica: ReplicaId,
        machine: Box<dyn Machine>,
    ) -> Result<(ReplicaGroup, Vec<JoinHandle<()>>), Fatal> {
        let Disk { log: shared, checkpoints, store } = disk;
        let wal = shared.wal.clone();
        let key = GroupKey { group: group.0, replica: replica.0 };
        let due = self.config.checkpoint_log_bytes;
        let restored = blocking(move || {
            let store = store.open_group(key)?;
            let state = Replica::new(key, machine, checkpoints, store, due);
            let checkpoint = state.restore_newest()?;
            let doubted = state.checkpoints.doubted(key).map_err(fatal)?;
            Ok::<_, Fatal>((Arc::new(state), checkpoint, doubted))
        });
        let (state, checkpoint, doubted) = restored.await.map_err(fatal)??;
        let log = Log::new(key, shared);
        log.agree(checkpoint).await?;
        let timing = &self.config.timing;
        let peers = Peers::new(self.network.clone(), group, replica, timing, self.stream_base);
        let verifier = Verifier {
            replica: state.clone(),
            peers: peers.clone(),
            permit: self.verifying.clone(),
            starts: self.starts.clone(),
            doubted,
        };
        let config = consensus::config(group, timing);
        let applier = Applier(state.clone());
        let raft = Raft::new(replica.0, config, peers, log, applier).await;
        let raft = raft.map_err(|error| state.failure().unwrap_or_else(|| fatal(error)))?;

        let (requests, asked) = mpsc::channel(limits::CHECKPOINT_REQUESTS);
        let (watched, status) = watch::channel(status::read(&raft, &state));
        let keeper = Keeper {
            replica: state.clone(),
            raft: raft.clone(),
            permits: self.permits.clone(),
            starts: self.starts.clone(),
        };
        let tasks = vec![
            tokio::spawn(status::follow(raft.clone(), state.clone(), watched)),
            tokio::spawn(keeper.run(asked)),
            tokio::spawn(verifier.run()),
        ];
        let patience = timing.call_timeout();
        let inbox = Inbox::new(raft.clone(), state.clone(), wal.clone(), patience);
        let node = self.config.node;
        let started = ReplicaGroup::new(GroupInner {
            id: group,
            node,
            raft,
            replica: state,
            wal,
            inbox,
            status,
            requests,
        });
        Ok((started, tasks))
    }
}

/// The only voter of its group has nobody to wait for: it leads at once.
async fn alone(group: &ReplicaGroup) {
    let status = group.status();
    let mut voters = status.members.iter().filter(|&(_, &(_, voter))| voter);
    if let (Some((&only, _)), None) = (voters.next(), voters.next())
        && only == status.replica
    {
        let _ = group.inner().raft.trigger().elect(false).await;
    }
}

/// Keeps a group's place in the map while it starts; frees it when that fails or is given up.
struct Place {
    groups: Groups,
    group: GroupId,
    kept: bool,
    _starting: Starting,
}

impl Place {
    fn keep(mut self, started: ReplicaGroup, tasks: Vec<JoinHandle<()>>) {
        self.kept = true;
        self.groups.0.running.lock().insert(self.group, Slot::Running(started, tasks));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.kept {
            self.groups.0.running.lock().remove(&self.group);
        }
    }
}

/// What was opened, what it holds, and what rings when a log without threads waits for a turn.
type Opened = (Disk, Vec<(GroupId, ReplicaId)>, Option<Arc<Notify>>);

/// Does the turns of a log without threads, until it is closed.
async fn turn(wal: std::sync::Weak<Wal>, bell: Arc<Notify>, pace: Pace) {
    loop {
        // Unasked it looks whether a full disk has room again.
        let _ = tokio::time::timeout(limits::WAL_FULL_RETRY, bell.notified()).await;
        tokio::time::sleep(pace()).await;
        match wal.upgrade() {
            Some(wal) => wal.turn(),
            None => return,
        }
    }
}

/// Blocks.
fn open_disk(config: &GroupsConfig) -> Result<Opened, Fatal> {
    let on_fatal = config.on_fatal.clone();
    let mut log = WalConfig::new(move |reason| on_fatal(reason));
    log.segment_bytes = config.log_segment_bytes;
    log.device = config.device.clone();
    let bell = config.pace.is_some().then(|| Arc::new(Notify::new()));
    if let Some(bell) = bell.clone() {
        log.by_hand = Some(Box::new(move || bell.notify_one()));
    }
    let (wal, recovered) = Wal::open(&config.dir.join("log"), log).map_err(fatal)?;
    if let Some((file, offset)) = &recovered.cut {
        tracing::warn!(file = %file.display(), offset, "the log's last write was torn and is cut");
    }
    let checkpoints = Checkpoints::open(&config.dir.join("checkpoints")).map_err(fatal)?;
    let store = StoreFiles::open(&config.dir.join("store")).map_err(fatal)?;
    let local = recovered
        .groups
        .iter()
        .filter(|(_, log)| log.vote.is_some() || log.last.is_some() || log.purged.is_some())
        .map(|(key, _)| (GroupId(key.group), ReplicaId(key.replica)))
        .collect();
    let log = SharedLog::new(Arc::new(wal));
    Ok((Disk { log, checkpoints, store: Arc::new(store) }, local, bell))
}

/// Asks the replicas whose entries keep the oldest segment alive for checkpoints.
async fn nudge(groups: std::sync::Weak<Inner>) {
    loop {
        tokio::time::sleep(limits::CHECKPOINT_HOLDING_CHECK).await;
        let Some(inner) = groups.upgrade() else { return };
        let groups = Groups(inner);
        let Ok(disk) = groups.disk() else { return };
        for (key, _) in disk.log.wal.holding().into_iter().take(limits::CHECKPOINTS_AT_ONCE) {
            if let Some(group) = groups.get(GroupId(key.group)) {
                group.inner().replica.nudge();
            }
        }
    }
}

/// A number no earlier process of this node began with; the seed's next where one is given.
pub(crate) fn unforeseen() -> u64 {
    #[cfg(any(test, feature = "testing"))]
    if let Some(number) = crate::simulated::number() {
        return number;
    }
    std::hash::RandomState::new().build_hasher().finish()
}

fn fatal(error: impl std::fmt::Display) -> Fatal {
    Fatal(error.to_string())
}
