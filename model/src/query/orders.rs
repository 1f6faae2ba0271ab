//! Orders: point-of-sale orders with what belongs to them (docs/original/rest.md#orders).
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

use crate::ids::Timestamp;
use crate::module::Module;
use crate::query::letters::folded;
use crate::query::times;
use crate::read::{Orders, OrdersQuery};
use crate::reject::Reject;
use crate::schema::{FieldType, Schema, Table};
use crate::value::{Number, Object, Value};

/// What an order is no longer active with.
const ENDED: [&str; 7] =
    ["closed", "complete", "completed", "cancelled", "void", "refunded", "returned"];
const HEADERS: &str = "order_header";
const STATUS: [&str; 3] = ["status", "status_id", "state"];
const STAGE: [&str; 4] = ["fulfillmentStage", "stage", "stage_id", "stageId"];
const TYPE: [&str; 5] = ["type", "orderType", "order_type", "order_type_id", "orderTypeId"];
const SHIFT: [&str; 2] = ["shiftId", "shift_id"];
const ORDER: [&str; 2] = ["orderId", "order_id"];
const LINE: [&str; 2] = ["orderLineId", "order_line_id"];

/// Answers an orders query.
pub(crate) fn orders(
    schema: &Schema,
    module: &Module,
    module_id: &str,
    query: &OrdersQuery,
) -> Result<Orders, Reject> {
    let table = schema.table(HEADERS).ok_or_else(|| Reject::UnknownTable {
        table: HEADERS.to_owned(),
        module: module_id.to_owned(),
    })?;
    let mut found: Vec<Found<'_>> = match (module.rows(&table.name), &query.id) {
        (None, _) => Vec::new(),
        (Some(rows), Some(id)) => {
            let row = table.key_named(id).and_then(|key| rows.row(&key));
            row.into_iter().map(|row| (row.key.as_str(), &*row.record)).collect()
        }
        (Some(rows), None) => {
            rows.iter().map(|(_, row)| (row.key.as_str(), &*row.record)).collect()
        }
    };
    found.retain(|(_, header)| passes(header, query));
    found.sort_by_cached_key(|(_, header)| Reverse(updated(header)));
    let total = found.len();
    found.truncate(query.limit.unwrap_or(usize::MAX));
    let parts = Parts::of(schema, module, query, &found);
    let whole = found.into_iter().map(|found| parts.whole(found));
    Ok(Orders { orders: whole.collect(), total })
}

/// A header and its key.
type Found<'a> = (&'a str, &'a Object);

fn passes(header: &Object, query: &OrdersQuery) -> bool {
    let said = Word::of(header, &STATUS);
    let status = said.or_else(|| Word::of(header, &["statusId"]));
    let ended = |word: Word<'_>| ENDED.iter().any(|end| end.eq_ignore_ascii_case(word.text()));
    let is_ended = status.is_some_and(ended);
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
    times::updated(header).or_else(|| times::saved(header))
}

fn saved(header: &Object) -> Option<Timestamp> {
    times::saved(header).or_else(|| times::updated(header))
}

/// Records of one table by what they belong to.
type Belonging<'a> = BTreeMap<String, Vec<&'a Object>>;

/// What belongs to the orders found; `None` for what was not asked for.
struct Parts<'a> {
    line_table: Option<&'a Table>,
    lines: Option<Belonging<'a>>,
    line_logs: Option<Belonging<'a>>,
    payments: Option<Belonging<'a>>,
    logs: Option<Belonging<'a>>,
}

