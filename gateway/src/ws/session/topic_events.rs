//! Topic events: from a module's events to the messages of its topics. Nothing but the followed
//! stream feeds them, so they say the same on every node.

use std::sync::Arc;

use actors::{Cursor, RouteError};
use model::{
    Answer, BranchKey, BulkOperation, EventChange, Events, Incarnation, ModuleSnapshot, Object,
    Offset, Read, ReadLevel, Value,
};

use super::reads::PendingRead;
use super::topics::{LastMessage, SubscribedTopics, TopicState};
use super::{Session, SessionAction, SessionContext};
use crate::limits::RECENT_EVENTS;
use crate::wire::{EventRenderer, SNAPSHOT, TopicFrame, TopicUpdate, channel_data, sync_data};
use crate::ws::dialect::{Dialect, LargeFrame};
use crate::ws::subscription::{Subscription, cursor_of, pause};
use crate::ws::topic::{Channel, TopicSource};

impl SubscribedTopics {
    /// An event came.
    pub(super) fn on_event(
        &mut self,
        renderer: EventRenderer<'_>,
        incarnation: Incarnation,
        dialect: &dyn Dialect,
        cx: SessionContext<'_>,
        actions: &mut Vec<SessionAction>,
    ) {
        let at = Cursor { incarnation, offset: renderer.event.offset };
        let applied =
            |topic: &TopicState| topic.inputs.iter().any(|input| input.key == *renderer.key);
        let mut topics: Vec<_> = self.0.iter_mut().filter(|(_, topic)| applied(topic)).collect();
        // In the order of the original: those of one table before those of the module.
        topics.sort_by_key(|(_, topic)| topic.topic.rank());
        for (name, topic) in topics {
            let inputs = topic.inputs.iter().enumerate();
            let fits = inputs.filter(|(_, input)| input.key == *renderer.key && input.takes(at));
            let places: Vec<usize> = fits.map(|(place, _)| place).collect();
            for place in places {
                // Also where it says nothing of the event: the log need not be searched up to here
                // again.
                topic.inputs[place].applied = Some(at);
                for data in messages_of(topic, place, name, renderer, cx) {
                    update(topic, name, at, data, dialect, actions);
                }
            }
        }
    }
}

/// What a topic says of an event.
fn messages_of(
    topic: &TopicState,
    place: usize,
    name: &str,
    renderer: EventRenderer<'_>,
    cx: SessionContext<'_>,
) -> Vec<Object> {
    match &topic.topic {
        TopicSource::Table { table, .. } => {
            let canonical = topic.inputs[place].table.as_ref();
            canonical
                .and_then(|canonical| renderer.table(canonical.as_str(), table))
                .into_iter()
                .collect()
        }
        TopicSource::Channel { channel, .. } => of_channel(*channel, renderer, cx),
        TopicSource::Sync(_) => {
            renderer.sync().or_else(|| replaced(renderer)).into_iter().collect()
        }
        TopicSource::Reserved | TopicSource::Free => {
            tracing::error!(name, "a free topic was fed");
            Vec::new()
        }
    }
}

/// A channel tells only of tables named by their alias: of every change, and of a publish over a
/// socket once more.
fn of_channel(
    channel: Channel,
    renderer: EventRenderer<'_>,
    cx: SessionContext<'_>,
) -> Vec<Object> {
    let sent = renderer.event.record().and_then(|change| change.table_sent.as_deref());
    if sent.and_then(Channel::of_table) != Some(channel) {
        return Vec::new();
    }
    let at = cx.now.to_iso();
    let stand = Some((renderer.event.revision, renderer.event.at));
    let delta = |sent: Object| {
        channel_data(renderer.server_id, renderer.key, &sent, stand, channel.name(), &at)
    };
    renderer.notice(channel.name(), &at).into_iter().chain(renderer.sync().map(delta)).collect()
}

