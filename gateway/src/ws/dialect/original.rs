//! Original: the dialect of the original's clients, and of today's: frames of JSON, each with its
//! `type`. Their members and their order are the wire contract (docs/protocol.md, section 2).

use std::sync::Arc;

use bytes::Bytes;
use model::{
    BranchId, BranchKey, Delta, Event, FullSyncFlag, Incarnation, ModuleId, ModuleSnapshot, Object,
    Timestamp, Value,
};
use serde::{Serialize, Serializer};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::{Dialect, LargeFrame, LogLevel, Request};
use crate::error::ApiError;
use crate::render;
use crate::rest::DEFAULT_BRANCH;
use crate::wire::{
    Directive, Members, RecordEvent, RecordRef, TopicFrame, WireCursor, event_frames,
};

/// Speaks as the original did.
pub(crate) struct Original;

impl Dialect for Original {
    fn hello(&self, server_id: &str, now: Timestamp) -> Utf8Bytes {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Hello<'a> {
            r#type: &'a str,
            server_id: &'a str,
            now: String,
            defaults: Defaults<'a>,
        }
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Defaults<'a> {
            branch_id: &'a str,
        }
        let defaults = Defaults { branch_id: DEFAULT_BRANCH };
        text(&Hello { r#type: "server:hello", server_id, now: now.to_iso(), defaults })
    }

    fn log(
        &self,
        server_id: &str,
        level: LogLevel,
        message: &str,
        context: &Object,
        at: Timestamp,
    ) -> Utf8Bytes {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Log<'a> {
            r#type: &'a str,
            level: LogLevel,
            message: &'a str,
            context: &'a Object,
            ts: String,
            server_id: &'a str,
        }
        text(&Log { r#type: "server:log", level, message, context, ts: at.to_iso(), server_id })
    }

    fn error(&self, request_id: Option<&Value>, error: &ApiError) -> Utf8Bytes {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Failure<'a> {
            r#type: &'a str,
            request_id: Option<&'a Value>,
            code: &'a str,
            message: &'a str,
            details: Object,
        }
        let mut details = error.shown_details();
        if let Some(index) = error.index() {
            details.insert("index", index.into());
        }
        text(&Failure {
            r#type: "server:error",
            request_id,
            code: error.code(),
            message: error.message(),
            details,
        })
    }

    fn pong(&self) -> Utf8Bytes {
        Utf8Bytes::from_static(r#"{"type":"pong"}"#)
    }

    fn auth_ack(&self) -> Utf8Bytes {
        Utf8Bytes::from_static(r#"{"type":"ack","event":"auth"}"#)
    }

    fn topic_ack(&self, event: &str, topic: &str) -> Utf8Bytes {
        #[derive(Serialize)]
        struct Ack<'a> {
            r#type: &'a str,
            event: &'a str,
            topic: &'a str,
        }
        text(&Ack { r#type: "ack", event, topic })
    }

    fn topic_error(
        &self,
        code: &str,
        message: &str,
        topic: Option<&str>,
        details: Option<&Object>,
    ) -> Utf8Bytes {
        #[derive(Serialize)]
        struct Failure<'a> {
            r#type: &'a str,
            code: &'a str,
            message: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            topic: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            details: Option<&'a Object>,
        }
        text(&Failure { r#type: "error", code, message, topic, details })
    }

    fn resumed(
        &self,
        branch: &BranchId,
        modules: &[(ModuleId, WireCursor, WireCursor)],
        request_id: Option<&Value>,
    ) -> Utf8Bytes {
        #[derive(Clone, Serialize)]
        struct Stretch {
            from: WireCursor,
            to: WireCursor,
        }
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Resumed<'a, M> {
            r#type: &'a str,
            branch_id: &'a BranchId,
            modules: M,
            request_id: Option<&'a Value>,
        }
        let modules =
            modules.iter().map(|(module, from, to)| (module, Stretch { from: *from, to: *to }));
        text(&Resumed {
            r#type: "server:resumed",
            branch_id: branch,
            modules: Members(modules),
            request_id,
        })
    }

    fn resync(&self, branch: &BranchId, module: &str, reason: &str) -> Utf8Bytes {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Resync<'a> {
            r#type: &'a str,
            branch_id: &'a BranchId,
            module_id: &'a str,
            reason: &'a str,
        }
        text(&Resync { r#type: "server:resync", branch_id: branch, module_id: module, reason })
    }

    fn batch_ack(
        &self,
        server_id: &str,
        key: &BranchKey,
        incarnation: Incarnation,
        request_id: Option<&Value>,
        events: &[Arc<Event>],
    ) -> Utf8Bytes {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Ack<'a> {
            r#type: &'a str,
            request_id: Option<&'a Value>,
            branch_id: &'a BranchId,
            module_id: &'a ModuleId,
            version: u64,
            results: Results<'a>,
            cursor: WireCursor,
        }
        let Some(last) = events.last() else { return Utf8Bytes::default() };
        text(&Ack {
            r#type: "server:batch:ack",
            request_id,
            branch_id: &key.branch,
            module_id: &key.module,
            version: last.revision.0,
            results: Results { server_id, key, events },
            cursor: WireCursor::new(incarnation, last.offset),
        })
    }

    fn query_error(&self, request_id: Option<&Value>, message: &str, at: Timestamp) -> Utf8Bytes {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Failure<'a> {
            r#type: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            request_id: Option<&'a Value>,
            error: &'a str,
            timestamp: String,
        }
        let timestamp = at.to_iso();
        text(&Failure { r#type: "server:query:error", request_id, error: message, timestamp })
    }

    fn directive(&self, flag: &FullSyncFlag) -> Utf8Bytes {
        text(&Directive::of(flag))
    }

    fn ack(
        &self,
        server_id: &str,
        key: &BranchKey,
        incarnation: Incarnation,
        event: &Event,
    ) -> Option<Utf8Bytes> {
        let shown = RecordEvent::new(server_id, key, event)?;
        Some(text(&shown.with_cursor(incarnation).ack()))
    }

    fn topic(&self, frame: &TopicFrame) -> Utf8Bytes {
        text(frame)
    }

    fn events(
        &self,
        server_id: &str,
        delta: &Delta,
        snapshot: Option<&ModuleSnapshot>,
        with_records: bool,
    ) -> Vec<Bytes> {
        event_frames(server_id, delta, snapshot, with_records)
    }

    fn outline(&self, frame: &LargeFrame) -> Result<Bytes, ApiError> {
        match frame {
            LargeFrame::Snapshot(frame) => render::bytes(frame),
            LargeFrame::Rows(frame) => render::bytes(frame),
            LargeFrame::Topic(frame) => render::bytes(frame),
        }
    }

    fn request(&self, frame_type: &str) -> Option<Request> {
        Some(match frame_type {
            "client:hello" => Request::Hello,
            "client:publish" => Request::Publish,
            "client:batch" => Request::Batch,
            "client:query" => Request::Query,
            "client:request:snapshot" => Request::Snapshot("explicit-request"),
            "client:request:history" => Request::Snapshot("history-request"),
            "subscribe" => Request::Subscribe,
            "unsubscribe" => Request::Unsubscribe,
            "publish" => Request::Post,
            "ping" => Request::Ping,
            "pong" => Request::Pong,
            "auth" => Request::Auth,
            _ => return None,
        })
    }
}

/// Writes a frame. It cannot fail for the shapes of this room; an empty frame is not sent.
pub(crate) fn text(shape: &impl Serialize) -> Utf8Bytes {
    serde_json::to_string(shape).map_or_else(
        |error| {
            tracing::error!(%error, "a frame could not be written");
            Utf8Bytes::default()
        },
        Utf8Bytes::from,
    )
}

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
