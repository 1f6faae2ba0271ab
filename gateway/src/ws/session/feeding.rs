//! Feeding: from a module's events to what its topics say. Nothing but the followed stream feeds
//! them, so they say the same on every node.

use std::sync::Arc;

use actors::{Cursor, RouteError};
use model::{
    Answer, BranchKey, BulkOperation, EventChange, Events, Incarnation, ModuleSnapshot, Object,
    Offset, Read, ReadLevel, Value,
};

use super::loading::{cursor_of, pause};
use super::querying::Asked;
use super::topics::{Last, Subscription, Topics};
use super::{Action, Large, Moment, Session};
use crate::limits::RECENT_EVENTS;
use crate::wire::{SNAPSHOT, Said, Teller, TopicFrame, channel_data, sync_data};
use crate::ws::topic::{Channel, Topic};

impl Topics {
    /// An event came.
    pub(super) fn feed(
        &mut self,
        teller: Teller<'_>,
        life: Incarnation,
        moment: Moment<'_>,
        actions: &mut Vec<Action>,
    ) {
        let at = Cursor { incarnation: life, offset: teller.event.offset };
        let fed = |topic: &Subscription| topic.feeds.iter().any(|feed| feed.key == *teller.key);
        let mut topics: Vec<_> = self.0.iter_mut().filter(|(_, topic)| fed(topic)).collect();
        topics.sort_by_key(|(_, topic)| topic.topic.rank());
        for (name, topic) in topics {
            let feeds = topic.feeds.iter().enumerate();
            let fits = feeds.filter(|(_, feed)| feed.key == *teller.key && feed.takes(at));
            let places: Vec<usize> = fits.map(|(place, _)| place).collect();
            for place in places {
                topic.feeds[place].fed = Some(at);
                for data in words(topic, place, name, teller, moment) {
                    tell(topic, name, at, data, actions);
                }
            }
        }
    }
}

/// What a topic says of an event.
fn words(
    topic: &Subscription,
    place: usize,
    name: &str,
    teller: Teller<'_>,
    moment: Moment<'_>,
) -> Vec<Object> {
    match &topic.topic {
        Topic::Table { table, .. } => {
            let canonical = topic.feeds[place].table.as_ref();
            canonical
                .and_then(|canonical| teller.table(canonical.as_str(), table))
                .into_iter()
                .collect()
        }
        Topic::Channel { channel, .. } => of_channel(*channel, teller, moment),
        Topic::Sync(_) => teller.sync().or_else(|| replaced(teller)).into_iter().collect(),
        Topic::Reserved | Topic::Free => {
            tracing::error!(name, "a free topic was fed");
            Vec::new()
        }
    }
}

/// A channel tells only of tables named by their alias: of every change, and of a publish over a
/// socket once more.
fn of_channel(channel: Channel, teller: Teller<'_>, moment: Moment<'_>) -> Vec<Object> {
    let sent = teller.event.record().and_then(|change| change.table_sent.as_deref());
    if sent.and_then(Channel::of_table) != Some(channel) {
        return Vec::new();
    }
    let at = moment.at.to_iso();
    let stand = Some((teller.event.revision, teller.event.at));
    let delta = |sent: Object| {
        channel_data(teller.server_id, teller.key, &sent, stand, channel.name(), &at)
    };
    teller.notice(channel.name(), &at).into_iter().chain(teller.sync().map(delta)).collect()
}

/// Tables that a client replaced otherwise than by a post: a post speaks for itself.
fn replaced(teller: Teller<'_>) -> Option<Object> {
    let EventChange::Module(change) = &teller.event.change else { return None };
    let by_post = teller.event.command.session.starts_with(super::posting::TRANS);
    if change.operation != BulkOperation::Replace || by_post {
        return None;
    }
    let said = |name| change.details.get(name).cloned();
    let mut data = Object::new();
    data.insert("action", said("action").unwrap_or_else(|| change.operation.wire_name().into()));
    data.insert("mutationId", said("mutationId").unwrap_or_default());
    data.insert("meta", said("meta").unwrap_or_else(|| Value::from(Object::new())));
    Some(data)
}

fn tell(topic: &mut Subscription, name: &str, at: Cursor, data: Object, actions: &mut Vec<Action>) {
    match topic.topic {
        Topic::Sync(_) => topic.keep(Some(at), data),
        Topic::Table { .. } | Topic::Channel { .. } | Topic::Reserved | Topic::Free => {
            topic.give(name, Last::Own(data), actions);
        }
    }
}

impl Session {
    /// Looks up what the topics fed from a module said last, where that is not known.
    pub(super) fn recall(&mut self, key: &BranchKey, actions: &mut Vec<Action>) {
        let Some(cursor) = self.followed.get(key).and_then(|followed| followed.cursor) else {
            return;
        };
        let feeds = self.topics.0.values().flat_map(|topic| &topic.feeds);
        let mut of_key = feeds.filter(|feed| feed.key == *key);
        if cursor.offset == Offset(0) || !of_key.any(|feed| feed.takes(cursor)) {
            return;
        }
        let after = Offset(cursor.offset.0.saturating_sub(u64::from(RECENT_EVENTS)));
        let read = Read::Events { after, limit: RECENT_EVENTS };
        let level = ReadLevel::Session(cursor.offset);
        self.ask(Asked::Recall(key.clone()), key.clone(), read, level, actions);
    }

