//! Topics: what a session subscribed to, and what it was last told of each.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Deref;
use std::sync::Arc;

use actors::{Cursor, Post, RouteError};
use model::{BranchKey, Object, TableName, Value};

use super::querying::Asked;
use super::{Action, Begin, Moment, Session, State, Ticket, control};
use crate::auth::{Access, Intent, authorize};
use crate::error::{ApiError, Problem};
use crate::limits::{SYNC_WORDS_WAITING_MAX, TOPIC_NAME_BYTES_MAX, TOPICS_MAX};
use crate::publish::request_id;
use crate::wire::{Said, TopicFrame};
use crate::ws::frame;
use crate::ws::topic::{POS, Topic};

/// What a session subscribed to, by name.
#[derive(Default)]
pub(super) struct Topics(pub(super) BTreeMap<String, Subscription>);

/// One topic.
pub(super) struct Subscription {
    pub(super) topic: Topic,
    /// The modules it is fed from.
    pub(super) feeds: Vec<Feed>,
    /// The ear for what clients say.
    ear: Option<Ticket>,
    /// What was told last.
    pub(super) last: Option<Last>,
    /// What is to be told once the state it is shown with is there, which must hold this event.
    pub(super) words: VecDeque<(Option<Cursor>, Object)>,
    /// Whether that state is being read.
    pub(super) is_reading: bool,
    /// The state shown last.
    pub(super) shown: Option<Cursor>,
}

/// A module a topic is fed from.
pub(super) struct Feed {
    pub(super) key: BranchKey,
    /// The table it tells of, where it tells of one.
    pub(super) table: Option<TableName>,
    /// The last event it was fed with, whatever it said of it.
    pub(super) fed: Option<Cursor>,
}

impl Feed {
    /// Whether an event is new to it.
    pub(super) fn takes(&self, at: Cursor) -> bool {
        let old = |fed: Cursor| fed.incarnation == at.incarnation && fed.offset >= at.offset;
        !self.fed.is_some_and(old)
    }
}

/// What was told last: said by a client and shared by all, or made here.
pub(super) enum Last {
    Post(Arc<Post>),
    Own(Object),
}

impl Deref for Last {
    type Target = Object;

    fn deref(&self) -> &Object {
        match self {
            Self::Post(post) => &post.data,
            Self::Own(data) => data,
        }
    }
}

impl Topics {
    /// Whether a topic is fed from a module.
    pub(super) fn are_fed_from(&self, key: &BranchKey) -> bool {
        self.0.values().any(|topic| topic.feeds.iter().any(|feed| feed.key == *key))
    }

    /// Forgets what the topics without a branch were fed from.
    pub(super) fn leave_own(&mut self) {
        for topic in self.0.values_mut() {
            if matches!(topic.topic, Topic::Table { branch: None, .. }) {
                topic.feeds.clear();
                topic.last = None;
            }
        }
    }
}

impl Subscription {
    fn new(topic: Topic) -> Self {
        Self {
            topic,
            feeds: Vec::new(),
            ear: None,
            last: None,
            words: VecDeque::new(),
            is_reading: false,
            shown: None,
        }
    }

    /// Tells what is new in it.
    pub(super) fn give(&mut self, name: &str, now: Last, actions: &mut Vec<Action>) {
        if let Some(said) = Said::after(self.last.as_deref(), &now) {
            actions.push(control(frame::text(&TopicFrame::new(name, said))));
            self.last = Some(now);
        }
    }

    /// Keeps a word until the state it is shown with is there.
    pub(super) fn keep(&mut self, at: Option<Cursor>, word: Object) {
        if self.words.len() == SYNC_WORDS_WAITING_MAX {
            self.words.pop_front();
        }
        self.words.push_back((at, word));
    }
}

