//! Stories of access: every route and every frame of a socket makes the calls of the store that it
//! declares, and no other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use actors::status::{ClusterStatus, LocalReplicas};
use actors::{
    ChangeError, Cursor, Follow, NotReady, Post, Requester, RouteError, Store, TopicSubscription,
    WriteHead,
};
use futures::future::BoxFuture;
use gateway::{Gateway, GatewayConfig, StoreCall, frame_calls, route_calls};
use metrics_exporter_prometheus::PrometheusBuilder;
use model::{Answer, BranchKey, Catalogue, CatalogueChange, Command, Outcome, Read, ReadLevel};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::client::{Rest, Served};
use crate::fake::{Fake, POS};

type Calls = BTreeSet<StoreCall>;

/// Branches in memory, and which calls came.
#[derive(Clone)]
struct Recorder {
    fake: Fake,
    calls: Arc<Mutex<Calls>>,
}

impl Recorder {
    fn new() -> Self {
        Self { fake: Fake::with_till(), calls: Arc::default() }
    }

    fn gateway(&self) -> Gateway {
        let mut config = GatewayConfig::new("n1");
        config.limits.drain_spread = Duration::ZERO;
        let metrics = PrometheusBuilder::new().build_recorder().handle();
        Gateway::new(config, Arc::new(self.clone()), metrics)
    }

    fn saw(&self, call: StoreCall) {
        self.calls.lock().insert(call);
    }

    /// The calls since this was asked last.
    fn take(&self) -> Calls {
        std::mem::take(&mut *self.calls.lock())
    }
}

impl Store for Recorder {
    fn submit_for(
        &self,
        requester: Requester,
        command: Command,
    ) -> BoxFuture<'static, Result<Outcome, RouteError>> {
        self.saw(StoreCall::Submit);
        self.fake.submit_for(requester, command)
    }

    fn check_write(&self, requester: Requester, head: &WriteHead) -> Result<(), RouteError> {
        self.fake.check_write(requester, head)
    }

    fn read_for(
        &self,
        requester: Requester,
        key: BranchKey,
        read: Read,
        level: ReadLevel,
    ) -> BoxFuture<'static, Result<Answer, RouteError>> {
        self.saw(StoreCall::Read);
        self.fake.read_for(requester, key, read, level)
    }

    fn follow(
        &self,
        key: BranchKey,
        after: Option<Cursor>,
    ) -> BoxFuture<'static, Result<Follow, RouteError>> {
        self.saw(StoreCall::Follow);
        self.fake.follow(key, after)
    }

    // What of the catalogue is shown and what is only looked at cannot be told apart here.
    fn catalogue(&self) -> Arc<Catalogue> {
        self.fake.catalogue()
    }

    fn catalogues(&self) -> watch::Receiver<Arc<Catalogue>> {
        self.fake.catalogues()
    }

    fn is_initialized(&self) -> bool {
        self.fake.is_initialized()
    }

    fn catch_up(&self) -> BoxFuture<'static, Result<(), RouteError>> {
        self.fake.catch_up()
    }

    fn change(
        &self,
        id: String,
        change: CatalogueChange,
    ) -> BoxFuture<'static, Result<(), ChangeError>> {
        self.saw(StoreCall::Administer);
        self.fake.change(id, change)
    }

    fn publish(&self, post: Post) -> BoxFuture<'static, Result<(), RouteError>> {
        self.saw(StoreCall::Publish);
        self.fake.publish(post)
    }

    fn subscribe_for(
        &self,
        requester: Requester,
        topic: String,
    ) -> BoxFuture<'static, Result<TopicSubscription, RouteError>> {
        self.saw(StoreCall::Subscribe);
        self.fake.subscribe_for(requester, topic)
    }

    fn status(&self) -> BoxFuture<'static, ClusterStatus> {
        self.saw(StoreCall::Status);
        self.fake.status()
    }

    fn replicas(&self, verify: bool) -> BoxFuture<'static, LocalReplicas> {
        self.saw(StoreCall::Status);
        self.fake.replicas(verify)
    }

    fn ready(&self) -> Result<(), NotReady> {
        self.fake.ready()
    }
}

/// What needs no principal: the node itself, and what this server never serves. The paths of
/// another sync system are refused in the same way.
const OPEN: [&str; 10] = [
    "get /healthz",
    "get /readyz",
    "get /metrics",
    "get /",
    "get /openapi.json",
    "get /docs",
    "get /api/definition-schema",
    "post /api/query",
    "post /api/query/raw",
    "get /api/schema/database",
];

const M: &str = "/api/branches/{branch}/modules/{module}";

