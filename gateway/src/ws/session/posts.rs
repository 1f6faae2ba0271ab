//! Posts: what clients post under topics. Under a sync topic each post has an id and is sent
//! once: a command takes the id, and replaces the tables the word brings.

use std::sync::Arc;

use actors::{Post, RouteError};
use model::{
    Answer, BranchKey, Command, CommandId, Object, Origin, Outcome, Read, ReadLevel, Reject,
    Replace, Request, Validation, Value,
};

use super::publish::module_exists;
use super::reads::PendingRead;
use super::{Session, SessionAction, SessionContext};
use crate::error::{ApiError, Problem};
use crate::known_members;
use crate::limits::{ID_BYTES_MAX, TOPIC_DATA_BYTES_MAX, TOPIC_NAME_BYTES_MAX};
use crate::publish::{request_id, take_object, text};
use crate::rest::sync::revision;
use crate::wire::{Stand, TopicFrame, TopicUpdate, channel_data, sync_data};
use crate::ws::dialect::{LargeFrame, ServerFrame};
use crate::ws::publish_queue::{PendingReply, QueuedPublish, ReplyKind, SyncPost};
use crate::ws::topic::{Channel, POS, TopicSource, channel_topic, sync_topics};

/// How the names of the commands begin that take the ids of posts.
pub(super) const TRANS: &str = "trans/";

/// Said of a post under a sync topic without an id, as the original says it.
const MISSING_TRANS_ID: &str = "Publish frames must include a trans_id.";

/// The id of a post.
pub(super) fn trans_of(data: &Object) -> Option<String> {
    text(data, &["trans_id", "transId", "mutationId"])
}

impl Session {
    pub(super) fn post(
        &mut self,
        mut frame: Object,
        bytes: usize,
        cx: SessionContext<'_>,
    ) -> Vec<SessionAction> {
        let named = frame.get("topic").and_then(Value::as_str).filter(|name| !name.is_empty());
        let Some(name) = named.map(str::to_owned) else {
            return self.without_topic(&frame, cx);
        };
        if name.len() > TOPIC_NAME_BYTES_MAX {
            let message = format!("a topic's name has at most {TOPIC_NAME_BYTES_MAX} bytes");
            return vec![self.topic_error("invalid-topic", &message, None)];
        }
        let data = take_object(&mut frame, "data").unwrap_or_default();
        // What may be said is what every reading of the name allows, whichever is meant here.
        let readings = TopicSource::readings(&name);
        if readings.iter().any(|topic| !topic.takes_posts()) {
            let message = "This topic tells of a table's changes; nobody else speaks here.";
            return vec![self.topic_error("topic-not-writable", message, Some(&name))];
        }
        let meant = TopicSource::resolve(&name, cx.catalogue);
        if let TopicSource::Sync(key) = &meant {
            return self.post_sync(key.clone(), name, data, bytes, cx);
        }
        if readings.iter().any(|topic| matches!(topic, TopicSource::Sync(_)))
            && trans_of(&data).is_none()
        {
            return vec![self.topic_error("missing-trans-id", MISSING_TRANS_ID, Some(&name))];
        }
        if let Some(refusal) = self.too_large(&data, bytes, &name) {
            return vec![refusal];
        }
        let mut actions = Vec::new();
        self.enqueue_post(Post { topic: name, data }, &mut actions);
        actions
    }

    /// A post that names no topic: without a request id it is not answered, as in the original,
    /// unless what stands for the topic is no text.
    fn without_topic(&self, frame: &Object, cx: SessionContext<'_>) -> Vec<SessionAction> {
        let message = "topic must be a text with the name of a topic";
        let mut actions = Vec::new();
        if frame.get("topic").is_some_and(|topic| !topic.is_null()) {
            actions.push(self.topic_error("invalid-topic", message, None));
        }
        if let Some(id) = request_id(frame) {
            let error = ApiError::new(Problem::InvalidBody, message);
            actions.extend(self.failed(Some(&id), &error, cx.now));
        }
        actions
    }