impl Session {
    pub(super) fn subscribe(&mut self, frame: &Object, moment: Moment<'_>) -> Vec<Action> {
        let named = frame.get("topic").and_then(Value::as_str).filter(|name| !name.is_empty());
        let Some(name) = named else {
            let message = "Subscription topic required.";
            let mut actions =
                vec![control(frame::topic_error("invalid-topic", message, None, None))];
            if let Some(id) = request_id(frame) {
                let error = ApiError::new(Problem::InvalidBody, message);
                actions.extend(self.failed(Some(&id), &error, moment.at));
            }
            return actions;
        };
        if name.len() > TOPIC_NAME_BYTES_MAX {
            let message = format!("a topic's name has at most {TOPIC_NAME_BYTES_MAX} bytes");
            return vec![control(frame::topic_error("invalid-topic", &message, None, None))];
        }
        let mut actions = Vec::new();
        if let Some(known) = self.topics.0.get(name) {
            actions.push(control(frame::topic_ack("subscribe", name)));
            if let Some(last) = known.last.as_ref().filter(|_| known.shown.is_none()) {
                let whole = TopicFrame::new(name, Said::Whole((**last).clone()));
                actions.push(control(frame::text(&whole)));
            }
            return actions;
        }
        if self.topics.0.len() >= TOPICS_MAX {
            let message = format!("a socket subscribes to at most {TOPICS_MAX} topics");
            return vec![control(frame::topic_error(
                "too-many-topics",
                &message,
                Some(name),
                None,
            ))];
        }
        let topic = Topic::resolve(name, moment.catalogue);
        if let Err(error) = self.may_hear(&topic) {
            let (code, message) = (error.code(), error.message());
            return vec![control(frame::topic_error(code, message, Some(name), None))];
        }
        actions.push(control(frame::topic_ack("subscribe", name)));
        let mut subscription = Subscription::new(topic);
        if subscription.topic.takes_posts() {
            let ticket = self.ticket();
            subscription.ear = Some(ticket);
            actions.push(Action::Listen { ticket, topic: name.to_owned() });
        }
        self.topics.0.insert(name.to_owned(), subscription);
        self.find_feeds(name, moment, &mut actions);
        actions
    }

    fn may_hear(&self, topic: &Topic) -> Result<(), ApiError> {
        let access = match topic {
            Topic::Table { branch: Some(branch), .. } | Topic::Channel { branch, .. } => {
                Access::branch(Intent::Follow, branch)
            }
            Topic::Sync(key) => Access::module(Intent::Follow, key),
            Topic::Table { branch: None, .. } => return Ok(()),
            Topic::Reserved | Topic::Free => Access::cluster(Intent::Follow),
        };
        authorize(&self.principal, &access)
    }

    pub(super) fn unsubscribe(&mut self, frame: &Object) -> Vec<Action> {
        let name = frame.get("topic").and_then(Value::as_str).unwrap_or_default();
        let mut actions = Vec::new();
        if let Some(topic) = self.topics.0.remove(name) {
            actions.extend(topic.ear.map(Action::Drop));
            for feed in topic.feeds {
                let told = self.followed.get(&feed.key).is_some_and(|followed| followed.told);
                if !told {
                    self.release(&feed.key, &mut actions);
                }
            }
        }
        actions.push(control(frame::topic_ack("unsubscribe", name)));
        actions
    }

    /// Feeds the topics that name no branch from the session's own.
    pub(super) fn find_own_tables(&mut self, moment: Moment<'_>, actions: &mut Vec<Action>) {
        let own = |topic: &Topic| matches!(topic, Topic::Table { branch: None, .. });
        let topics = self.topics.0.iter();
        let names: Vec<String> =
            topics.filter(|(_, topic)| own(&topic.topic)).map(|(name, _)| name.clone()).collect();
        names.iter().for_each(|name| self.find_feeds(name, moment, actions));
    }

    /// Follows the modules a topic is fed from, and has what it said last looked up.
    fn find_feeds(&mut self, name: &str, moment: Moment<'_>, actions: &mut Vec<Action>) {
        let Some(topic) = self.topics.0.get(name).map(|topic| topic.topic.clone()) else { return };
        let mut feeds = self.feeds_of(&topic, moment);
        let keys: Vec<BranchKey> = feeds.iter().map(|feed| feed.key.clone()).collect();
        if let Some(topic) = self.topics.0.get_mut(name) {
            for feed in &mut feeds {
                let before = topic.feeds.iter().find(|before| before.key == feed.key);
                feed.fed = before.and_then(|before| before.fed);
            }
            topic.feeds = feeds;
        }
        for key in keys {
            match self.followed.get(&key).map(|followed| &followed.state) {
                None => self.follow(key, Begin::Tail, false, actions),
                // It is looked up when its events begin to come.
                Some(State::Opening | State::Waits(_) | State::Resumes(_)) => {}
                Some(State::Open | State::Refreshing(_) | State::Refreshed(_)) => {
                    self.recall(&key, actions);
                }
            }
        }
    }

