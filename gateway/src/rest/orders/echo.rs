//! Echo: an order as it was understood, in the till's names, for the till to go on with.
//!
//! Every member is there, with what was sent or what stands for it. It is only shown: what is
//! stored is the payload's work, and the branch's.

use model::{Number, Object, Table, Timestamp, Value};

use crate::publish::text;
use crate::rest::orders::payload::{PAYMENT_STATE, Payload, STAGE, STATUS, TYPE, logs, number};

/// Who did it, where nobody is named.
const ACTOR: &str = "pos";

/// What the branch made of an order.
pub(super) struct SavedOrder {
    pub(super) id: String,
    pub(super) at: Timestamp,
    /// As stored, with the number it was given.
    pub(super) metadata: Option<Object>,
}

/// The order as it was understood; `table` is the one its lines are stored in.
pub(super) fn normalized(payload: &Payload, saved: &SavedOrder, table: Option<&Table>) -> Object {
    let order = &payload.order;
    let at = millis(saved.at);
    let sent = |name: &str| order.get(name).cloned().unwrap_or_default();
    let word = |names: &[&str], otherwise: &str| {
        Value::from(text(order, names).unwrap_or_else(|| otherwise.to_owned()))
    };
    let said = |name: &str, otherwise: Value| {
        let value = sent(name);
        if value.is_null() { otherwise } else { value }
    };
    let mut shown = Object::new();
    let mut put = |name: &'static str, value: Value| drop(shown.insert(name, value));
    put("id", saved.id.as_str().into());
    put("type", word(&["type", "orderType", "order_type", "orderTypeId"], TYPE));
    put("status", word(&["status", "status_id", "state", "statusId"], STATUS));
    put("fulfillmentStage", word(&["fulfillmentStage", "stage", "stage_id", "stageId"], STAGE));
    put("paymentState", word(&["paymentState", "payment_state", "paymentStateId"], PAYMENT_STATE));
    put("tableIds", table_ids(order));
    put("guests", said("guests", 0_u64.into()));
    put("totals", said("totals", Object::new().into()));
    put("discount", sent("discount"));
    put("createdAt", said("createdAt", at.clone()));
    put("updatedAt", at.clone());
    put("savedAt", at);
    put("allowAdditions", said("allowAdditions", true.into()));
    put("lockLineEdits", said("lockLineEdits", true.into()));
    put("isPersisted", true.into());
    put("dirty", false.into());
    put("origin", word(&["origin"], "pos"));
    put("shiftId", text(order, &["shiftId", "shift_id"]).into());
    put("posId", payload.of_pos("posId", "pos_id"));
    put("posLabel", payload.of_pos("posLabel", "pos_label"));
    put("posNumber", payload.of_pos("posNumber", "pos_number"));
    put("metadata", saved.metadata.clone().unwrap_or_else(|| payload.metadata()).into());
    let payments = payload.payments.iter().flatten().cloned().map(Value::Object);
    put("payments", Value::Array(payments.collect()));
    put("customerId", sent("customerId"));
    put("customerAddressId", sent("customerAddressId"));
    put("customerName", said("customerName", "".into()));
    put("customerPhone", said("customerPhone", "".into()));
    put("customerAddress", said("customerAddress", "".into()));
    put("customerAreaId", sent("customerAreaId"));
    if let Some(version) = number(order, &["version"]) {
        put("version", Value::Number(version));
    }
    let lines = payload
        .lines
        .iter()
        .flatten()
        .map(|line| Value::Object(line_of(payload, saved, line, table)));
    put("lines", Value::Array(lines.collect()));
    put("notes", said("notes", Value::Array(Vec::new())));
    put("statusLogs", status_logs(payload, saved));
    shown
}

fn table_ids(order: &Object) -> Value {
    match order.get("tableIds") {
        Some(Value::Array(ids)) => Value::Array(ids.clone()),
        _ => Value::Array(
            text(order, &["tableId", "table_id"]).map(Value::from).into_iter().collect(),
        ),
    }
}

