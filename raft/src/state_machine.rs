//! State machine: adapts a replica to openraft's state machine interface.
//!
//! Promise: openraft's task never blocks on the machine; entries are applied on threads that may
//! block. What openraft calls a snapshot is one of our checkpoints, and it is durable before
//! openraft gets it. Refused: sending or installing the empty state before the first entry.

use std::io;
use std::sync::Arc;

use futures::{FutureExt, Stream, StreamExt};
use model::codec;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::type_config::alias::{SnapshotMetaOf, SnapshotOf};
use openraft::{EntryPayload, OptionalSend};

use crate::blocking::blocking;
use crate::consensus::{EntryData, LogId, StoredMembership, TypeConfig};
use crate::disk::PinnedCheckpoint;
use crate::error::Fatal;
use crate::limits;
use crate::replica::{ApplyItem, Replica};

/// A checkpoint on this disk that is not removed meanwhile. `None`: the state before the first
/// entry, which openraft may ask for and which is never sent or installed.
#[derive(Debug, Clone)]
pub(crate) struct CheckpointHandle(pub(crate) Option<PinnedCheckpoint>);

type Snapshot = SnapshotOf<TypeConfig, CheckpointHandle>;
type SnapshotMeta = SnapshotMetaOf<TypeConfig>;

/// The state machine that openraft drives.
pub(crate) struct Applier(pub(crate) Arc<Replica>);

impl Applier {
    /// Runs work that may block on a thread that may block.
    async fn run_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Replica>) -> Result<T, Fatal> + Send + 'static,
    ) -> io::Result<T> {
        let replica = self.0.clone();
        let done = blocking(move || work(&replica)).await;
        done.map_err(io::Error::other)?.map_err(io::Error::other)
    }
}

impl RaftStateMachine<TypeConfig> for Applier {
    type SnapshotData = CheckpointHandle;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok(self.0.state())
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        while let Some(first) = entries.next().await {
            let mut items: Vec<ApplyItem> = vec![first?];
            let mut bytes = payload_size(&items[0]);
            while items.len() < limits::APPLY_ENTRIES && bytes < limits::APPLY_BYTES {
                // Only entries that are in memory: waiting for the disk would hold up those at
                // hand.
                let Some(Some(next)) = entries.next().now_or_never() else { break };
                let next = next?;
                bytes += payload_size(&next);
                items.push(next);
            }
            self.run_blocking(move |replica| replica.apply(items)).await?;
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<SnapshotBuilder> {
        // The checkpoint task has written one before it triggers this, unless nothing was applied.
        let ready = force || self.0.checkpoints.newest(self.0.key).is_some();
        ready.then(|| SnapshotBuilder { replica: self.0.clone(), write_new: force })
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder { replica: self.0.clone(), write_new: true }
    }

    async fn install_snapshot(
        &mut self,
        _: &SnapshotMeta,
        snapshot: CheckpointHandle,
    ) -> io::Result<()> {
        self.run_blocking(move |replica| {
            let nothing = || Fatal("an empty checkpoint cannot be installed".to_owned());
            // The transfer has made it the newest one here, so this normally copies nothing.
            let own = replica
                .import(&snapshot.0.ok_or_else(nothing)?)
                .map_err(|error| Fatal(error.to_string()))?;
            replica.restore(&own)
        })
        .await?;
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        self.0.checkpoints.newest(self.0.key).map(snapshot).transpose()
    }
}

/// Gives openraft the newest checkpoint, or writes one if openraft insists on a new one.
pub(crate) struct SnapshotBuilder {
    replica: Arc<Replica>,
    write_new: bool,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = CheckpointHandle;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let replica = self.replica.clone();
        let pinned = if self.write_new {
            let written = blocking(move || replica.write_checkpoint()).await;
            written.map_err(io::Error::other)?.map_err(io::Error::other)?
        } else {
            replica.checkpoints.newest(replica.key)
        };
        match pinned {
            Some(pinned) => snapshot(pinned),
            None => {
                Ok(Snapshot { meta: SnapshotMeta::default(), snapshot: CheckpointHandle(None) })
            }
        }
    }
}

/// A checkpoint as openraft's snapshot.
pub(crate) fn snapshot(pinned: PinnedCheckpoint) -> io::Result<Snapshot> {
    let meta = pinned.meta();
    let last_log_id =
        codec::decode_as(codec::FormatKind::RaftLogId, &meta.log_id).map_err(io::Error::other)?;
    let last_membership = codec::decode_as(codec::FormatKind::RaftMembership, &meta.membership)
        .map_err(io::Error::other)?;
    let meta = SnapshotMeta { last_log_id: Some(last_log_id), last_membership };
    Ok(Snapshot { meta, snapshot: CheckpointHandle(Some(pinned)) })
}

fn payload_size((entry, _): &ApplyItem) -> usize {
    match &entry.payload {
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
        EntryPayload::Normal(EntryData(bytes)) => bytes.len(),
    }
}
