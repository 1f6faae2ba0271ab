//! Original: the dialect of the original's clients, and of today's: frames of JSON, each with its
//! `type`. Their members and their order are the wire contract (docs/protocol.md, section 2).

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use model::{
    BranchId, BranchKey, Delta, Event, EventChange, ModuleId, ModuleSnapshot, Object, Value,
};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize, Serializer};

use super::{
    ClientFrame, ClientRequest, Dialect, LogLevel, ResumedModule, ServerFrame, UnreadableFrame,
};
use crate::error::ApiError;
use crate::limits::{ID_BYTES_MAX, TOPIC_NAME_BYTES_MAX};
use crate::render;
use crate::rest::DEFAULT_BRANCH;
use crate::wire::{Directive, ModuleEvent, RecordEvent, RecordRef, SnapshotReason, WireCursor};
use crate::ws::subscription::ResyncReason;
use crate::ws::topic::TopicSource;

/// Where a frame says which request it is, the first first.
const REQUEST_IDS: [&[&str]; 3] = [&["meta", "requestId"], &["meta", "requestID"], &["requestId"]];

/// Speaks as the original did.
pub(crate) struct OriginalDialect;

impl Dialect for OriginalDialect {
    fn id(&self) -> u16 {
        0
    }

    fn parse(&self, message: &[u8]) -> Result<ClientFrame, Box<UnreadableFrame>> {
        match Value::from_json(message) {
            Ok(Value::Object(members)) => {
                let named = members.get("type");
                let known = named.and_then(Value::as_str).and_then(request);
                let request = known.unwrap_or_else(|| ClientRequest::Unknown(named.cloned()));
                Ok(ClientFrame { request, members, bytes: message.len() })
            }
            Ok(_) => Err(Box::new(UnreadableFrame {
                error: None,
                request: None,
                request_id: None,
                topic: None,
            })),
            Err(error) => {
                let text = |name| match Value::find_in_json(message, &[name]) {
                    Some(Value::String(text)) => Some(text),
                    _ => None,
                };
                let is_short = |id: &Value| {
                    id.key_text().is_some_and(|text| !text.is_empty() && text.len() <= ID_BYTES_MAX)
                };
                let id = REQUEST_IDS.iter().find_map(|path| Value::find_in_json(message, path));
                Err(Box::new(UnreadableFrame {
                    error: Some(error),
                    request: text("type").as_deref().and_then(request),
                    request_id: id.filter(is_short),
                    topic: text("topic").filter(|topic| topic.len() <= TOPIC_NAME_BYTES_MAX),
                }))
            }
        }
    }

