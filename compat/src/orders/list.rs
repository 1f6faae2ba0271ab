//! List: orders with what belongs to them (docs/original/rest.md#orders).
//!
//! A header's status, stage and type are read under the names the original's clients give them,
//! and then under the schema's own. A header that says none of them is `open`, `new` and
//! `dine_in`. One that only says its status in the schema's own name is `open` besides, as long as
//! that status does not end an order: the original took every such order for an open one.
//!
//! Promise: newest first by the time they were updated, else saved; those without a time come
//! last, and those that are equal keep the order they came in. Refused: a module without headers.
//! A table of lines, payments or logs that is not registered is an empty one.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use model::{
    FieldType, Number, Object, ProcedureView, Reject, Table, Timestamp, Value, folded, saved_at,
    updated_at,
};

use crate::orders::{HEADER, LINE, LINE_STATUS_LOG, Orders, OrdersQuery, PAYMENT, STATUS_LOG};

/// What an order is no longer active with.
const ENDED: [&str; 7] =
    ["closed", "complete", "completed", "cancelled", "void", "refunded", "returned"];
const STATUS: [&str; 3] = ["status", "status_id", "state"];
const STAGE: [&str; 4] = ["fulfillmentStage", "stage", "stage_id", "stageId"];
const TYPE: [&str; 5] = ["type", "orderType", "order_type", "order_type_id", "orderTypeId"];
const SHIFT: [&str; 2] = ["shiftId", "shift_id"];
const OF_ORDER: [&str; 2] = ["orderId", "order_id"];
const OF_LINE: [&str; 2] = ["orderLineId", "order_line_id"];

/// Answers an orders query.
pub(super) fn orders(view: &ProcedureView<'_>, query: &OrdersQuery) -> Result<Orders, Reject> {
    let table = view.schema().table(HEADER).ok_or_else(|| Reject::UnknownTable {
        table: HEADER.to_owned(),
        module: view.module_id().to_string(),
    })?;
    let mut found: Vec<FoundOrders<'_>> = match &query.id {
        Some(id) => {
            let row = table.key_named(id).and_then(|key| view.row(table, &key));
            row.into_iter().map(|(key, header)| (key.as_str(), &**header)).collect()
        }
        None => view.rows(table).map(|(key, header)| (key.as_str(), &**header)).collect(),
    };
    found.retain(|(_, header)| passes(header, query));
    found.sort_by_cached_key(|(_, header)| Reverse(updated(header)));
    let total = found.len();
    found.truncate(query.limit.unwrap_or(usize::MAX));
    let parts = OrderParts::of(view, query, &found);
    let whole = found.into_iter().map(|found| parts.whole(found));
    Ok(Orders { orders: whole.collect(), total })
}

/// A header and its key.
type FoundOrders<'a> = (&'a str, &'a Object);

fn passes(header: &Object, query: &OrdersQuery) -> bool {
    let said = Word::of(header, &STATUS);
    let status = said.or_else(|| Word::of(header, &["statusId"]));
    let ended = |word: Word<'_>| ENDED.iter().any(|end| end.eq_ignore_ascii_case(word.text()));
    let is_ended = status.is_some_and(ended);
    // The original knew the first names only: an order that says its status in the schema's own
    // was open to it.
    let open = (said.is_none() && !is_ended).then_some(Word::Text("open"));
    let statuses = [status, open];
    let at_least = |from: Option<Timestamp>, time: fn(&Object) -> Option<Timestamp>| {
        from.is_none_or(|from| time(header).is_some_and(|time| time >= from))
    };
    !(query.only_active && is_ended)
        && (query.statuses.is_empty()
            || statuses.into_iter().flatten().any(|word| word.is_one_of(&query.statuses)))
        && is_wanted(Word::of(header, &STAGE).or(Some(Word::Text("new"))), &query.stages)
        && is_wanted(Word::of(header, &TYPE).or(Some(Word::Text("dine_in"))), &query.types)
        && is_wanted(Word::of(header, &SHIFT), &query.shifts)
        && at_least(query.updated_from, updated)
        && at_least(query.saved_from, saved)
}

