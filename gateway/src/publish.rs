//! Publish: one change as a client words it, with all the names the original takes, made into the
//! parts of a command.

use std::sync::Arc;

use model::{Acceptance, Action, Event, ModuleId, Object, Origin, Reject, Validation, Value};

use crate::error::{ApiError, Problem};
use crate::known_members;
use crate::limits::ID_BYTES_MAX;

/// A publish whose shape is right.
#[derive(Debug)]
pub(crate) struct Publish {
    pub(crate) module: ModuleId,
    pub(crate) table: String,
    pub(crate) action: Action,
    pub(crate) record: Object,
    pub(crate) origin: Origin,
    /// What the client calls it: `meta.requestId`, else `requestId`, else `eventId`.
    pub(crate) request: Option<String>,
}

impl Publish {
    /// Reads a publish; `validation` tells how strictly a module reads.
    pub(crate) fn read(
        mut frame: Object,
        default_source: &str,
        validation: impl Fn(&ModuleId) -> Validation,
    ) -> Result<Self, ApiError> {
        let module = text(&frame, &["moduleId", "module"]).ok_or_else(|| {
            ApiError::new(Problem::MissingModule, "Module ID missing in publish payload")
        })?;
        let module = ModuleId::parse(&module)?;
        known_members::PUBLISH.members(&frame, validation(&module))?;
        let event_id = short(&frame, &["eventId", "id"])?;
        let request = match request_id(&frame) {
            Some(id) => Some(id_text(&id)?),
            None => event_id.clone(),
        };
        let word = text(&frame, &["action"]).unwrap_or_else(|| "module:insert".to_owned());
        let action = Action::parse(&word).ok_or_else(|| {
            let message = format!("Unsupported module action: {word}");
            ApiError::new(Problem::ModuleEventFailed, message)
                .details([("code", "unsupported-action".into()), ("action", word.into())])
        })?;
        let table = text(&frame, known_members::TABLE).ok_or(Reject::MissingTable)?;
        let record = record(&mut frame)?.unwrap_or_default();
        let client_meta = frame.remove("meta").filter(|meta| !meta.is_null());
        let says = |name| frame.get(name).and_then(Value::as_bool) == Some(true);
        let origin = Origin {
            source: Some(text(&frame, &["source"]).unwrap_or_else(|| default_source.to_owned())),
            event_id,
            client: None,
            user: user_of(&frame, client_meta.as_ref()),
            include_record: says("includeRecord"),
            include_snapshot: says("includeSnapshot"),
            publish_state: frame.get("publishState").filter(|state| !state.is_null()).cloned(),
            client_meta,
        };
        Ok(Self { module, table, action, record, origin, request })
    }
}

/// The id by which the client will recognise the answer.
pub(crate) fn request_id(frame: &Object) -> Option<Value> {
    let meta = frame.get("meta");
    let of_meta = ["requestId", "requestID"].iter().find_map(|name| meta?.get(name));
    of_meta
        .filter(|id| id.key_text().is_some_and(|text| !text.is_empty()))
        .or_else(|| frame.get("requestId"))
        .filter(|id| id.key_text().is_some_and(|text| !text.is_empty()))
        .cloned()
}

/// The record, named `record` or `data`; an error where it is no object.
pub(crate) fn record(frame: &mut Object) -> Result<Option<Object>, ApiError> {
    for name in ["record", "data"] {
        match frame.remove(name) {
            None | Some(Value::Null) => {}
            Some(Value::Object(record)) => return Ok(Some(record)),
            Some(Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
                let message = format!("{name} must be an object");
                return Err(ApiError::new(Problem::InvalidBody, message));
            }
        }
    }
    Ok(None)
}

/// Takes a member out if it is an object.
pub(crate) fn take_object(from: &mut Object, name: &str) -> Option<Object> {
    // What is no object stays where it is, and is passed on as it was sent.
    from.get(name)?.as_object()?;
    match from.remove(name) {
        Some(Value::Object(object)) => Some(object),
        _ => None,
    }
}

/// The text of the first of these members that has one; a number counts as its text.
pub(crate) fn text(object: &Object, names: &[&str]) -> Option<String> {
    let texts = names.iter().filter_map(|name| object.get(name)?.key_text());
    texts.map(str::trim).find(|text| !text.is_empty()).map(str::to_owned)
}

