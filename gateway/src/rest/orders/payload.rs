//! Payload: an order as a till sends it, made into records in the schema's names.
//!
//! Tills say `type`, `status`, `qty`, `price`, `method` where the schema says `orderTypeId`,
//! `statusId`, `quantity`, `unitPrice`, `paymentMethodId`. The original kept only what already had
//! the schema's names, and lost the rest. Promise: what a field of the schema can hold is kept;
//! what the till keeps for itself is left out; nothing here depends on a clock, so the same order
//! sent again is the same command.

use std::slice;

use compat::SaveOrder;
use model::{Field, FieldType, Number, Object, Schema, Table, Timestamp, Validation, Value};

use crate::error::{ApiError, Problem};
use crate::publish::text;

/// For each field of the schema, what tills call it.
type Names = &'static [(&'static str, &'static [&'static str])];

const HEADER: Names = &[
    ("orderTypeId", &["type", "orderType", "order_type"]),
    ("statusId", &["status", "state"]),
    ("stageId", &["fulfillmentStage", "fulfillment_stage", "stage"]),
    ("paymentStateId", &["paymentState", "payment_state"]),
    ("tableId", &["tableIds", "table_ids", "table"]),
    ("guests", &["guestCount"]),
    ("totalDue", &["total"]),
    ("totalPaid", &["paid"]),
];
/// Where a till has these in `totals`.
const TOTALS: Names = &[
    ("subtotal", &["subtotal"]),
    ("discount", &["discount"]),
    ("service", &["service"]),
    ("tax", &["vat", "tax"]),
    ("deliveryFee", &["deliveryFee", "delivery"]),
    ("totalDue", &["due", "totalDue", "total", "grandTotal"]),
    ("totalPaid", &["paid", "totalPaid"]),
];
const LINE: Names = &[
    ("itemId", &["productId", "menuItemId", "item"]),
    ("quantity", &["qty", "count"]),
    ("unitPrice", &["price"]),
    ("total", &["lineTotal"]),
    ("statusId", &["status"]),
    ("stageId", &["stage"]),
    ("kitchenSectionId", &["kitchenSection", "sectionId", "section"]),
];
const PAYMENT: Names = &[
    ("paymentMethodId", &["methodId", "method", "paymentMethod"]),
    ("amount", &["value"]),
    ("capturedAt", &["createdAt", "paidAt"]),
];
const LOG: Names = &[
    ("orderLineId", &["lineId"]),
    ("statusId", &["status"]),
    ("stageId", &["stage", "fulfillmentStage"]),
    ("paymentStateId", &["paymentState"]),
    ("stationId", &["station"]),
    ("actorId", &["actor", "userId"]),
    ("changedAt", &["at", "timestamp", "createdAt"]),
];

pub(super) const TYPE: &str = "dine_in";
pub(super) const STATUS: &str = "open";
pub(super) const STAGE: &str = "new";
pub(super) const PAYMENT_STATE: &str = "unpaid";
/// The shape of `metadata` that this payload has.
const METADATA_VERSION: u64 = 2;

/// An order as sent.
pub(super) struct Payload {
    pub(super) order: Object,
    /// `None` where no list was sent.
    pub(super) lines: Option<Vec<Object>>,
    /// `None` where no list was sent.
    pub(super) payments: Option<Vec<Object>>,
    /// Who did it.
    pub(super) actor: Option<String>,
}

impl Payload {
    /// Reads `{order|data|record, actorId?|userId?}`.
    pub(super) fn read(mut body: Object) -> Result<Self, ApiError> {
        let sent = ["order", "data", "record"].iter().find_map(|name| body.remove(name));
        let order = match sent {
            Some(Value::Object(order)) => order,
            None | Some(Value::Null) => {
                let message = "send the order as \"order\", an object";
                return Err(ApiError::new(Problem::MissingOrder, message));
            }
            Some(Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
                return Err(ApiError::new(Problem::InvalidBody, "order must be an object"));
            }
        };
        const ACTOR: [&str; 2] = ["actorId", "userId"];
        let actor = text(&body, &ACTOR).or_else(|| text(&order, &ACTOR));
        let (lines, payments) = (records(&order, "lines")?, records(&order, "payments")?);
        Ok(Self { order, lines, payments, actor })
    }

