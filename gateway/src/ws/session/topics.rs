//! Topics: what a session subscribed to, and what it was last sent of each.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Deref;
use std::sync::Arc;

use actors::{Cursor, Post, RouteError};
use model::{BranchKey, Object, TableName, Value};

use super::reads::PendingRead;
use super::{Session, SessionAction, SessionContext, written};
use crate::error::{ApiError, Problem};
use crate::limits::{SYNC_MESSAGES_WAITING_MAX, TOPIC_NAME_BYTES_MAX, TOPICS_MAX};
use crate::publish::request_id;
use crate::wire::{TopicFrame, TopicUpdate};
use crate::ws::dialect::{Dialect, ServerFrame};
use crate::ws::subscription::{CallId, FollowFrom, Subscription};
use crate::ws::topic::{POS, TopicSource};

/// What a session subscribed to, by name.
#[derive(Default)]
pub(super) struct SubscribedTopics(pub(super) BTreeMap<String, TopicState>);

/// One topic.
pub(super) struct TopicState {
    pub(super) topic: TopicSource,
    /// The modules it is fed from.
    pub(super) inputs: Vec<TopicInput>,
    /// The listener for what clients say.
    posts_call: Option<CallId>,
    /// What was sent last.
    pub(super) last: Option<LastMessage>,
    /// What is to be sent once the state it is shown with is there, which must hold this event.
    pub(super) deferred: VecDeque<(Option<Cursor>, Object)>,
    /// Whether that state is being read.
    pub(super) is_reading: bool,
    /// The state shown last.
    pub(super) shown: Option<Cursor>,
}

/// A module a topic is fed from.
pub(super) struct TopicInput {
    pub(super) key: BranchKey,
    /// The table it tells of, where it tells of one.
    pub(super) table: Option<TableName>,
    /// The last event it was fed with, whatever it said of it.
    pub(super) applied: Option<Cursor>,
}

impl TopicInput {
    /// Whether an event is new to it.
    pub(super) fn takes(&self, at: Cursor) -> bool {
        let old =
            |applied: Cursor| applied.incarnation == at.incarnation && applied.offset >= at.offset;
        !self.applied.is_some_and(old)
    }
}

/// What was sent last: posted by a client and shared by all, or made here.
pub(super) enum LastMessage {
    Post(Arc<Post>),
    Own(Object),
}

impl Deref for LastMessage {
    type Target = Object;

    fn deref(&self) -> &Object {
        match self {
            Self::Post(post) => &post.data,
            Self::Own(data) => data,
        }
    }
}

impl SubscribedTopics {
    /// Whether a topic is fed from a module.
    pub(super) fn read_from(&self, key: &BranchKey) -> bool {
        self.0.values().any(|topic| topic.inputs.iter().any(|input| input.key == *key))
    }

    /// Forgets what the topics without a branch were fed from.
    pub(super) fn leave_own_branch(&mut self) {
        for topic in self.0.values_mut() {
            if matches!(topic.topic, TopicSource::Table { branch: None, .. }) {
                topic.inputs.clear();
                // So that what is said of the next branch is said whole.
                topic.last = None;
            }
        }
    }
}

impl TopicState {
    fn new(topic: TopicSource) -> Self {
        Self {
            topic,
            inputs: Vec::new(),
            posts_call: None,
            last: None,
            deferred: VecDeque::new(),
            is_reading: false,
            shown: None,
        }
    }

    /// Tells what is new in it.
    pub(super) fn send(
        &mut self,
        name: &str,
        now: LastMessage,
        dialect: &dyn Dialect,
        actions: &mut Vec<SessionAction>,
    ) {
        if let Some(said) = TopicUpdate::after(self.last.as_deref(), &now) {
            let frame = TopicFrame::new(name, said);
            actions.push(written(dialect, &ServerFrame::Topic(&frame)));
            self.last = Some(now);
        }
    }

    /// Keeps a message until the state it is shown with is there.
    pub(super) fn defer(&mut self, at: Option<Cursor>, word: Object) {
        if self.deferred.len() == SYNC_MESSAGES_WAITING_MAX {
            // A topic has no history: of too many messages the last ones are kept.
            self.deferred.pop_front();
        }
        self.deferred.push_back((at, word));
    }
}