    /// A post under a sync topic.
    fn post_sync(
        &mut self,
        key: BranchKey,
        topic: String,
        mut data: Object,
        bytes: usize,
        cx: SessionContext<'_>,
    ) -> Vec<SessionAction> {
        let Some(trans) = trans_of(&data) else {
            return vec![self.topic_error("missing-trans-id", MISSING_TRANS_ID, Some(&topic))];
        };
        if trans.len() > ID_BYTES_MAX {
            let message = format!("a trans_id has at most {ID_BYTES_MAX} bytes");
            return vec![self.topic_error("invalid-request-id", &message, Some(&topic))];
        }
        let action = data.get("action").and_then(Value::as_str);
        if action == Some("create-order") && data.get("order").is_some() {
            // As the original always answers here.
            let message = "Incoming snapshot violates insert-only policy.";
            return vec![self.topic_error("order-persist-failed", message, None)];
        }
        if let Err(error) = module_exists(&key, cx) {
            return vec![self.topic_error(error.code(), error.message(), Some(&topic))];
        }
        // Taken out of the data: the topic keeps the post without its tables, and shows the state
        // instead.
        let mut snapshot = take_object(&mut data, "snapshot").unwrap_or_default();
        let validation = cx.catalogue.validation_of(&key.module);
        for sent in [&data, &snapshot] {
            if let Err(error) = known_members::refuse_other_place(sent, &key, validation) {
                return vec![self.topic_error(error.code(), error.message(), Some(&topic))];
            }
        }
        // Without the tables, which may be large: no topic keeps them.
        if let Some(refusal) = self.too_large(&data, bytes, &topic) {
            return vec![refusal];
        }
        let revision = match revision_of(&snapshot, &key, cx) {
            Ok(revision) => revision,
            Err(error) => {
                return vec![self.topic_error(error.code(), error.message(), Some(&topic))];
            }
        };
        let tables = take_object(&mut snapshot, "tables").unwrap_or_default();
        // The id is not of this client: whoever posts under it first has taken it.
        let session = format!("{TRANS}{}/{}", key.branch, key.module);
        let origin = Origin {
            source: Some("ws-sync".to_owned()),
            client: Some(self.client().to_owned()),
            ..Origin::default()
        };
        let command = Command {
            id: CommandId { session, request: trans.clone() },
            key: key.clone(),
            origin: Arc::new(origin),
            request: Request::Replace(Replace { tables: Arc::new(tables), revision }),
        };
        let posted = Arc::new(SyncPost { topic, key, trans, data });
        let pending = PendingReply { request_id: None, reply: ReplyKind::Post(posted) };
        // Not by `enqueue`: no event answers a post, so its module need not be followed first.
        self.publishes.add(QueuedPublish { command, pending, bytes });
        let mut actions = Vec::new();
        self.submit_ready(&mut actions);
        actions
    }

    /// Whether a post under a sync topic is the first of its id was decided, or not.
    pub(super) fn on_post_decided(
        &mut self,
        key: &BranchKey,
        posted: &Arc<SyncPost>,
        result: Result<Outcome, RouteError>,
        cx: SessionContext<'_>,
    ) -> Vec<SessionAction> {
        let mut actions = Vec::new();
        let accepted = match result {
            Ok(Outcome::Accepted(accepted)) if !accepted.repeated => accepted,
            Ok(Outcome::Accepted(_) | Outcome::Rejected(Reject::KeyReused)) => {
                // Also with other tables under the id: the first post stands. What it said is asked
                // of the topic, which keeps its last post.
                let (call, topic) = (self.next_call(), posted.topic.clone());
                self.pending_reads.insert(call, PendingRead::Duplicate(Arc::clone(posted)));
                return vec![SessionAction::SubscribeTopic { call, topic }];
            }
            Ok(Outcome::Rejected(reject)) => {
                let replaced = matches!(reject, Reject::Replace { .. });
                let code = if replaced { "insert-only-violation" } else { "sync-snapshot-failed" };
                let error = ApiError::from(reject);
                let (message, details) = (error.message(), error.shown_details());
                let (topic, details) = (Some(&*posted.topic), Some(&details));
                return vec![self.send(&ServerFrame::TopicError { code, message, topic, details })];
            }
            Err(error) => {
                let error = ApiError::from(error);
                return vec![self.topic_error(error.code(), error.message(), Some(&posted.topic))];
            }
        };
        for topic in sync_topics(key) {
            self.enqueue_post(Post { topic, data: posted.data.clone() }, &mut actions);
        }
        let table = posted.data.get("table").and_then(Value::as_str);
        if key.module.as_str() == POS && table.and_then(Channel::of_table).is_some() {
            let changed = accepted.delta.events.last().map(|event| (event.revision, event.at));
            if changed.is_some() {
                actions.extend(self.publish_to_channel(key, posted, changed, cx));
            } else {
                // A post without tables made no event that would say where the module stands.
                let pending_read = PendingRead::Stand(key.clone(), Arc::clone(posted));
                let level = ReadLevel::Linearizable;
                self.read_for(pending_read, key.clone(), Read::Head, level, &mut actions);
            }
        }
        actions
    }

