//! The store as the rooms above see it, and as other nodes' routers do.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use model::{
    Answer, BranchKey, Catalogue, CatalogueChange, Command, Events, NodeId, Outcome, PartitionId,
    Read, ReadLevel,
};
use tokio::sync::{broadcast, watch};

use super::ClusterStore;
use super::reads::{ReadFailure, read_error};
use crate::follow::follower::{LogFollower, cursor_of};
use crate::limits::{ATTEMPT_TIMEOUT, CATCH_UP_BYTES, REQUEST_DEADLINE};
use crate::message::{PeerCast, PeerReply, PeerRequest, Refusal, decode, encode};
use crate::offload::{event_bytes, offload, reply_bytes};
use crate::peers::Inbox;
use crate::status::{ClusterStatus, LocalReplicas};
use crate::store::{
    ChangeError, Cursor, Follow, NotReady, Post, RouteError, SharedDelta, Store, TopicSubscription,
};

impl Store for ClusterStore {
    fn submit(&self, command: Command) -> BoxFuture<'static, Result<Outcome, RouteError>> {
        let store = self.clone();
        Box::pin(async move { store.submit_with_retries(command).await })
    }

    fn read(
        &self,
        key: BranchKey,
        read: Read,
        level: ReadLevel,
    ) -> BoxFuture<'static, Result<Answer, RouteError>> {
        let store = self.clone();
        Box::pin(async move { store.look_up(key, read, level).await })
    }

    fn follow(
        &self,
        key: BranchKey,
        after: Option<Cursor>,
    ) -> BoxFuture<'static, Result<Follow, RouteError>> {
        let store = self.clone();
        Box::pin(async move { store.follow_branch(key, after).await })
    }

    fn catalogue(&self) -> Arc<Catalogue> {
        Arc::clone(&self.0.catalogue.borrow())
    }

    fn catalogues(&self) -> watch::Receiver<Arc<Catalogue>> {
        self.0.catalogue.clone()
    }

    fn is_initialized(&self) -> bool {
        self.0.catalogue_client.is_initialized()
    }

    fn catch_up(&self) -> BoxFuture<'static, Result<(), RouteError>> {
        let store = self.clone();
        Box::pin(async move { store.0.catalogue_client.catch_up().await.map_err(read_error) })
    }

    fn change(
        &self,
        id: String,
        change: CatalogueChange,
    ) -> BoxFuture<'static, Result<(), ChangeError>> {
        let store = self.clone();
        Box::pin(async move {
            store.0.catalogue_client.make(id.clone(), change).await?;
            let known = |catalogue: &Arc<Catalogue>| catalogue.has_applied(&id);
            let mut catalogue = store.0.catalogue.clone();
            let seen = tokio::time::timeout(REQUEST_DEADLINE, catalogue.wait_for(known)).await;
            match seen {
                Ok(Ok(_)) => Ok(()),
                // Agreed, but not here yet: the same id tells once it is.
                Ok(Err(_)) | Err(_) => {
                    Err(ChangeError::Undecided("this node lags behind group 0".to_owned()))
                }
            }
        })
    }

    fn publish(&self, post: Post) -> BoxFuture<'static, Result<(), RouteError>> {
        let store = self.clone();
        Box::pin(async move { store.post(post).await })
    }

    fn subscribe(
        &self,
        topic: String,
    ) -> BoxFuture<'static, Result<TopicSubscription, RouteError>> {
        let store = self.clone();
        Box::pin(async move { store.listen_to(topic).await })
    }

    fn status(&self) -> BoxFuture<'static, ClusterStatus> {
        let store = self.clone();
        Box::pin(async move { store.report().await })
    }

    fn replicas(&self, verify: bool) -> BoxFuture<'static, LocalReplicas> {
        let store = self.clone();
        Box::pin(async move { store.own_replicas(verify).await })
    }

    fn ready(&self) -> Result<(), NotReady> {
        self.readiness()
    }
}

impl ClusterStore {
    /// Every later delta of a branch, from the replica here or from afar.
    pub(crate) async fn tap(
        &self,
        key: &BranchKey,
    ) -> Result<broadcast::Receiver<Arc<SharedDelta>>, RouteError> {
        let partition = self.find(key).await?;
        if let Some(local) = self.0.partitions.get(partition) {
            return Ok(local.applied.subscribe(key).1);
        }
        self.0.feeds.tap(self, key).await.map_err(|error| RouteError::Unavailable {
            reason: format!("the feed did not start: {error}"),
            retry_after: std::time::Duration::from_secs(1),
        })
    }

    /// Live first, then the state: what happens in between is in both and given once.
    async fn follow_branch(
        &self,
        key: BranchKey,
        after: Option<Cursor>,
    ) -> Result<Follow, RouteError> {
        let live = self.tap(&key).await?;
        if let Some(cursor) = after {
            let stream = LogFollower::new(self.clone(), key, cursor, live, true);
            return Ok(Follow { snapshot: None, stream: Box::new(stream) });
        }
        let answer = self.look_up(key.clone(), Read::Snapshot, ReadLevel::Linearizable).await?;
        let Answer::Snapshot(snapshot) = answer else {
            return Err(read_error(Refusal::Indeterminate));
        };
        let stream = LogFollower::new(self.clone(), key, cursor_of(&snapshot), live, false);
        Ok(Follow { snapshot: Some(snapshot), stream: Box::new(stream) })
    }

