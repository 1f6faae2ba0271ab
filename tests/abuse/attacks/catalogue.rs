//! The catalogue, branches and names: what is kept for ever, or repeated wherever it goes.

use std::time::Duration;

use anyhow::Result;
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use serde_json::{Value, json};
use tests::client::TablePath;
use tokio::time::Instant;

use super::{Answers, Attack, BRANCH, Target};

/// Hostile clients.
const CLIENTS: usize = 8;

/// Flags of branches that nobody has.
pub(crate) const FLAGS: Attack = Attack {
    name: "flags",
    about: "full-sync flags of 256 unknown modules with 4 KB each, of branches that nobody has; \
            100 requests once took 0.8 GB on every node",
    memory_max_mib: 128,
    kept_kib: 0,
    shown_by: &["404", "400", "409", "200"],
    prepare: nothing,
    run: |target, phase| {
        let modules: Vec<String> = (0..256).map(|n| format!("none-{n}")).collect();
        each(target, phase, usize::MAX, move |n| {
            let body = json!({
                "branchId": format!("lab:flag-{n}"),
                "modules": modules,
                "meta": { "filler": "x".repeat(4_000) },
            });
            ("/api/manage/full-sync".to_owned(), body)
        })
    },
};

/// Branches that are made by writing to them.
pub(crate) const BRANCHES: Attack = Attack {
    name: "many-branches",
    about: "one write to each of 5,000 branches; each once took 91 KB of every node",
    memory_max_mib: 256,
    kept_kib: 20,
    shown_by: &["201"],
    prepare: nothing,
    run: |target, phase| {
        each(target, phase, 5_000, |n| {
            let module = format!("/api/branches/lab:made-{n}/modules/scratchpad");
            (format!("{module}/tables/scratchpad_entry"), json!({ "id": "e-1" }))
        })
    },
};

/// Names of megabytes, in every place that has one.
pub(crate) const NAMES: Attack = Attack {
    name: "long-names",
    about: "names, ids, labels and `meta` of 400 KB wherever there are some; a key of 900 KB once \
            took 214 MB of disk for each write",
    memory_max_mib: 256,
    kept_kib: 0,
    shown_by: &["400"],
    prepare: nothing,
    run: |target, phase| each(target, phase, usize::MAX, |n| named(n, &"x".repeat(400_000))),
};

fn nothing(_: Target) -> BoxFuture<'static, Result<()>> {
    async { Ok(()) }.boxed()
}

/// A path and a body.
type Request = (String, Value);

/// One of the requests that have a long name somewhere.
fn named(n: usize, long: &str) -> Request {
    let module = TablePath::pos(BRANCH, "dining_tables").module_path();
    let record = json!({ "id": format!("long-{n}"), "name": "short" });
    let event = |member: &str| {
        let body = json!({ "table": "dining_tables", "record": record, member: long });
        (format!("{module}/events"), body)
    };
    match n % 10 {
        0 => (format!("{module}/tables/dining_tables"), json!({ "id": long })),
        1 => event("source"),
        2 => event("userId"),
        3 => event("eventId"),
        4 => event("meta"),
        5 => (format!("{module}/events"), json!({ "table": long, "record": record })),
        6 => ("/api/branches".to_owned(), json!({ "id": format!("l-{n}"), "label": long })),
        7 => ("/api/modules".to_owned(), json!({ "id": long, "tables": ["t"] })),
        8 => ("/api/manage/full-sync".to_owned(), json!({ "branchId": long })),
        _ => {
            let change = json!({ "table": "dining_tables", "record": record, "meta": long });
            (format!("{module}/batch"), json!({ "verbs": [change] }))
        }
    }
}

/// Sends the requests of these numbers, each once, until there are so many or the time is over.
fn each(
    target: Target,
    phase: Duration,
    most: usize,
    request: impl Fn(usize) -> Request + Send + Sync + 'static,
) -> BoxFuture<'static, Result<Answers>> {
    async move {
        let end = Instant::now() + phase;
        let http = reqwest::Client::builder().no_proxy().build()?;
        let attacker = async |first: usize| {
            let mut answers = Answers::default();
            let mut numbers = (first..most).step_by(CLIENTS);
            while let Some(n) = numbers.next().filter(|_| Instant::now() < end) {
                let (path, body) = request(n);
                let sent = http.post(format!("http://{}{path}", target.node)).json(&body);
                let answer = match sent.send().await {
                    Ok(reply) => {
                        let status = reply.status().as_u16().to_string();
                        if reply.bytes().await.is_ok() { status } else { "none".to_owned() }
                    }
                    Err(_) => "none".to_owned(),
                };
                *answers.0.entry(answer).or_default() += 1;
            }
            answers
        };
        let mut all = Answers::default();
        for answers in join_all((0..CLIENTS).map(attacker)).await {
            for (status, count) in answers.0 {
                *all.0.entry(status).or_default() += count;
            }
        }
        Ok(all)
    }
    .boxed()
}
