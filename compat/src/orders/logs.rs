//! Logs: who changed an order's state and a line's, and when: those sent, and those made here.
//!
//! A list that was sent replaces the stored logs. Where none was sent the stored logs stay, and one
//! is added if the state changed or no log tells of it yet: so a till that never sends logs has a
//! history of its orders' states.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::{Object, ProcedureContext, RecordDiff, RecordKey, Reject, Table, Validation, Value};

use crate::orders::parts::{SavedHeader, copy, id_field, parts, replace_parts};
use crate::orders::{LINE, LINE_STATUS_LOG, OF_LINE, ORDER, STATUS_LOG, SaveOrder};

/// Who changed an order's state where nobody is named.
const ACTOR: &str = "pos";
/// What an order's state is.
const ORDER_STATE: [&str; 3] = ["statusId", "stageId", "paymentStateId"];
/// What a line's state is.
const LINE_STATE: [&str; 1] = ["statusId"];

/// The order's logs as sent, else one that tells of the state saved.
pub(super) fn save_status_logs(
    context: &mut ProcedureContext<'_, '_>,
    order: &SaveOrder,
    saved: &SavedHeader,
) -> Result<(), Reject> {
    let Some(table) = context.definition().schema.table(STATUS_LOG) else { return Ok(()) };
    let made = |context: &ProcedureContext<'_, '_>| {
        let mut log = status_log(context, table, &saved.id, order.actor.as_deref());
        for name in ORDER_STATE {
            copy(table, &mut log, &saved.header, name);
        }
        vec![log]
    };
    match &order.status_logs {
        Some(sent) => {
            // An empty list replaces the stored logs as any other does, but leaves no order without
            // a log of its state.
            let logs = if sent.is_empty() { made(context) } else { sent.clone() };
            replace_parts(context, STATUS_LOG, logs, saved)
        }
        None => {
            let is_logged = !parts(context, STATUS_LOG, &saved.id).is_empty();
            if is_logged && !changed(&ORDER_STATE, saved.before.as_deref(), &saved.header) {
                return Ok(());
            }
            let mut logs = made(context);
            claim(context, table, &mut logs, saved)?;
            context.save_rows(table, logs).map(drop)
        }
    }
}

/// Makes rows parts of the order.
fn claim(
    context: &ProcedureContext<'_, '_>,
    table: &Table,
    rows: &mut [Object],
    saved: &SavedHeader,
) -> Result<(), Reject> {
    match table.field(ORDER) {
        Some(field) => context.claim_children(table, field, &saved.id, rows),
        None => Ok(()),
    }
}

/// The lines' logs as sent, and one for each line that has none among them. Logs of lines the
/// order no longer has go with their lines.
pub(super) fn save_line_status_logs(
    context: &mut ProcedureContext<'_, '_>,
    order: &SaveOrder,
    lines: &[RecordDiff],
    saved: &SavedHeader,
) -> Result<(), Reject> {
    let schema = &context.definition().schema;
    let (Some(table), Some(of)) = (schema.table(LINE_STATUS_LOG), schema.table(LINE)) else {
        return Ok(());
    };
    let stored = line_logs(context, table, of, saved);
    let mut logs = Vec::new();
    // Lines whose stored logs stay, beside what is added.
    let mut stays: BTreeSet<String> = BTreeSet::new();
    // Once logs of any line are sent, those that name none are replaced with them.
    if order.line_status_logs.iter().all(Option::is_none) {
        stays.insert(String::new()); // Those that name no line.
    }
    for (place, line) in lines.iter().enumerate() {
        let Some(record) = line.after.as_deref() else { continue };
        let id = id_field(of).and_then(|field| record.get(&field.name)).cloned();
        let Some(id) = id else { continue };
        let text = of.name_kind().name_text(&id).unwrap_or_default();
        let sent = order.line_status_logs.get(place).and_then(Option::as_ref);
        for log in sent.into_iter().flatten() {
            let mut log = log.clone();
            if let Some(field) = table.field(OF_LINE) {
                log.remove(&field.column);
                log.insert(Arc::clone(&field.name), id.clone());
            }
            context.refuse_child_of_another(table, OF_LINE, (LINE, &id), &log)?;
            logs.push(log);
        }
        let is_logged = stored.get(&text).is_some_and(|keys| !keys.is_empty());
        let is_new = || !is_logged || changed(&LINE_STATE, line.before.as_deref(), record);
        // An empty list asks for a log to be made, as one of the order's does.
        let missing = match sent {
            Some(sent) => sent.is_empty(),
            None => is_new(),
        };
        if missing {
            logs.push(line_log(context, table, &id, record, order.actor.as_deref()));
        }
        if sent.is_none() {
            stays.insert(text);
        }
    }
    claim(context, table, &mut logs, saved)?;
    let kept = context.save_rows(table, logs)?;
    let kept: BTreeSet<RecordKey> = kept.into_iter().map(|log| log.key).collect();
    // Last, when it is known which of the stored logs were sent again.
    let gone = stored.into_iter().filter(|(line, _)| !stays.contains(line));
    let gone = gone.flat_map(|(_, keys)| keys).filter(|key| !kept.contains(key));
    context.remove(table, gone);
    Ok(())
}