/// What is sent to a route: parameters and a body. Several where one request does not make every
/// call that the route may make.
fn requests(method: &str, path: &str) -> Vec<(&'static str, String)> {
    let below = path.strip_prefix(M).unwrap_or(path);
    let bodies: &[&str] = match (method, below) {
        ("post", "/batch") => {
            &[r#"{"verbs":[{"action":"insert","table":"tickets","record":{"id":"b"}}]}"#]
        }
        ("post", "/events") => {
            &[r#"{"table":"tickets","record":{"id":"e"},"includeSnapshot":true}"#]
        }
        ("post", "/events/batch") => &[
            r#"{"lastAckId":null,"events":[]}"#,
            r#"{"lastAckId":null,"events":[{"table":"tickets","record":{"id":"i"}}]}"#,
        ],
        ("post", "/orders") => {
            &[r#"{"order":{"id":"draft-1","shiftId":"sh-1","type":"dine_in","status":"open",
                "lines":[{"id":"ol-1","itemId":"burger","qty":2,"price":50}],
                "payments":[{"id":"pp-1","method":"cash","amount":100}]}}"#]
        }
        ("post", "/clock") => &[r#"{"reason":"why"}"#],
        ("post", "/save") => &[r#"{"table":"tickets","record":{"id":"s"}}"#],
        ("post", "/sequences") => &[r#"{"table":"order_header","field":"id"}"#],
        ("put", "/sequences/{table}/{field}") => &[r#"{"prefix":"A"}"#],
        (_, "/tables/{table}" | "/tables/{table}/records") => &[r#"{"id":"t-2"}"#],
        (
            "post",
            "/api/sync/{branch}/{module}"
            | "/api/sync/{branch}"
            | "/api/sync"
            | "/api/pos-sync/{branch}",
        ) => &["{}", r#"{"snapshot":{"tables":{"tickets":[{"id":"t-1"},{"id":"n"}]}}}"#],
        ("post", "/api/modules") => &[r#"{"id":"fresh"}"#],
        ("patch", "/api/modules/{module}") => &[r#"{"label":"P"}"#],
        ("post", "/api/branches") => &[r#"{"id":"b","modules":["pos"]}"#],
        ("post", "/api/branches/{branch}/modules") => &[r#"{"id":"kds"}"#],
        ("post", "/api/seeds") => {
            &[r#"{"branchId":"dar","moduleId":"pos","seeds":{"tickets":[]}}"#]
        }
        ("put", "/api/cluster/level") => &[r#"{"level":1}"#],
        ("post", "/api/query/module") => {
            &[r#"{"branchId":"dar","moduleId":"pos","table":"tickets"}"#]
        }
        ("post", "/api/manage/purge-history") => &[r#"{"branchId":"dar","entryId":"e"}"#],
        ("post", "/api/schemas/global/{name}" | "/api/schemas/branch/{branch}/{module}") => {
            return vec![("?fill=defaults", format!(r#"{{"schema":{POS}}}"#))];
        }
        // Whether somebody has written to a branch is asked where no list names it.
        ("post" | "patch", "/api/manage/full-sync") => {
            &[r#"{"branchId":"dar"}"#, r#"{"branchId":"nobodys"}"#]
        }
        (_, path) if path.starts_with("/api/manage/") => &[r#"{"branchId":"dar"}"#],
        _ => &["{}"],
    };
    let query = match (method, below) {
        ("get", "/api/schema") => "?branch=dar&include=live",
        ("get", "/api/state" | "/api/manage/purge-history") => "?branch=dar",
        (_, "/api/sync") => "?branch=dar&module=pos",
        ("post", "/api/sync/delta") => "?branch=dar&module=pos",
        _ => "",
    };
    bodies.iter().map(|body| (query, (*body).to_owned())).collect()
}

/// A path with something that is there for every name in it.
fn filled(path: &str) -> String {
    let parts = [
        ("{branch}", "dar"),
        ("{module}", "pos"),
        ("{table}", "tickets"),
        ("{field}", "id"),
        ("{*rest}", "version"),
        ("{name}", "pos"),
        ("{order}", "1"),
        ("{key}", "t-1"),
    ];
    let path = path.replace("/sequences/{table}", "/sequences/order_header");
    parts.iter().fold(path, |path, (name, value)| path.replace(name, value))
}

#[tokio::test]
async fn every_route_makes_the_store_calls_it_declares() {
    for route in route_calls() {
        let which = format!("{} {}", route.method, route.path);
        let recorder = Recorder::new();
        let rest = Rest { fake: recorder.fake.clone(), gateway: recorder.gateway() };
        rest.put("/api/branches/dar/modules/pos/tables/tickets", r#"{"id":"t-1"}"#).await;
        if route.method == "delete" {
            rest.put(
                "/api/branches/dar/modules/pos/sequences/order_header/id",
                r#"{"prefix":"A"}"#,
            )
            .await;
            rest.post("/api/manage/full-sync", r#"{"branchId":"dar"}"#).await;
        }
        recorder.take();
        let mut answers = Vec::new();
        for (query, body) in requests(route.method, &route.path) {
            let path = format!("{}{query}", filled(&route.path));
            let answer = rest.send(&route.method.to_uppercase(), &path, &body, &[]).await;
            answers.push(format!("{} {}", answer.status, answer.raw));
        }
        let declared: Calls = route.calls.iter().copied().collect();
        // It cannot be told apart from looking up what a request means.
        let expected: Calls =
            declared.iter().copied().filter(|call| *call != StoreCall::Catalogue).collect();
        assert_eq!(recorder.take(), expected, "{which}: {answers:#?}");
    }
}

#[test]
fn only_the_node_itself_is_shown_without_a_principal() {
    let without = route_calls().into_iter().filter(|route| route.calls.is_empty());
    let mut found: Vec<String> =
        without.map(|route| format!("{} {}", route.method, route.path)).collect();
    let another = ["/stats", "/batch-push", "/pull-changes", "/resolve-conflict"];
    found.retain(|which| !another.iter().any(|end| which.ends_with(end)));
    found.sort();
    let mut open = OPEN;
    open.sort_unstable();
    assert_eq!(found, open);
}

/// Frames of each type, sent to a socket that has entered `dar`.
const FRAMES: [(&str, &[&str]); 12] = [
    (
        "client:hello",
        &[
            r#"{"type":"client:hello","branchId":"dar"}"#,
            r#"{"type":"client:hello","branchId":"dar","resume":{"pos":{"epoch":1,"sequence":0}}}"#,
        ],
    ),
    (
        "client:publish",
        &[
            r#"{"type":"client:publish","moduleId":"pos","table":"tickets","record":{"id":"p"}}"#,
            r#"{"type":"client:publish","moduleId":"none","table":"t","record":{}}"#,
        ],
    ),
    (
        "client:batch",
        &[
            r#"{"type":"client:batch","moduleId":"pos",
                "verbs":[{"table":"tickets","record":{"id":"q"}}]}"#,
            r#"{"type":"client:batch","moduleId":"none","verbs":[{"table":"t","record":{}}]}"#,
        ],
    ),
    ("client:query", &[r#"{"type":"client:query","moduleId":"pos","table":"tickets"}"#]),
    ("client:request:snapshot", &[r#"{"type":"client:request:snapshot"}"#]),
    ("client:request:history", &[r#"{"type":"client:request:history"}"#]),
    (
        "subscribe",
        &[
            r#"{"type":"subscribe","topic":"anything"}"#,
            r#"{"type":"subscribe","topic":"sync::two::pos"}"#,
        ],
    ),
    ("unsubscribe", &[r#"{"type":"unsubscribe","topic":"anything"}"#]),
    (
        "publish",
        &[
            r#"{"type":"publish","topic":"anything","data":{"a":1}}"#,
            r#"{"type":"publish","topic":"sync::dar::pos","data":{"trans_id":"t"}}"#,
            r#"{"type":"publish","topic":"sync::dar::pos","data":{"trans_id":"t"}}"#,
        ],
    ),
    ("ping", &[r#"{"type":"ping"}"#]),
    ("pong", &[r#"{"type":"pong"}"#]),
    ("auth", &[r#"{"type":"auth"}"#]),
];

#[tokio::test]
async fn every_frame_makes_the_store_calls_it_declares() {
    let declared: BTreeMap<&str, Calls> = frame_calls()
        .iter()
        .map(|(frame, calls)| (*frame, calls.iter().copied().collect()))
        .collect();
    assert_eq!(
        declared.keys().copied().collect::<BTreeSet<_>>(),
        FRAMES.iter().map(|f| f.0).collect()
    );
    for (frame, examples) in FRAMES {
        let recorder = Recorder::new();
        let served = Served::of(recorder.fake.clone(), recorder.gateway()).await;
        let mut socket = served.enter("dar").await;
        recorder.take();
        for example in examples {
            socket.say(example).await;
            socket.quiet().await;
        }
        // A snapshot that is asked for follows what is not followed yet: nothing, here.
        let (seen, declared) = (recorder.take(), &declared[frame]);
        assert!(seen.is_subset(declared), "{frame} makes {seen:?}");
        assert_eq!(seen.is_empty(), declared.is_empty(), "{frame} makes no call");
    }
}