    async fn answer(&self, from: NodeId, message: Bytes) -> PeerReply {
        let ask = match offload(message.len(), || decode::<PeerRequest>(&message)) {
            Ok(ask) => ask,
            Err(error) => {
                return PeerReply::Refused(Refusal::Unavailable {
                    reason: format!("this node does not understand: {error}"),
                    retry_after: std::time::Duration::from_secs(5),
                });
            }
        };
        match ask {
            PeerRequest::Submit(command) => self.answer_submit(command).await,
            PeerRequest::Read { key, read, level } => self.answer_read(key, read, level).await,
            PeerRequest::ReadIndex(partition) => self.answer_read_index(partition).await,
            PeerRequest::Change(entry) => match self.0.catalogue_client.decide(&entry).await {
                Ok(result) => PeerReply::Changed(result),
                Err(refusal) => PeerReply::Refused(refusal),
            },
            PeerRequest::CatalogueIndex => match self.0.catalogue_client.index().await {
                Ok(index) => PeerReply::Index(index),
                Err(refusal) => PeerReply::Refused(refusal),
            },
            PeerRequest::Status => PeerReply::Status(self.leads()),
            PeerRequest::Follow { key, feed } => self.answer_follow(from, &key, feed),
            PeerRequest::Post(post) => self.post_here(post),
            PeerRequest::LastPost(topic) => self.last_post(&topic),
        }
    }

    async fn answer_submit(&self, command: Command) -> PeerReply {
        let Ok(partition) = self.locate(&command.key) else {
            return PeerReply::Refused(Refusal::NotLeader { hint: None });
        };
        match self.decide_here(partition, command, ATTEMPT_TIMEOUT).await {
            Ok(outcome) => PeerReply::Outcome(outcome),
            Err(refusal) => PeerReply::Refused(refusal),
        }
    }

    async fn answer_read(&self, key: BranchKey, read: Read, level: ReadLevel) -> PeerReply {
        let local = self.locate(&key).ok().and_then(|id| Some((id, self.0.partitions.get(id)?)));
        let Some((partition, local)) = local else {
            return PeerReply::Refused(Refusal::NotLeader { hint: None });
        };
        match self.read_here(partition, &local, &key, &read, level).await {
            Ok(answer) => PeerReply::Answer(bounded(answer)),
            Err(ReadFailure::Rejected(reject)) => PeerReply::Rejected(reject),
            Err(ReadFailure::Refused(refusal)) => PeerReply::Refused(refusal),
            Err(ReadFailure::Lags { leader }) => {
                PeerReply::Refused(Refusal::NotLeader { hint: Some(leader) })
            }
        }
    }

    async fn answer_read_index(&self, partition: PartitionId) -> PeerReply {
        let Some(local) = self.0.partitions.get(partition) else {
            return PeerReply::Refused(Refusal::NotLeader { hint: None });
        };
        match local.group.read_index().await {
            Ok(index) => PeerReply::Index(index),
            Err(error) => PeerReply::Refused(error.into()),
        }
    }

    fn answer_follow(&self, from: NodeId, key: &BranchKey, feed: u64) -> PeerReply {
        let local = self.locate(key).ok().and_then(|id| self.0.partitions.get(id));
        let begun =
            local.and_then(|local| self.0.feeds.serve(self, from, feed, key, &local.applied));
        match begun {
            Some(offset) => PeerReply::Following(offset),
            None => PeerReply::Refused(Refusal::NotLeader { hint: None }),
        }
    }
}

/// An answer that fits on the link: of many large events the first ones. Who asked sees that the
/// log goes on, and asks again.
fn bounded(mut answer: Answer) -> Answer {
    if let Answer::Events(Events { events: Some(events), .. }) = &mut answer {
        let all = events.iter().map(|event| event_bytes(&event.change)).sum();
        let fit = offload(all, || {
            let mut bytes = 0;
            let fit = events.iter().take_while(|event| {
                let before = bytes;
                bytes += encode(&***event).len();
                before == 0 || bytes <= CATCH_UP_BYTES
            });
            fit.count()
        });
        events.truncate(fit);
    }
    answer
}

impl Inbox for ClusterStore {
    fn call(&self, from: NodeId, message: Bytes) -> BoxFuture<'static, Bytes> {
        let store = self.clone();
        Box::pin(async move {
            let reply = store.answer(from, message).await;
            offload(reply_bytes(&reply), || encode(&reply))
        })
    }

    fn cast(&self, from: NodeId, message: Bytes) {
        match decode::<PeerCast>(&message) {
            Ok(PeerCast::Posted { version, post }) => {
                self.0.topics.receive(version, post, message.len())
            }
            Ok(PeerCast::Draining) => self.0.liveness.leaves(from),
            Ok(cast) => self.0.feeds.receive(from, cast),
            Err(error) => {
                tracing::warn!(from = from.0, %error, "a message this node does not understand")
            }
        }
    }

    fn link_changed(&self, peer: NodeId, up: bool) {
        self.0.liveness.changed(peer, up);
        self.0.feeds.link_changed(peer);
        if up {
            self.catch_up_topics();
        }
    }
}
