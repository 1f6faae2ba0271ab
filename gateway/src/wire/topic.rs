//! Topic: what is said under a topic, as subscribers get it: whole at first, then what changed.

use std::sync::Arc;

use model::{
    BranchKey, BulkOperation, Event, EventChange, ModuleChange, ModuleSnapshot, Object, Revision,
    Timestamp, Value,
};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::wire::event::RecordEvent;
use crate::wire::module_event::module_meta;
use crate::wire::snapshot::ModuleShape;

/// What emptying a table is called.
const TABLE_PURGE: &str = "table:purge";

/// What an act's `meta` says of the whole module, and not of one table.
const OF_THE_MODULE: [&str; 4] = ["eventMetaReset", "moduleId", "purgedTables", "totalPurged"];

/// The member that stands for a module's whole state.
pub(crate) const SNAPSHOT: &str = "snapshot";

/// A `publish` frame to a subscriber.
pub(crate) struct TopicFrame {
    pub(crate) topic: String,
    pub(crate) said: TopicUpdate,
    /// Shown in the place of the data's member [`SNAPSHOT`].
    pub(crate) snapshot: Option<Arc<ModuleSnapshot>>,
}

/// Its data.
pub(crate) enum TopicUpdate {
    /// All of it.
    Whole(Object),
    /// What is new, and which members are gone.
    Changed(Object, Vec<Arc<str>>),
    /// As it is, without a word about how.
    Bare(Object),
}

impl TopicUpdate {
    /// What a subscriber that was told `before` is told now; `None` if nothing is new.
    pub(crate) fn after(before: Option<&Object>, now: &Object) -> Option<Self> {
        let Some(before) = before else { return Some(Self::Whole(now.clone())) };
        let new = now.iter().filter(|(name, value)| before.get(name) != Some(value));
        let set: Object = new.map(|(name, value)| (Arc::clone(name), value.clone())).collect();
        let gone = before.iter().filter(|(name, _)| now.get(name).is_none());
        let remove: Vec<_> = gone.map(|(name, _)| Arc::clone(name)).collect();
        (!set.is_empty() || !remove.is_empty()).then_some(Self::Changed(set, remove))
    }
}

/// Data, a module's state in the place of one member.
struct TopicData<'a>(&'a Object, Option<&'a ModuleSnapshot>);

impl Serialize for TopicData<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.0.iter() {
            match self.1 {
                Some(snapshot) if &**name == SNAPSHOT => {
                    map.serialize_entry(SNAPSHOT, &ModuleShape(snapshot))?;
                }
                Some(_) | None => map.serialize_entry(&**name, value)?,
            }
        }
        map.end()
    }
}

impl TopicFrame {
    /// A frame without a module's state.
    pub(crate) fn new(topic: &str, said: TopicUpdate) -> Self {
        Self { topic: topic.to_owned(), said, snapshot: None }
    }

    /// Rows it shows: how much work it is to write.
    pub(crate) fn rows(&self) -> u64 {
        self.snapshot.as_ref().map_or(0, |snapshot| snapshot.head.rows)
    }
}

