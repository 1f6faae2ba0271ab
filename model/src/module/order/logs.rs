//! Logs: who changed an order's state and a line's, and when: those sent, and those made here.
//!
//! A list that was sent replaces the stored logs. Where none was sent the stored logs stay, and one
//! is added if the state changed or no log tells of it yet: so a till that never sends logs has a
//! history of its orders' states.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::parts::refuse_same_keys;
use super::{LINE, LINE_STATUS_LOG, OF_LINE, STATUS_LOG, Saved, SavedPart, copy, id_field};
use crate::command::SaveOrder;
use crate::definition::Validation;
use crate::ids::RecordKey;
use crate::module::plan::Plan;
use crate::reject::Reject;
use crate::schema::Table;
use crate::value::{Object, Value};

/// Who changed an order's state where nobody is named.
const ACTOR: &str = "pos";
/// What an order's state is.
const ORDER_STATE: [&str; 3] = ["statusId", "stageId", "paymentStateId"];
/// What a line's state is.
const LINE_STATE: [&str; 1] = ["statusId"];

impl Plan<'_> {
    /// The order's logs as sent, else one that tells of the state saved.
    pub(super) fn save_status_logs(
        &mut self,
        order: &SaveOrder,
        saved: &Saved,
    ) -> Result<(), Reject> {
        let Some(table) = self.definition().schema.table(STATUS_LOG).cloned() else {
            return Ok(());
        };
        let made = || {
            let mut log = self.status_log(&table, &saved.id, order.actor.as_deref());
            for name in ORDER_STATE {
                copy(&table, &mut log, &saved.header, name);
            }
            vec![log]
        };
        match &order.status_logs {
            Some(sent) => {
                let logs = if sent.is_empty() { made() } else { sent.clone() };
                self.replace_parts(STATUS_LOG, logs, saved)?;
            }
            None => {
                let told = !self.parts(STATUS_LOG, &saved.id).is_empty();
                if !told || changed(&ORDER_STATE, saved.before.as_deref(), &saved.header) {
                    let logs = made();
                    self.save_parts(&table, logs, saved)?;
                }
            }
        }
        Ok(())
    }

    /// The lines' logs as sent, and one for each line that has none among them. Logs of lines the
    /// order no longer has go with their lines.
    pub(super) fn save_line_status_logs(
        &mut self,
        order: &SaveOrder,
        lines: &[SavedPart],
        saved: &Saved,
    ) -> Result<(), Reject> {
        let schema = Arc::clone(&self.definition().schema);
        let (Some(table), Some(of)) = (schema.table(LINE_STATUS_LOG), schema.table(LINE)) else {
            return Ok(());
        };
        let stored = self.line_logs(table, of, saved);
        let mut logs = Vec::new();
        // Lines whose stored logs stay, beside what is added.
        let mut stays: BTreeSet<String> = BTreeSet::new();
        if order.line_status_logs.iter().all(Option::is_none) {
            stays.insert(String::new()); // Those that name no line.
        }
        for (place, line) in lines.iter().enumerate() {
            let id = id_field(of).and_then(|field| line.record.get(&field.name)).cloned();
            let Some(id) = id else { continue };
            let text = of.name_kind().name_text(&id).unwrap_or_default();
            let sent = order.line_status_logs.get(place).and_then(Option::as_ref);
            for log in sent.into_iter().flatten() {
                let mut log = log.clone();
                if let Some(field) = table.field(OF_LINE) {
                    log.remove(&field.column);
                    log.insert(Arc::clone(&field.name), id.clone());
                }
                self.refuse_part_of_another(table, &log, OF_LINE, (LINE, &id))?;
                logs.push(log);
            }
            let told = stored.get(&text).is_some_and(|keys| !keys.is_empty());
            let is_new = || !told || changed(&LINE_STATE, line.before.as_deref(), &line.record);
            let missing = match sent {
                Some(sent) => sent.is_empty(),
                None => is_new(),
            };
            if missing {
                logs.push(self.line_log(table, &id, &line.record, order.actor.as_deref()));
            }
            if sent.is_none() {
                stays.insert(text);
            }
        }
        refuse_same_keys(table, &logs)?;
        let (kept, _) = self.save_parts(table, logs, saved)?;
        let gone = stored.into_iter().filter(|(line, _)| !stays.contains(line));
        let gone = gone.flat_map(|(_, keys)| keys).filter(|key| !kept.contains(key));
        self.take_parts(table, gone);
        Ok(())
    }

    /// The stored logs of the order's lines, by line.
    fn line_logs(
        &self,
        table: &Table,
        of: &Table,
        saved: &Saved,
    ) -> BTreeMap<String, Vec<RecordKey>> {
        let mut logs: BTreeMap<String, Vec<RecordKey>> = BTreeMap::new();
        for key in self.parts(LINE_STATUS_LOG, &saved.id) {
            let log = self.module().get(&table.name, &key);
            let line = log.and_then(|log| of.name_kind().name_text(log.get(OF_LINE)?));
            logs.entry(line.unwrap_or_default()).or_default().push(key);
        }
        logs
    }

    fn line_log(&self, table: &Table, id: &Value, line: &Object, actor: Option<&str>) -> Object {
        let mut log = self.status_log(table, id, actor);
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
    fn unused(&self, table: &Table, name: String) -> String {
        let is_taken = |name: &str| table.key_named(name).is_some_and(|key| self.has(table, &key));
        let numbered = (2..).map(|number: u32| format!("{name}-{number}"));
        std::iter::once(name.clone())
            .chain(numbered)
            .find(|name| !is_taken(name))
            .expect("there are more names than records")
    }

    /// A log nobody sent: whose state, when, and by whom.
    fn status_log(&self, table: &Table, of: &Value, actor: Option<&str>) -> Object {
        let at = self.at();
        let mut log = Object::new();
        let of = of.name_text().unwrap_or_default();
        if let Some(field) = id_field(table) {
            let name = format!("{of}::status::{}", at.0);
            log.insert(Arc::clone(&field.name), self.unused(table, name).into());
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
            let at = if strict { at.to_iso().into() } else { Value::Number(at.0.into()) };
            log.insert(Arc::clone(&field.name), at);
        }
        log
    }
}

/// Whether one of these fields is another than before; a new record's are all new.
fn changed(fields: &[&str], before: Option<&Object>, after: &Object) -> bool {
    before.is_none_or(|before| fields.iter().any(|name| before.get(name) != after.get(name)))
}
