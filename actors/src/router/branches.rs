//! The router as the rooms above see it, and as other nodes' routers do.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use model::{
    Answer, BranchKey, Catalogue, CatalogueChange, Command, Events, NodeId, Outcome, PartitionId,
    Read, ReadLevel,
};
use tokio::sync::{broadcast, watch};

use super::Router;
use super::reads::{Unread, unread};
use crate::door::{
    Branches, ChangeError, Cursor, Follow, Listening, NotReady, Post, RouteError, SharedDelta,
};
use crate::feed::stream::{Stream, cursor_of};
use crate::heavy::{event_bytes, heavy, reply_bytes};
use crate::limits::{ATTEMPT_TIMEOUT, CATCH_UP_BYTES, REQUEST_DEADLINE};
use crate::message::{Ask, Cast, Refusal, Reply, decode, encode};
use crate::peers::Inbox;
use crate::status::{ClusterStatus, LocalReplicas};

impl Branches for Router {
    fn submit(&self, command: Command) -> BoxFuture<'static, Result<Outcome, RouteError>> {
        let router = self.clone();
        Box::pin(async move { router.decide(command).await })
    }

    fn read(
        &self,
        key: BranchKey,
        read: Read,
        level: ReadLevel,
    ) -> BoxFuture<'static, Result<Answer, RouteError>> {
        let router = self.clone();
        Box::pin(async move { router.look_up(key, read, level).await })
    }

    fn follow(
        &self,
        key: BranchKey,
        after: Option<Cursor>,
    ) -> BoxFuture<'static, Result<Follow, RouteError>> {
        let router = self.clone();
        Box::pin(async move { router.follow_branch(key, after).await })
    }

    fn catalogue(&self) -> Arc<Catalogue> {
        Arc::clone(&self.0.catalogue.borrow())
    }

    fn catalogues(&self) -> watch::Receiver<Arc<Catalogue>> {
        self.0.catalogue.clone()
    }

    fn knows(&self) -> bool {
        self.0.changes.knows()
    }

    fn catch_up(&self) -> BoxFuture<'static, Result<(), RouteError>> {
        let router = self.clone();
        Box::pin(async move { router.0.changes.catch_up().await.map_err(unread) })
    }

    fn change(
        &self,
        id: String,
        change: CatalogueChange,
    ) -> BoxFuture<'static, Result<(), ChangeError>> {
        let router = self.clone();
        Box::pin(async move {
            router.0.changes.make(id.clone(), change).await?;
            let known = |catalogue: &Arc<Catalogue>| catalogue.has_applied(&id);
            let mut catalogue = router.0.catalogue.clone();
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
        let router = self.clone();
        Box::pin(async move { router.post(post).await })
    }

    fn listen(&self, topic: String) -> BoxFuture<'static, Result<Listening, RouteError>> {
        let router = self.clone();
        Box::pin(async move { router.listen_to(topic).await })
    }

    fn status(&self) -> BoxFuture<'static, ClusterStatus> {
        let router = self.clone();
        Box::pin(async move { router.report().await })
    }

    fn replicas(&self, verify: bool) -> BoxFuture<'static, LocalReplicas> {
        let router = self.clone();
        Box::pin(async move { router.own_replicas(verify).await })
    }

    fn ready(&self) -> Result<(), NotReady> {
        self.readiness()
    }
}

impl Router {
    /// Every later delta of a branch, from the replica here or from afar.
    pub(crate) async fn tap(
        &self,
        key: &BranchKey,
    ) -> Result<broadcast::Receiver<Arc<SharedDelta>>, RouteError> {
        let partition = self.find(key).await?;
        if let Some(local) = self.0.partitions.get(partition) {
            return Ok(local.published.tap(key).1);
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
            let stream = Stream::new(self.clone(), key, cursor, live, true);
            return Ok(Follow { snapshot: None, stream: Box::new(stream) });
        }
        let answer = self.look_up(key.clone(), Read::Snapshot, ReadLevel::Linearizable).await?;
        let Answer::Snapshot(snapshot) = answer else {
            return Err(unread(Refusal::Indeterminate));
        };
        let stream = Stream::new(self.clone(), key, cursor_of(&snapshot), live, false);
        Ok(Follow { snapshot: Some(snapshot), stream: Box::new(stream) })
    }

