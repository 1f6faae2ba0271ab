//! Batch: many changes as a client words them, made into one write: all of them happen, or none.
//!
//! Promise: whatever a batch says is read whatever way it came, over HTTP or a socket; a change
//! that cannot be read is named by its `index`.

use std::sync::Arc;

use model::{Action, Object, Origin, RecordMutation, Transaction, Validation, Value};

use crate::business_day;
use crate::error::{ApiError, Problem};
use crate::known_members;
use crate::limits::BATCH_VERBS_MAX;
use crate::preconditions;
use crate::publish::{record, short, text, user_of};

/// Reads `{verbs: [{action, table, record, …}]}`. What a change does not say of where it comes
/// from, `from` says.
pub(crate) fn read(
    mut body: Object,
    from: &Origin,
    validation: Validation,
) -> Result<Transaction, ApiError> {
    known_members::BATCH.members(&body, validation)?;
    let mutations = match body.remove("verbs") {
        Some(Value::Array(mutations)) if (1..=BATCH_VERBS_MAX).contains(&mutations.len()) => {
            mutations
        }
        given => return Err(not_a_batch(given.as_ref())),
    };
    let read = mutations.into_iter().zip(0_u64..).map(|(mutation, index)| {
        let mutation = match mutation {
            Value::Object(mutation) => read_mutation(mutation, from, validation),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => Err(wrong("a change", "an object")),
        };
        mutation.map_err(|error| error.with("index", index))
    });
    // The first that cannot be read refuses all: a batch is decided as one, so none may be left
    // out.
    read.collect::<Result<Vec<_>, _>>().map(Transaction::of)
}

fn not_a_batch(given: Option<&Value>) -> ApiError {
    let right = format!("verbs must be a list of 1 to {BATCH_VERBS_MAX} changes");
    let message = match given.and_then(Value::as_array) {
        Some(mutations) => format!("{right}, but has {}", mutations.len()),
        None => right,
    };
    ApiError::new(Problem::InvalidBody, message)
        .details([("max", u64::try_from(BATCH_VERBS_MAX).unwrap_or(u64::MAX).into())])
}

fn read_mutation(
    mut sent: Object,
    from: &Origin,
    validation: Validation,
) -> Result<RecordMutation, ApiError> {
    known_members::BATCH_MUTATION.members(&sent, validation)?;
    let action = action(&sent)?;
    let table = text(&sent, known_members::TABLE)
        .ok_or_else(|| ApiError::new(Problem::MissingTableName, "name the table as \"table\""))?;
    let record = record(&mut sent)?.ok_or_else(|| {
        ApiError::new(Problem::MissingRecord, "send the record as \"record\", an object")
    })?;
    let mut preconditions = preconditions::read(&sent, business_day::sent(&sent).as_deref())?;
    preconditions.extend(preconditions::version(&sent, "expectedVersion")?);
    let origin = origin(&mut sent, action, from)?;
    Ok(RecordMutation {
        preconditions,
        origin: Some(Arc::new(origin)),
        ..RecordMutation::new(action, table, record)
    })
}

/// What to do; to insert where nothing is said.
pub(crate) fn action(sent: &Object) -> Result<Action, ApiError> {
    let Some(word) = text(sent, &["action"]) else { return Ok(Action::Insert) };
    Action::parse(&word).ok_or_else(|| {
        let message = format!("Unsupported module action: {word}");
        ApiError::new(Problem::ModuleEventFailed, message)
            .details([("code", "unsupported-action".into()), ("action", word.into())])
    })
}

fn origin(sent: &mut Object, action: Action, from: &Origin) -> Result<Origin, ApiError> {
    let client_meta = sent.remove("meta").filter(|meta| !meta.is_null());
    let include_record = match sent.get("includeRecord") {
        None | Some(Value::Null) => from.include_record && action != Action::Delete,
        Some(given) => given.as_bool().ok_or_else(|| wrong("includeRecord", "true or false"))?,
    };
    Ok(Origin {
        source: text(sent, &["source"]).or_else(|| from.source.clone()),
        event_id: short(sent, &["eventId"])?,
        client: from.client.clone(),
        user: user_of(sent, client_meta.as_ref()).or_else(|| from.user.clone()),
        include_record,
        client_meta: client_meta.or_else(|| from.client_meta.clone()),
        ..Origin::default()
    })
}

