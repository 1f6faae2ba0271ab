//! Order: a point-of-sale order saved with all that belongs to it, in one command (contract.md
//! 3.7).
//!
//! Every row is saved as the verb saves it, and makes its own event; rows of the stored order that
//! were not sent are deleted. All or nothing, where the original could stop half way. A line
//! without a version changes the line there is, whatever its version: the original made it anew,
//! which lost what the sender did not know of.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::command::{Action, Guard, SaveOrder, Verb};
use crate::definition::{Validation, VersionRule};
use crate::ids::RecordKey;
use crate::limits::VERBS_MAX;
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
/// What an order not yet saved is called by its till.
const DRAFT: &str = "draft-";
/// Who changed an order's state where nobody is named.
const ACTOR: &str = "pos";

/// The header as stored, which its parts refer to.
struct Saved {
    id: Value,
    header: Arc<Object>,
}

impl Plan<'_> {
    pub(crate) fn save_order(&mut self, order: &SaveOrder) -> Result<(), Reject> {
        let table = Arc::clone(self.table(HEADER)?);
        check(&table, order)?;
        let header = self.numbered(&table, &order.header)?;
        self.refuse_twice(&table, &header, order.lines.len())?;
        let saved = self.save_header(&table, header)?;
        let lines = self.save_parts(LINE, order.lines.clone(), &saved)?;
        let payments = self.payments(order, &saved);
        self.save_parts(PAYMENT, payments, &saved)?;
        let logs = self.status_logs(order, &saved);
        self.save_parts(STATUS_LOG, logs, &saved)?;
        let logs = self.line_status_logs(order, &lines);
        self.save_parts(LINE_STATUS_LOG, logs, &saved)?;
        check_count(self.drafts().len())?;
        self.check_integrity()
    }

    /// The header under an id of its own: one it has, or the next number, which `metadata` shows.
    fn numbered(&mut self, table: &Table, sent: &Object) -> Result<Object, Reject> {
        let mut header = sent.clone();
        let Some(field) = id_field(table) else { return Ok(header) };
        let id = table.sent_value(sent, field);
        let draft = id.as_ref().and_then(Value::as_str).is_some_and(|id| id.starts_with(DRAFT));
        if !draft && !is_empty(id.as_ref()) {
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
                shown.insert("sequenceRule", rule.shown.clone());
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
        self.verb(&Verb::new(Action::Save, HEADER, header))?;
        let draft = self.drafts().last().expect("a save drafts its event");
        let header = Arc::clone(draft.after.as_ref().expect("a save leaves a record"));
        let id = id_field(table).and_then(|field| header.get(&field.name)).cloned();
        Ok(Saved { id: id.unwrap_or_else(|| draft.key.as_str().into()), header })
    }

    /// Saves the rows of one kind and deletes those of the order that were not sent. The rows as
    /// stored; none where the module has no such table.
    fn save_parts(
        &mut self,
        name: &str,
        sent: Vec<Object>,
        saved: &Saved,
    ) -> Result<Vec<Arc<Object>>, Reject> {
        let Some(table) = self.definition().schema.table(name).cloned() else {
            return Ok(Vec::new());
        };
        let before = self.parts(name, &saved.id);
        let (mut kept, mut stored) = (BTreeSet::new(), Vec::new());
        for mut row in sent {
            if let Some(field) = table.field("orderId") {
                row.remove(&field.column);
                row.insert(Arc::clone(&field.name), saved.id.clone());
            }
            if name == LINE {
                self.add_total(&table, &mut row);
            }
            let guards = self.as_stored(&table, &row);
            self.verb(&Verb { guards, ..Verb::new(Action::Save, name, row) })?;
            let draft = self.drafts().last().expect("a save drafts its event");
            kept.insert(draft.key.clone());
            stored.extend(draft.after.clone());
        }
        for key in before.into_iter().filter(|key| !kept.contains(key)) {
            self.take(&table, &Verb::new(Action::Delete, name, Object::new()), key);
        }
        Ok(stored)
    }

    /// A line costs its quantity times its price, as they will be stored, where no total was sent.
    fn add_total(&self, table: &Table, line: &mut Object) {
        let Some(field) = table.field("total") else { return };
        if !is_empty(table.sent_value(line, field).as_ref()) {
            return;
        }
        let key = table.key_of(line).ok();
        let stored = key.and_then(|key| self.module().get(&table.name, &key));
        let of = |name: &str| {
            let sent = table.field(name).and_then(|field| table.sent_value(line, field));
            sent.filter(|sent| !is_empty(Some(sent)))
                .or_else(|| stored.and_then(|stored| stored.get(name).cloned()))
        };
        let total =
            of("quantity").zip(of("unitPrice")).and_then(|(count, price)| count.times(&price));
        if let Some(total) = total {
            line.remove(&field.column);
            line.insert(Arc::clone(&field.name), total);
        }
    }

    /// The condition that says the version of a row sent without one.
    fn as_stored(&self, table: &Table, row: &Object) -> Vec<Guard> {
        let known = table.key_of(row).ok().and_then(|key| self.module().get(&table.name, &key));
        match known.filter(|_| table.versioned && version::sent(row).is_none()) {
            Some(stored) => vec![Guard::VersionIs(version::stored(stored))],
            None => Vec::new(),
        }
    }

    /// The keys of an order's rows of one kind, in key order.
    fn parts(&self, name: &str, id: &Value) -> Vec<RecordKey> {
        let table = self.definition().schema.table(name);
        let found = table.and_then(|table| {
            let place = self.relations().by_order(&table.name)?;
            let index = self.module().rows(&table.name)?.index_at(place)?;
            let text: Arc<str> = id.name_text()?.into();
            Some(index.all(text).cloned().collect())
        });
        found.unwrap_or_default()
    }

    /// The payments sent, each in the order's shift where it names none.
    fn payments(&self, order: &SaveOrder, saved: &Saved) -> Vec<Object> {
        let mut payments = order.payments.clone();
        let table = self.definition().schema.table(PAYMENT);
        for payment in &mut payments {
            let Some(table) = table else { continue };
            let field = table.field("shiftId");
            if field.is_some_and(|field| is_empty(table.sent_value(payment, field).as_ref())) {
                copy(table, payment, &saved.header, "shiftId");
            }
        }
        payments
    }

    /// The logs sent, else one that tells of the state saved.
    fn status_logs(&self, order: &SaveOrder, saved: &Saved) -> Vec<Object> {
        let table = self.definition().schema.table(STATUS_LOG);
        let Some(table) = table.filter(|_| order.status_logs.is_empty()) else {
            return order.status_logs.clone();
        };
        let mut log = self.status_log(table, &saved.id, order.actor.as_deref());
        for name in ["statusId", "stageId", "paymentStateId"] {
            copy(table, &mut log, &saved.header, name);
        }
        vec![log]
    }

    /// The logs sent, and one for each line that has none among them.
    fn line_status_logs(&self, order: &SaveOrder, lines: &[Arc<Object>]) -> Vec<Object> {
        let mut logs = order.line_status_logs.clone();
        let schema = &self.definition().schema;
        let (Some(table), Some(of)) = (schema.table(LINE_STATUS_LOG), schema.table(LINE)) else {
            return logs;
        };
        let Some(field) = table.field("orderLineId") else { return logs };
        let told = logs.iter().filter_map(|log| table.sent_value(log, field)?.name_text());
        let told: BTreeSet<String> = told.collect();
        for line in lines {
            let Some(id) = id_field(of).and_then(|field| line.get(&field.name)) else { continue };
            if id.name_text().is_some_and(|id| told.contains(&id)) {
                continue;
            }
            let mut log = self.status_log(table, id, order.actor.as_deref());
            log.insert(Arc::clone(&field.name), id.clone());
            // `orderId` is set where the rows are saved.
            copy(table, &mut log, line, "statusId");
            logs.push(log);
        }
        logs
    }

    /// A log nobody sent: whose state, when, and by whom.
    fn status_log(&self, table: &Table, of: &Value, actor: Option<&str>) -> Object {
        let at = self.at();
        let mut log = Object::new();
        let of = of.name_text().unwrap_or_default();
        if let Some(field) = id_field(table) {
            log.insert(Arc::clone(&field.name), format!("{of}::status::{}", at.0).into());
        }
        let strict = match self.validation() {
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
            let at = if strict { at.to_iso().into() } else { milliseconds(at.0) };
            log.insert(Arc::clone(&field.name), at);
        }
        log
    }
}

/// Refuses an order nobody could have meant.
fn check(table: &Table, sent: &SaveOrder) -> Result<(), Reject> {
    if sent.lines.is_empty() {
        return Err(order("EMPTY_ORDER_NOT_ALLOWED: Order must have at least one order_line"));
    }
    let shift = match table.field("shiftId") {
        Some(field) => table.sent_value(&sent.header, field),
        None => sent.header.get("shiftId").cloned(),
    };
    if is_empty(shift.as_ref()) {
        return Err(order("POS order payload requires a shiftId."));
    }
    let logs = sent.status_logs.len() + sent.line_status_logs.len();
    check_count(1 + sent.lines.len() + sent.payments.len() + logs)
}

fn check_count(rows: usize) -> Result<(), Reject> {
    if rows <= VERBS_MAX {
        return Ok(());
    }
    let message = format!("an order of {rows} rows; at most {VERBS_MAX} go at once");
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

fn milliseconds(at: i64) -> Value {
    Value::Number(at.into())
}

fn order(message: &str) -> Reject {
    Reject::Order { message: message.to_owned() }
}

#[cfg(test)]
mod tests;