    pub(super) fn on_recalled(
        &mut self,
        key: &BranchKey,
        found: Events,
        moment: Moment<'_>,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        let Some(cursor) = self.followed.get(key).and_then(|followed| followed.cursor) else {
            return actions;
        };
        if cursor.incarnation != found.incarnation {
            return actions;
        }
        let events = found.events.unwrap_or_default();
        // What comes after the cursor comes by itself.
        let known = || events.iter().rev().filter(|event| event.offset <= cursor.offset);
        for (name, topic) in &mut self.topics.0 {
            for place in 0..topic.feeds.len() {
                if topic.feeds[place].key != *key {
                    continue;
                }
                let last = known().find_map(|event| {
                    let at = Cursor { incarnation: found.incarnation, offset: event.offset };
                    let teller = Teller { server_id: &self.server_id, key, event };
                    let new = topic.feeds[place].takes(at);
                    new.then(|| words(topic, place, name, teller, moment).pop()).flatten()
                });
                if topic.feeds[place].takes(cursor) {
                    topic.feeds[place].fed = Some(cursor);
                }
                if let Some(data) = last {
                    tell(topic, name, cursor, data, &mut actions);
                }
            }
        }
        self.read_for_topics(key, &mut actions);
        actions
    }

    /// Has the state read that sync topics' words are shown with.
    pub(super) fn read_for_topics(&mut self, key: &BranchKey, actions: &mut Vec<Action>) {
        let cursor = self.followed.get(key).and_then(|followed| followed.cursor);
        let level = ReadLevel::Session(cursor.map_or(Offset(0), |cursor| cursor.offset));
        let mut names = Vec::new();
        for (name, topic) in &mut self.topics.0 {
            let of_key = matches!(&topic.topic, Topic::Sync(own) if own == key);
            if of_key && !topic.is_reading && !topic.words.is_empty() {
                topic.is_reading = true;
                names.push(name.clone());
            }
        }
        // `sync::…` before `pos:sync:…`.
        for name in names.into_iter().rev() {
            self.ask(Asked::State(name), key.clone(), Read::Snapshot, level, actions);
        }
    }

    /// The state a sync topic's words are shown with came.
    pub(super) fn on_state(
        &mut self,
        name: &str,
        result: Result<Answer, RouteError>,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        let Some(topic) = self.topics.0.get_mut(name) else { return actions };
        topic.is_reading = false;
        match result {
            Ok(Answer::Snapshot(snapshot)) => {
                let stand = cursor_of(&snapshot);
                let holds =
                    |at: Cursor| at.incarnation != stand.incarnation || at.offset <= stand.offset;
                while let Some((_, word)) = topic.words.pop_front_if(|(at, _)| at.is_none_or(holds))
                {
                    let frame = show(topic, name, &self.server_id, &word, &snapshot);
                    actions.extend(frame.map(|frame| Action::Write(Large::Topic(frame))));
                }
                // What came while this state was read needs a later one.
                self.read_for_topics(&snapshot.head.key, &mut actions);
            }
            Ok(_)
            | Err(
                RouteError::UnknownBranch(_)
                | RouteError::UnknownModule(_)
                | RouteError::Rejected(_),
            ) => {
                topic.words.clear();
            }
            Err(
                RouteError::Busy { .. }
                | RouteError::Unavailable { .. }
                | RouteError::Indeterminate,
            ) => {
                let Topic::Sync(key) = topic.topic.clone() else { return actions };
                topic.is_reading = true;
                let (ticket, read) = (self.ticket(), Read::Snapshot);
                self.asked.insert(ticket, Asked::State(name.to_owned()));
                let level = ReadLevel::Linearizable;
                actions.push(Action::Read { ticket, key, read, level, wait: pause(3) });
            }
        }
        actions
    }
}

/// What a sync topic says now: the state only where it is another than the one shown before.
fn show(
    topic: &mut Subscription,
    name: &str,
    server_id: &str,
    word: &Object,
    snapshot: &Arc<ModuleSnapshot>,
) -> Option<TopicFrame> {
    let data = sync_data(server_id, word, &snapshot.head);
    let mut said = Said::after(topic.last.as_deref(), &data)?;
    let stand = Some(cursor_of(snapshot));
    let new = topic.shown != stand;
    if let Said::Changed(set, _) = &mut said
        && new
    {
        set.insert(SNAPSHOT, Value::Null);
    }
    (topic.last, topic.shown) = (Some(Last::Own(data)), stand);
    let snapshot = new.then(|| Arc::clone(snapshot));
    Some(TopicFrame { topic: name.to_owned(), said, snapshot })
}