/// The branch named by the first of these members that names one, as it is: a branch's name may
/// begin and end with spaces.
pub(crate) fn branch_name(object: &Object, names: &[&str]) -> Option<String> {
    let mut texts = names.iter().filter_map(|name| object.get(name)?.key_text());
    texts.find(|text| !text.is_empty()).map(str::to_owned)
}

/// The user the client names.
pub(crate) fn user_of(body: &Object, meta: Option<&Value>) -> Option<String> {
    let in_meta = || text(meta?.as_object()?, &["userId"]);
    text(body, &["userId"]).or_else(in_meta)
}

/// The event of an accepted command of one mutation.
pub(crate) fn event_of(accepted: &Acceptance) -> Result<&Arc<Event>, ApiError> {
    accepted.delta.events.first().ok_or_else(|| {
        tracing::error!("an accepted change came without its event");
        ApiError::new(Problem::Defect, "the change was accepted, but its event is missing")
    })
}

/// The id under the first of these names that has one. Ids are remembered for a day: they must be
/// short.
pub(crate) fn short(frame: &Object, names: &[&str]) -> Result<Option<String>, ApiError> {
    match text(frame, names) {
        Some(id) if id.len() > ID_BYTES_MAX => Err(too_long(&id)),
        id => Ok(id),
    }
}

fn id_text(id: &Value) -> Result<String, ApiError> {
    let text = id.key_text().unwrap_or_default();
    if text.len() > ID_BYTES_MAX { Err(too_long(text)) } else { Ok(text.to_owned()) }
}

fn too_long(id: &str) -> ApiError {
    let message = format!("an id has {} bytes, at most {ID_BYTES_MAX} are taken", id.len());
    ApiError::new(Problem::InvalidRequestId, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(json: &str) -> Object {
        Value::from_json(json.as_bytes()).unwrap().as_object().unwrap().clone()
    }

    #[test]
    fn a_publish_is_read_under_any_of_its_names() {
        let publish = Publish::read(
            frame(
                r#"{"module":"pos","tableName":"orders","data":{"id":7},"requestId":"top",
                "meta":{"requestId":"mine","userId":"u1"},"includeRecord":true}"#,
            ),
            "ws-client",
            |_| Validation::Strict,
        )
        .unwrap();
        assert_eq!((publish.module.as_str(), publish.table.as_str()), ("pos", "orders"));
        assert_eq!(publish.action, Action::Insert);
        assert_eq!(publish.record.get("id").and_then(Value::as_u64), Some(7));
        assert_eq!(publish.request.as_deref(), Some("mine"));
        assert_eq!(publish.origin.user.as_deref(), Some("u1"));
        assert_eq!(publish.origin.source.as_deref(), Some("ws-client"));
        assert!(publish.origin.include_record && !publish.origin.include_snapshot);
    }

    #[test]
    fn the_id_is_the_metas_then_the_frames_then_the_events() {
        let request =
            |json: &str| Publish::read(frame(json), "x", |_| Validation::Strict).unwrap().request;
        let with = |more: &str| format!(r#"{{"moduleId":"pos","table":"t"{more}}}"#);
        assert_eq!(request(&with(r#","requestId":5,"eventId":"e""#)).as_deref(), Some("5"));
        assert_eq!(request(&with(r#","eventId":"e""#)).as_deref(), Some("e"));
        assert_eq!(request(&with("")), None);
    }

    #[test]
    fn what_is_wrong_is_said_in_the_originals_words() {
        let refused =
            |json: &str| Publish::read(frame(json), "x", |_| Validation::Strict).unwrap_err();
        assert_eq!(refused("{}").message(), "Module ID missing in publish payload");
        assert_eq!(
            refused(r#"{"moduleId":"pos"}"#).message(),
            "Missing table name for module event"
        );
        assert_eq!(
            refused(r#"{"moduleId":"pos","table":"t","action":"nope"}"#).message(),
            "Unsupported module action: nope"
        );
        assert_eq!(refused(r#"{"moduleId":"POS","table":"t"}"#).problem(), Problem::InvalidName);
        let not_object = refused(r#"{"moduleId":"pos","table":"t","record":5}"#);
        assert_eq!(not_object.message(), "record must be an object");
        let long = format!(r#"{{"moduleId":"pos","table":"t","requestId":"{}"}}"#, "x".repeat(257));
        assert_eq!(refused(&long).problem(), Problem::InvalidRequestId);
    }
}