impl Serialize for TopicFrame {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shape<'a, D> {
            r#type: &'a str,
            topic: &'a str,
            data: D,
        }
        #[derive(Serialize)]
        struct Whole<'a> {
            mode: &'a str,
            snapshot: TopicData<'a>,
        }
        #[derive(Serialize)]
        struct Changed<'a> {
            mode: &'a str,
            set: TopicData<'a>,
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            remove: &'a [Arc<str>],
        }
        let (r#type, topic, state) = ("publish", &*self.topic, self.snapshot.as_deref());
        match &self.said {
            TopicUpdate::Whole(data) => {
                let data = Whole { mode: "snapshot", snapshot: TopicData(data, state) };
                Shape { r#type, topic, data }.serialize(to)
            }
            TopicUpdate::Changed(set, remove) => {
                let data = Changed { mode: "delta", set: TopicData(set, state), remove };
                Shape { r#type, topic, data }.serialize(to)
            }
            TopicUpdate::Bare(data) => {
                Shape { r#type, topic, data: TopicData(data, state) }.serialize(to)
            }
        }
    }
}

/// Who tells of an event.
#[derive(Clone, Copy)]
pub(crate) struct EventRenderer<'a> {
    pub(crate) server_id: &'a str,
    pub(crate) key: &'a BranchKey,
    pub(crate) event: &'a Event,
}

impl EventRenderer<'_> {
    /// `table:update` for one table, `canonical`, under the name subscribed to; `None` where the
    /// event says nothing of it.
    pub(crate) fn table(&self, canonical: &str, name: &str) -> Option<Object> {
        let mut data: Object = [
            ("type", "table:update"),
            ("branchId", self.key.branch.as_str()),
            ("moduleId", self.key.module.as_str()),
            ("table", name),
        ]
        .into_iter()
        .collect();
        match &self.event.change {
            EventChange::Record(change) if change.table.as_str() == canonical => {
                let shown = RecordEvent::new(self.server_id, self.key, self.event)?;
                extend(&mut data, &shown.notice());
            }
            EventChange::Record(_) => return None,
            EventChange::Module(change) => {
                let (action, entry) = of_table(change, canonical)?;
                data.insert("action", action.into());
                let of_change = entry.iter().filter(|(member, _)| &***member != "table");
                let mut members: Vec<_> = of_change.collect();
                if action == TABLE_PURGE {
                    // How much is gone comes first there.
                    members.reverse();
                }
                for (member, value) in members {
                    data.insert(Arc::clone(member), value.clone());
                }
                let mut meta = module_meta(self.server_id, self.key, change);
                for of_the_module in OF_THE_MODULE {
                    meta.remove(of_the_module);
                }
                data.insert("meta", meta.into());
            }
        }
        Some(data)
    }

    /// `branch:table-notice`.
    pub(crate) fn notice(&self, topic: &str, at: &str) -> Option<Object> {
        let shown = RecordEvent::new(self.server_id, self.key, self.event)?;
        let mut notice = Object::new();
        extend(&mut notice, &shown.notice());
        let mut data = Object::new();
        data.insert("type", "branch:table-notice".into());
        data.insert("table", shown.table().into());
        data.insert("moduleId", self.key.module.as_str().into());
        for member in ["action", "eventId", "sequence", "recordRef", "meta"] {
            data.insert(member, notice.remove(member).unwrap_or_default());
        }
        data.insert("branchId", self.key.branch.as_str().into());
        data.insert("topic", topic.into());
        data.insert("publishedAt", at.into());
        Some(data)
    }

    /// What a sync topic is told of a publish over a socket: `None` for what came otherwise.
    pub(crate) fn sync(&self) -> Option<Object> {
        let client = self.event.origin.client.as_deref()?;
        let change = self.event.record()?;
        let table = change.table_sent.as_deref().unwrap_or(change.table.as_str());
        let meta = [("table", table), ("source", "ws-client-insert"), ("clientId", client)];
        let mut data = Object::new();
        data.insert("action", change.effect.wire_name().into());
        data.insert("meta", meta.into_iter().collect::<Object>().into());
        Some(data)
    }
}

/// What an act on the whole module did to one table, and what that is called.
fn of_table<'a>(change: &'a ModuleChange, canonical: &str) -> Option<(&'static str, &'a Object)> {
    let details = &change.details;
    let (action, list) = match change.operation {
        BulkOperation::Purge => (TABLE_PURGE, details.get("tables")),
        BulkOperation::Restore => ("table:restore", details.get("restored")),
        BulkOperation::Reset => {
            (TABLE_PURGE, details.get("meta").and_then(|meta| meta.get("purgedTables")))
        }
        BulkOperation::Replace | BulkOperation::Sequence | BulkOperation::Clock => return None,
    };
    let mut entries = list?.as_array()?.iter().filter_map(Value::as_object);
    let entry = entries.find(|entry| {
        let text = |name| entry.get(name).and_then(Value::as_str);
        text("table") == Some(canonical) && text("status") != Some("skipped")
    });
    entry.map(|entry| (action, entry))
}

/// Adds the members of a shape.
fn extend(data: &mut Object, shape: &impl Serialize) {
    let json = serde_json::to_vec(shape).unwrap_or_default();
    if let Ok(Value::Object(members)) = Value::from_json(&json) {
        for (name, value) in members {
            data.insert(name, value);
        }
    }
}