/// Whether a word passes a list; an empty list lets everything pass.
fn is_wanted(word: Option<Word<'_>>, list: &[String]) -> bool {
    list.is_empty() || word.is_some_and(|word| word.is_one_of(list))
}

/// What a header says of itself.
#[derive(Clone, Copy)]
enum Word<'a> {
    Text(&'a str),
    Number(&'a Number),
}

impl<'a> Word<'a> {
    /// The first of these members that says something: a text, a number, or an object's `id`.
    fn of(record: &'a Object, names: &[&str]) -> Option<Self> {
        let said = |value: &'a Value| {
            // Clients also send a reference written out, `{id, name}`.
            let value = value.get("id").unwrap_or(value);
            if let Value::Number(number) = value {
                return Some(Self::Number(number));
            }
            value.key_text().map(|text| Self::Text(text.trim()))
        };
        let mut words = names.iter().filter_map(|name| said(record.get(name)?));
        words.find(|word| !word.text().is_empty())
    }

    fn text(self) -> &'a str {
        match self {
            Self::Text(text) => text,
            Self::Number(number) => number.as_str(),
        }
    }

    /// Whether it is one of these: a number in any spelling, a text as people type it.
    fn is_one_of(self, list: &[String]) -> bool {
        match self {
            Self::Text(text) => {
                let text = folded(text);
                list.iter().any(|wanted| folded(wanted) == text)
            }
            Self::Number(number) => {
                let mut wanted = list.iter().filter_map(|wanted| Number::parse(wanted));
                wanted.any(|wanted| wanted.canonical() == number.canonical())
            }
        }
    }
}

/// The record these members name, as the key of a table has it.
fn owner(table: Option<&Table>, record: &Object, names: &[&str]) -> Option<String> {
    let kind = table.map_or(FieldType::Opaque, Table::name_kind);
    let said = |value: &Value| {
        let value = value.get("id").unwrap_or(value);
        let is_name = value.key_text().is_some_and(|text| !text.is_empty());
        is_name.then(|| kind.name_text(value)).flatten()
    };
    names.iter().find_map(|name| said(record.get(name)?))
}

fn updated(header: &Object) -> Option<Timestamp> {
    updated_at(header).or_else(|| saved_at(header))
}

fn saved(header: &Object) -> Option<Timestamp> {
    saved_at(header).or_else(|| updated_at(header))
}

/// Records of one table by what they belong to.
type Belonging<'a> = BTreeMap<String, Vec<&'a Object>>;

/// What belongs to the orders found; `None` for what was not asked for.
struct OrderParts<'a> {
    line_table: Option<&'a Table>,
    lines: Option<Belonging<'a>>,
    line_logs: Option<Belonging<'a>>,
    payments: Option<Belonging<'a>>,
    logs: Option<Belonging<'a>>,
}

