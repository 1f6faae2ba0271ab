//! Unreadable: frames that cannot be read, and of an unknown type. The client is told as the
//! original tells it, in the log; and where the frame says which request or topic it is about, by
//! an answer that its sender waits for.

use model::{BadJson, Object, Timestamp, Value};

use super::{Session, SessionAction, control};
use crate::error::{ApiError, Problem};
use crate::limits::{ID_BYTES_MAX, PREVIEW_CHARS, TOPIC_NAME_BYTES_MAX};
use crate::publish::request_id;
use crate::ws::dialect::{LogLevel, Request};

/// Where a frame says which request it is, the first first.
const REQUEST_IDS: [&[&str]; 3] = [&["meta", "requestId"], &["meta", "requestID"], &["requestId"]];

impl Session {
    /// JSON that is no object.
    pub(super) fn not_a_frame(&self, message: &[u8], at: Timestamp) -> SessionAction {
        let preview: String =
            String::from_utf8_lossy(message).chars().take(PREVIEW_CHARS).collect();
        let context = [("preview", preview)].into_iter().collect();
        self.log(LogLevel::Warn, "Received invalid JSON payload", &context, at)
    }

    /// A message that is not JSON. Whatever of it can be read says who waits for an answer.
    pub(super) fn unreadable(
        &self,
        message: &[u8],
        bad: BadJson,
        at: Timestamp,
    ) -> Vec<SessionAction> {
        let mut actions = vec![self.not_a_frame(message, at)];
        let error = ApiError::from(bad);
        let text = |name| match Value::find_in_json(message, &[name]) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        let is_short = |id: &Value| {
            id.key_text().is_some_and(|text| !text.is_empty() && text.len() <= ID_BYTES_MAX)
        };
        let id = REQUEST_IDS.iter().find_map(|path| Value::find_in_json(message, path));
        let id = id.filter(is_short);
        let frame_type = text("type");
        let request = frame_type.as_deref().and_then(|name| self.dialect.request(name));
        let topic = text("topic").filter(|topic| topic.len() <= TOPIC_NAME_BYTES_MAX);
        match request {
            Some(Request::Post | Request::Subscribe | Request::Unsubscribe) if topic.is_some() => {
                let details = error.shown_details();
                actions.push(control(self.dialect.topic_error(
                    error.code(),
                    error.message(),
                    topic.as_deref(),
                    Some(&details),
                )));
            }
            Some(Request::Query) => {
                actions.push(control(self.dialect.query_error(id.as_ref(), error.message(), at)));
            }
            Some(_) | None => {}
        }
        if id.is_some() {
            actions.push(control(self.dialect.error(id.as_ref(), &error)));
        }
        actions
    }

    /// A frame of a type that is not known, or of none.
    pub(super) fn unknown(&self, frame: &Object, at: Timestamp) -> Vec<SessionAction> {
        let named = frame.get("type");
        let context = named.map(|word| ("type", word.clone())).into_iter().collect();
        let mut actions = vec![self.log(LogLevel::Warn, "Unknown message type", &context, at)];
        let id = request_id(frame);
        if id.is_some() {
            let given = named.map_or_else(
                || "is missing".to_owned(),
                |word| {
                    let shown: String = word.to_json().chars().take(PREVIEW_CHARS).collect();
                    format!("{shown} is not known")
                },
            );
            let message = format!("the frame's type {given}; see docs/protocol.md, section 2");
            let error = ApiError::new(Problem::UnknownMessage, message);
            actions.push(control(self.dialect.error(id.as_ref(), &error)));
        }
        actions
    }
}