    /// Answers a post whose id was used before: with what was said then, that it was, and the
    /// module's state, which is read first.
    pub(super) fn answer_duplicate(
        &mut self,
        posted: &SyncPost,
        last: Option<&Post>,
        actions: &mut Vec<SessionAction>,
    ) {
        let data = duplicate_message(posted, last);
        let topic = posted.topic.clone();
        let (pending_read, key) = (PendingRead::Repeat { topic, data }, posted.key.clone());
        self.read_for(pending_read, key, Read::Snapshot, ReadLevel::Linearizable, actions);
    }

    /// The state such an answer is shown with came, or could not be read.
    pub(super) fn on_duplicate_state(
        &self,
        topic: String,
        data: Object,
        result: Result<Answer, RouteError>,
    ) -> SessionAction {
        let Ok(Answer::Snapshot(snapshot)) = result else {
            let frame = TopicFrame::new(&topic, TopicUpdate::Bare(data));
            return self.send(&ServerFrame::Topic(&frame));
        };
        let said = TopicUpdate::Bare(sync_data(&self.server_id, &data, &snapshot.head));
        SessionAction::Write(LargeFrame::Topic(TopicFrame {
            topic,
            said,
            snapshot: Some(snapshot),
        }))
    }

    /// Tells a channel of a post under a sync topic, completed by where the module stands.
    pub(super) fn publish_to_channel(
        &mut self,
        key: &BranchKey,
        posted: &SyncPost,
        stand: Stand,
        cx: SessionContext<'_>,
    ) -> Vec<SessionAction> {
        let table = posted.data.get("table").and_then(Value::as_str);
        let mut actions = Vec::new();
        if let Some(channel) = table.and_then(Channel::of_table) {
            let at = cx.now.to_iso();
            let data = channel_data(&self.server_id, key, &posted.data, stand, channel.name(), &at);
            let topic = channel_topic(&key.branch, channel);
            self.enqueue_post(Post { topic, data }, &mut actions);
        }
        actions
    }

    /// Says something after all that was said before.
    fn enqueue_post(&mut self, post: Post, actions: &mut Vec<SessionAction>) {
        self.posts.push_back(post.clone());
        // One at a time: the next is posted when this one is done, so that none overtakes another.
        if self.posts.len() == 1 {
            actions.push(SessionAction::Post(post));
        }
    }

    /// A post was said, or not.
    pub(crate) fn on_posted(&mut self, result: Result<(), RouteError>) -> Vec<SessionAction> {
        let mut actions = Vec::new();
        let said = self.posts.pop_front();
        if let (Err(error), Some(post)) = (result, said) {
            let error = ApiError::from(error);
            actions.push(self.topic_error(error.code(), error.message(), Some(&post.topic)));
        }
        actions.extend(self.posts.front().cloned().map(SessionAction::Post));
        actions
    }

    /// Every node keeps what is posted: it must be small. `bytes` is the whole frame.
    fn too_large(&self, data: &Object, bytes: usize, topic: &str) -> Option<SessionAction> {
        // The frame is never smaller than its data: most posts need not be written out to be
        // measured.
        let large = bytes > TOPIC_DATA_BYTES_MAX
            && Value::from(data.clone()).to_json().len() > TOPIC_DATA_BYTES_MAX;
        large.then(|| {
            let message = format!("the data has at most {TOPIC_DATA_BYTES_MAX} bytes as JSON");
            self.topic_error("topic-data-too-large", &message, Some(topic))
        })
    }
}

/// The module's version that a snapshot names. What is no number a lenient module passes over.
fn revision_of(
    snapshot: &Object,
    key: &BranchKey,
    cx: SessionContext<'_>,
) -> Result<Option<u64>, ApiError> {
    match (revision(snapshot), cx.catalogue.validation_of(&key.module)) {
        (Err(_), Validation::Lenient)
            if !matches!(snapshot.get("version"), Some(Value::Number(_))) =>
        {
            Ok(None)
        }
        (read, _) => read,
    }
}

/// What is said again of a post whose id was used before, and that it was.
fn duplicate_message(posted: &SyncPost, last: Option<&Post>) -> Object {
    let first = last
        .map(|last| &last.data)
        .filter(|data| trans_of(data).as_deref() == Some(posted.trans.as_str()));
    let mut data = first.unwrap_or(&posted.data).clone();
    let mutation = |data: &Object| data.get("mutationId").cloned().unwrap_or_default();
    let (before, now) = (first.map(mutation).unwrap_or_default(), mutation(&posted.data));
    let mut meta = data.get("meta").and_then(Value::as_object).cloned().unwrap_or_default();
    meta.insert("duplicateTrans", true.into());
    meta.insert("transId", posted.trans.as_str().into());
    meta.insert("previousMutationId", before);
    meta.insert("ackedMutationId", now.clone());
    data.insert("mutationId", now);
    data.insert("meta", meta.into());
    data
}