impl<'a> OrderParts<'a> {
    fn of(view: &ProcedureView<'a>, query: &OrdersQuery, found: &[FoundOrders<'a>]) -> Self {
        let table = |name: &str| view.schema().table(name).map(|table| &**table);
        let (headers, line_table) = (table(HEADER), table(LINE));
        let gather = |name: &str, by: &[&str], of: Option<&Table>, to: &mut Belonging<'a>| {
            // One pass for all orders: a part may name its order in a member that is no field of
            // its table, which no index has.
            for (_, record) in table(name).into_iter().flat_map(|table| view.rows(table)) {
                if let Some(list) = owner(of, record, by).and_then(|id| to.get_mut(&id)) {
                    list.push(record);
                }
            }
        };
        let wanted: Belonging<'a> =
            found.iter().map(|(key, _)| ((*key).to_owned(), Vec::new())).collect();
        let of_orders = |name: &str| {
            let mut belonging = wanted.clone();
            gather(name, &OF_ORDER, headers, &mut belonging);
            belonging
        };
        let lines = query.lines.then(|| of_orders(LINE));
        let payments = query.payments.then(|| of_orders(PAYMENT));
        let logs = query.status_logs.then(|| of_orders(STATUS_LOG));
        let line_logs = lines.as_ref().filter(|_| query.line_status_logs).map(|lines| {
            let ids = lines.values().flatten().filter_map(|line| owner(line_table, line, &["id"]));
            let mut logs: Belonging<'a> = ids.map(|id| (id, Vec::new())).collect();
            gather(LINE_STATUS_LOG, &OF_LINE, line_table, &mut logs);
            logs
        });
        Self { line_table, lines, line_logs, payments, logs }
    }

    /// A header with its parts.
    fn whole(&self, (key, header): FoundOrders<'_>) -> Object {
        let mut order = header.clone();
        if let Some(lines) = &self.lines {
            let lines = lines.get(key).into_iter().flatten();
            let lines: Vec<Value> = lines.map(|line| Value::Object(self.line(line))).collect();
            order.insert("lines", lines.into());
        }
        for (name, parts) in [("payments", &self.payments), ("statusLogs", &self.logs)] {
            if let Some(parts) = parts {
                order.insert(name, list(parts.get(key)));
            }
        }
        order
    }

    fn line(&self, line: &Object) -> Object {
        let mut line = line.clone();
        if let Some(logs) = &self.line_logs {
            let logs = list(owner(self.line_table, &line, &["id"]).and_then(|id| logs.get(&id)));
            line.insert("statusLogs", logs);
        }
        line
    }
}