fn wrong(name: &str, right: &str) -> ApiError {
    ApiError::new(Problem::InvalidBody, format!("{name} must be {right}"))
}

#[cfg(test)]
mod tests {
    use model::{Mutation, Precondition};

    use super::*;

    fn batch(json: &str) -> Result<Transaction, ApiError> {
        let body = Value::from_json(json.as_bytes()).unwrap().as_object().unwrap().clone();
        let from = Origin {
            source: Some("ws-client".into()),
            client: Some("socket-1".into()),
            user: Some("u1".into()),
            include_record: true,
            ..Origin::default()
        };
        read(body, &from, Validation::Strict)
    }

    #[test]
    fn every_change_has_its_action_conditions_and_origin() {
        let write = batch(
            r#"{"verbs":[
            {"action":"module:update","table":"orders","record":{"id":1},"expectedVersion":4,
             "meta":{"userId":"u2"},"eventId":"e-1","source":"till"},
            {"tableName":"t","data":{"id":2},"guards":{"requireExisting":true},
             "includeRecord":false},
            {"action":"delete","table":"t","record":{"id":3}}]}"#,
        )
        .unwrap();
        assert_eq!(write.preconditions, []);
        let [Mutation::Record(first), Mutation::Record(second), Mutation::Record(third)] =
            &write.mutations[..]
        else {
            panic!("{write:?}")
        };
        assert_eq!((first.action, first.table.as_str()), (Action::Merge, "orders"));
        assert_eq!(first.preconditions, [Precondition::VersionIs(4)]);
        let origin = first.origin.as_ref().unwrap();
        assert_eq!(origin.event_id.as_deref(), Some("e-1"));
        assert_eq!((origin.source.as_deref(), origin.user.as_deref()), (Some("till"), Some("u2")));
        assert!(origin.include_record && origin.client.as_deref() == Some("socket-1"));
        assert_eq!(
            (second.action, &second.preconditions[..]),
            (Action::Insert, &[Precondition::MustExist][..])
        );
        let origin = second.origin.as_ref().unwrap();
        assert!(!origin.include_record);
        assert_eq!(origin.user.as_deref(), Some("u1"));
        assert_eq!(origin.source.as_deref(), Some("ws-client"));
        assert!(!third.origin.as_ref().unwrap().include_record, "the key says which it was");
    }

    #[test]
    fn what_cannot_be_read_is_named_by_its_place() {
        let second = |mutation: &str| {
            let good = r#"{"table":"t","record":{}}"#;
            let error = batch(&format!(r#"{{"verbs":[{good},{mutation}]}}"#)).unwrap_err();
            assert_eq!(error.body("/").get("index").and_then(Value::as_u64), Some(1), "{mutation}");
            error.problem()
        };
        assert_eq!(second("5"), Problem::InvalidBody);
        assert_eq!(second("{}"), Problem::MissingTableName);
        assert_eq!(second(r#"{"table":"t"}"#), Problem::MissingRecord);
        assert_eq!(second(r#"{"table":"t","record":[]}"#), Problem::InvalidBody);
        assert_eq!(second(r#"{"table":"t","record":{},"action":"x"}"#), Problem::ModuleEventFailed);
        for more in [r#""expectedVersion":"a""#, r#""guards":1"#, r#""includeRecord":1"#] {
            let mutation = format!(r#"{{"table":"t","record":{{}},{more}}}"#);
            assert_eq!(second(&mutation), Problem::InvalidBody, "{more}");
        }
        let long = format!(r#"{{"table":"t","record":{{}},"eventId":"{}"}}"#, "x".repeat(257));
        assert_eq!(second(&long), Problem::InvalidRequestId);
    }

    #[test]
    fn a_batch_is_neither_empty_nor_without_end() {
        for bad in ["{}", r#"{"verbs":{}}"#, r#"{"verbs":[]}"#] {
            assert_eq!(batch(bad).unwrap_err().problem(), Problem::InvalidBody, "{bad}");
        }
        let mutations = vec![r#"{"table":"t","record":{}}"#; BATCH_VERBS_MAX + 1].join(",");
        let refused = batch(&format!(r#"{{"verbs":[{mutations}]}}"#)).unwrap_err();
        assert_eq!(refused.message(), "verbs must be a list of 1 to 500 changes, but has 501");
    }
}
