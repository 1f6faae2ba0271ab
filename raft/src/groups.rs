//! Groups: all replicas of one node, with one log, one network and one handler for peers' messages.
//!
//! Promise: a group runs at most once here, and a replica that stops does not stop another.
//! Refused: a directory that another process uses, and a log that is not what was written.

mod config;
mod disk_watch;
pub(crate) mod starting_replicas;

use std::any::TypeId;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use model::{NodeId, ReplicaId};
use openraft::Raft;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

pub use self::config::{DiskLatency, GroupsConfig, OpenError};
use self::disk_watch::{look_once, watch_disk};
use self::starting_replicas::{StartingGuard, StartingReplicas};
use crate::blocking::blocking;
use crate::checkpoint_task::CheckpointTask;
use crate::consensus;
use crate::disk::{Checkpoints, GroupKey, StoreFiles, Wal, WalConfig};
use crate::erased::{ErasedMachine, erase};
use crate::error::Fatal;
use crate::fitness::NodeFitness;
use crate::group::{Inner as GroupInner, ReplicaGroup};
use crate::limits;
use crate::log_storage::{LogStorage, SharedLog};
use crate::machine::Machine;
use crate::network::Network;
use crate::peer::PeerClients;
use crate::random::random_u64;
use crate::replica::Replica;
use crate::rpc::{RpcCall, RpcRejection, RpcResponse};
use crate::rpc_handler::RpcHandler;
use crate::state_machine::Applier;
use crate::status;
use crate::typed_group::TypedGroup;
use crate::types::{DiskCounters, GroupId};
use crate::verifier::Verifier;

/// All replicas of one node. Cheap to clone.
#[derive(Clone)]
pub struct Groups(Arc<Inner>);