fn list(records: Option<&Vec<&Object>>) -> Value {
    let records = records.into_iter().flatten();
    Value::Array(records.map(|record| Value::Object((*record).clone())).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::{Answer, Request, Seed};

    use super::*;
    use crate::testing::{Shop, object, schema_of};

    /// Rows as a seed brings them: members that are no fields stay as they are.
    const ROWS: &str = r#"{"order_header":[
        {"id":"a","shiftId":"s1","statusId":"ready","stageId":"","orderTypeId":""},
        {"id":"b","shiftId":"s2","statusId":"","stageId":"paid","orderTypeId":"delivery"},
        {"id":"c","shiftId":"s2","statusId":"Closed"},
        {"id":"d","status":"void","statusId":"ready","updatedAt":"2026-11-21T10:00:00Z"},
        {"id":"e","state":"held","shiftId":7.0,"savedAt":1795260000000,"updatedAt":null}],
        "order_line":[{"id":"l1","orderId":"a"},{"id":"l2","orderId":{"id":"b","name":"B"}},
        {"id":"l3","orderId":"a"}],
        "order_payment":[{"id":"p1","orderId":"b"}],
        "order_line_status_log":[{"id":"g1","orderLineId":"l3"}]}"#;

    fn shop() -> Shop {
        let table = |name: &str| {
            format!(
                r#"{{"name":"{name}","versioned":false,
                    "fields":[{{"name":"id","type":"text","primaryKey":true}}]}}"#
            )
        };
        let tables = ["order_header", "order_line", "order_payment", "order_line_status_log"];
        let schema = schema_of(&format!("[{}]", tables.map(table).join(",")));
        let mut shop = Shop::lenient();
        shop.redefine(|definition| definition.schema = schema).unwrap();
        shop.run(Request::Seed(Arc::new(Seed { tables: object(ROWS) }))).unwrap();
        shop
    }

    fn orders(query: &OrdersQuery) -> Orders {
        let Ok(Answer::Call(answer)) = shop().branch().read(&query.read()) else { panic!() };
        Orders::decode(&answer).unwrap()
    }

    fn found(query: &OrdersQuery) -> Vec<Object> {
        orders(query).orders
    }

    fn ids(query: &OrdersQuery) -> String {
        found(query)
            .iter()
            .map(|order| Word::of(order, &["id"]).unwrap().text().to_owned())
            .collect()
    }

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn the_newest_orders_come_first_then_those_without_a_time() {
        assert_eq!(ids(&OrdersQuery::default()), "edabc");
        let found = orders(&OrdersQuery { limit: Some(2), ..OrdersQuery::default() });
        assert_eq!((found.orders.len(), found.total), (2, 5));
    }

    #[test]
    fn an_order_that_ended_is_not_active_under_either_name() {
        assert_eq!(ids(&OrdersQuery { only_active: true, ..OrdersQuery::default() }), "eab");
    }

    #[test]
    fn a_status_of_the_schemas_own_counts_and_leaves_the_order_open() {
        let of = |list| OrdersQuery { statuses: words(list), ..OrdersQuery::default() };
        assert_eq!(ids(&of(&["open"])), "ab", "as recorded: the order that is ready is open");
        assert_eq!(ids(&of(&["READY"])), "a", "the tills' own name goes first");
        assert_eq!(ids(&of(&["closed", "held"])), "ec");
    }

    #[test]
    fn stage_type_and_shift_are_read_in_the_schemas_names_too() {
        let new = OrdersQuery { stages: words(&["new"]), ..OrdersQuery::default() };
        assert_eq!(ids(&new), "edac");
        let delivery = OrdersQuery { types: words(&["Delivery"]), ..OrdersQuery::default() };
        assert_eq!(ids(&delivery), "b");
        let shift = OrdersQuery { shifts: words(&["S2"]), ..OrdersQuery::default() };
        assert_eq!(ids(&shift), "bc");
        let number = OrdersQuery { shifts: words(&["7"]), ..OrdersQuery::default() };
        assert_eq!(ids(&number), "e", "a number in any spelling");
    }

    #[test]
    fn times_are_at_or_after_and_an_order_without_one_is_left_out() {
        let at = Timestamp::parse("2026-11-21T10:00:00Z");
        assert_eq!(ids(&OrdersQuery { updated_from: at, ..OrdersQuery::default() }), "ed");
        let later = at.map(|at| Timestamp(at.0 + 1));
        assert_eq!(ids(&OrdersQuery { saved_from: later, ..OrdersQuery::default() }), "e");
    }

    #[test]
    fn an_order_comes_with_the_parts_asked_for() {
        let all = OrdersQuery {
            id: Some("a".to_owned()),
            lines: true,
            payments: true,
            status_logs: true,
            line_status_logs: true,
            ..OrdersQuery::default()
        };
        assert_eq!(
            Value::from(found(&all).remove(0)).to_json(),
            concat!(
                r#"{"id":"a","shiftId":"s1","statusId":"ready","stageId":"","orderTypeId":"","#,
                r#""lines":[{"id":"l1","orderId":"a","statusLogs":[]},{"id":"l3","orderId":"a","#,
                r#""statusLogs":[{"id":"g1","orderLineId":"l3"}]}],"payments":[],"statusLogs":[]}"#,
            )
        );
        let some =
            OrdersQuery { lines: true, types: words(&["delivery"]), ..OrdersQuery::default() };
        assert!(
            Value::from(found(&some).remove(0))
                .to_json()
                .ends_with(r#""lines":[{"id":"l2","orderId":{"id":"b","name":"B"}}]}"#)
        );
        assert!(found(&OrdersQuery { id: Some("z".to_owned()), ..all }).is_empty());
    }

    #[test]
    fn a_module_without_headers_is_refused() {
        let mut shop = Shop::lenient();
        let line = r#"[{"name":"order_line","fields":[{"name":"id","type":"text"}]}]"#;
        shop.redefine(|definition| definition.schema = schema_of(line)).unwrap();
        let refused = shop.branch().read(&OrdersQuery::default().read());
        assert_eq!(refused.unwrap_err().code(), "table-not-found");
    }
}
