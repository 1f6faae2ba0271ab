//! Source: where a socket's streams come from: follows, and posts under topics. Each session
//! pulls its own; what is rendered once is shared by all of the node.

use std::sync::Arc;

use actors::{Cursor, DeltaStream, Follow, FollowItem, Post, RouteError, SharedDelta, TopicPosts};
use bytes::Bytes;
use futures::stream::{self, Stream};
use model::{
    Answer, BranchKey, BulkOperation, Delta, Event, EventChange, ModuleSnapshot, Read, ReadLevel,
};
use tokio::sync::broadcast::error::RecvError;

use crate::app::{App, SnapshotFrames};
use crate::limits::EVENT_FRAME_BYTES_MAX;
use crate::scoped_store::{ScopedStore, unexpected_answer};
use crate::ws::dialect::{Dialect, event_frames, frame_key};
use crate::ws::subscription::{CallId, FollowFrom, LogEnd};

/// What a stream gives.
pub(crate) enum StreamItem {
    /// The next change.
    Delta(Arc<SharedDelta>),
    /// The follow goes on from this state.
    Resync(Arc<model::ModuleSnapshot>),
    /// The stream is over.
    Ended,
    /// A post under a topic.
    Post(Arc<Post>),
}

/// The items of a follow, their frames written.
pub(crate) fn deltas(
    app: App,
    store: ScopedStore,
    dialect: &'static dyn Dialect,
    call: CallId,
    deltas: Box<dyn DeltaStream>,
) -> impl Stream<Item = (CallId, StreamItem)> + Send {
    stream::unfold(Some(deltas), move |deltas| {
        let (app, store) = (App::clone(&app), store.clone());
        async move {
            let mut deltas = deltas?;
            Some(match deltas.next().await {
                Some(FollowItem::Delta(shared)) => {
                    render_frames(&app, &store, dialect, &shared).await;
                    ((call, StreamItem::Delta(shared)), Some(deltas))
                }
                Some(FollowItem::Resync(snapshot)) => {
                    ((call, StreamItem::Resync(snapshot)), Some(deltas))
                }
                None => ((call, StreamItem::Ended), None),
            })
        }
    })
}

/// Begins a follow where it is to begin, the log asked first where that matters.
pub(crate) async fn follow(
    store: &ScopedStore,
    key: BranchKey,
    from: FollowFrom,
) -> Result<(Follow, Option<LogEnd>), RouteError> {
    let read = match from {
        FollowFrom::Snapshot => return Ok((store.follow(key, None).await?, None)),
        FollowFrom::After(cursor) => return Ok((store.follow(key, Some(cursor)).await?, None)),
        FollowFrom::Resume(cursor) => Read::Events { after: cursor.offset, limit: 1 },
        FollowFrom::Tail => Read::Head,
    };
    // Linearizable: a replica that lags would call a good cursor one ahead of the log. And before
    // the follow begins: what is added meanwhile comes by the stream.
    let answer = store.read(key.clone(), read, ReadLevel::Linearizable).await?;
    let log = if let Answer::Events(found) = &answer {
        LogEnd {
            incarnation: found.incarnation,
            last: found.last,
            is_retained: found.events.is_some(),
        }
    } else if let Answer::Head(head) = &answer {
        LogEnd { incarnation: head.incarnation, last: head.offset, is_retained: true }
    } else {
        tracing::error!(error = unexpected_answer(&answer).message(), "a follow cannot begin");
        return Err(RouteError::Indeterminate);
    };
    let cursor = match from {
        FollowFrom::Resume(cursor) => cursor,
        FollowFrom::Snapshot | FollowFrom::After(_) | FollowFrom::Tail => {
            Cursor { incarnation: log.incarnation, offset: log.last }
        }
    };
    Ok((store.follow(key, Some(cursor)).await?, Some(log)))
}