    fn brings_snapshot(&self, message: &[u8]) -> bool {
        #[derive(Deserialize)]
        struct Frame<'a> {
            #[serde(borrow)]
            r#type: Cow<'a, str>,
            #[serde(borrow)]
            topic: Cow<'a, str>,
            data: Data,
        }
        #[derive(Deserialize)]
        struct Data {
            snapshot: Option<IgnoredAny>,
        }
        serde_json::from_slice::<Frame<'_>>(message).is_ok_and(|frame| {
            frame.r#type == "publish"
                && frame.data.snapshot.is_some()
                && TopicSource::readings(&frame.topic)
                    .iter()
                    .any(|topic| matches!(topic, TopicSource::Sync(_)))
        })
    }

    fn render(&self, frame: &ServerFrame<'_>) -> Result<Bytes, ApiError> {
        let shape = match *frame {
            // Large, or shared with REST: these have shapes of their own.
            ServerFrame::Snapshot(frame) => return render::bytes(frame),
            ServerFrame::Rows(frame) => return render::bytes(frame),
            ServerFrame::Topic(frame) => return render::bytes(frame),
            ServerFrame::FullSyncFlag(flag) => return render::bytes(&Directive::of(flag)),
            ServerFrame::Event { server_id, delta, event, snapshot, with_record } => {
                return event_frame(server_id, delta, event, snapshot, with_record);
            }
            ServerFrame::Ack { server_id, key, incarnation, event } => {
                let shown = RecordEvent::new(server_id, key, event);
                let shown = shown.map(|shown| shown.with_cursor(incarnation));
                return shown.map_or(Ok(Bytes::new()), |shown| render::bytes(&shown.ack()));
            }
            ServerFrame::BatchAck { server_id, key, incarnation, request_id, events } => {
                let Some(last) = events.last() else { return Ok(Bytes::new()) };
                Shape::BatchAck {
                    request_id,
                    branch_id: &key.branch,
                    module_id: &key.module,
                    version: last.revision.0,
                    results: Results { server_id, key, events },
                    cursor: WireCursor::new(incarnation, last.offset),
                }
            }
            ServerFrame::Hello { server_id, at } => Shape::Hello {
                server_id,
                now: at.to_iso(),
                defaults: Defaults { branch_id: DEFAULT_BRANCH },
            },
            ServerFrame::Log { server_id, level, message, context, at } => {
                Shape::Log { level, message, context, ts: at.to_iso(), server_id }
            }
            ServerFrame::Error { request_id, error } => Shape::Error {
                request_id,
                code: error.code(),
                message: error.message(),
                details: details_of(error),
            },
            ServerFrame::QueryError { request_id, message, at } => {
                Shape::QueryError { request_id, error: message, timestamp: at.to_iso() }
            }
            ServerFrame::TopicError { code, message, topic, details } => {
                Shape::TopicError { code, message, topic, details }
            }
            ServerFrame::Pong => Shape::Pong,
            ServerFrame::AuthAck => Shape::Ack { event: "auth", topic: None },
            ServerFrame::Subscribed { topic } => {
                Shape::Ack { event: "subscribe", topic: Some(topic) }
            }
            ServerFrame::Unsubscribed { topic } => {
                Shape::Ack { event: "unsubscribe", topic: Some(topic) }
            }
            ServerFrame::Resumed { branch, modules, request_id } => {
                Shape::Resumed { branch_id: branch, modules: ResumedModules(modules), request_id }
            }
            ServerFrame::Resync { branch, module, reason } => {
                let reason = resync_reason(reason);
                Shape::Resync { branch_id: branch, module_id: module, reason }
            }
        };
        render::bytes(&shape)
    }
}

/// What a frame of this type asks for.
fn request(frame_type: &str) -> Option<ClientRequest> {
    Some(match frame_type {
        "client:hello" => ClientRequest::Hello,
        "client:publish" => ClientRequest::Publish,
        "client:batch" => ClientRequest::Batch,
        "client:query" => ClientRequest::Query,
        "client:request:snapshot" => ClientRequest::Snapshot(SnapshotReason::Request),
        "client:request:history" => ClientRequest::Snapshot(SnapshotReason::HistoryRequest),
        "subscribe" => ClientRequest::Subscribe,
        "unsubscribe" => ClientRequest::Unsubscribe,
        "publish" => ClientRequest::Post,
        "ping" => ClientRequest::Ping,
        "pong" => ClientRequest::Pong,
        "auth" => ClientRequest::Auth,
        _ => return None,
    })
}

fn resync_reason(reason: ResyncReason) -> &'static str {
    match reason {
        ResyncReason::OtherIncarnation => "other-epoch",
        ResyncReason::Ahead => "ahead",
        ResyncReason::TooOld => "too-old",
        ResyncReason::InvalidCursor => "invalid-cursor",
        ResyncReason::NotInBranch => "not-in-branch",
    }
}

