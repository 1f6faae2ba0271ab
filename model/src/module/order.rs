//! Order: a point-of-sale order saved with all that belongs to it, in one command
//! (docs/original/rest.md#orders).
//!
//! Every row is saved as the mutation saves it, and makes its own event. A list of parts that was
//! sent replaces the stored parts of its kind, an empty one too; a list that was not sent leaves
//! them. A part of another order is refused, never taken. All or nothing, where the original could
//! stop half way. A line without a version changes the line there is, whatever its version: the
//! original made it anew, which lost what the sender did not know of.
//!
//! `order/parts.rs` keeps parts with their records, `order/logs.rs` makes the logs nobody sent.

mod logs;
mod parts;

use std::sync::Arc;

use crate::command::{Action, Mutation, SaveOrder};
use crate::definition::VersionRule;
use crate::limits::MUTATIONS_MAX;
use crate::module::plan::{Plan, is_empty};
use crate::module::version;
use crate::reject::Reject;
use crate::schema::Table;
use crate::value::{Object, Value};

const HEADER: &str = "order_header";
const LINE: &str = "order_line";
const PAYMENT: &str = "order_payment";
const STATUS_LOG: &str = "order_status_log";
const LINE_STATUS_LOG: &str = "order_line_status_log";
/// The field that says which line a log is of.
const OF_LINE: &str = "orderLineId";
/// What an order not yet saved is called by its till.
const DRAFT: &str = "draft-";

/// The header as stored, which its parts refer to.
struct Saved {
    id: Value,
    /// As it was before; `None` for a new order.
    before: Option<Arc<Object>>,
    header: Arc<Object>,
}

/// One part as stored, and as it was before.
struct SavedPart {
    before: Option<Arc<Object>>,
    record: Arc<Object>,
}