    /// The order's id, if the till gave it one that lasts.
    pub(super) fn id(&self) -> Option<String> {
        text(&self.order, &["id"]).filter(|id| !id.starts_with("draft-"))
    }

    /// What is to be saved.
    ///
    /// # Errors
    /// `invalid-body` where a strict module would lose an amount.
    pub(super) fn save_order(
        &self,
        schema: &Schema,
        validation: Validation,
    ) -> Result<SaveOrder, ApiError> {
        let table = |name| schema.table(name).map(|table| &**table);
        let [header, line, payment, log, line_log] = [
            "order_header",
            "order_line",
            "order_payment",
            "order_status_log",
            "order_line_status_log",
        ]
        .map(table);
        let in_names = |table: Option<&Table>, names, records: Vec<Object>| -> Vec<Object> {
            // What no table can hold is not stored.
            let Some(table) = table else { return Vec::new() };
            records.iter().map(|record| named(table, record, names)).collect()
        };
        let mut line_logs = Vec::new();
        for sent in self.lines.iter().flatten() {
            line_logs.push(logs(sent)?.map(|logs| in_names(line_log, LOG, logs)));
        }
        let each = |records: &Option<Vec<Object>>, of: &dyn Fn(&Object) -> Object| {
            records.as_ref().map(|records| records.iter().map(of).collect::<Vec<_>>())
        };
        let read = SaveOrder {
            header: header.map_or_else(Object::new, |table| self.header(table)),
            lines: each(&self.lines, &|sent| {
                line.map_or_else(|| sent.clone(), |table| named(table, sent, LINE))
            }),
            payments: each(&self.payments, &|sent| {
                payment.map_or_else(|| sent.clone(), |table| self.payment(table, sent))
            }),
            status_logs: logs(&self.order)?.map(|logs| in_names(log, LOG, logs)),
            line_status_logs: line_logs,
            actor: self.actor.clone(),
        };
        if validation == Validation::Strict {
            self.refuse_unread_amounts([header, line, payment], &read)?;
        }
        Ok(read)
    }

    /// Refuses an amount that was sent as an object nobody can make a number of: it would be money
    /// lost without a word.
    fn refuse_unread_amounts(
        &self,
        [header, line, payment]: [Option<&Table>; 3],
        read: &SaveOrder,
    ) -> Result<(), ApiError> {
        fn all(records: &Option<Vec<Object>>) -> &[Object] {
            records.as_deref().unwrap_or_default()
        }
        let order = (slice::from_ref(&self.order), slice::from_ref(&read.header));
        for (table, (sent, read)) in [
            (header, order),
            (line, (all(&self.lines), all(&read.lines))),
            (payment, (all(&self.payments), all(&read.payments))),
        ] {
            let Some(table) = table else { continue };
            for (sent, read) in sent.iter().zip(read) {
                refuse_unread_amount(table, sent, read)?;
            }
        }
        Ok(())
    }

    /// Whether it can only be a new order: one that is stored is changed by its version.
    fn is_new(&self) -> bool {
        self.id().is_none() || number(&self.order, &["version"]).is_none()
    }

    fn header(&self, table: &Table) -> Object {
        let mut sent = self.order.clone();
        let totals = self.order.get("totals").and_then(Value::as_object);
        for (name, theirs) in TOTALS {
            // What the order says itself goes before its `totals`.
            let missing = self.order.get(name).is_none_or(|value| amount(value).is_none());
            let total = totals.and_then(|totals| theirs.iter().find_map(|name| totals.get(name)));
            if let Some(total) = total.filter(|total| missing && !total.is_null()) {
                sent.insert(*name, total.clone());
            }
        }
        let mut header = named(table, &sent, HEADER);
        // Where neither is sent, what is stored of the order stays as it is.
        let is_sent = self.lines.is_some() || self.order.get("metadata").is_some();
        if is_sent && table.field("metadata").is_some() {
            header.insert("metadata", self.metadata().into());
        }
        if self.is_new() {
            for (name, value) in [
                ("orderTypeId", Value::from(TYPE)),
                ("statusId", STATUS.into()),
                ("stageId", STAGE.into()),
                ("paymentStateId", PAYMENT_STATE.into()),
                ("guests", 0_u64.into()),
            ] {
                or_else(&mut header, table, name, value);
            }
            if let Some((field, at)) = table.field("openedAt").zip(self.order.get("createdAt"))
                && header.get("openedAt").is_none()
                && let Some(at) = stored(field, at)
            {
                header.insert("openedAt", at);
            }
        }
        header
    }