impl Session {
    pub(super) fn subscribe(
        &mut self,
        frame: &Object,
        cx: SessionContext<'_>,
    ) -> Vec<SessionAction> {
        let named = frame.get("topic").and_then(Value::as_str).filter(|name| !name.is_empty());
        let Some(name) = named else {
            let message = "Subscription topic required.";
            let mut actions = vec![self.topic_error("invalid-topic", message, None)];
            if let Some(id) = request_id(frame) {
                let error = ApiError::new(Problem::InvalidBody, message);
                actions.extend(self.failed(Some(&id), &error, cx.now));
            }
            return actions;
        };
        if name.len() > TOPIC_NAME_BYTES_MAX {
            let message = format!("a topic's name has at most {TOPIC_NAME_BYTES_MAX} bytes");
            return vec![self.topic_error("invalid-topic", &message, None)];
        }
        let mut actions = Vec::new();
        if let Some(known) = self.topics.0.get(name) {
            actions.push(self.send(&ServerFrame::Subscribed { topic: name }));
            // Not what was shown with a state: the state was not kept, and the message alone would
            // say less than it did.
            if let Some(last) = known.last.as_ref().filter(|_| known.shown.is_none()) {
                let whole = TopicFrame::new(name, TopicUpdate::Whole((**last).clone()));
                actions.push(self.send(&ServerFrame::Topic(&whole)));
            }
            return actions;
        }
        if self.topics.0.len() >= TOPICS_MAX {
            let message = format!("a socket subscribes to at most {TOPICS_MAX} topics");
            return vec![self.topic_error("too-many-topics", &message, Some(name))];
        }
        let topic = TopicSource::resolve(name, cx.catalogue);
        actions.push(self.send(&ServerFrame::Subscribed { topic: name }));
        // Acknowledged before anybody listens: what was said last comes after the acknowledgement.
        let mut subscription = TopicState::new(topic);
        if subscription.topic.takes_posts() {
            let call = self.next_call();
            subscription.posts_call = Some(call);
            actions.push(SessionAction::SubscribeTopic { call, topic: name.to_owned() });
        }
        self.topics.0.insert(name.to_owned(), subscription);
        self.resolve_inputs(name, cx, &mut actions);
        actions
    }

    pub(super) fn unsubscribe(&mut self, frame: &Object) -> Vec<SessionAction> {
        let name = frame.get("topic").and_then(Value::as_str).unwrap_or_default();
        let mut actions = Vec::new();
        if let Some(topic) = self.topics.0.remove(name) {
            actions.extend(topic.posts_call.map(SessionAction::Drop));
            // The topic is out of the map by now, so a module goes on only for another topic or for
            // its own events.
            for input in topic.inputs {
                let sends_events =
                    self.subscriptions.get(&input.key).is_some_and(Subscription::sends_events);
                if !sends_events {
                    self.release(&input.key, &mut actions);
                }
            }
        }
        actions.push(self.send(&ServerFrame::Unsubscribed { topic: name }));
        actions
    }

    /// Feeds the topics that name no branch from the session's own.
    pub(super) fn resolve_own_tables(
        &mut self,
        cx: SessionContext<'_>,
        actions: &mut Vec<SessionAction>,
    ) {
        let own = |topic: &TopicSource| matches!(topic, TopicSource::Table { branch: None, .. });
        let topics = self.topics.0.iter();
        let names: Vec<String> =
            topics.filter(|(_, topic)| own(&topic.topic)).map(|(name, _)| name.clone()).collect();
        names.iter().for_each(|name| self.resolve_inputs(name, cx, actions));
    }

    /// Follows the modules a topic is fed from, and has what it said last looked up.
    fn resolve_inputs(
        &mut self,
        name: &str,
        cx: SessionContext<'_>,
        actions: &mut Vec<SessionAction>,
    ) {
        let Some(topic) = self.topics.0.get(name).map(|topic| topic.topic.clone()) else { return };
        let mut inputs = self.inputs_of(&topic, cx);
        let keys: Vec<BranchKey> = inputs.iter().map(|input| input.key.clone()).collect();
        if let Some(topic) = self.topics.0.get_mut(name) {
            for input in &mut inputs {
                // What it was fed with before must not come again because its name was read again.
                let before = topic.inputs.iter().find(|before| before.key == input.key);
                input.applied = before.and_then(|before| before.applied);
            }
            topic.inputs = inputs;
        }
        for key in keys {
            match self.subscriptions.get(&key).map(Subscription::is_open) {
                None => self.follow(key, FollowFrom::Tail, false, actions),
                // It is looked up when its events begin to come.
                Some(false) => {}
                Some(true) => {
                    self.read_last_messages(&key, actions);
                }
            }
        }
    }

