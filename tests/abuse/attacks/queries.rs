//! Queries that look at much: once two of them silenced a node for 17 seconds, and one took 4 GB.

use std::time::Duration;

use anyhow::Result;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::{Answers, Attack, BRANCH, Target, fill, repeat};

const TABLE: &str = "dining_tables";
const ROWS: usize = 100_000;
/// Hostile clients.
const CLIENTS: usize = 8;

/// Long lists.
pub(crate) const VALUES: Attack = Attack {
    name: "query-values",
    about: "30,000 values in `not in` over 100,000 rows; two silenced a node for 17 s",
    memory_max_mib: 512,
    kept_kib: 0,
    shown_by: &["413"],
    prepare,
    run: |target, phase| {
        let values: Vec<Value> = (0..30_000).map(|n| json!(format!("none-{n}"))).collect();
        ask(
            target,
            phase,
            None,
            where_(json!({ "name": { "operator": "not in", "value": values } })),
        )
    },
};

/// Lists as long as they may be.
pub(crate) const LISTS: Attack = Attack {
    name: "query-lists",
    about: "10 lists of 1,000 values over 100,000 rows, as much as is taken",
    memory_max_mib: 512,
    kept_kib: 0,
    shown_by: &["200", "400", "429"],
    prepare,
    run: |target, phase| {
        let values: Vec<Value> = (0..1_000).map(|n| json!(format!("none-{n}"))).collect();
        let list = json!({ "name": { "operator": "not in", "value": values } });
        ask(target, phase, None, where_(all_but_no_row(list, 10)))
    },
};

/// As many conditions as fit.
pub(crate) const PATTERNS: Attack = Attack {
    name: "query-patterns",
    about: "100 `like` conditions over 100,000 rows, as many as are taken; 8,000 ran over a minute",
    memory_max_mib: 512,
    kept_kib: 0,
    shown_by: &["200", "400", "429"],
    prepare,
    run: |target, phase| {
        let condition = json!({ "name": { "operator": "like", "value": "row" } });
        ask(target, phase, None, where_(all_but_no_row(condition, 100)))
    },
};

/// Sorting by much.
pub(crate) const ORDER: Attack = Attack {
    name: "query-order",
    about: "sorts 100,000 rows by 8 fields, as many as are taken; 1,000 took 4 GB",
    memory_max_mib: 1024,
    kept_kib: 0,
    shown_by: &["200", "400", "429"],
    prepare,
    run: |target, phase| {
        let by: Vec<Value> =
            (0..8).map(|n| json!({ "field": if n == 7 { "id" } else { "name" } })).collect();
        ask(target, phase, None, json!({ "orderBy": by, "limit": 10 }))
    },
};

/// Clients that ask and leave.
pub(crate) const LEAVING: Attack = Attack {
    name: "query-leaving",
    about: "asks for 100 conditions over 100,000 rows and leaves; such a query once ran to its end",
    memory_max_mib: 512,
    kept_kib: 0,
    shown_by: &["none", "200", "429"],
    prepare,
    run: |target, phase| {
        let condition = json!({ "name": { "operator": "like", "value": "row" } });
        let conditions = all_but_no_row(condition, 100);
        ask(target, phase, Some(Duration::from_millis(100)), where_(conditions))
    },
};

fn prepare(target: Target) -> BoxFuture<'static, Result<()>> {
    async move { fill(&target, TABLE, ROWS).await }.boxed()
}

/// So many conditions that every row meets, but for the last, which none does: nothing ends early.
fn all_but_no_row(condition: Value, count: usize) -> Value {
    let mut conditions = vec![condition; count - 1];
    conditions.push(json!({ "name": "there is none of this name" }));
    Value::Array(conditions)
}

fn where_(conditions: Value) -> Value {
    json!({ "where": conditions, "limit": 10 })
}

fn ask(
    target: Target,
    phase: Duration,
    timeout: Option<Duration>,
    mut query: Value,
) -> BoxFuture<'static, Result<Answers>> {
    query["branchId"] = json!(BRANCH);
    query["moduleId"] = json!("pos");
    query["table"] = json!(TABLE);
    async move { Ok(repeat(&target, CLIENTS, phase, timeout, ("/api/query/module", &query)).await) }
        .boxed()
}