    /// `metadata` as it is stored: the till's own, and what is known of the order.
    pub(super) fn metadata(&self) -> Object {
        let sent = self.order.get("metadata").and_then(Value::as_object);
        let mut metadata = sent.cloned().unwrap_or_default();
        let notes = self.order.get("notes").and_then(Value::as_array).map_or(0, <[Value]>::len);
        metadata.insert("version", METADATA_VERSION.into());
        if let Some(lines) = &self.lines {
            metadata.insert("linesCount", (lines.len() as u64).into());
        }
        metadata.insert("notesCount", (notes as u64).into());
        metadata.insert("posId", self.of_pos("posId", "pos_id"));
        metadata.insert("posLabel", self.of_pos("posLabel", "pos_label"));
        metadata
    }

    /// Something about the till, told by the order or by its metadata.
    pub(super) fn of_pos(&self, name: &str, twin: &str) -> Value {
        let order = [name, twin].iter().find_map(|name| self.order.get(name));
        let metadata = || self.order.get("metadata").and_then(|metadata| metadata.get(name));
        order.or_else(metadata).cloned().unwrap_or_default()
    }

    fn payment(&self, table: &Table, sent: &Object) -> Object {
        let mut payment = named(table, sent, PAYMENT);
        if let Some(shift) = text(&self.order, &["shiftId", "shift_id"])
            && payment.get("shiftId").is_none()
            && table.field("shiftId").is_some()
        {
            payment.insert("shiftId", shift.into());
        }
        payment
    }
}

/// A list of records within another; `None` where no list was sent, which is not an empty one.
fn records(of: &Object, name: &str) -> Result<Option<Vec<Object>>, ApiError> {
    let wrong = || {
        let message = format!("{name} must be an array of objects");
        ApiError::new(Problem::InvalidBody, message)
    };
    match of.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(list) => {
            let items = list.as_array().ok_or_else(wrong)?.iter();
            let records = items.map(|item| item.as_object().cloned().ok_or_else(wrong));
            records.collect::<Result<_, _>>().map(Some)
        }
    }
}

/// The status logs of an order or of a line.
pub(super) fn logs(of: &Object) -> Result<Option<Vec<Object>>, ApiError> {
    records(of, "statusLogs")
}

/// A record with the fields of a table, under whatever name each was sent; its version besides.
fn named(table: &Table, sent: &Object, names: Names) -> Object {
    let mut record = Object::with_capacity(table.fields.len() + 1);
    for field in &table.fields {
        let own = sent.get(&field.name).or_else(|| sent.get(&field.column));
        let theirs = names.iter().find(|(name, _)| *name == &*field.name);
        let theirs =
            || theirs?.1.iter().filter_map(|name| sent.get(name)).find(|value| !value.is_null());
        let said = |value: &&Value| !value.is_null() && value.as_str() != Some("");
        // An empty value gives way to one under another name, and stands where there is none.
        let own = own.filter(said).or_else(theirs).or(own);
        if let Some(value) = own.and_then(|value| stored(field, value)) {
            record.insert(field.name.clone(), value);
        }
    }
    // A lenient module passes over it where the table is not versioned; a strict one checks it.
    if let Some(version) = sent.get("version").filter(|version| !version.is_null()) {
        record.insert("version", version.clone());
    }
    record
}