impl Plan<'_> {
    pub(crate) fn save_order(&mut self, order: &SaveOrder) -> Result<(), Reject> {
        let table = Arc::clone(self.table(HEADER)?);
        self.check_order(&table, order)?;
        let header = self.numbered(&table, &order.header)?;
        self.refuse_twice(&table, &header, order.lines.as_ref().map_or(0, Vec::len))?;
        let saved = self.save_header(&table, header)?;
        let lines = match &order.lines {
            Some(lines) => self.replace_parts(LINE, lines.clone(), &saved)?,
            None => Vec::new(),
        };
        if let Some(payments) = self.payments(order, &saved) {
            self.replace_parts(PAYMENT, payments, &saved)?;
        }
        self.save_status_logs(order, &saved)?;
        if order.lines.is_some() {
            self.save_line_status_logs(order, &lines, &saved)?;
        }
        check_count(self.drafts().len())?;
        self.check_integrity()
    }

    /// The header under an id of its own: one it has, or the next number, which `metadata` shows.
    fn numbered(&mut self, table: &Table, sent: &Object) -> Result<Object, Reject> {
        let mut header = sent.clone();
        let Some(field) = id_field(table) else { return Ok(header) };
        if !is_draft(table, sent) {
            return Ok(header);
        }
        header.remove(&field.name);
        header.remove(&field.column);
        let Some(rule) = self.rule(table, &field.name).cloned() else { return Ok(header) };
        let number = self.give(table, field, &rule, &mut header)?;
        if let Some(metadata) = table.field("metadata") {
            let sent = table.sent_value(&header, metadata);
            if is_empty(sent.as_ref()) || sent.as_ref().is_some_and(|v| v.as_object().is_some()) {
                let mut shown =
                    sent.as_ref().and_then(Value::as_object).cloned().unwrap_or_default();
                shown.insert("invoiceSequence", Value::from(number));
                shown.insert("sequenceRule", rule.source.clone());
                header.remove(&metadata.column);
                header.insert(Arc::clone(&metadata.name), shown.into());
            }
        }
        Ok(header)
    }

    /// Refuses an order that comes a second time: same version, no line more. Only where a client
    /// sends the version its change makes: one that sends what it read sends just that.
    fn refuse_twice(&self, table: &Table, header: &Object, lines: usize) -> Result<(), Reject> {
        match self.definition().version_rule {
            VersionRule::Next => {}
            VersionRule::Read => return Ok(()),
        }
        let key = table.key_of(header).ok();
        let Some(stored) = key.and_then(|key| self.module().get(&table.name, &key)) else {
            return Ok(());
        };
        let same = version::sent(header) == Some(version::stored(stored));
        let id = id_field(table).and_then(|field| stored.get(&field.name));
        if same && lines <= id.map_or(0, |id| self.parts(LINE, id).len()) {
            return Err(order(
                "DUPLICATE_SAVE_DETECTED: Order with same ID and version already exists",
            ));
        }
        Ok(())
    }

    fn save_header(&mut self, table: &Table, header: Object) -> Result<Saved, Reject> {
        self.mutation(&Mutation::new(Action::Save, HEADER, header))?;
        let draft = self.drafts().last().expect("a save drafts its event");
        let header = Arc::clone(draft.after.as_ref().expect("a save leaves a record"));
        let id = id_field(table).and_then(|field| header.get(&field.name)).cloned();
        let id = id.unwrap_or_else(|| draft.key.as_str().into());
        Ok(Saved { id, before: draft.before.clone(), header })
    }

    /// A line that is new has a quantity and a state, whatever was sent: what its till means by
    /// saying nothing.
    fn begin_line(&self, table: &Table, line: &mut Object) {
        if table.key_of(line).is_ok_and(|key| self.has(table, &key)) {
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
    fn add_total(&self, table: &Table, line: &mut Object) -> Result<(), Reject> {
        let Some(field) = table.field("total") else { return Ok(()) };
        let total = table.sent_value(line, field);
        if !is_empty(total.as_ref()) {
            return Ok(());
        }
        let key = table.key_of(line).ok();
        let stored = key.and_then(|key| self.module().get(&table.name, &key));
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
    fn payments(&self, order: &SaveOrder, saved: &Saved) -> Option<Vec<Object>> {
        let mut payments = order.payments.clone()?;
        let table = self.definition().schema.table(PAYMENT);
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
    fn check_order(&self, table: &Table, sent: &SaveOrder) -> Result<(), Reject> {
        let has_lines = match &sent.lines {
            Some(lines) => !lines.is_empty(),
            // The lines of a stored order stay where none are sent.
            None => {
                !is_draft(table, &sent.header)
                    && table.key_of(&sent.header).is_ok_and(|key| self.has(table, &key))
            }
        };
        if !has_lines {
            return Err(order("EMPTY_ORDER_NOT_ALLOWED: Order must have at least one order_line"));
        }
        let shift = match table.field("shiftId") {
            Some(field) => table.sent_value(&sent.header, field),
            None => sent.header.get("shiftId").cloned(),
        };
        if is_empty(shift.as_ref()) {
            return Err(order("POS order payload requires a shiftId."));
        }
        let lists = [&sent.lines, &sent.payments, &sent.status_logs];
        let parts: usize = lists.into_iter().flatten().map(Vec::len).sum();
        let logs: usize = sent.line_status_logs.iter().flatten().map(Vec::len).sum();
        check_count(1 + parts + logs)
    }
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

/// The field that is the whole key.
fn id_field(table: &Table) -> Option<&crate::schema::Field> {
    match &table.key[..] {
        [name] => table.field(name),
        _ => None,
    }
}

/// Takes a value over, where there is one and the table has a place for it.
fn copy(table: &Table, row: &mut Object, from: &Object, name: &str) {
    let value = from.get(name).filter(|value| !is_empty(Some(value)));
    if let (Some(field), Some(value)) = (table.field(name), value) {
        row.insert(Arc::clone(&field.name), value.clone());
    }
}

fn order(message: &str) -> Reject {
    Reject::Order { message: message.to_owned() }
}

#[cfg(test)]
mod tests;
