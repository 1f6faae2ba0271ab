//! Batch: several verbs as a client words them, made into one command's parts: all or none.

use std::sync::Arc;

use model::{Action, Guard, ModuleId, Object, Origin, Reject, Value, Verb, Write};

use crate::error::{ApiError, Problem};
use crate::limits::{BATCH_VERBS_MAX, ID_BYTES_MAX};
use crate::publish::{record, request_id, text, user_of};

/// A batch whose shape is right.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) module: ModuleId,
    pub(crate) write: Write,
    /// What all its verbs share.
    pub(crate) origin: Origin,
    /// What the client calls it.
    pub(crate) request: Option<String>,
}

/// What is wrong, and with which verb.
#[derive(Debug)]
pub(crate) struct BadBatch {
    pub(crate) error: ApiError,
    pub(crate) index: Option<usize>,
}

impl<E: Into<ApiError>> From<E> for BadBatch {
    fn from(error: E) -> Self {
        Self { error: error.into(), index: None }
    }
}

/// Reads `{moduleId, requestId, meta?, verbs:[{action, table, record, …}]}`; `from` is who asks,
/// where the frame does not say it better.
pub(crate) fn read(mut frame: Object, from: Origin) -> Result<Batch, BadBatch> {
    let module = text(&frame, &["moduleId", "module"]).ok_or_else(|| {
        ApiError::new(Problem::MissingModule, "Module ID missing in batch payload")
    })?;
    let module = ModuleId::parse(&module)?;
    let request = request_id(&frame).and_then(|id| id.key_text().map(str::to_owned));
    if let Some(id) = request.as_ref().filter(|id| id.len() > ID_BYTES_MAX) {
        return Err(too_long(id).into());
    }
    let verbs = match frame.remove("verbs") {
        Some(Value::Array(verbs)) => verbs,
        _ => return Err(invalid("verbs must be an array").into()),
    };
    if verbs.is_empty() || verbs.len() > BATCH_VERBS_MAX {
        let message = format!("a batch has 1 to {BATCH_VERBS_MAX} verbs, not {}", verbs.len());
        return Err(invalid(&message).into());
    }
    let meta = frame.remove("meta").filter(|meta| !meta.is_null());
    let origin = Origin {
        source: text(&frame, &["source"]).or(from.source),
        user: user_of(&frame, meta.as_ref()).or(from.user),
        client_meta: meta,
        ..from
    };
    let mut read = Vec::with_capacity(verbs.len());
    for (index, sent) in verbs.into_iter().enumerate() {
        let verb = verb(sent, &origin);
        read.push(verb.map_err(|error| BadBatch { error, index: Some(index) })?);
    }
    Ok(Batch { module, write: Write::of(read), origin, request })
}

fn verb(sent: Value, shared: &Origin) -> Result<Verb, ApiError> {
    let Value::Object(mut sent) = sent else { return Err(invalid("a verb must be an object")) };
    let word = text(&sent, &["action"]).unwrap_or_else(|| "module:insert".to_owned());
    let action = Action::parse(&word).ok_or_else(|| {
        let message = format!("Unsupported module action: {word}");
        ApiError::new(Problem::ModuleEventFailed, message)
            .details([("code", "unsupported-action".into()), ("action", word.into())])
    })?;
    let table = text(&sent, &["table", "tableName", "targetTable"]).ok_or(Reject::MissingTable)?;
    let event_id = text(&sent, &["eventId"]);
    if let Some(id) = event_id.as_ref().filter(|id| id.len() > ID_BYTES_MAX) {
        return Err(too_long(id));
    }
    let guards = match sent.get("expectedVersion") {
        None | Some(Value::Null) => Vec::new(),
        Some(version) => match version.as_u64() {
            Some(version) => vec![Guard::VersionIs(version)],
            None => return Err(invalid("expectedVersion must be a whole number")),
        },
    };
    let record = record(&mut sent)?.unwrap_or_default();
    let own_meta = sent.remove("meta").filter(|meta| !meta.is_null());
    let origin = Origin {
        event_id,
        client_meta: own_meta.or_else(|| shared.client_meta.clone()),
        include_record: sent.get("includeRecord").and_then(Value::as_bool) == Some(true),
        ..shared.clone()
    };
    let mut verb = Verb::new(action, table, record);
    (verb.guards, verb.origin) = (guards, Some(Arc::new(origin)));
    Ok(verb)
}

fn invalid(message: &str) -> ApiError {
    ApiError::new(Problem::InvalidBody, message)
}

fn too_long(id: &str) -> ApiError {
    let message = format!("an id has {} bytes, at most {ID_BYTES_MAX} are taken", id.len());
    ApiError::new(Problem::InvalidRequestId, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_json(json: &str) -> Result<Batch, BadBatch> {
        let frame = Value::from_json(json.as_bytes()).unwrap().as_object().unwrap().clone();
        read(frame, Origin::default())
    }

    #[test]
    fn a_batch_is_one_write_of_its_verbs_in_order() {
        let batch = read_json(
            r#"{"moduleId":"pos","requestId":"b-1","meta":{"till":7},"verbs":[
                {"table":"orders","record":{"id":"o"},"includeRecord":true,"eventId":"e"},
                {"action":"merge","table":"orders","record":{"id":"p"},"expectedVersion":3,
                 "meta":{"own":1}}]}"#,
        )
        .unwrap();
        assert_eq!((batch.module.as_str(), batch.request.as_deref()), ("pos", Some("b-1")));
        let [first, second] = &batch.write.verbs[..] else { panic!("two verbs") };
        assert_eq!((first.action, second.action), (Action::Insert, Action::Merge));
        assert_eq!(second.guards, [Guard::VersionIs(3)]);
        let origin = |verb: &Verb| verb.origin.as_deref().unwrap().clone();
        assert!(origin(first).include_record && !origin(second).include_record);
        assert_eq!(origin(first).event_id.as_deref(), Some("e"));
        assert_eq!(origin(first).client_meta.unwrap().to_json(), r#"{"till":7}"#);
        assert_eq!(origin(second).client_meta.unwrap().to_json(), r#"{"own":1}"#);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let refused = |verbs: &str| {
            let bad = read_json(&format!(r#"{{"moduleId":"pos","verbs":{verbs}}}"#)).unwrap_err();
            (bad.index, bad.error.message().to_owned())
        };
        assert_eq!(refused("5"), (None, "verbs must be an array".into()));
        assert_eq!(refused("[]"), (None, "a batch has 1 to 500 verbs, not 0".into()));
        let many = format!("[{}1]", "1,".repeat(500));
        assert_eq!(refused(&many).1, "a batch has 1 to 500 verbs, not 501");
        assert_eq!(refused(r#"[{"table":"t"},7]"#), (Some(1), "a verb must be an object".into()));
        assert_eq!(
            refused(r#"[{"table":"t"},{"record":{}}]"#),
            (Some(1), "Missing table name for module event".into())
        );
        assert_eq!(
            refused(r#"[{"table":"t","expectedVersion":"x"}]"#),
            (Some(0), "expectedVersion must be a whole number".into())
        );
        assert_eq!(
            refused(r#"[{"table":"t","action":"nope"}]"#),
            (Some(0), "Unsupported module action: nope".into())
        );
    }
}