    fn feeds_of(&self, topic: &Topic, moment: Moment<'_>) -> Vec<Feed> {
        let catalogue = moment.catalogue;
        // Nothing feeds what is not there; another reading of the name may come to be.
        let feed = |key: BranchKey, table| {
            let exists = catalogue.knows_branch(&key.branch);
            exists.then_some(Feed { key, table, fed: None })
        };
        match topic {
            Topic::Table { branch, module, table } => {
                let own = self.member.as_ref().map(|member| &member.branch);
                let Some(branch) = branch.as_ref().or(own) else { return Vec::new() };
                let modules = match module {
                    Some(module) => vec![module.clone()],
                    None => catalogue.modules_of(branch),
                };
                let found = modules.into_iter().filter_map(|module| {
                    let table = catalogue.module(&module)?.schema.resolve(table)?.name.clone();
                    feed(BranchKey::new(branch.clone(), module), Some(table))
                });
                found.collect()
            }
            Topic::Channel { branch, .. } => {
                let modules = catalogue.modules_of(branch).into_iter();
                let pos = modules.filter(|module| module.as_str() == POS);
                pos.filter_map(|module| feed(BranchKey::new(branch.clone(), module), None))
                    .collect()
            }
            Topic::Sync(key) => {
                let known = catalogue.module(&key.module).and_then(|_| feed(key.clone(), None));
                known.into_iter().collect()
            }
            Topic::Reserved | Topic::Free => Vec::new(),
        }
    }

    /// The catalogue changed: topics of what did not exist when they were subscribed to are read
    /// again, and fed if it exists now. What a topic is fed from already stays.
    pub(super) fn find_missing_feeds(&mut self, moment: Moment<'_>, actions: &mut Vec<Action>) {
        let silent = self.topics.0.iter().filter(|(_, topic)| topic.feeds.is_empty());
        let names: Vec<String> = silent.map(|(name, _)| name.clone()).collect();
        for name in names {
            let resolved = Topic::resolve(&name, moment.catalogue);
            if self.feeds_of(&resolved, moment).is_empty() || self.may_hear(&resolved).is_err() {
                continue;
            }
            if let Some(topic) = self.topics.0.get_mut(&name) {
                topic.topic = resolved;
            }
            self.find_feeds(&name, moment, actions);
        }
    }

    /// A topic is listened to, or not.
    pub(crate) fn on_listening(
        &mut self,
        ticket: Ticket,
        result: Result<Option<Arc<Post>>, RouteError>,
    ) -> Vec<Action> {
        if let Some(Asked::Duplicate(posted)) = self.asked.remove(&ticket) {
            let last = result.ok().flatten();
            let mut actions = vec![Action::Drop(ticket)];
            self.repeat(&posted, last.as_deref(), &mut actions);
            return actions;
        }
        match result {
            Ok(Some(last)) => self.on_post(ticket, last),
            Ok(None) => Vec::new(),
            Err(error) => {
                let Some(name) = self.heard_with(ticket) else { return vec![Action::Drop(ticket)] };
                let error = ApiError::from(error);
                let (code, message) = (error.code(), error.message());
                vec![control(frame::topic_error(code, message, Some(&name), None))]
            }
        }
    }

    /// Somebody said something.
    pub(crate) fn on_post(&mut self, ticket: Ticket, post: Arc<Post>) -> Vec<Action> {
        let mut actions = Vec::new();
        let Some(name) = self.heard_with(ticket) else { return vec![Action::Drop(ticket)] };
        let Some(topic) = self.topics.0.get_mut(&name) else { return actions };
        match topic.topic.clone() {
            Topic::Sync(key) => {
                topic.keep(None, post.data.clone());
                self.read_for_topics(&key, &mut actions);
            }
            Topic::Free | Topic::Channel { .. } | Topic::Table { .. } | Topic::Reserved => {
                topic.give(&name, Last::Post(post), &mut actions);
            }
        }
        actions
    }

    /// An ear was closed: a topic that was forgotten is listened to anew.
    pub(super) fn listen_again(&mut self, ended: Ticket, actions: &mut Vec<Action>) {
        let Some(name) = self.heard_with(ended) else { return };
        let ticket = self.ticket();
        if let Some(topic) = self.topics.0.get_mut(&name) {
            topic.ear = Some(ticket);
            actions.push(Action::Listen { ticket, topic: name });
        }
    }

    fn heard_with(&self, ticket: Ticket) -> Option<String> {
        let mut topics = self.topics.0.iter();
        topics.find(|(_, topic)| topic.ear == Some(ticket)).map(|(name, _)| name.clone())
    }
}