    fn inputs_of(&self, topic: &TopicSource, cx: SessionContext<'_>) -> Vec<TopicInput> {
        let catalogue = cx.catalogue;
        // Nothing feeds what is not there; another reading of the name may come to be.
        let input = |key: BranchKey, table| {
            let exists = catalogue.allows_branch(&key.branch);
            exists.then_some(TopicInput { key, table, applied: None })
        };
        match topic {
            TopicSource::Table { branch, module, table } => {
                let own = self.member.as_ref().map(|member| &member.branch);
                let Some(branch) = branch.as_ref().or(own) else { return Vec::new() };
                let modules = match module {
                    Some(module) => vec![module.clone()],
                    None => catalogue.modules_of(branch),
                };
                let found = modules.into_iter().filter_map(|module| {
                    let table = catalogue.module(&module)?.schema.resolve(table)?.name.clone();
                    input(BranchKey::new(branch.clone(), module), Some(table))
                });
                found.collect()
            }
            TopicSource::Channel { branch, .. } => {
                let modules = catalogue.modules_of(branch).into_iter();
                let pos = modules.filter(|module| module.as_str() == POS);
                pos.filter_map(|module| input(BranchKey::new(branch.clone(), module), None))
                    .collect()
            }
            TopicSource::Sync(key) => {
                let known = catalogue.module(&key.module).and_then(|_| input(key.clone(), None));
                known.into_iter().collect()
            }
            TopicSource::Reserved | TopicSource::Free => Vec::new(),
        }
    }

    /// The catalogue changed: topics of what did not exist when they were subscribed to are read
    /// again, and fed if it exists now. What a topic is fed from already stays.
    pub(super) fn resolve_missing_inputs(
        &mut self,
        cx: SessionContext<'_>,
        actions: &mut Vec<SessionAction>,
    ) {
        let silent = self.topics.0.iter().filter(|(_, topic)| topic.inputs.is_empty());
        let names: Vec<String> = silent.map(|(name, _)| name.clone()).collect();
        for name in names {
            let resolved = TopicSource::resolve(&name, cx.catalogue);
            // Until something can feed it, the name keeps the reading it has.
            if self.inputs_of(&resolved, cx).is_empty() {
                continue;
            }
            if let Some(topic) = self.topics.0.get_mut(&name) {
                topic.topic = resolved;
            }
            self.resolve_inputs(&name, cx, actions);
        }
    }

    /// A topic is listened to, or not.
    pub(crate) fn on_topic_subscribed(
        &mut self,
        call: CallId,
        result: Result<Option<Arc<Post>>, RouteError>,
    ) -> Vec<SessionAction> {
        if let Some(PendingRead::Duplicate(posted)) = self.pending_reads.remove(&call) {
            // This listener was opened for the last post alone.
            let last = result.ok().flatten();
            let mut actions = vec![SessionAction::Drop(call)];
            self.answer_duplicate(&posted, last.as_deref(), &mut actions);
            return actions;
        }
        match result {
            Ok(Some(last)) => self.on_post(call, last),
            Ok(None) => Vec::new(),
            Err(error) => {
                let Some(name) = self.topic_of(call) else {
                    return vec![SessionAction::Drop(call)];
                };
                let error = ApiError::from(error);
                vec![self.topic_error(error.code(), error.message(), Some(&name))]
            }
        }
    }

    /// Somebody said something.
    pub(crate) fn on_post(&mut self, call: CallId, post: Arc<Post>) -> Vec<SessionAction> {
        let mut actions = Vec::new();
        let Some(name) = self.topic_of(call) else { return vec![SessionAction::Drop(call)] };
        let Some(topic) = self.topics.0.get_mut(&name) else { return actions };
        match topic.topic.clone() {
            TopicSource::Sync(key) => {
                // A post belongs to no event, so the state of now is new enough whatever it holds.
                topic.defer(None, post.data.clone());
                self.read_for_topics(&key, &mut actions);
            }
            TopicSource::Free
            | TopicSource::Channel { .. }
            | TopicSource::Table { .. }
            | TopicSource::Reserved => {
                topic.send(&name, LastMessage::Post(post), self.dialect, &mut actions);
            }
        }
        actions
    }

    /// A listener was closed: a topic that was forgotten is listened to anew.
    pub(super) fn resubscribe_topic(&mut self, ended: CallId, actions: &mut Vec<SessionAction>) {
        let Some(name) = self.topic_of(ended) else { return };
        // Under a new call: what the closed listener still brings belongs to no topic then.
        let call = self.next_call();
        if let Some(topic) = self.topics.0.get_mut(&name) {
            topic.posts_call = Some(call);
            actions.push(SessionAction::SubscribeTopic { call, topic: name });
        }
    }

    fn topic_of(&self, call: CallId) -> Option<String> {
        let mut topics = self.topics.0.iter();
        topics.find(|(_, topic)| topic.posts_call == Some(call)).map(|(name, _)| name.clone())
    }
}