fn line_of(payload: &Payload, saved: &SavedOrder, line: &Object, table: Option<&Table>) -> Object {
    let sent = |names: &[&str]| names.iter().find_map(|name| line.get(name)).cloned();
    let at = millis(saved.at);
    let id = text(line, &["id"]);
    let item = text(line, &["itemId", "item_id", "productId", "menuItemId"]);
    let quantity = of_number(number(line, &["quantity", "qty", "count"]), 1);
    let price = of_number(number(line, &["unitPrice", "unit_price", "price"]), 0);
    let total = number(line, &["total", "lineTotal"]).map(Value::Number);
    let total = total.or_else(|| match table.and_then(|table| table.field("total")) {
        Some(field) => field.product("order_line", &quantity, &price).ok().flatten(),
        None => quantity.times(&price),
    });
    let section = text(line, &["kitchenSectionId", "kitchen_section_id", "kitchenSection"]);
    let mut shown = Object::new();
    let mut put = |name: &'static str, value: Value| drop(shown.insert(name, value));
    put("uid", id.as_ref().map(|id| format!("{}::{id}", saved.id)).into());
    put("id", id.into());
    put("orderId", saved.id.as_str().into());
    put("itemId", item.clone().into());
    put("item_id", item.into());
    put("name", name_of(line.get("name")));
    put("description", sent(&["description"]).unwrap_or_default());
    put("qty", quantity);
    put("price", price);
    put("total", total.unwrap_or_default());
    put("status", line_status(line).into());
    put("stage", text(line, &["stage", "stageId"]).unwrap_or_else(|| STAGE.to_owned()).into());
    put("kitchenSection", section.clone().into());
    put("kitchenSectionId", section.clone().into());
    put("kitchen_section_id", section.into());
    put("locked", sent(&["locked"]).unwrap_or_else(|| true.into()));
    put("notes", sent(&["notes"]).unwrap_or_else(|| Value::Array(Vec::new())));
    put("discount", sent(&["discount"]).unwrap_or_default());
    put("createdAt", sent(&["createdAt"]).unwrap_or_else(|| at.clone()));
    put("updatedAt", at);
    put("statusLogs", line_logs(payload, saved, line));
    put("version", of_number(number(line, &["version"]), 1));
    shown
}

/// A name as one text: that of the original's first language, else of any.
fn name_of(name: Option<&Value>) -> Value {
    let Some(Value::Object(names)) = name else { return name.cloned().unwrap_or_default() };
    let first = names.iter().find_map(|(_, name)| name.as_str().map(str::to_owned));
    text(names, &["ar", "en", "name"]).or(first).into()
}

fn line_status(line: &Object) -> String {
    text(line, &["status", "statusId", "status_id"]).unwrap_or_else(|| STATUS.to_owned())
}

/// The logs of an order: those sent, else the one that is added.
fn status_logs(payload: &Payload, saved: &SavedOrder) -> Value {
    let order = &payload.order;
    let log = |sent: &Object| {
        let word = |names: &[&str], otherwise: &str| {
            let found = text(sent, names).or_else(|| text(order, names));
            Value::from(found.unwrap_or_else(|| otherwise.to_owned()))
        };
        let stage = word(&["stage", "fulfillmentStage", "stageId"], STAGE);
        let payment = word(&["paymentState", "paymentStateId"], PAYMENT_STATE);
        let head = [
            ("id", log_id(sent, &saved.id, saved)),
            ("orderId", saved.id.as_str().into()),
            ("status", word(&["status", "statusId", "status_id"], STATUS)),
            ("stage", stage),
            ("paymentState", payment),
        ];
        head.into_iter().chain(log_end(payload, sent, saved)).collect()
    };
    each_or_one(order, log)
}

/// The logs of a line, likewise.
fn line_logs(payload: &Payload, saved: &SavedOrder, line: &Object) -> Value {
    let line_id = text(line, &["id"]).unwrap_or_default();
    let log = |sent: &Object| {
        let status = text(sent, &["status", "statusId"]).unwrap_or_else(|| line_status(line));
        let head = [
            ("id", log_id(sent, &line_id, saved)),
            ("orderId", saved.id.as_str().into()),
            ("orderLineId", line_id.as_str().into()),
            ("status", status.into()),
        ];
        head.into_iter().chain(log_end(payload, sent, saved)).collect()
    };
    each_or_one(line, log)
}

fn each_or_one(of: &Object, log: impl Fn(&Object) -> Object) -> Value {
    // The payload was read before: its logs are records.
    let sent = logs(of).ok().flatten().unwrap_or_default();
    let none = [Object::new()];
    let sent = if sent.is_empty() { none.as_slice() } else { sent.as_slice() };
    Value::Array(sent.iter().map(|sent| Value::Object(log(sent))).collect())
}

fn log_id(sent: &Object, owner: &str, saved: &SavedOrder) -> Value {
    text(sent, &["id"]).unwrap_or_else(|| format!("{owner}::status::{}", saved.at.0)).into()
}