    async fn answer(&self, from: NodeId, message: Bytes) -> Reply {
        let ask = match heavy(message.len(), || decode::<Ask>(&message)) {
            Ok(ask) => ask,
            Err(error) => {
                return Reply::Refused(Refusal::Unavailable {
                    reason: format!("this node does not understand: {error}"),
                    retry_after: std::time::Duration::from_secs(5),
                });
            }
        };
        match ask {
            Ask::Submit(command) => self.answer_submit(command).await,
            Ask::Read { key, read, level } => self.answer_read(key, read, level).await,
            Ask::ReadIndex(partition) => self.answer_read_index(partition).await,
            Ask::Change(entry) => match self.0.changes.decide(&entry).await {
                Ok(result) => Reply::Changed(result),
                Err(refusal) => Reply::Refused(refusal),
            },
            Ask::CatalogueIndex => match self.0.changes.index().await {
                Ok(index) => Reply::Index(index),
                Err(refusal) => Reply::Refused(refusal),
            },
            Ask::Status => Reply::Status(self.leads()),
            Ask::Follow { key, feed } => self.answer_follow(from, &key, feed),
            Ask::Post(post) => self.post_here(post),
            Ask::LastPost(topic) => self.last_post(&topic),
        }
    }

    async fn answer_submit(&self, command: Command) -> Reply {
        let Ok(partition) = self.locate(&command.key) else {
            return Reply::Refused(Refusal::NotLeader { hint: None });
        };
        match self.decide_here(partition, command, ATTEMPT_TIMEOUT).await {
            Ok(outcome) => Reply::Outcome(outcome),
            Err(refusal) => Reply::Refused(refusal),
        }
    }

    async fn answer_read(&self, key: BranchKey, read: Read, level: ReadLevel) -> Reply {
        let local = self.locate(&key).ok().and_then(|id| Some((id, self.0.partitions.get(id)?)));
        let Some((partition, local)) = local else {
            return Reply::Refused(Refusal::NotLeader { hint: None });
        };
        match self.read_here(partition, &local, &key, &read, level).await {
            Ok(answer) => Reply::Answer(bounded(answer)),
            Err(Unread::Rejected(reject)) => Reply::Rejected(reject),
            Err(Unread::Refused(refusal)) => Reply::Refused(refusal),
            Err(Unread::Lags { leader }) => {
                Reply::Refused(Refusal::NotLeader { hint: Some(leader) })
            }
        }
    }

    async fn answer_read_index(&self, partition: PartitionId) -> Reply {
        let Some(local) = self.0.partitions.get(partition) else {
            return Reply::Refused(Refusal::NotLeader { hint: None });
        };
        match local.group.read_index().await {
            Ok(index) => Reply::Index(index),
            Err(error) => Reply::Refused(error.into()),
        }
    }

    fn answer_follow(&self, from: NodeId, key: &BranchKey, feed: u64) -> Reply {
        let local = self.locate(key).ok().and_then(|id| self.0.partitions.get(id));
        let begun =
            local.and_then(|local| self.0.feeds.serve(self, from, feed, key, &local.published));
        match begun {
            Some(offset) => Reply::Following(offset),
            None => Reply::Refused(Refusal::NotLeader { hint: None }),
        }
    }
}

/// An answer that fits on the link: of many large events the first ones. Who asked sees that the
/// log goes on, and asks again.
fn bounded(mut answer: Answer) -> Answer {
    if let Answer::Events(Events { events: Some(events), .. }) = &mut answer {
        let all = events.iter().map(|event| event_bytes(&event.change)).sum();
        let fit = heavy(all, || {
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

impl Inbox for Router {
    fn call(&self, from: NodeId, message: Bytes) -> BoxFuture<'static, Bytes> {
        let router = self.clone();
        Box::pin(async move {
            let reply = router.answer(from, message).await;
            heavy(reply_bytes(&reply), || encode(&reply))
        })
    }

    fn cast(&self, from: NodeId, message: Bytes) {
        match decode::<Cast>(&message) {
            Ok(Cast::Posted { stamp, post }) => self.0.topics.told(stamp, post, message.len()),
            Ok(Cast::Leaving) => self.0.reach.leaves(from),
            Ok(cast) => self.0.feeds.told(from, cast),
            Err(error) => {
                tracing::warn!(from = from.0, %error, "a message this node does not understand")
            }
        }
    }

    fn link_changed(&self, peer: NodeId, up: bool) {
        self.0.reach.changed(peer, up);
        self.0.feeds.link_changed(peer);
        if up {
            self.catch_up_topics();
        }
    }
}