/// A value as a field can hold it: a record stands for its id, a list for its first item, an
/// amount for its number, milliseconds for an instant. `None` where it can hold nothing of it.
fn stored(field: &Field, value: &Value) -> Option<Value> {
    match (field.kind, value) {
        (FieldType::Json, _) => Some(value.clone()),
        (FieldType::Integer | FieldType::Number, Value::Object(_)) => {
            let found = value.get("id").cloned();
            found.or_else(|| amount(value).cloned())
        }
        (_, Value::Object(members)) => members.get("id").cloned(),
        // Notes are sent as a list even where the schema has a text.
        (FieldType::String | FieldType::Opaque, Value::Array(_)) if &*field.name == "notes" => {
            Some(value.clone())
        }
        (_, Value::Array(items)) => items.first().and_then(|item| stored(field, item)),
        (FieldType::Timestamp, Value::Number(millis)) => {
            let millis = millis.to_u64().and_then(|millis| i64::try_from(millis).ok());
            Some(millis.map_or_else(|| value.clone(), |at| Timestamp(at).to_iso().into()))
        }
        (_, Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => {
            Some(value.clone())
        }
    }
}

/// The number of an amount: itself, or `{amount}`.
fn amount(value: &Value) -> Option<&Value> {
    match value {
        Value::Number(_) => Some(value),
        Value::String(text) => Number::parse(text.trim()).map(|_| value),
        // A share of something else is no amount, whatever its number is called.
        Value::Object(members) if is_share(members) => None,
        Value::Object(members) => {
            let mut said = ["amount", "value"].iter().filter_map(|name| members.get(name));
            said.find(|amount| !amount.is_null())
        }
        Value::Null | Value::Bool(_) | Value::Array(_) => None,
    }
}

/// Whether an object says a percentage.
fn is_share(members: &Object) -> bool {
    let kind = members.get("type").and_then(Value::as_str).unwrap_or_default();
    ["percent", "percentage", "%"].iter().any(|share| kind.eq_ignore_ascii_case(share))
}

/// The same of one record.
fn refuse_unread_amount(table: &Table, sent: &Object, read: &Object) -> Result<(), ApiError> {
    for field in table.fields.iter().filter(|field| field.kind == FieldType::Number) {
        let own = sent.get(&field.name).or_else(|| sent.get(&field.column));
        let Some(own) = own.filter(|own| own.as_object().is_some()) else { continue };
        if read.get(&field.name).is_none_or(Value::is_null) {
            let (table, name, shown) = (table.name.as_str(), &field.name, own.to_json());
            let message = format!(
                "{table}.{name} is an amount, but {shown} says none; send a number, \
                 {{\"amount\": …}}, or the order's amount in totals"
            );
            let details = [("table", table.into()), ("field", (&**name).into())];
            return Err(ApiError::new(Problem::InvalidBody, message).details(details));
        }
    }
    Ok(())
}

/// The first of these members that says a number, as a number or as text.
pub(super) fn number(record: &Object, names: &[&str]) -> Option<Number> {
    names.iter().find_map(|name| as_number(record.get(name)?))
}

fn as_number(value: &Value) -> Option<Number> {
    Number::parse(amount(value)?.key_text()?.trim())
}

/// A value for a field that must have one and was not sent.
fn or_else(record: &mut Object, table: &Table, name: &'static str, value: Value) {
    let needed = table.field(name).is_some_and(|field| !field.nullable);
    let missing =
        record.get(name).is_none_or(|value| value.is_null() || value.as_str() == Some(""));
    if needed && missing {
        record.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = r#"{"tables":[
        {"name":"order_header","fields":[
            {"name":"id","columnName":"order_id","type":"string","primaryKey":true},
            {"name":"shiftId","columnName":"shift_id","type":"string"},
            {"name":"orderTypeId","columnName":"order_type_id","nullable":false,"type":"string"},
            {"name":"statusId","columnName":"status_id","nullable":false,"type":"string"},
            {"name":"stageId","columnName":"stage_id","nullable":false,"type":"string"},
            {"name":"paymentStateId","type":"string","nullable":true},
            {"name":"tableId","columnName":"table_id","type":"string","nullable":true},
            {"name":"openedAt","type":"timestamp"},
            {"name":"guests","nullable":false,"type":"integer"},
            {"name":"discount","type":"decimal"},
            {"name":"tax","type":"decimal"},
            {"name":"totalDue","type":"decimal"},
            {"name":"metadata","type":"json"}]},
        {"name":"order_line","fields":[
            {"name":"id","type":"string","primaryKey":true},
            {"name":"itemId","columnName":"item_id","type":"string"},
            {"name":"kitchenSectionId","type":"string","nullable":true},
            {"name":"quantity","nullable":false,"type":"decimal"},
            {"name":"unitPrice","type":"decimal"},
            {"name":"total","type":"decimal"},
            {"name":"notes","type":"text","nullable":true},
            {"name":"statusId","nullable":false,"type":"string"}]},
        {"name":"order_payment","fields":[
            {"name":"id","type":"string","primaryKey":true},
            {"name":"amount","type":"decimal"},
            {"name":"paymentMethodId","type":"string"},
            {"name":"capturedAt","type":"timestamp"},
            {"name":"shiftId","type":"string"}]},
        {"name":"order_line_status_log","fields":[
            {"name":"id","type":"string","primaryKey":true},
            {"name":"orderLineId","type":"string"},
            {"name":"statusId","type":"string"},
            {"name":"changedAt","type":"timestamp"}]}]}"#;

    fn object(json: &str) -> Object {
        Value::from_json(json.as_bytes()).unwrap().as_object().unwrap().clone()
    }

    fn save(json: &str) -> SaveOrder {
        let source = Value::from_json(SCHEMA.as_bytes()).unwrap();
        let schema = Schema::read_under("pos", &source, &compat::conventions()).unwrap().schema;
        let payload = Payload::read(object(&format!(r#"{{"order":{json}}}"#))).unwrap();
        payload.save_order(&schema, Validation::Lenient).unwrap()
    }

    fn shown(record: &Object) -> String {
        Value::from(record.clone()).to_json()
    }

    #[test]
    fn a_new_order_is_kept_whole_in_the_schemas_names() {
        let order = save(
            r#"{"id":"draft-1","shiftId":"sh-1","type":"delivery","createdAt":1795220601017,
            "tableIds":["t7","t8"],"totals":{"vat":1.50,"due":"101.5"},"dirty":true,
            "discount":{"type":"fixed","amount":2},"notes":["a"],
            "lines":[{"id":"ol-1","itemId":"burger","qty":2,"price":50.25,"name":{"ar":"x"},
                "kitchenSectionId":"k1","statusLogs":[{"status":"open","at":1795220601017}]}],
            "payments":[{"id":"pp-1","method":"cash","amount":100}]}"#,
        );
        assert_eq!(
            shown(&order.header),
            concat!(
                r#"{"id":"draft-1","shiftId":"sh-1","orderTypeId":"delivery","tableId":"t7","#,
                r#""discount":2,"tax":1.50,"totalDue":"101.5","metadata":{"version":2,"#,
                r#""linesCount":1,"notesCount":1,"posId":null,"posLabel":null},"#,
                r#""statusId":"open","stageId":"new","guests":0,"#,
                r#""openedAt":"2026-11-21T00:23:21.017Z"}"#,
            )
        );
        assert_eq!(
            shown(&order.lines.unwrap()[0]),
            concat!(
                r#"{"id":"ol-1","itemId":"burger","kitchenSectionId":"k1","quantity":2,"#,
                r#""unitPrice":50.25}"#,
            )
        );
        assert_eq!(
            shown(&order.payments.unwrap()[0]),
            r#"{"id":"pp-1","amount":100,"paymentMethodId":"cash","shiftId":"sh-1"}"#
        );
        assert_eq!(
            shown(&order.line_status_logs[0].as_ref().unwrap()[0]),
            r#"{"statusId":"open","changedAt":"2026-11-21T00:23:21.017Z"}"#
        );
        assert_eq!(order.status_logs, None);
    }

    #[test]
    fn a_change_of_a_stored_order_says_only_what_was_sent() {
        let order = save(
            r#"{"id":"o-1","shiftId":"s","version":2,"createdAt":5000000000,
            "lines":[{"id":"l","item_id":{"id":"burger"},"qty":"3","version":2},{"id":"m","version":3}]}"#,
        );
        let names =
            |record: &Object| record.iter().map(|(name, _)| &**name).collect::<Vec<_>>().join(" ");
        assert_eq!(names(&order.header), "id shiftId version metadata");
        assert_eq!(order.payments, None, "a list that is not sent is no empty one");
        let lines = order.lines.unwrap();
        assert_eq!(shown(&lines[0]), r#"{"id":"l","itemId":"burger","quantity":"3","version":2}"#);
        assert_eq!(names(&lines[1]), "id version");
        let read = save(r#"{"id":"o","lines":[{"id":"l"}]}"#);
        assert_eq!(names(&read.lines.unwrap()[0]), "id", "nothing is made up");
    }

    #[test]
    fn an_order_sent_without_its_lines_keeps_what_was_known_of_it() {
        let order = save(r#"{"id":"o-1","shiftId":"s","version":2,"payments":[]}"#);
        assert_eq!((order.lines, order.payments), (None, Some(Vec::new())));
        assert_eq!(shown(&order.header), r#"{"id":"o-1","shiftId":"s","version":2}"#);
        let order = save(r#"{"id":"o","lines":null,"payments":null}"#);
        assert_eq!((order.lines, order.payments), (None, None), "null is nothing sent");
    }

    #[test]
    fn the_schemas_own_names_go_first() {
        let order = save(
            r#"{"id":"o","order_type_id":"a","type":"b","statusId":"","status":"held",
            "lines":[{"quantity":1,"qty":9,"unitPrice":2,"price":9,"total":7}]}"#,
        );
        let text = |name: &str| order.header.get(name).and_then(Value::as_str).unwrap();
        assert_eq!((text("orderTypeId"), text("statusId")), ("a", "held"));
        assert!(
            shown(&order.lines.unwrap()[0]).starts_with(r#"{"quantity":1,"unitPrice":2,"total":7"#)
        );
    }

    #[test]
    fn an_order_that_is_none_is_refused() {
        let refused = |json: &str| Payload::read(object(json)).err().map(|e| e.problem());
        assert_eq!(refused("{}"), Some(Problem::MissingOrder));
        assert_eq!(refused(r#"{"order":null}"#), Some(Problem::MissingOrder));
        assert_eq!(refused(r#"{"order":[]}"#), Some(Problem::InvalidBody));
        assert_eq!(refused(r#"{"data":{"lines":5}}"#), Some(Problem::InvalidBody));
        assert_eq!(refused(r#"{"record":{"payments":[1]}}"#), Some(Problem::InvalidBody));
        assert_eq!(refused(r#"{"record":{}}"#), None);
    }

    #[test]
    fn who_did_it_is_told_by_the_body_or_by_the_order() {
        let actor = |json: &str| Payload::read(object(json)).unwrap().actor;
        assert_eq!(actor(r#"{"order":{"userId":"b"},"actorId":"a"}"#).as_deref(), Some("a"));
        assert_eq!(actor(r#"{"order":{"userId":"b"}}"#).as_deref(), Some("b"));
        assert_eq!(actor(r#"{"order":{}}"#), None);
    }

    #[test]
    fn a_percentage_is_no_amount_and_a_strict_module_refuses_it() {
        let source = Value::from_json(SCHEMA.as_bytes()).unwrap();
        let schema = Schema::read_under("pos", &source, &compat::conventions()).unwrap().schema;
        let discount = |order: &str, validation| {
            let order = format!(r#"{{"order":{{"shiftId":"s","lines":[],{order}}}}}"#);
            let saved = Payload::read(object(&order)).unwrap().save_order(&schema, validation);
            saved.map(|saved| saved.header.get("discount").map(Value::to_json))
        };
        for (sent, stored) in [
            (r#""discount":{"type":"fixed","value":10}"#, "10"),
            (r#""discount":{"type":"percent","amount":10},"totals":{"discount":5}"#, "5"),
            (r#""discount":2.5"#, "2.5"),
        ] {
            for validation in [Validation::Strict, Validation::Lenient] {
                let read = discount(sent, validation).unwrap();
                assert_eq!(read.as_deref(), Some(stored), "{sent}");
            }
        }
        let share = r#""discount":{"type":"percent","amount":10}"#;
        let refused = discount(share, Validation::Strict).unwrap_err();
        assert!(refused.message().contains("order_header.discount is an amount"), "{refused:?}");
        assert_eq!(discount(share, Validation::Lenient).unwrap(), None);
    }
}