impl<'a> Parts<'a> {
    fn of(
        schema: &'a Schema,
        module: &'a Module,
        query: &OrdersQuery,
        found: &[Found<'a>],
    ) -> Self {
        let table = |name: &str| schema.table(name).map(|table| &**table);
        let (headers, line_table) = (table(HEADERS), table("order_line"));
        let gather = |name: &str, by: &[&str], of: Option<&Table>, to: &mut Belonging<'a>| {
            let rows = table(name).and_then(|table| module.rows(&table.name));
            for (_, row) in rows.into_iter().flat_map(|rows| rows.iter()) {
                if let Some(list) = owner(of, &row.record, by).and_then(|id| to.get_mut(&id)) {
                    list.push(&row.record);
                }
            }
        };
        let wanted: Belonging<'a> =
            found.iter().map(|(key, _)| ((*key).to_owned(), Vec::new())).collect();
        let of_orders = |name: &str| {
            let mut belonging = wanted.clone();
            gather(name, &ORDER, headers, &mut belonging);
            belonging
        };
        let lines = query.lines.then(|| of_orders("order_line"));
        let payments = query.payments.then(|| of_orders("order_payment"));
        let logs = query.status_logs.then(|| of_orders("order_status_log"));
        let line_logs = lines.as_ref().filter(|_| query.line_status_logs).map(|lines| {
            let ids = lines.values().flatten().filter_map(|line| owner(line_table, line, &["id"]));
            let mut logs: Belonging<'a> = ids.map(|id| (id, Vec::new())).collect();
            gather("order_line_status_log", &LINE, line_table, &mut logs);
            logs
        });
        Self { line_table, lines, line_logs, payments, logs }
    }

    /// A header with its parts.
    fn whole(&self, (key, header): Found<'_>) -> Object {
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

    use super::*;
    use crate::ids::{RecordKey, TableName};
    use crate::module::Relations;
    use crate::testing::{object, schema};

    fn shop() -> (Schema, Module) {
        let schema = schema(&[
            ("order_header", &["id", "shiftId", "statusId", "stageId", "orderTypeId"]),
            ("order_line", &["id", "orderId"]),
            ("order_payment", &["id", "orderId"]),
            ("order_line_status_log", &["id", "orderLineId"]),
        ]);
        let mut module = Module::default();
        let mut put = |table: &str, json: &str| {
            let table = TableName::parse(table).unwrap();
            let record = object(json);
            let key = RecordKey(record.get("id").unwrap().as_str().unwrap().into());
            module.put(&table, key, Arc::new(record), &Relations::default());
        };
        for header in [
            r#"{"id":"a","shiftId":"s1","statusId":"ready","stageId":"","orderTypeId":""}"#,
            r#"{"id":"b","shiftId":"s2","statusId":"","stageId":"paid","orderTypeId":"delivery"}"#,
            r#"{"id":"c","shiftId":"s2","statusId":"Closed"}"#,
            r#"{"id":"d","status":"void","statusId":"ready","updatedAt":"2026-11-21T10:00:00Z"}"#,
            r#"{"id":"e","state":"held","shiftId":7.0,"savedAt":1795260000000,"updatedAt":null}"#,
        ] {
            put("order_header", header);
        }
        put("order_line", r#"{"id":"l1","orderId":"a"}"#);
        put("order_line", r#"{"id":"l2","orderId":{"id":"b","name":"B"}}"#);
        put("order_line", r#"{"id":"l3","orderId":"a"}"#);
        put("order_payment", r#"{"id":"p1","orderId":"b"}"#);
        put("order_line_status_log", r#"{"id":"g1","orderLineId":"l3"}"#);
        (schema, module)
    }

    fn found(query: &OrdersQuery) -> Vec<Object> {
        let (schema, module) = shop();
        orders(&schema, &module, "pos", query).unwrap().orders
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
    fn the_newest_come_first_and_those_without_a_time_keep_their_order() {
        assert_eq!(ids(&OrdersQuery::default()), "edabc");
        let (schema, module) = shop();
        let two = OrdersQuery { limit: Some(2), ..OrdersQuery::default() };
        let found = orders(&schema, &module, "pos", &two).unwrap();
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
        let refused = orders(&schema(&[]), &Module::default(), "kds", &OrdersQuery::default());
        assert_eq!(refused.unwrap_err().code(), "table-not-found");
    }
}