/// The posts under a topic. A session that takes them too slowly misses some, but not the last.
pub(crate) fn posts(
    call: CallId,
    next: TopicPosts,
) -> impl Stream<Item = (CallId, StreamItem)> + Send {
    stream::unfold(Some(next), move |next| async move {
        let mut next = next?;
        loop {
            match next.recv().await {
                Ok(post) => return Some(((call, StreamItem::Post(post)), Some(next))),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Some(((call, StreamItem::Ended), None)),
            }
        }
    })
}

/// The frames of a delta; without the module's state where that makes one larger than is sent in
/// one frame. Whoever wants it asks for a snapshot, which comes in pieces.
fn fitting_frames(
    app: &App,
    dialect: &dyn Dialect,
    delta: &Delta,
    snapshot: Option<&ModuleSnapshot>,
    with_records: bool,
) -> Vec<Bytes> {
    let frames = |snapshot| event_frames(dialect, &app.server_id, delta, snapshot, with_records);
    let whole = frames(snapshot);
    match whole.iter().any(|frame| frame.len() > EVENT_FRAME_BYTES_MAX) {
        true if snapshot.is_some() => frames(None),
        true | false => whole,
    }
}

/// Makes sure a delta's frames are written: by the first session that sees it.
async fn render_frames(
    app: &App,
    store: &ScopedStore,
    dialect: &dyn Dialect,
    shared: &SharedDelta,
) {
    // The frames of a delta are shared by all who speak this dialect and see the same of it.
    let key = |with_records| frame_key(dialect, store.policy_class(), with_records);
    let delta = &shared.delta;
    let begins = |event: &Event| match &event.change {
        EventChange::Module(change) => change.operation == BulkOperation::Reset,
        EventChange::Record(_) => event.origin.include_snapshot,
    };
    let first = if delta.events.iter().any(|event| begins(event)) {
        render_with_snapshot(app, store, dialect, shared).await
    } else {
        let mut first = false;
        shared.frames(key(false), |delta| {
            first = true;
            fitting_frames(app, dialect, delta, None, false)
        });
        first
    };
    if first {
        app.counters.events.increment(delta.events.len() as u64);
        app.counters.deltas_rendered.increment(1);
    } else {
        app.counters.deltas_shared.increment(1);
    }
}

/// The same for a delta that is to carry its module's snapshot; whether they were written now.
async fn render_with_snapshot(
    app: &App,
    store: &ScopedStore,
    dialect: &dyn Dialect,
    shared: &SharedDelta,
) -> bool {
    let key = |with_records| frame_key(dialect, store.policy_class(), with_records);
    let delta = &shared.delta;
    let (Some(first), Some(last)) = (delta.events.first().map(|event| event.offset), delta.last())
    else {
        return false;
    };
    // Held while the snapshot is read: whoever sends the same events waits, and finds the frames.
    let mut written = app.snapshot_frames.lock().await;
    if shared.has_frames(key(false)) {
        return false;
    }
    // One who read the events from the log has a delta of his own, of the same events.
    if let Some(found) = &*written
        && (&found.key, found.incarnation) == (&delta.key, delta.incarnation)
        && found.events == (first, last)
        && found.frames.iter().any(|(of, _)| *of == key(false))
    {
        for (of, frames) in &found.frames {
            shared.frames(*of, |_| frames.to_vec());
        }
        return false;
    }
    let snapshot = store.snapshot(delta.key.clone(), ReadLevel::Session(last)).await.ok();
    let render = |with_records| {
        let of = key(with_records);
        let frames = shared.frames(of, |delta| {
            fitting_frames(app, dialect, delta, snapshot.as_deref(), with_records)
        });
        (of, frames)
    };
    let mut frames = vec![render(false)];
    if snapshot.is_some() {
        // Only here is it known; without one, those who ask for records write their own.
        frames.push(render(true));
        let (key, incarnation) = (delta.key.clone(), delta.incarnation);
        *written = Some(SnapshotFrames { key, incarnation, events: (first, last), frames });
    }
    true
}
