//! Batch: several mutations in one frame, made into one command's parts: all or none.

use model::{ModuleId, Object, Origin, Transaction, Validation, Value};

use crate::error::{ApiError, Problem};
use crate::limits::ID_BYTES_MAX;
use crate::publish::{request_id, text, user_of};

/// A batch whose shape is right.
#[derive(Debug)]
pub(crate) struct BatchRequest {
    pub(crate) module: ModuleId,
    pub(crate) write: Transaction,
    /// What all its mutations share.
    pub(crate) origin: Origin,
    /// What the client calls it.
    pub(crate) request: Option<String>,
}

/// Reads `{moduleId, requestId, meta?, verbs:[{action, table, record, …}]}`; `from` is who
/// asks, where the frame does not say it better, and `validation` how strictly a module reads. What
/// is wrong with one mutation tells its `index`.
pub(crate) fn read(
    mut frame: Object,
    from: Origin,
    validation: impl Fn(&ModuleId) -> Validation,
) -> Result<BatchRequest, ApiError> {
    let module = text(&frame, &["moduleId", "module"]).ok_or_else(|| {
        ApiError::new(Problem::MissingModule, "Module ID missing in batch payload")
    })?;
    let module = ModuleId::parse(&module)?;
    let request = request_id(&frame).and_then(|id| id.key_text().map(str::to_owned));
    if let Some(id) = request.as_ref().filter(|id| id.len() > ID_BYTES_MAX) {
        let message = format!("an id has {} bytes, at most {ID_BYTES_MAX} are taken", id.len());
        return Err(ApiError::new(Problem::InvalidRequestId, message));
    }
    // Taken out: what the batch says of itself holds for every mutation that does not say it
    // better.
    let meta = frame.remove("meta").filter(|meta| !meta.is_null());
    let origin = Origin {
        source: text(&frame, &["source"]).or(from.source),
        user: user_of(&frame, meta.as_ref()).or(from.user),
        client_meta: meta,
        include_record: frame.get("includeRecord").and_then(Value::as_bool) == Some(true),
        ..from
    };
    let write = crate::batch::read(frame, &origin, validation(&module))?;
    Ok(BatchRequest { module, write, origin, request })
}

#[cfg(test)]
mod tests {
    use model::{Mutation, RecordMutation};

    use super::*;

    fn read_json(json: &str) -> Result<BatchRequest, ApiError> {
        let frame = Value::from_json(json.as_bytes()).unwrap().as_object().unwrap().clone();
        read(frame, Origin::default(), |_| Validation::Strict)
    }

    #[test]
    fn a_batch_is_one_write_of_its_verbs_in_order() {
        let batch = read_json(
            r#"{"moduleId":"pos","requestId":"b-1","meta":{"till":7},"verbs":[
                {"table":"orders","record":{"id":"o"},"includeRecord":true,"eventId":"e"},
                {"action":"merge","table":"orders","record":{"id":"p"},"meta":{"own":1}}]}"#,
        )
        .unwrap();
        assert_eq!((batch.module.as_str(), batch.request.as_deref()), ("pos", Some("b-1")));
        let [Mutation::Record(first), Mutation::Record(second)] = &batch.write.mutations[..] else {
            panic!("two verbs")
        };
        let origin = |mutation: &RecordMutation| mutation.origin.as_deref().unwrap().clone();
        assert!(origin(first).include_record && !origin(second).include_record);
        assert_eq!(origin(first).client_meta.unwrap().to_json(), r#"{"till":7}"#);
        assert_eq!(origin(second).client_meta.unwrap().to_json(), r#"{"own":1}"#);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let refused = |mutations: &str| {
            read_json(&format!(r#"{{"moduleId":"pos","verbs":{mutations}}}"#)).unwrap_err().index()
        };
        assert_eq!(refused("5"), None);
        assert_eq!(refused(r#"[{"table":"t","record":{}},7]"#), Some(1));
        let nowhere = read_json(r#"{"verbs":[]}"#).unwrap_err();
        assert_eq!(nowhere.problem(), Problem::MissingModule);
    }
}