/// Tables that a client replaced otherwise than by a post: a post speaks for itself.
fn replaced(renderer: EventRenderer<'_>) -> Option<Object> {
    let EventChange::Module(change) = &renderer.event.change else { return None };
    let by_post = renderer.event.command.session.starts_with(super::posts::TRANS);
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

fn update(
    topic: &mut TopicState,
    name: &str,
    at: Cursor,
    data: Object,
    dialect: &dyn Dialect,
    actions: &mut Vec<SessionAction>,
) {
    match topic.topic {
        TopicSource::Sync(_) => topic.defer(Some(at), data),
        TopicSource::Table { .. }
        | TopicSource::Channel { .. }
        | TopicSource::Reserved
        | TopicSource::Free => {
            topic.send(name, LastMessage::Own(data), dialect, actions);
        }
    }
}

impl Session {
    /// Looks up what the topics fed from a module said last, where that is not known.
    pub(super) fn read_last_messages(&mut self, key: &BranchKey, actions: &mut Vec<SessionAction>) {
        let Some(cursor) = self.subscriptions.get(key).and_then(Subscription::cursor) else {
            return;
        };
        let inputs = self.topics.0.values().flat_map(|topic| &topic.inputs);
        let mut of_key = inputs.filter(|input| input.key == *key);
        // A topic that was fed up to the cursor has said whatever the log could tell it.
        if cursor.offset == Offset(0) || !of_key.any(|input| input.takes(cursor)) {
            return;
        }
        let after = Offset(cursor.offset.0.saturating_sub(u64::from(RECENT_EVENTS)));
        let read = Read::Events { after, limit: RECENT_EVENTS };
        let level = ReadLevel::Session(cursor.offset);
        self.read_for(PendingRead::Recall(key.clone()), key.clone(), read, level, actions);
    }

    pub(super) fn on_last_messages(
        &mut self,
        key: &BranchKey,
        found: Events,
        cx: SessionContext<'_>,
    ) -> Vec<SessionAction> {
        let mut actions = Vec::new();
        let Some(cursor) = self.subscriptions.get(key).and_then(Subscription::cursor) else {
            return actions;
        };
        // The log was replaced between the read and its answer: its offsets mean other events.
        if cursor.incarnation != found.incarnation {
            return actions;
        }
        let events = found.events.unwrap_or_default();
        // Events after the cursor come by the stream, which must not be overtaken.
        let known = || events.iter().rev().filter(|event| event.offset <= cursor.offset);
        for (name, topic) in &mut self.topics.0 {
            for place in 0..topic.inputs.len() {
                if topic.inputs[place].key != *key {
                    continue;
                }
                let last = known().find_map(|event| {
                    let at = Cursor { incarnation: found.incarnation, offset: event.offset };
                    let renderer = EventRenderer { server_id: &self.server_id, key, event };
                    let new = topic.inputs[place].takes(at);
                    new.then(|| messages_of(topic, place, name, renderer, cx).pop()).flatten()
                });
                // Everything up to the cursor counts as applied, found or not.
                if topic.inputs[place].takes(cursor) {
                    topic.inputs[place].applied = Some(cursor);
                }
                if let Some(data) = last {
                    update(topic, name, cursor, data, self.dialect, &mut actions);
                }
            }
        }
        self.read_for_topics(key, &mut actions);
        actions
    }

    /// Has the state read that sync topics' words are shown with.
    pub(super) fn read_for_topics(&mut self, key: &BranchKey, actions: &mut Vec<SessionAction>) {
        let cursor = self.subscriptions.get(key).and_then(Subscription::cursor);
        let level = ReadLevel::Session(cursor.map_or(Offset(0), |cursor| cursor.offset));
        let mut names = Vec::new();
        for (name, topic) in &mut self.topics.0 {
            let of_key = matches!(&topic.topic, TopicSource::Sync(own) if own == key);
            if of_key && !topic.is_reading && !topic.deferred.is_empty() {
                topic.is_reading = true;
                names.push(name.clone());
            }
        }
        // `sync::…` before `pos:sync:…`.
        for name in names.into_iter().rev() {
            self.read_for(PendingRead::State(name), key.clone(), Read::Snapshot, level, actions);
        }
    }

    /// The state a sync topic's words are shown with came.
    pub(super) fn on_state(
        &mut self,
        name: &str,
        result: Result<Answer, RouteError>,
    ) -> Vec<SessionAction> {
        let mut actions = Vec::new();
        let Some(topic) = self.topics.0.get_mut(name) else { return actions };
        // Before anything else is asked: the next read of this topic must not be held up by this
        // one.
        topic.is_reading = false;
        match result {
            Ok(Answer::Snapshot(snapshot)) => {
                let stand = cursor_of(&snapshot);
                let holds =
                    |at: Cursor| at.incarnation != stand.incarnation || at.offset <= stand.offset;
                while let Some((_, word)) =
                    topic.deferred.pop_front_if(|(at, _)| at.is_none_or(holds))
                {
                    let frame = show(topic, name, &self.server_id, &word, &snapshot);
                    actions
                        .extend(frame.map(|frame| SessionAction::Write(LargeFrame::Topic(frame))));
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
                // There is no state to show them with, and another try would not find one.
                topic.deferred.clear();
            }
            Err(
                RouteError::Busy { .. }
                | RouteError::TopicsFull { .. }
                | RouteError::Unavailable { .. }
                | RouteError::MemoryFull(_)
                | RouteError::BranchQuota(_)
                | RouteError::Indeterminate,
            ) => {
                let TopicSource::Sync(key) = topic.topic.clone() else { return actions };
                topic.is_reading = true;
                // The messages wait, and nothing else asks for their state meanwhile.
                let (call, read) = (self.next_call(), Read::Snapshot);
                self.pending_reads.insert(call, PendingRead::State(name.to_owned()));
                let level = ReadLevel::Linearizable;
                actions.push(SessionAction::Read { call, key, read, level, wait: pause(3) });
            }
        }
        actions
    }
}

/// What a sync topic says now: the state only where it is another than the one shown before.
fn show(
    topic: &mut TopicState,
    name: &str,
    server_id: &str,
    word: &Object,
    snapshot: &Arc<ModuleSnapshot>,
) -> Option<TopicFrame> {
    let data = sync_data(server_id, word, &snapshot.head);
    let mut said = TopicUpdate::after(topic.last.as_deref(), &data)?;
    let stand = Some(cursor_of(snapshot));
    let new = topic.shown != stand;
    if let TopicUpdate::Changed(set, _) = &mut said
        && new
    {
        // Holds the place in which the frame shows the state.
        set.insert(SNAPSHOT, Value::Null);
    }
    (topic.last, topic.shown) = (Some(LastMessage::Own(data)), stand);
    let snapshot = new.then(|| Arc::clone(snapshot));
    Some(TopicFrame { topic: name.to_owned(), said, snapshot })
}
