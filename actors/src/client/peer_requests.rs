//! Peer requests: what other nodes ask of this one, answered by the parts that own it. Nothing is
//! forwarded from here: a node that does not lead redirects, and the asker asks there.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use model::{Answer, BranchKey, Command, Events, NodeId, Read, ReadLevel};
use raft::Priority;

use super::ClusterStore;
use super::reads::{Lookup, ReadFailure};
use super::writes::attempt_timeout;
use crate::limits::CATCH_UP_BYTES;
use crate::message::{PeerCast, PeerReply, PeerRequest, Refusal, decode, encode};
use crate::offload::{event_bytes, offload, reply_bytes};
use crate::partition::weight::CommandCost;
use crate::peers::Inbox;
use crate::shares::Requester;

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
                self.0.topics.receive(version, post, message.len());
            }
            Ok(PeerCast::Condition(condition)) => {
                self.0.liveness.set_condition(from, &condition);
            }
            Ok(PeerCast::Draining) => self.0.liveness.set_draining(from),
            Ok(PeerCast::Delta { feed, delta }) => {
                let is_known = self.0.follows.feeds.deliver(feed, delta);
                self.unfollow_unknown(from, feed, is_known);
            }
            Ok(PeerCast::Position { feed, offset }) => {
                let is_known = self.0.follows.feeds.note_position(feed, offset);
                self.unfollow_unknown(from, feed, is_known);
            }
            Ok(PeerCast::FeedEnded { feed }) => self.0.follows.feeds.note_ended(feed),
            Ok(PeerCast::Unfollow { feed }) => self.0.follows.server.stop(from, feed),
            Err(error) => {
                tracing::warn!(from = from.0, %error, "a message this node does not understand");
            }
        }
    }

    fn link_changed(&self, peer: NodeId, up: bool) {
        self.0.liveness.link_changed(peer, up);
        // What was cast on the old link may be lost, in both directions: the feeds that are served
        // over it from here are dropped, for the other node asks again when it learns of the same
        // change, and this node's feeds from there ask again now.
        self.0.follows.server.link_changed(peer);
        self.0.follows.feeds.link_changed(peer);
        if up {
            self.0.topics.catch_up();
        }
    }
}

impl ClusterStore {
    async fn answer(&self, from: NodeId, message: Bytes) -> PeerReply {
        let request = match offload(message.len(), || decode::<PeerRequest>(&message)) {
            Ok(request) => request,
            Err(error) => {
                return PeerReply::Refused(Refusal::Unavailable {
                    reason: format!("this node does not understand: {error}"),
                    retry_after: Duration::from_secs(5),
                });
            }
        };
        let catalogue_client = &self.0.catalogue_client;
        match request {
            PeerRequest::Submit(command) => self.answer_submit(Requester::default(), command).await,
            PeerRequest::SubmitFor(requester, command) => {
                self.answer_submit(requester, command).await
            }
            PeerRequest::Read { key, read, level } => {
                self.answer_read(Requester::default(), key, read, level).await
            }
            PeerRequest::ReadFor { requester, key, read, level } => {
                self.answer_read(requester, key, read, level).await
            }
            PeerRequest::ReadIndex(partition) => {
                reply(self.0.reads.index(partition).await, PeerReply::Index)
            }
            PeerRequest::Change(entry) => {
                reply(catalogue_client.propose(&entry).await, PeerReply::Changed)
            }
            PeerRequest::CatalogueIndex => reply(catalogue_client.index().await, PeerReply::Index),
            PeerRequest::Status => PeerReply::Status(self.0.reporter.node_report()),
            PeerRequest::Follow { key, feed } => self.answer_follow(from, &key, feed),
            PeerRequest::Post(post) => {
                reply(self.0.topics.publish_as_owner(post), |()| PeerReply::Posted)
            }
            PeerRequest::Condition => {
                PeerReply::Condition(self.0.reporter.handover.condition_now().await)
            }
            PeerRequest::LastPost(topic) => PeerReply::LastPost(self.0.topics.last_post(&topic)),
        }
    }

    /// Ends a feed at its server that this node knows nothing of: it ended while it attached, or
    /// its `Unfollow` found a full queue.
    fn unfollow_unknown(&self, from: NodeId, feed: u64, is_known: bool) {
        if !is_known {
            // One that is lost is followed by the next: the server goes on sending positions.
            let _ = self.0.peers.cast(from, Priority::Feed, encode(&PeerCast::Unfollow { feed }));
        }
    }

    async fn answer_submit(&self, requester: Requester, command: Command) -> PeerReply {
        // A branch that is not known here is not denied: the asker has a newer catalogue.
        let Ok(partition) = self.0.catalogue_client.locate(&command.key) else {
            return PeerReply::Refused(Refusal::NotLeader { hint: None });
        };
        let cost = CommandCost::of(&command);
        let timeout = attempt_timeout(&command, cost);
        let outcome = self.0.writes.submit_here(partition, requester, command, cost, timeout).await;
        reply(outcome, PeerReply::Outcome)
    }

    async fn answer_read(
        &self,
        requester: Requester,
        key: BranchKey,
        read: Read,
        level: ReadLevel,
    ) -> PeerReply {
        let located = self.0.catalogue_client.locate(&key).ok();
        let local = located.and_then(|id| Some((id, self.0.partitions.get(id)?)));
        let Some((partition, local)) = local else {
            return PeerReply::Refused(Refusal::NotLeader { hint: None });
        };
        let lookup = Lookup { requester, key, read, level };
        match self.0.reads.read_here(partition, &local, &lookup).await {
            Ok(answer) => PeerReply::Answer(bounded(answer)),
            Err(ReadFailure::Rejected(reject)) => PeerReply::Rejected(reject),
            Err(ReadFailure::Refused(refusal)) => PeerReply::Refused(refusal),
            // Asking the leader from here would be a second hop: the asker does that itself.
            Err(ReadFailure::Lags { leader }) => {
                PeerReply::Refused(Refusal::NotLeader { hint: Some(leader) })
            }
        }
    }

    fn answer_follow(&self, from: NodeId, key: &BranchKey, feed: u64) -> PeerReply {
        let located = self.0.catalogue_client.locate(key).ok();
        let local = located.and_then(|id| self.0.partitions.get(id));
        let offset = local.and_then(|local| self.0.follows.server.start(from, feed, key, &local));
        match offset {
            Some(offset) => PeerReply::Following(offset),
            None => PeerReply::Refused(Refusal::NotLeader { hint: None }),
        }
    }
}

fn reply<T>(result: Result<T, Refusal>, answer: impl FnOnce(T) -> PeerReply) -> PeerReply {
    match result {
        Ok(value) => answer(value),
        Err(refusal) => PeerReply::Refused(refusal),
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
                // One event at least, however large: an answer without any would never end.
                before == 0 || bytes <= CATCH_UP_BYTES
            });
            fit.count()
        });
        events.truncate(fit);
    }
    answer
}
