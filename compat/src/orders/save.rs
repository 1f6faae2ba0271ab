//! Save: one order with all that belongs to it, in one command.
//!
//! Every row is saved as a mutation saves it, and makes its own event. A list of parts that was
//! sent replaces the stored parts of its kind, an empty one too; a list that was not sent leaves
//! them. A part of another order is refused, never taken. All or nothing, where the original could
//! stop half way. A line without a version changes the line there is, whatever its version: the
//! original made it anew, which lost what the sender did not know of.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::limits::MUTATIONS_MAX;
use model::{
    Action, Object, ProcedureContext, RecordDiff, RecordMutation, Reject, Table, Value,
    VersionRule, sent_version, stored_version,
};

use crate::orders::logs::{save_line_status_logs, save_status_logs};
use crate::orders::parts::{SavedHeader, copy, id_field, is_empty, parts, replace_parts};
use crate::orders::{HEADER, LINE, ORDER, PAYMENT, SaveOrder};

/// What an order not yet saved is called by its till.
const DRAFT: &str = "draft-";
/// The public code of an order that cannot be saved.
const REFUSED: &str = "order-persist-failed";

/// Saves an order.
pub(super) fn save_order(
    context: &mut ProcedureContext<'_, '_>,
    order: &SaveOrder,
) -> Result<(), Reject> {
    let table = context.table(HEADER)?;
    check_order(context, table, order)?;
    let header = numbered(context, table, &order.header)?;
    // After a draft has its number, which no order has yet: it is never a second save of another.
    refuse_twice(context, table, &header, order.lines.as_ref().map_or(0, Vec::len))?;
    let saved = save_header(context, table, header)?;
    // The header before its parts, which name it, and lines before their logs.
    let lines = match &order.lines {
        Some(lines) => replace_lines(context, lines.clone(), &saved)?,
        None => Vec::new(),
    };
    if let Some(payments) = payments(context, order, &saved) {
        replace_parts(context, PAYMENT, payments, &saved)?;
    }
    save_status_logs(context, order, &saved)?;
    // Logs of lines are sent at the lines' places: without lines nothing says whose they are.
    if order.lines.is_some() {
        save_line_status_logs(context, order, &lines, &saved)?;
    }
    // Again, for the rows that were deleted and the logs that were made were not sent.
    check_count(context.changes())
}

/// The header under an id of its own: one it has, or the next number, which `metadata` shows.
fn numbered(
    context: &mut ProcedureContext<'_, '_>,
    table: &Table,
    sent: &Object,
) -> Result<Object, Reject> {
    let mut header = sent.clone();
    let Some(field) = id_field(table) else { return Ok(header) };
    if !is_draft(table, sent) {
        return Ok(header);
    }
    // Under either name: a draft's id must not stand beside the number.
    header.remove(&field.name);
    header.remove(&field.column);
    let taken = context.next_number(table, field, &mut header)?;
    let Some((number, rule)) = taken else { return Ok(header) };
    if let Some(metadata) = table.field("metadata") {
        let sent = table.sent_value(&header, metadata);
        // Only an object takes more members: a text that a till keeps here is left as it is.
        if is_empty(sent.as_ref()) || sent.as_ref().is_some_and(|v| v.as_object().is_some()) {
            let mut shown = sent.as_ref().and_then(Value::as_object).cloned().unwrap_or_default();
            shown.insert("invoiceSequence", Value::from(number));
            shown.insert("sequenceRule", rule);
            header.remove(&metadata.column);
            header.insert(Arc::clone(&metadata.name), shown.into());
        }
    }
    Ok(header)
}

/// Refuses an order that comes a second time: same version, no line more. Only where a client
/// sends the version its change makes: one that sends what it read sends just that.
fn refuse_twice(
    context: &ProcedureContext<'_, '_>,
    table: &Table,
    header: &Object,
    lines: usize,
) -> Result<(), Reject> {
    match context.definition().version_rule {
        VersionRule::Next => {}
        VersionRule::Read => return Ok(()),
    }
    let key = table.key_of(header).ok();
    let Some(stored) = key.and_then(|key| context.get(table, &key)) else { return Ok(()) };
    let same = sent_version(header) == Some(stored_version(stored));
    let id = id_field(table).and_then(|field| stored.get(&field.name));
    // A till that adds a line may send the version it holds: that is a change, not a repeat.
    if same && lines <= id.map_or(0, |id| parts(context, LINE, id).len()) {
        return Err(refused(
            "DUPLICATE_SAVE_DETECTED: Order with same ID and version already exists",
        ));
    }
    Ok(())
}

fn save_header(
    context: &mut ProcedureContext<'_, '_>,
    table: &Table,
    header: Object,
) -> Result<SavedHeader, Reject> {
    let diff = context.mutate(&RecordMutation::new(Action::Save, HEADER, header))?;
    let header = diff.after.expect("a save leaves a record");
    let id = id_field(table).and_then(|field| header.get(&field.name)).cloned();
    // A key of several fields is no field's value: the parts name such an order by its key's text.
    let id = id.unwrap_or_else(|| diff.key.as_str().into());
    Ok(SavedHeader { id, before: diff.before, header })
}