struct Inner {
    config: GroupsConfig,
    network: Arc<dyn Network>,
    disk: Mutex<Option<OpenDisk>>,
    local: Vec<(GroupId, ReplicaId)>,
    running: Mutex<HashMap<GroupId, GroupSlot>>,
    checkpoint_permits: Arc<Semaphore>,
    /// Held by the replica whose chunks are verified.
    verify_permit: Arc<Semaphore>,
    starting_replicas: StartingReplicas,
    /// The first number for streams of pipelined appends; no earlier process began with it.
    stream_base: u64,
    upkeep_tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// The open files of the node.
#[derive(Clone)]
struct OpenDisk {
    log: SharedLog,
    checkpoints: Checkpoints,
    store: Arc<StoreFiles>,
}

/// The state of a group in the map of running groups.
enum GroupSlot {
    /// A call of [`Groups::start`] is in progress.
    Starting,
    Running(ReplicaGroup, Vec<JoinHandle<()>>),
}

impl Groups {
    /// Opens log, checkpoints and store. No replica runs yet.
    ///
    /// # Errors
    /// [`OpenError`], which says what to do.
    pub async fn open(config: GroupsConfig, network: Arc<dyn Network>) -> Result<Self, OpenError> {
        config.timing.check()?;
        let opening = config.clone();
        let opened = blocking(move || open_disk(&opening)).await;
        let (disk, local, log_notify) = opened.map_err(fatal)??;
        if let (Some(log_notify), Some(disk_latency)) = (log_notify, config.disk_latency.clone()) {
            tokio::spawn(drive_inline_log(Arc::downgrade(&disk.log.wal), log_notify, disk_latency));
        }
        let wal = Arc::downgrade(&disk.log.wal);
        let groups = Self(Arc::new(Inner {
            config,
            network,
            disk: Mutex::new(Some(disk)),
            local,
            running: Mutex::default(),
            checkpoint_permits: Arc::new(Semaphore::new(limits::CHECKPOINTS_AT_ONCE)),
            verify_permit: Arc::new(Semaphore::new(1)),
            starting_replicas: StartingReplicas::default(),
            stream_base: random_u64() >> 1,
            upkeep_tasks: Mutex::default(),
        }));
        *groups.0.upkeep_tasks.lock() = vec![
            tokio::spawn(watch_oldest_segment(Arc::downgrade(&groups.0))),
            tokio::spawn(watch_disk(wal, groups.0.config.clone())),
        ];
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
    pub async fn start<M: Machine>(
        &self,
        group: GroupId,
        replica: ReplicaId,
        machine: M,
    ) -> Result<TypedGroup<M>, Fatal> {
        let disk = self.disk()?;
        match self.0.running.lock().entry(group) {
            std::collections::hash_map::Entry::Occupied(_) => {
                return Err(Fatal(format!("a replica of group {group} already runs here")));
            }
            std::collections::hash_map::Entry::Vacant(slot) => slot.insert(GroupSlot::Starting),
        };
        let starting = self.0.starting_replicas.begin();
        // From here on the guard frees the slot on every way out, also when this future is dropped.
        let guard =
            StartGuard { groups: self.clone(), group, committed: false, _starting: starting };
        let (started, tasks) =
            Box::pin(self.0.start(disk, group, replica, TypeId::of::<M>(), erase(machine))).await?;
        guard.commit(started.clone(), tasks);
        elect_single_voter(&started).await;
        Ok(TypedGroup::new(started))
    }

    /// The running replica of a group.
    pub fn get(&self, group: GroupId) -> Option<ReplicaGroup> {
        match self.0.running.lock().get(&group)? {
            GroupSlot::Starting => None,
            GroupSlot::Running(running, _) => Some(running.clone()),
        }
    }

    /// All running replicas, by group.
    pub fn all(&self) -> BTreeMap<GroupId, ReplicaGroup> {
        let running = self.0.running.lock();
        let all = running.iter().filter_map(|(&group, slot)| match slot {
            GroupSlot::Starting => None,
            GroupSlot::Running(running, _) => Some((group, running.clone())),
        });
        all.collect()
    }

    /// Handles a message that a replica on another node sent through [`Network::call`], and returns
    /// the response.
    pub async fn handle(&self, from: NodeId, message: Bytes) -> Bytes {
        let call = match RpcCall::decode(&message) {
            Ok(call) => call,
            Err(error) => {
                tracing::warn!(from = from.0, %error, "a message cannot be decoded");
                return RpcResponse::Rejected(RpcRejection::Damaged(error.to_string())).encode();
            }
        };
        let Some(group) = self.get(call.group) else {
            return RpcResponse::Rejected(RpcRejection::NoReplica).encode();
        };
        group.inner().rpc_handler.handle(from, call).await.encode()
    }

    /// Stops the replica of a group; its state stays on disk.
    pub async fn stop(&self, group: GroupId) {
        let slot = {
            let mut running = self.0.running.lock();
            match running.get(&group) {
                Some(GroupSlot::Running(..)) => running.remove(&group),
                Some(GroupSlot::Starting) | None => None,
            }
        };
        if let Some(GroupSlot::Running(running, tasks)) = slot {
            // The result is ignored: if openraft has ended already, the status tells why.
            let _ = running.inner().raft.shutdown().await;
            let mut status = running.watch();
            let stopped = status.wait_for(|status| status.stopped.is_some());
            let _ = tokio::time::timeout(limits::RETRY_AFTER, stopped).await;
            // After the wait: the status task is one of them, and must report the end first.
            tasks.iter().for_each(JoinHandle::abort);
        }
    }

    /// Removes the data of a replica that has left its group for good. It must not run, and its id
    /// must never be used again.
    ///
    /// # Errors
    /// [`Fatal`] when it runs, or when the disk fails.
    pub async fn forget(&self, group: GroupId, replica: ReplicaId) -> Result<(), Fatal> {
        if self.get(group).is_some_and(|running| running.replica() == replica) {
            return Err(Fatal(format!("replica {replica} of group {group} still runs")));
        }
        let disk = self.disk()?;
        let key = GroupKey { group: group.0, replica: replica.0 };
        // The log first: after a crash in between, the replica is no longer listed as local.
        disk.log.forget(key).await.map_err(fatal)?;
        let removed = blocking(move || {
            disk.store.open_group(key)?.clear();
            disk.checkpoints.forget(key).map_err(fatal)
        });
        removed.await.map_err(fatal)?
    }

    /// Stops every replica, then syncs and closes the disk, so that it can be opened again.
    pub async fn shutdown(&self) {
        self.0.upkeep_tasks.lock().drain(..).for_each(|task| task.abort());
        let groups: Vec<GroupId> = self.all().into_keys().collect();
        futures::future::join_all(groups.into_iter().map(|group| self.stop(group))).await;
        // After the replicas have stopped: from here on nothing can be started again.
        let Some(disk) = self.0.disk.lock().take() else { return };
        // openraft's tasks drop their references shortly after its shutdown. The log must be closed
        // when this returns, so that the directory can be opened again.
        for _ in 0..limits::CLOSE_POLLS_MAX {
            if Arc::strong_count(&disk.log.wal) == 1 && Arc::strong_count(&disk.store) == 1 {
                break;
            }
            tokio::time::sleep(limits::CLOSE_POLL_INTERVAL).await;
        }
        if let Err(error) = blocking(move || drop(disk)).await {
            tracing::error!(%error, "closing the disk failed");
        }
    }

    /// The counters of the disk since it was opened.
    pub fn disk_counters(&self) -> DiskCounters {
        let Some(disk) = self.0.disk.lock().clone() else { return DiskCounters::default() };
        let wal = disk.log.wal.counters();
        let value = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        DiskCounters {
            write_batches: value(&wal.write_batches),
            fsyncs: value(&wal.fsyncs),
            fsync_time: Duration::from_micros(value(&wal.fsync_micros)),
            log_bytes: value(&wal.bytes),
            log_ops: value(&wal.ops),
            rejected: value(&wal.rejected),
            compacted_bytes: value(&wal.compacted_bytes),
            log_segments: value(&wal.segments),
            log_disk_reads: value(&wal.disk_reads),
            store_bytes: disk.store.size_on_disk(),
        }
    }

    /// Looks at the disk now: until the next change [`Groups::fitness`] says what it is like.
    pub async fn look_at_disk(&self) {
        let disk = self.0.disk.lock().clone();
        let Some(wal) = disk.map(|disk| Arc::downgrade(&disk.log.wal)) else { return };
        look_once(wal, &self.0.config).await;
    }

    /// Whether this node may lead, and why not.
    pub fn fitness(&self) -> &NodeFitness {
        &self.0.config.fitness
    }

    /// Checks whether the disk takes writes.
    ///
    /// # Errors
    /// The reason in words, with the directory.
    pub fn writable(&self) -> Result<(), String> {
        let disk = self.disk().map_err(|error| error.0)?;
        disk.log.wal.writable().map_err(|error| error.to_string())
    }

    fn disk(&self) -> Result<OpenDisk, Fatal> {
        self.0.disk.lock().clone().ok_or_else(|| Fatal("the node is shutting down".to_owned()))
    }
}

impl Inner {
    async fn start(
        &self,
        disk: OpenDisk,
        group: GroupId,
        replica: ReplicaId,
        machine_type: TypeId,
        machine: Box<dyn ErasedMachine>,
    ) -> Result<(ReplicaGroup, Vec<JoinHandle<()>>), Fatal> {
        let OpenDisk { log: shared, checkpoints, store } = disk;
        let wal = shared.wal.clone();
        let key = GroupKey { group: group.0, replica: replica.0 };
        let due = self.config.checkpoint_log_bytes;
        let restored = blocking(move || {
            let store = store.open_group(key)?;
            let state = Replica::new(key, machine, checkpoints, store, due);
            let checkpoint = state.restore_newest()?;
            let verify_requests = state.checkpoints.verify_requests(key).map_err(fatal)?;
            Ok::<_, Fatal>((Arc::new(state), checkpoint, verify_requests))
        });
        let (state, checkpoint, verify_requests) = restored.await.map_err(fatal)??;
        // Before openraft reads the log: it takes log and state machine to agree.
        let log = LogStorage::new(key, shared);
        log.reconcile(checkpoint).await?;
        let timing = &self.config.timing;
        let peers =
            PeerClients::new(self.network.clone(), group, replica, timing, self.stream_base);
        let verifier = Verifier {
            replica: state.clone(),
            peers: peers.clone(),
            permit: self.verify_permit.clone(),
            starting_replicas: self.starting_replicas.clone(),
            verify_requests,
        };
        let config = consensus::config(group, timing);
        let applier = Applier(state.clone());
        let raft = Raft::new(replica.0, config, peers, log, applier).await;
        let raft = raft.map_err(|error| state.failure().unwrap_or_else(|| fatal(error)))?;

        let (checkpoint_requests, requests) = mpsc::channel(limits::CHECKPOINT_REQUESTS);
        let (status_sender, status) = watch::channel(status::read(&raft, &state));
        let checkpoint_task = CheckpointTask {
            replica: state.clone(),
            raft: raft.clone(),
            permits: self.checkpoint_permits.clone(),
            starting_replicas: self.starting_replicas.clone(),
        };
        let tasks = vec![
            tokio::spawn(status::publish_changes(raft.clone(), state.clone(), status_sender)),
            tokio::spawn(checkpoint_task.run(requests)),
            tokio::spawn(verifier.run()),
        ];
        let append_wait = timing.call_timeout();
        let rpc_handler = RpcHandler::new(raft.clone(), state.clone(), wal.clone(), append_wait);
        let node = self.config.node;
        let started = ReplicaGroup::new(GroupInner {
            id: group,
            node,
            machine_type,
            raft,
            replica: state,
            wal,
            rpc_handler,
            status,
            checkpoint_requests,
        });
        Ok((started, tasks))
    }
}

/// Starts an election at once if this replica is the only voter: it has nobody to wait for.
async fn elect_single_voter(group: &ReplicaGroup) {
    let status = group.status();
    let mut voters = status.members.iter().filter(|&(_, &(_, voter))| voter);
    if let (Some((&only, _)), None) = (voters.next(), voters.next())
        && only == status.replica
    {
        let _ = group.inner().raft.trigger().elect(false).await;
    }
}

/// Holds the slot of a group while it starts, and frees it if the start fails or is dropped.
struct StartGuard {
    groups: Groups,
    group: GroupId,
    committed: bool,
    _starting: StartingGuard,
}

impl StartGuard {
    fn commit(mut self, started: ReplicaGroup, tasks: Vec<JoinHandle<()>>) {
        self.committed = true;
        self.groups.0.running.lock().insert(self.group, GroupSlot::Running(started, tasks));
    }
}

impl Drop for StartGuard {
    fn drop(&mut self) {
        if !self.committed {
            self.groups.0.running.lock().remove(&self.group);
        }
    }
}

/// The open files, the replicas that have state in them, and the notification of an inline log.
type OpenedDisk = (OpenDisk, Vec<(GroupId, ReplicaId)>, Option<Arc<Notify>>);

/// Runs an inline log until it is closed.
async fn drive_inline_log(
    wal: std::sync::Weak<Wal>,
    log_notify: Arc<Notify>,
    disk_latency: DiskLatency,
) {
    loop {
        // Also without a submission, to see whether a full disk has space again.
        let _ = tokio::time::timeout(limits::WAL_FULL_RETRY, log_notify.notified()).await;
        let latency = disk_latency();
        tokio::time::sleep(latency).await;
        match wal.upgrade() {
            Some(wal) => {
                // A write takes no virtual time of its own: this is how long it took.
                wal.sync_latency().record(latency);
                wal.run_queued();
            }
            None => return,
        }
    }
}

/// Opens log, checkpoints and store. Blocks.
fn open_disk(config: &GroupsConfig) -> Result<OpenedDisk, Fatal> {
    let on_fatal = config.on_fatal.clone();
    let mut log = WalConfig::new(move |reason| on_fatal(reason));
    log.segment_bytes = config.log_segment_bytes;
    log.device = config.device.clone();
    log.fitness = config.fitness.clone();
    let log_notify = config.disk_latency.is_some().then(|| Arc::new(Notify::new()));
    if let Some(log_notify) = log_notify.clone() {
        log.inline_notify = Some(Box::new(move || log_notify.notify_one()));
    }
    let (wal, recovered) = Wal::open(&config.dir.join("log"), log).map_err(fatal)?;
    if let Some((file, offset)) = &recovered.torn_write {
        tracing::warn!(file = %file.display(), offset, "the torn last write is discarded");
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
    Ok((OpenDisk { log, checkpoints, store: Arc::new(store) }, local, log_notify))
}

/// Requests checkpoints of the replicas whose entries keep the oldest log segment alive.
async fn watch_oldest_segment(groups: std::sync::Weak<Inner>) {
    loop {
        tokio::time::sleep(limits::OLD_SEGMENT_CHECK_INTERVAL).await;
        // A weak reference, so that this task does not keep the node open.
        let Some(inner) = groups.upgrade() else { return };
        let groups = Groups(inner);
        let Ok(disk) = groups.disk() else { return };
        for (key, _) in
            disk.log.wal.oldest_segment_usage().into_iter().take(limits::CHECKPOINTS_AT_ONCE)
        {
            if let Some(group) = groups.get(GroupId(key.group)) {
                group.inner().replica.request_checkpoint();
            }
        }
    }
}

fn fatal(error: impl std::fmt::Display) -> Fatal {
    Fatal(error.to_string())
}
