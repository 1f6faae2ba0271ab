//! LogFollower: one follower's way along a branch's log: live where it keeps up, from the log where it
//! does not. What it misses in the live channel it reads back by cursor, so a slow follower costs
//! nobody but itself, and nothing is skipped or given twice.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::future::BoxFuture;
use model::{Answer, BranchKey, Delta, Event, ModuleSnapshot, Read, ReadLevel};
use tokio::sync::broadcast::{Receiver, error::RecvError};

use crate::client::ClusterStore;
use crate::limits::CATCH_UP_EVENTS;
use crate::store::{Cursor, DeltaStream, FollowItem, RouteError, SharedDelta};

/// One follower's way along a branch's log.
pub(crate) struct LogFollower {
    store: ClusterStore,
    key: BranchKey,
    cursor: Cursor,
    live: Receiver<Arc<SharedDelta>>,
    backlog: VecDeque<FollowItem>,
    /// Whether the log may hold events after the cursor that the live channel will not bring.
    behind: bool,
}

impl LogFollower {
    /// Continues after `cursor`; `live` was tapped before the state at `cursor` was read, or
    /// `behind` is set.
    pub(crate) fn new(
        store: ClusterStore,
        key: BranchKey,
        cursor: Cursor,
        live: Receiver<Arc<SharedDelta>>,
        behind: bool,
    ) -> Self {
        Self { store, key, cursor, live, backlog: VecDeque::new(), behind }
    }

    async fn next_item(&mut self) -> Option<FollowItem> {
        loop {
            if let Some(item) = self.backlog.pop_front() {
                self.pass(&item);
                return Some(item);
            }
            if self.behind {
                self.mend().await?;
                continue;
            }
            match self.live.recv().await {
                Ok(shared) => {
                    if let Some(item) = self.place(shared) {
                        self.pass(&item);
                        return Some(item);
                    }
                }
                Err(RecvError::Lagged(_)) => self.behind = true,
                Err(RecvError::Closed) => self.reattach().await?,
            }
        }
    }

    /// A live delta: the next one, one already seen, or one after a gap.
    fn place(&mut self, shared: Arc<SharedDelta>) -> Option<FollowItem> {
        let (first, last) = (shared.delta.events.first()?.offset, shared.delta.last()?);
        let next = self.cursor.offset.next();
        let same_life = shared.delta.incarnation == self.cursor.incarnation;
        if same_life && first == next {
            return Some(FollowItem::Delta(shared));
        }
        // One that begins in the middle of what was seen holds something new as well.
        self.behind = !same_life || last >= next;
        None
    }

    fn pass(&mut self, item: &FollowItem) {
        match item {
            FollowItem::Delta(shared) => {
                self.cursor.offset = shared.delta.last().unwrap_or(self.cursor.offset);
            }
            FollowItem::Resync(snapshot) => {
                self.cursor.incarnation = snapshot.head.incarnation;
                self.cursor.offset = snapshot.head.offset;
            }
        }
    }

    /// Reads what comes after the cursor from the log. `None`: this node is going away.
    async fn mend(&mut self) -> Option<()> {
        let read = Read::Events { after: self.cursor.offset, limit: CATCH_UP_EVENTS };
        let answer = self.store.look_up(self.key.clone(), read, ReadLevel::Stale).await;
        match answer {
            Ok(Answer::Events(found)) if found.incarnation == self.cursor.incarnation => {
                match found.events {
                    Some(events) => {
                        let read_to = events.last().map_or(self.cursor.offset, |e| e.offset);
                        self.behind = read_to < found.last;
                        self.backlog.extend(self.deltas(events));
                    }
                    None => self.resync().await,
                }
            }
            Ok(_) => self.resync().await,
            Err(
                RouteError::UnknownBranch(_)
                | RouteError::UnknownModule(_)
                | RouteError::Rejected(_),
            ) => return None,
            Err(
                RouteError::Busy { .. }
                | RouteError::Unavailable { .. }
                | RouteError::Indeterminate,
            ) => tokio::time::sleep(crate::limits::RETRY_PAUSE).await,
        }
        Some(())
    }

    /// The log no longer holds what was missed: begin again from the state of now.
    async fn resync(&mut self) {
        let answer = self.store.look_up(self.key.clone(), Read::Snapshot, ReadLevel::Stale).await;
        if let Ok(Answer::Snapshot(snapshot)) = answer {
            self.behind = false;
            self.backlog.push_back(FollowItem::Resync(snapshot));
        }
    }

    /// The live channel ended: the replica was replaced or the feed moved. Tap again, then mend.
    async fn reattach(&mut self) -> Option<()> {
        tokio::time::sleep(crate::limits::RETRY_PAUSE).await;
        self.live = self.store.tap(&self.key).await.ok()?;
        self.behind = true;
        Some(())
    }

    /// Events read from the log, one delta for each command.
    fn deltas(&self, events: Vec<Arc<Event>>) -> Vec<FollowItem> {
        let same_command = |a: &Arc<Event>, b: &Arc<Event>| a.command == b.command;
        events
            .chunk_by(same_command)
            .map(|events| {
                let delta = Delta {
                    key: self.key.clone(),
                    incarnation: self.cursor.incarnation,
                    events: events.to_vec(),
                };
                FollowItem::Delta(Arc::new(SharedDelta::new(Arc::new(delta))))
            })
            .collect()
    }
}

impl DeltaStream for LogFollower {
    fn next(&mut self) -> BoxFuture<'_, Option<FollowItem>> {
        Box::pin(self.next_item())
    }
}

/// The cursor of a snapshot.
pub(crate) fn cursor_of(snapshot: &ModuleSnapshot) -> Cursor {
    Cursor { incarnation: snapshot.head.incarnation, offset: snapshot.head.offset }
}