/// Replaces the order's lines. The rows as stored; none where the module has no such table.
fn replace_lines(
    context: &mut ProcedureContext<'_, '_>,
    mut lines: Vec<Object>,
    saved: &SavedHeader,
) -> Result<Vec<RecordDiff>, Reject> {
    let Some(table) = context.definition().schema.table(LINE) else { return Ok(Vec::new()) };
    let before = parts(context, LINE, &saved.id);
    // First, for the order's id may be a part of a line's key.
    if let Some(field) = table.field(ORDER) {
        context.claim_children(table, field, &saved.id, &mut lines)?;
    }
    for line in &mut lines {
        begin_line(context, table, line);
        add_total(context, table, line)?;
    }
    let stored = context.save_rows(table, lines)?;
    let kept: BTreeSet<_> = stored.iter().map(|line| &line.key).collect();
    context.remove(table, before.into_iter().filter(|key| !kept.contains(key)));
    Ok(stored)
}

/// A line that is new has a quantity and a state, whatever was sent: what its till means by
/// saying nothing.
fn begin_line(context: &ProcedureContext<'_, '_>, table: &Table, line: &mut Object) {
    if table.key_of(line).is_ok_and(|key| context.get(table, &key).is_some()) {
        // A stored line keeps what it has where its till says nothing.
        return;
    }
    for (name, value) in [("quantity", Value::from(1_u64)), ("statusId", "open".into())] {
        if let Some(field) = table.field(name)
            && table.sent_value(line, field).is_none()
        {
            line.insert(Arc::clone(&field.name), value);
        }
    }
}

/// A line costs its quantity times its price, as they will be stored, where no total was sent
/// and one of them was, or none is stored.
fn add_total(
    context: &ProcedureContext<'_, '_>,
    table: &Table,
    line: &mut Object,
) -> Result<(), Reject> {
    let Some(field) = table.field("total") else { return Ok(()) };
    let total = table.sent_value(line, field);
    if !is_empty(total.as_ref()) {
        return Ok(());
    }
    let key = table.key_of(line).ok();
    let stored = key.and_then(|key| context.get(table, &key));
    let sent = |name: &str| {
        let sent = table.field(name).and_then(|field| table.sent_value(line, field));
        sent.filter(|sent| !is_empty(Some(sent)))
    };
    let has_total = stored.is_some_and(|stored| !is_empty(stored.get(&field.name)));
    let (count, price) = (sent("quantity"), sent("unitPrice"));
    // An empty one asks for it to be worked out.
    if has_total && total.is_none() && count.is_none() && price.is_none() {
        return Ok(());
    }
    let of = |sent: Option<Value>, name| sent.or_else(|| stored?.get(name).cloned());
    let (count, price) = (of(count, "quantity"), of(price, "unitPrice"));
    let Some((count, price)) = count.zip(price) else { return Ok(()) };
    if let Some(total) = field.product(table.name.as_str(), &count, &price)? {
        line.remove(&field.column);
        line.insert(Arc::clone(&field.name), total);
    }
    Ok(())
}

/// The payments sent, each in the order's shift where it names none.
fn payments(
    context: &ProcedureContext<'_, '_>,
    order: &SaveOrder,
    saved: &SavedHeader,
) -> Option<Vec<Object>> {
    let mut payments = order.payments.clone()?;
    let table = context.definition().schema.table(PAYMENT);
    for payment in &mut payments {
        let Some(table) = table else { continue };
        let field = table.field("shiftId");
        if field.is_some_and(|field| is_empty(table.sent_value(payment, field).as_ref())) {
            copy(table, payment, &saved.header, "shiftId");
        }
    }
    Some(payments)
}

/// Refuses an order nobody could have meant.
fn check_order(
    context: &ProcedureContext<'_, '_>,
    table: &Table,
    sent: &SaveOrder,
) -> Result<(), Reject> {
    let has_lines = match &sent.lines {
        Some(lines) => !lines.is_empty(),
        // The lines of a stored order stay where none are sent.
        None => {
            let is_stored = |key| context.get(table, &key).is_some();
            !is_draft(table, &sent.header) && table.key_of(&sent.header).is_ok_and(is_stored)
        }
    };
    if !has_lines {
        return Err(refused("EMPTY_ORDER_NOT_ALLOWED: Order must have at least one order_line"));
    }
    let shift = match table.field("shiftId") {
        Some(field) => table.sent_value(&sent.header, field),
        None => sent.header.get("shiftId").cloned(),
    };
    if is_empty(shift.as_ref()) {
        return Err(refused("POS order payload requires a shiftId."));
    }
    let lists = [&sent.lines, &sent.payments, &sent.status_logs];
    let parts: usize = lists.into_iter().flatten().map(Vec::len).sum();
    let logs: usize = sent.line_status_logs.iter().flatten().map(Vec::len).sum();
    check_count(1 + parts + logs)
}

/// Whether a header is of an order not yet saved: it gets a number.
fn is_draft(table: &Table, header: &Object) -> bool {
    let Some(field) = id_field(table) else { return false };
    let id = table.sent_value(header, field);
    is_empty(id.as_ref())
        || id.as_ref().and_then(Value::as_str).is_some_and(|id| id.starts_with(DRAFT))
}

fn check_count(rows: usize) -> Result<(), Reject> {
    if rows <= MUTATIONS_MAX {
        return Ok(());
    }
    let message = format!("an order of {rows} rows; at most {MUTATIONS_MAX} go at once");
    Err(Reject::BadCommand { message })
}

/// The original's words, beginning with the original's code in capitals.
fn refused(message: &str) -> Reject {
    let (code, message) = (REFUSED.to_owned(), message.to_owned());
    Reject::Procedure { code, message, details: Object::new() }
}