/// What every log ends with.
fn log_end(payload: &Payload, sent: &Object, saved: &SavedOrder) -> [(&'static str, Value); 3] {
    let actor = text(sent, &["actorId", "actor", "userId"]).or_else(|| payload.actor.clone());
    let metadata = sent.get("metadata").cloned().unwrap_or_else(|| Object::new().into());
    let at = ["changedAt", "at", "timestamp"].iter().find_map(|name| sent.get(name)).cloned();
    [
        ("actorId", actor.unwrap_or_else(|| ACTOR.to_owned()).into()),
        ("metadata", metadata),
        ("changedAt", at.unwrap_or_else(|| millis(saved.at))),
    ]
}

fn millis(at: Timestamp) -> Value {
    Value::Number(Number::from(at.0))
}

fn of_number(number: Option<Number>, otherwise: u64) -> Value {
    number.map_or_else(|| otherwise.into(), Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The order whose answer was recorded.
    const SENT: &str = r#"{"order":{"id":"draft-1","shiftId":"sh-1","type":"dine_in","status":"open",
        "lines":[{"id":"ol-1","itemId":"burger","qty":2,"price":50,"name":{"ar":"x","en":"B"},
        "kitchenSectionId":"k1"}],"payments":[{"id":"pp-1","method":"cash","amount":100}]}}"#;

    fn echo(json: &str) -> Object {
        let body = Value::from_json(json.as_bytes()).unwrap().as_object().unwrap().clone();
        let payload = Payload::read(body).unwrap();
        let at = Timestamp(1_795_220_601_017);
        normalized(&payload, &SavedOrder { id: "DAR-001027".to_owned(), at, metadata: None }, None)
    }

    fn member(object: &Object, name: &str) -> String {
        object.get(name).unwrap().to_json()
    }

    fn names(object: &Object) -> String {
        object.iter().map(|(name, _)| &**name).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_echo_has_the_members_that_were_recorded() {
        let shown = echo(SENT);
        assert_eq!(
            names(&shown),
            "id type status fulfillmentStage paymentState tableIds guests totals discount \
             createdAt updatedAt savedAt allowAdditions lockLineEdits isPersisted dirty origin \
             shiftId posId posLabel posNumber metadata payments customerId customerAddressId \
             customerName customerPhone customerAddress customerAreaId lines notes statusLogs"
        );
        assert_eq!(member(&shown, "payments"), r#"[{"id":"pp-1","method":"cash","amount":100}]"#);
        assert_eq!(
            member(&shown, "statusLogs"),
            concat!(
                r#"[{"id":"DAR-001027::status::1795220601017","orderId":"DAR-001027","#,
                r#""status":"open","stage":"new","paymentState":"unpaid","actorId":"pos","#,
                r#""metadata":{},"changedAt":1795220601017}]"#,
            )
        );
        let lines = shown.get("lines").and_then(Value::as_array).unwrap();
        assert_eq!(
            lines[0].to_json(),
            concat!(
                r#"{"uid":"DAR-001027::ol-1","id":"ol-1","orderId":"DAR-001027","#,
                r#""itemId":"burger","item_id":"burger","name":"x","description":null,"#,
                r#""qty":2,"price":50,"total":100,"status":"open","stage":"new","#,
                r#""kitchenSection":"k1","kitchenSectionId":"k1","kitchen_section_id":"k1","#,
                r#""locked":true,"notes":[],"discount":null,"createdAt":1795220601017,"#,
                r#""updatedAt":1795220601017,"statusLogs":[{"id":"ol-1::status::1795220601017","#,
                r#""orderId":"DAR-001027","orderLineId":"ol-1","status":"open","actorId":"pos","#,
                r#""metadata":{},"changedAt":1795220601017}],"version":1}"#,
            )
        );
    }

    #[test]
    fn what_was_sent_is_shown_as_it_was_sent() {
        let shown = echo(
            r#"{"actorId":"u1","order":{"version":2,"statusId":"held","tableId":"t1","createdAt":5,
            "totals":{"due":1.10},"lines":[{"quantity":3,"unitPrice":0.10,"version":4}],
            "statusLogs":[{"id":"g","status":"ready","at":7}]}}"#,
        );
        assert!(names(&shown).contains("customerAreaId version lines"));
        assert_eq!(
            (member(&shown, "status"), member(&shown, "createdAt")),
            (r#""held""#.into(), "5".into())
        );
        assert_eq!(
            (member(&shown, "tableIds"), member(&shown, "totals")),
            (r#"["t1"]"#.into(), r#"{"due":1.10}"#.into())
        );
        let line = member(&shown, "lines");
        assert!(
            line.contains(r#""qty":3,"price":0.10,"total":0.30"#)
                && line.contains(r#""version":4"#)
        );
        let logs = member(&shown, "statusLogs");
        assert!(
            logs.starts_with(r#"[{"id":"g","orderId":"DAR-001027","status":"ready""#),
            "{logs}"
        );
        assert!(logs.ends_with(r#""actorId":"u1","metadata":{},"changedAt":7}]"#), "{logs}");
    }
}
