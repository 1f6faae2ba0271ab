//! Texts: what stands beside the records of a command and is repeated in each of its events, so
//! that it must be short: a batch of ten thousand changes has ten thousand events.

use model::{Command, Mutation, Origin, Reject, Request, codec};

use crate::limits::{ID_BYTES_MAX, META_BYTES_MAX, WORDS_BYTES_MAX};

/// Refuses a command with texts that are too long, before it is in the logs of three nodes.
///
/// # Errors
/// [`Reject::BadCommand`] naming the text and its limit.
pub(super) fn check(command: &Command) -> Result<(), Reject> {
    let Request::Transaction(transaction) = &command.request else {
        // Who asked for an operation on a module, which `words` has bounded.
        return check_origin(&command.origin, WORDS_BYTES_MAX);
    };
    check_origin(&command.origin, ID_BYTES_MAX)?;
    for mutation in &transaction.mutations {
        let (table, origin) = match mutation {
            Mutation::Record(mutation) => (&mutation.table, mutation.origin.as_deref()),
            Mutation::ReplaceChildren(mutation) => (&mutation.table, None),
        };
        check_text("a table's name", Some(table), ID_BYTES_MAX)?;
        origin.map_or(Ok(()), |origin| check_origin(origin, ID_BYTES_MAX))?;
    }
    Ok(())
}

fn check_origin(origin: &Origin, user_bytes_max: usize) -> Result<(), Reject> {
    check_text("source", origin.source.as_deref(), ID_BYTES_MAX)?;
    check_text("eventId", origin.event_id.as_deref(), ID_BYTES_MAX)?;
    check_text("the user's id", origin.user.as_deref(), user_bytes_max)?;
    let beside = [("meta", &origin.client_meta), ("publishState", &origin.publish_state)];
    for (name, value) in beside {
        let Some(value) = value else { continue };
        let bytes = codec::encoded_len(value);
        if bytes > META_BYTES_MAX {
            let message = format!("{name} has {bytes} bytes, at most {META_BYTES_MAX} are taken");
            return Err(Reject::BadCommand { message });
        }
    }
    Ok(())
}

fn check_text(what: &str, text: Option<&str>, bytes_max: usize) -> Result<(), Reject> {
    let bytes = text.map_or(0, str::len);
    if bytes <= bytes_max {
        return Ok(());
    }
    let message = format!("{what} has {bytes} bytes, at most {bytes_max} are taken");
    Err(Reject::BadCommand { message })
}