/// An event of a delta; empty for a change that a snapshot alone shows. `snapshot` goes into those
/// whose publish asked for it, and into resets.
fn event_frame(
    server_id: &str,
    delta: &Delta,
    event: &Event,
    snapshot: Option<&ModuleSnapshot>,
    with_record: bool,
) -> Result<Bytes, ApiError> {
    if let EventChange::Module(change) = &event.change {
        let shown = ModuleEvent::new(server_id, delta, event, change, snapshot);
        return shown.map_or(Ok(Bytes::new()), |shown| render::bytes(&shown));
    }
    let shown = RecordEvent::of(server_id, &delta.key, event)?;
    let shown = shown.with_cursor(delta.incarnation).with_record(with_record);
    render::bytes(&shown.event(snapshot))
}

/// The `details` of an error; those of one mutation of several say which.
fn details_of(error: &ApiError) -> Object {
    let mut details = error.shown_details();
    if let Some(index) = error.index() {
        details.insert("index", index.into());
    }
    details
}

/// The small frames, member by member.
#[derive(Serialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
enum Shape<'a> {
    #[serde(rename = "server:hello")]
    Hello { server_id: &'a str, now: String, defaults: Defaults<'a> },
    #[serde(rename = "server:log")]
    Log { level: LogLevel, message: &'a str, context: &'a Object, ts: String, server_id: &'a str },
    #[serde(rename = "server:error")]
    Error { request_id: Option<&'a Value>, code: &'a str, message: &'a str, details: Object },
    #[serde(rename = "server:query:error")]
    QueryError {
        #[serde(skip_serializing_if = "Option::is_none")]
        request_id: Option<&'a Value>,
        error: &'a str,
        timestamp: String,
    },
    #[serde(rename = "error")]
    TopicError {
        code: &'a str,
        message: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        topic: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        details: Option<&'a Object>,
    },
    #[serde(rename = "pong")]
    Pong,
    #[serde(rename = "ack")]
    Ack {
        event: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        topic: Option<&'a str>,
    },
    #[serde(rename = "server:resumed")]
    Resumed { branch_id: &'a BranchId, modules: ResumedModules<'a>, request_id: Option<&'a Value> },
    #[serde(rename = "server:resync")]
    Resync { branch_id: &'a BranchId, module_id: &'a str, reason: &'a str },
    #[serde(rename = "server:batch:ack")]
    BatchAck {
        request_id: Option<&'a Value>,
        branch_id: &'a BranchId,
        module_id: &'a ModuleId,
        version: u64,
        results: Results<'a>,
        cursor: WireCursor,
    },
}

/// `defaults` of a hello.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Defaults<'a> {
    branch_id: &'a str,
}

/// `modules` of a `server:resumed`: `{<module>: {from, to}}`.
struct ResumedModules<'a>(&'a [ResumedModule]);

impl Serialize for ResumedModules<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Stretch {
            from: WireCursor,
            to: WireCursor,
        }
        to.collect_map(self.0.iter().map(|(module, from, last)| {
            let to = WireCursor::new(from.incarnation, *last);
            (module, Stretch { from: WireCursor::from(*from), to })
        }))
    }
}

/// `results` of a `server:batch:ack`: what each mutation did.
struct Results<'a> {
    server_id: &'a str,
    key: &'a BranchKey,
    events: &'a [Arc<Event>],
}

impl Serialize for Results<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Done<'a> {
            index: usize,
            action: &'a str,
            table: &'a str,
            record_ref: RecordRef<'a>,
            #[serde(skip_serializing_if = "Option::is_none")]
            record: Option<&'a Object>,
            event_id: &'a str,
            sequence: u64,
            created: bool,
            deleted: bool,
        }
        let shown = self.events.iter().enumerate().filter_map(|(index, event)| {
            Some((index, event, RecordEvent::new(self.server_id, self.key, event)?))
        });
        let shown: Vec<_> = shown.collect();
        to.collect_seq(shown.iter().map(|(index, event, shown)| Done {
            index: *index,
            action: shown.action(),
            table: shown.table(),
            record_ref: shown.record_ref(),
            record: event.origin.include_record.then_some(shown.record()),
            event_id: &event.id,
            sequence: event.offset.0,
            created: shown.created(),
            deleted: shown.deleted(),
        }))
    }
}