/// Where a module stands: its revision, and when it last changed.
pub(crate) type Stand = Option<(Revision, Timestamp)>;

/// The `meta` of what is said of a module, with what was sent of it.
fn meta_of(server_id: &str, key: &BranchKey, sent: &Object, stand: Stand) -> Object {
    let (branch, module) = (key.branch.as_str(), key.module.as_str());
    let place = [("branchId", branch), ("moduleId", module), ("serverId", server_id)];
    let mut meta: Object = place.into_iter().collect();
    if let Some((revision, at)) = stand {
        meta.insert("version", revision.0.into());
        meta.insert("updatedAt", at.to_iso().into());
    }
    let sent = sent.get("meta").and_then(Value::as_object);
    for (name, value) in sent.into_iter().flat_map(Object::iter) {
        meta.insert(Arc::clone(name), value.clone());
    }
    meta
}

/// What a sync topic says, completed by the state it is about. The state itself goes where
/// [`SNAPSHOT`] stands.
pub(crate) fn sync_data(server_id: &str, sent: &Object, head: &model::Head) -> Object {
    let said = |name| sent.get(name).cloned().unwrap_or_default();
    let stand = Some((head.revision, head.last_updated_at));
    let mut data = Object::new();
    data.insert("action", said("action"));
    data.insert("branchId", head.key.branch.as_str().into());
    data.insert("moduleId", head.key.module.as_str().into());
    data.insert("version", head.revision.0.into());
    data.insert(SNAPSHOT, Value::Null);
    data.insert("mutationId", said("mutationId"));
    data.insert("meta", meta_of(server_id, &head.key, sent, stand).into());
    for (name, value) in sent.iter() {
        if data.get(name).is_none() {
            data.insert(Arc::clone(name), value.clone());
        }
    }
    data
}

/// `branch:delta`: the same for a channel, without the state.
pub(crate) fn channel_data(
    server_id: &str,
    key: &BranchKey,
    sent: &Object,
    stand: Stand,
    channel: &str,
    at: &str,
) -> Object {
    let said = |name| sent.get(name).cloned().unwrap_or_default();
    let mut data = Object::new();
    data.insert("type", "branch:delta".into());
    data.insert("branchId", key.branch.as_str().into());
    data.insert("moduleId", key.module.as_str().into());
    data.insert("action", said("action"));
    if let Some((revision, _)) = stand {
        data.insert("version", revision.0.into());
    }
    data.insert("mutationId", said("mutationId"));
    data.insert("meta", meta_of(server_id, key, sent, stand).into());
    data.insert("topic", channel.into());
    data.insert("publishedAt", at.into());
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(json: &str) -> Object {
        Value::from_json(json.as_bytes()).unwrap().as_object().unwrap().clone()
    }

    fn frame_after(before: Option<&str>, now: &str) -> String {
        let before = before.map(object);
        TopicUpdate::after(before.as_ref(), &object(now)).map_or_else(String::new, |said| {
            serde_json::to_string(&TopicFrame::new("t", said)).unwrap()
        })
    }

    #[test]
    fn the_first_word_is_whole_and_later_ones_are_what_changed() {
        let frame = |data: &str| format!(r#"{{"type":"publish","topic":"t","data":{data}}}"#);
        let first = r#"{"a":1,"b":{"c":2}}"#;
        assert_eq!(
            frame_after(None, first),
            frame(r#"{"mode":"snapshot","snapshot":{"a":1,"b":{"c":2}}}"#)
        );
        let second = r#"{"a":1,"b":{"c":3},"d":4}"#;
        let delta = r#"{"mode":"delta","set":{"b":{"c":3},"d":4}}"#;
        assert_eq!(frame_after(Some(first), second), frame(delta));
        let third = r#"{"d":4}"#;
        let delta = r#"{"mode":"delta","set":{},"remove":["a","b"]}"#;
        assert_eq!(frame_after(Some(second), third), frame(delta));
        assert_eq!(frame_after(Some(third), third), "", "nothing new is not said");
    }
}
