//! Unreadable: frames that cannot be read, and of an unknown type. The client is told as the
//! original tells it, in the log; and where the frame says which request or topic it is about, by
//! an answer that its sender waits for.

use model::{Object, Timestamp, Value};

use super::{Session, SessionAction};
use crate::error::{ApiError, Problem};
use crate::limits::PREVIEW_CHARS;
use crate::publish::request_id;
use crate::ws::dialect::{ClientRequest, LogLevel, ServerFrame, UnreadableFrame};

impl Session {
    /// A message that is no frame. Whatever of it can be read says who waits for an answer.
    pub(super) fn unreadable(
        &self,
        message: &[u8],
        unreadable: UnreadableFrame,
        at: Timestamp,
    ) -> Vec<SessionAction> {
        let preview: String =
            String::from_utf8_lossy(message).chars().take(PREVIEW_CHARS).collect();
        let context = [("preview", preview)].into_iter().collect();
        let log = self.log(LogLevel::Warn, "Received invalid JSON payload", &context, at);
        let mut actions = vec![log];
        let UnreadableFrame { error, request, request_id, topic } = unreadable;
        let Some(error) = error.map(ApiError::from) else { return actions };
        let (code, message) = (error.code(), error.message());
        let (request_id, topic) = (request_id.as_ref(), topic.as_deref());
        let is_about_a_topic = matches!(
            request,
            Some(ClientRequest::Post | ClientRequest::Subscribe | ClientRequest::Unsubscribe)
        );
        if is_about_a_topic && topic.is_some() {
            let details = error.shown_details();
            let details = Some(&details);
            actions.push(self.send(&ServerFrame::TopicError { code, message, topic, details }));
        } else if request == Some(ClientRequest::Query) {
            actions.push(self.send(&ServerFrame::QueryError { request_id, message, at }));
        }
        // Also after the two above: an answer of its own is what a client matches by its id.
        if request_id.is_some() {
            actions.push(self.send(&ServerFrame::Error { request_id, error: &error }));
        }
        actions
    }

    /// A frame of a type that is not known, or of none.
    pub(super) fn unknown(
        &self,
        frame: &Object,
        named: Option<&Value>,
        at: Timestamp,
    ) -> Vec<SessionAction> {
        let context = named.map(|given| ("type", given.clone())).into_iter().collect();
        let mut actions = vec![self.log(LogLevel::Warn, "Unknown message type", &context, at)];
        let id = request_id(frame);
        if id.is_some() {
            let given = named.map_or_else(
                || "is missing".to_owned(),
                |given| {
                    let shown: String = given.to_json().chars().take(PREVIEW_CHARS).collect();
                    format!("{shown} is not known")
                },
            );
            let message = format!("the frame's type {given}; see docs/protocol.md, section 2");
            let error = ApiError::new(Problem::UnknownMessage, message);
            actions.push(self.send(&ServerFrame::Error { request_id: id.as_ref(), error: &error }));
        }
        actions
    }
}
