//! Feed: this node's follower of a branch:module that has no replica here. It mends what the link
//! loses once, for all sessions of the node, and stops some time after the last of them.

use std::sync::Arc;
use std::time::Duration;

use model::{Answer, BranchKey, Read, ReadLevel};
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::broadcast;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::feeds::{self, FeedStart, Registration};
use super::follower::LogFollower;
use super::live::{LiveSource as _, LiveUpdate};
use super::upstream::Upstream;
use super::{Follows, POSITION_INTERVAL};
use crate::client::Reads;
use crate::limits::RETRY_PAUSE;
use crate::shares::Requester;
use crate::store::{Cursor, FollowItem};

/// A feed without followers is kept this long: a till that reloads finds it running.
const LINGER: Duration = Duration::from_secs(30);

/// The feeds' supervisor: feeds are started and end beneath it, so that one that fails is reported
/// and takes nobody along. A supervisor that fails ends its feeds; RootActor starts the next one.
pub(crate) struct FeedSupervisor;

impl Actor for FeedSupervisor {
    type Msg = feeds::Message;
    type State = Follows;
    type Arguments = Follows;

    async fn pre_start(
        &self,
        myself: ActorRef<feeds::Message>,
        follows: Follows,
    ) -> Result<Follows, ActorProcessingErr> {
        follows.feeds.set_supervisor(myself);
        Ok(follows)
    }

    async fn handle(
        &self,
        myself: ActorRef<feeds::Message>,
        message: feeds::Message,
        follows: &mut Follows,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            feeds::Message::Start(start) => start_feed(&myself, follows, start).await,
            #[cfg(test)]
            feeds::Message::Panic => panic!("a test asked for it"),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<feeds::Message>,
        event: SupervisionEvent,
        _: &mut Follows,
    ) -> Result<(), ActorProcessingErr> {
        // Its state is gone by now, and with it its registration: each of its followers taps again,
        // the first of them starts the next feed, and all read what they missed from the log.
        if let SupervisionEvent::ActorFailed(_, error) = event {
            tracing::error!(%error, "a feed failed; its followers follow again");
        }
        Ok(())
    }
}

async fn start_feed(supervisor: &ActorRef<feeds::Message>, follows: &Follows, start: FeedStart) {
    let FeedStart { updates, incoming, registration } = start;
    let (key, attachment) = (registration.key.clone(), Arc::clone(&registration.attachment));
    let context = follows.upstream.clone();
    let upstream = Upstream::new(context, key.clone(), registration.feed, incoming, attachment);
    let feed = Feed { reads: follows.reads.clone(), key, updates, upstream };
    let arguments = (feed, registration);
    let spawned = Actor::spawn_linked(None, FeedActor, arguments, supervisor.get_cell());
    // The registration went with it: followers find the feed gone and tap again.
    if let Err(error) = spawned.await {
        tracing::error!(%error, "a feed did not start");
    }
}

/// The actor of one feed: holds the task that runs it, and ends with it.
struct FeedActor;

enum Message {
    /// The task panicked.
    Failed(String),
}

struct State {
    _task: AbortOnDropHandle<()>,
    /// Dropped with the actor, however it ends: whoever follows learns of it.
    _registration: Registration,
}

impl Actor for FeedActor {
    type Msg = Message;
    type State = State;
    type Arguments = (Feed, Registration);

    async fn pre_start(
        &self,
        myself: ActorRef<Message>,
        (feed, registration): (Feed, Registration),
    ) -> Result<State, ActorProcessingErr> {
        let task = tokio::spawn(async move {
            // A task of its own, so that a panic ends here and is handed to the supervisor.
            match AbortOnDropHandle::new(tokio::spawn(feed.run())).await {
                Ok(()) => myself.stop(None),
                Err(error) => {
                    // An actor that is stopping anyway needs no reason.
                    let _ = myself.cast(Message::Failed(error.to_string()));
                }
            }
        });
        Ok(State { _task: AbortOnDropHandle::new(task), _registration: registration })
    }

    async fn handle(
        &self,
        _: ActorRef<Message>,
        Message::Failed(reason): Message,
        _: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        Err(reason.into())
    }
}

struct Feed {
    reads: Reads,
    key: BranchKey,
    updates: broadcast::Sender<LiveUpdate>,
    upstream: Upstream,
}

impl Feed {
    /// Runs until nobody has followed for a while, or the followers must begin again.
    async fn run(self) {
        let updates = self.updates.clone();
        tokio::select! {
            () = self.forward() => {}
            () = unfollowed(&updates) => {}
        }
    }

    /// Sends followers what comes, each delta once and in order.
    async fn forward(mut self) {
        // Attached before the head is read: what happens in between comes live.
        if matches!(self.upstream.next().await, LiveUpdate::Ended) {
            return;
        }
        let Some(cursor) = self.head().await else { return };
        // Followers that tapped before this feed was attached may have a state older than it: for
        // them the feed begins after a gap, which they read from the log.
        send(&self.updates, LiveUpdate::Position(cursor.offset));
        let mut follower = LogFollower::new(self.reads, self.key, cursor, self.upstream);
        loop {
            match tokio::time::timeout(POSITION_INTERVAL, follower.next_item()).await {
                Ok(Some(FollowItem::Delta(shared))) => {
                    send(&self.updates, LiveUpdate::Delta(shared));
                }
                // After a resync there is no log between the followers and the new state, so the
                // feed ends: they tap again and begin again, each from its own cursor.
                Ok(Some(FollowItem::Resync(_)) | None) => return,
                // A follower that came to a quiet branch may have read from a replica that lagged:
                // without this it would learn what it lacks only with the next change.
                Err(_) => send(&self.updates, LiveUpdate::Position(follower.cursor().offset)),
            }
        }
    }

    /// The end of the log now.
    async fn head(&self) -> Option<Cursor> {
        loop {
            match self
                .reads
                .read(Requester::default(), self.key.clone(), Read::Head, ReadLevel::Stale)
                .await
            {
                Ok(Answer::Head(head)) => {
                    return Some(Cursor { incarnation: head.incarnation, offset: head.offset });
                }
                Ok(_) => return None,
                Err(_) => tokio::time::sleep(RETRY_PAUSE).await,
            }
        }
    }
}

/// Waits until nobody has followed for `LINGER`.
async fn unfollowed(updates: &broadcast::Sender<LiveUpdate>) {
    let mut followed_at = Instant::now();
    while followed_at.elapsed() <= LINGER {
        tokio::time::sleep(POSITION_INTERVAL).await;
        if updates.receiver_count() > 0 {
            followed_at = Instant::now();
        }
    }
}

fn send(updates: &broadcast::Sender<LiveUpdate>, update: LiveUpdate) {
    // Without a follower just now there is nobody to send it to.
    let _ = updates.send(update);
}