/// The stored logs of the order's lines, by line.
fn line_logs(
    context: &ProcedureContext<'_, '_>,
    table: &Table,
    of: &Table,
    saved: &SavedHeader,
) -> BTreeMap<String, Vec<RecordKey>> {
    let mut logs: BTreeMap<String, Vec<RecordKey>> = BTreeMap::new();
    for key in parts(context, LINE_STATUS_LOG, &saved.id) {
        let log = context.get(table, &key);
        let line = log.and_then(|log| of.name_kind().name_text(log.get(OF_LINE)?));
        logs.entry(line.unwrap_or_default()).or_default().push(key);
    }
    logs
}

fn line_log(
    context: &ProcedureContext<'_, '_>,
    table: &Table,
    id: &Value,
    line: &Object,
    actor: Option<&str>,
) -> Object {
    let mut log = status_log(context, table, id, actor);
    if let Some(field) = table.field(OF_LINE) {
        log.insert(Arc::clone(&field.name), id.clone());
    }
    // `orderId` is set where the rows are saved.
    for name in LINE_STATE {
        copy(table, &mut log, line, name);
    }
    log
}

/// This name, or the first of those numbered after it that no record has: two logs of one
/// moment are two logs.
fn unused(context: &ProcedureContext<'_, '_>, table: &Table, name: String) -> String {
    let is_taken =
        |name: &str| table.key_named(name).is_some_and(|key| context.get(table, &key).is_some());
    let numbered = (2..).map(|number: u32| format!("{name}-{number}"));
    std::iter::once(name.clone())
        .chain(numbered)
        .find(|name| !is_taken(name))
        .expect("there are more names than records")
}

/// A log nobody sent: whose state, when, and by whom.
fn status_log(
    context: &ProcedureContext<'_, '_>,
    table: &Table,
    of: &Value,
    actor: Option<&str>,
) -> Object {
    let at = context.at();
    let mut log = Object::new();
    let of = of.name_text().unwrap_or_default();
    if let Some(field) = id_field(table) {
        let name = format!("{of}::status::{}", at.0);
        log.insert(Arc::clone(&field.name), unused(context, table, name).into());
    }
    let strict = match context.definition().validation {
        Validation::Strict => true,
        Validation::Lenient => false,
    };
    if let Some(field) = table.field("actorId") {
        // Strict wants an actor to be somebody it knows, and `pos` is nobody.
        let known = actor.or_else(|| (!strict || field.references.is_none()).then_some(ACTOR));
        if let Some(actor) = known {
            log.insert(Arc::clone(&field.name), actor.into());
        }
    }
    if let Some(field) = table.field("changedAt") {
        let at = if strict { at.to_iso().into() } else { Value::Number(at.0.into()) };
        log.insert(Arc::clone(&field.name), at);
    }
    log
}

/// Whether one of these fields is another than before; a new record's are all new.
fn changed(fields: &[&str], before: Option<&Object>, after: &Object) -> bool {
    before.is_none_or(|before| fields.iter().any(|name| before.get(name) != after.get(name)))
}
