//! Stories of one socket: what comes in, and what the session wants done.

use std::collections::BTreeMap;

use actors::{RouteError, SharedDelta};
use model::{
    Acceptance, Answer, CommandId, Delta, Effect, Event, EventChange, Hash, Head, Incarnation,
    ModuleConfig, ModuleId, ModuleSnapshot, Offset, Origin, Outcome, RecordChange, RecordKey,
    Reject, Revision, Schema, TableName, Validation, VersionRule,
};

use super::*;
use crate::wire::SnapshotFrame;
use crate::ws::dialect;
use crate::ws::subscription::{FollowStart, LogEnd};

mod batches;
mod dialects;
mod laws;
mod malformed;
mod modules;
mod queries;
mod resumes;
mod scripts;
mod subscriptions;

const AT: Timestamp = Timestamp(1_795_220_377_740);

/// A session whose branch `dar` has `pos` and `stock`; `extra` is in no list.
struct Story {
    session: Session,
    catalogue: Catalogue,
    /// What it said first.
    hello: Vec<SessionAction>,
}

impl Story {
    fn begin() -> Self {
        let mut story = Self::begin_as(dialect::of_socket(), PolicyClass::EVERYONE);
        assert_eq!(
            in_words(&std::mem::take(&mut story.hello)),
            [
                r#"{"type":"server:hello","serverId":"ws-a","now":"2026-11-21T00:19:37.740Z","defaults":{"branchId":"lab:test-pad"}}"#
            ]
        );
        story
    }

    fn begin_as(dialect: &'static dyn Dialect, class: PolicyClass) -> Self {
        let module = |id: &str| {
            Arc::new(ModuleConfig {
                id: ModuleId::parse(id).unwrap(),
                label: id.into(),
                description: String::new(),
                tables: Vec::new(),
                source: Arc::new(Value::Null),
                schema: Arc::new(schema()),
                validation: Validation::Lenient,
                version_rule: VersionRule::Next,
                seed: None,
                dedup: model::DedupLimits::default(),
            })
        };
        let id = |id: &str| ModuleId::parse(id).unwrap();
        let branch = |name: &str, modules| model::BranchConfig {
            id: BranchId::parse(name).unwrap(),
            label: name.into(),
            modules,
            seeds: BTreeMap::new(),
        };
        let mut catalogue = Catalogue::default();
        catalogue.modules = ["pos", "stock", "extra"].map(module).into();
        catalogue.patterns =
            vec![model::BranchPattern { matches: "^lab:".into(), modules: Vec::new() }];
        catalogue.branches = vec![
            Arc::new(branch("dar", vec![id("pos"), id("stock")])),
            Arc::new(branch("remal", vec![id("pos")])),
        ];
        let (session, hello) = Session::new("s-1".into(), "ws-a".into(), dialect, class, AT);
        Self { session, catalogue, hello }
    }

    /// In branch `dar`, snapshot sent, streams 1 (`pos`) and 2 (`stock`) open.
    fn live() -> Self {
        Self::begin().enter()
    }

    fn enter(mut self) -> Self {
        let story = &mut self;
        story.says(r#"{"type":"client:hello","branchId":"dar","requestId":"h"}"#);
        story.followed(1, "pos", 0);
        story.followed(2, "stock", 0);
        assert!(!story.session.is_busy());
        self
    }

    fn says(&mut self, message: &str) -> Vec<String> {
        let cx = SessionContext { now: AT, catalogue: &self.catalogue };
        in_words(&self.session.on_message(message.as_bytes(), cx))
    }

    fn followed(&mut self, call: CallId, module: &str, offset: u64) -> Vec<String> {
        let snapshot = Some(Arc::new(snapshot(module, offset)));
        self.answered(call, Ok(snapshot))
    }

    fn answered(
        &mut self,
        call: CallId,
        result: Result<Option<Arc<ModuleSnapshot>>, RouteError>,
    ) -> Vec<String> {
        self.begins(call, result.map(|snapshot| FollowStart { snapshot, log: None }))
    }

    fn begins(&mut self, call: CallId, result: Result<FollowStart, RouteError>) -> Vec<String> {
        let cx = SessionContext { now: AT, catalogue: &self.catalogue };
        in_words(&self.session.on_followed(call, result, cx))
    }

    /// The log of a follow stands here.
    fn stands(&mut self, call: CallId, incarnation: u64, last: u64, holds: bool) -> Vec<String> {
        let log = LogEnd {
            incarnation: Incarnation(incarnation),
            last: Offset(last),
            is_retained: holds,
        };
        self.begins(call, Ok(FollowStart { snapshot: None, log: Some(log) }))
    }

    /// A module's state was read.
    fn reads(&mut self, call: CallId, module: &str, offset: u64) -> Vec<String> {
        self.answers(call, Ok(Answer::Snapshot(Arc::new(snapshot(module, offset)))))
    }

    fn answers(&mut self, call: CallId, result: Result<Answer, RouteError>) -> Vec<String> {
        let cx = SessionContext { now: AT, catalogue: &self.catalogue };
        in_words(&self.session.on_answer(call, result, cx))
    }

    /// These events came, as one delta.
    fn came(&mut self, call: CallId, delta: Delta) -> Vec<String> {
        let cx = SessionContext { now: AT, catalogue: &self.catalogue };
        in_words(&self.session.on_delta(call, &SharedDelta::new(Arc::new(delta)), cx))
    }

    fn delta(&mut self, call: CallId, module: &str, offset: u64, command: &str) -> Vec<String> {
        let shared = SharedDelta::new(Arc::new(delta(module, offset, command)));
        let cx = SessionContext { now: AT, catalogue: &self.catalogue };
        in_words(&self.session.on_delta(call, &shared, cx))
    }

    fn outcome(&mut self, module: &str, result: Result<Outcome, RouteError>) -> Vec<String> {
        let cx = SessionContext { now: AT, catalogue: &self.catalogue };
        in_words(&self.session.on_outcome(&key("dar", module), result, cx))
    }
}

fn schema() -> Schema {
    let field =
        r#"[{"name":"id","type":"string","primaryKey":true},{"name":"n","type":"integer"}]"#;
    let table = |name| format!(r#"{{"name":"{name}","fields":{field}}}"#);
    let tables = ["tickets", "order_header"].map(table).join(",");
    let doc = Value::from_json(format!("[{tables}]").as_bytes()).unwrap();
    Schema::read_under("pos", &doc, &compat::conventions()).unwrap().schema
}

fn key(branch: &str, module: &str) -> BranchKey {
    BranchKey::new(BranchId::parse(branch).unwrap(), ModuleId::parse(module).unwrap())
}

fn snapshot(module: &str, offset: u64) -> ModuleSnapshot {
    let head = Head {
        key: key("dar", module),
        incarnation: Incarnation(1),
        offset: Offset(offset),
        revision: Revision(offset + 1),
        last_updated_at: AT,
        rows: 0,
    };
    ModuleSnapshot { head, tables: Vec::new() }
}

/// An insert at this offset, by command `session/request`.
fn delta(module: &str, offset: u64, command: &str) -> Delta {
    let (session, request) = command.rsplit_once('/').unwrap();
    let event = Event {
        #[cfg(feature = "next-level")]
        note: None,
        offset: Offset(offset),
        revision: Revision(offset + 1),
        at: AT,
        id: format!("evt-{offset}"),
        change: EventChange::Record(RecordChange {
            table: TableName::parse("tickets").unwrap(),
            table_sent: None,
            effect: Effect::Insert,
            key: RecordKey("k".into()),
            key_fields: ["id".into()].into(),
            record: Arc::new([("id", "k")].into_iter().collect()),
        }),
        part: None,
        command: CommandId { session: session.into(), request: request.into() },
        origin: Arc::new(Origin::default()),
        previous: Hash::default(),
    };
    Delta { key: key("dar", module), incarnation: Incarnation(1), events: vec![Arc::new(event)] }
}

fn accepted(module: &str, offset: u64, command: &str) -> Result<Outcome, RouteError> {
    let delta = Arc::new(delta(module, offset, command));
    Ok(Outcome::Accepted(Acceptance { delta, reserved: None, repeated: false }))
}

/// Actions in words: acknowledgements, events and snapshots short, other frames in full.
fn in_words(actions: &[SessionAction]) -> Vec<String> {
    let one = |action: &SessionAction| match action {
        SessionAction::Send(frame, FrameKind::Event | FrameKind::Ack) => {
            let frame = Value::from_json(frame.as_bytes()).unwrap();
            let cursor = frame.get("cursor").unwrap();
            let of = |object: &Value, name| {
                object.get(name).and_then(Value::key_text).unwrap().to_owned()
            };
            let action = frame.get("action").and_then(Value::as_str).unwrap_or_default();
            let whole = ["module:purge", "module:restore", "module:reset"].contains(&action);
            let action = if whole { format!(" {action}") } else { String::new() };
            format!("{} {}{action}", of(&frame, "type"), of(cursor, "sequence"))
        }
        SessionAction::Send(frame, FrameKind::Control | FrameKind::Snapshot) => frame.to_string(),
        SessionAction::Write(LargeFrame::Rows(frame)) => serde_json::to_string(frame).unwrap(),
        SessionAction::Write(LargeFrame::Topic(frame)) => serde_json::to_string(frame).unwrap(),
        SessionAction::Write(LargeFrame::Snapshot(frame)) => {
            let at = |m: &Arc<ModuleSnapshot>| format!("{}@{}", m.head.key.module, m.head.offset);
            let modules: Vec<_> = frame.modules.iter().map(at).collect();
            format!("snapshot {} {}", frame.reason, modules.join(" "))
        }
        SessionAction::Follow { call, key, from, wait } => {
            let from = match from {
                FollowFrom::Snapshot => String::new(),
                FollowFrom::After(cursor) => format!(" after {}", cursor.offset),
                FollowFrom::Resume(cursor) => format!(" resuming {}", cursor.offset),
                FollowFrom::Tail => " from now".to_owned(),
            };
            let wait = if wait.is_zero() { String::new() } else { format!(" in {wait:?}") };
            format!("follow {} as {call}{from}{wait}", key.module)
        }
        SessionAction::Read { call, key, read, level, wait } => {
            let what = if let Read::Events { after, .. } = read {
                format!("events after {after}")
            } else if *read == Read::Snapshot {
                "state".to_owned()
            } else {
                format!("{read:?}")
            };
            let level = match level {
                ReadLevel::Linearizable => " now".to_owned(),
                ReadLevel::Session(offset) => format!(" at {offset}"),
                ReadLevel::Stale => String::new(),
            };
            let wait = if wait.is_zero() { String::new() } else { format!(" in {wait:?}") };
            format!("read {what} of {}{level} as {call}{wait}", key.module)
        }
        SessionAction::SubscribeTopic { call, topic } => format!("listen to {topic} as {call}"),
        SessionAction::Post(post) => {
            format!("say {} {}", post.topic, Value::from(post.data.clone()).to_json())
        }
        SessionAction::Open(call) => format!("open {call}"),
        SessionAction::Drop(call) => format!("drop {call}"),
        SessionAction::Submit(command) => format!("submit {} to {}", command.id, command.key),
    };
    actions.iter().map(one).collect()
}

fn publish(module: &str, request: &str) -> String {
    format!(
        r#"{{"type":"client:publish","moduleId":"{module}","table":"tickets","record":{{}},"meta":{{"requestId":"{request}"}}}}"#
    )
}

#[test]
fn after_the_hello_comes_the_log_then_one_snapshot_of_all_modules() {
    let mut story = Story::begin();
    assert_eq!(
        story.says(r#"{"type":"client:hello","branchId":"dar","role":"kds","lang":"ar"}"#),
        [
            r#"{"type":"server:log","level":"info","message":"Client registered","context":{"branchId":"dar","role":"kds","lang":"ar"},"ts":"2026-11-21T00:19:37.740Z","serverId":"ws-a"}"#,
            "follow pos as 1",
            "follow stock as 2",
        ]
    );
    assert!(story.session.is_busy(), "nothing is read before the snapshot");
    assert!(story.followed(2, "stock", 3).is_empty());
    assert_eq!(
        story.followed(1, "pos", 7),
        ["snapshot initial-sync pos@7 stock@3", "open 1", "open 2"]
    );
    assert_eq!(story.delta(1, "pos", 8, "x/1"), ["server:event 8"]);
}

#[test]
fn what_a_hello_says_that_nobody_reads_is_told() {
    let mut story = Story::begin();
    let sent = story.says(r#"{"type":"client:hello","branchId":"dar","record":true}"#);
    assert!(sent[1].contains(r#""level":"warn""#), "{}", sent[1]);
    assert!(
        sent[1].contains(r#"\"record\" is not known of a hello; known are type"#),
        "{}",
        sent[1]
    );
    assert_eq!(sent[2..], ["follow pos as 1", "follow stock as 2"]);
}

#[test]
fn a_strict_modules_frame_refuses_what_nobody_reads() {
    let mut story = Story::live();
    Arc::make_mut(&mut story.catalogue.modules[1]).validation = Validation::Strict;
    let refused = |story: &mut Story, frame: &str| story.says(frame).pop().unwrap_or_default();
    let publish = r#"{"type":"client:publish","requestId":"p","moduleId":"stock","table":"tickets","record":{},"expectedVersion":3}"#;
    let batch = r#"{"type":"client:batch","requestId":"b","moduleId":"stock","verbs":[{"table":"t","record":{},"versio":1}]}"#;
    for (frame, name) in [(publish, "expectedVersion"), (batch, "versio")] {
        let sent = refused(&mut story, frame);
        assert!(sent.contains(&format!(r#"\"{name}\" is not known"#)), "{told}");
    }
}

#[test]
fn a_branch_without_modules_has_an_empty_snapshot_at_once() {
    let mut story = Story::begin();
    assert_eq!(
        story.says(r#"{"type":"client:hello"}"#)[0],
        r#"{"type":"server:log","level":"info","message":"Client registered","context":{"branchId":"lab:test-pad","role":"unknown"},"ts":"2026-11-21T00:19:37.740Z","serverId":"ws-a"}"#
    );
    assert_eq!(story.says(r#"{"type":"client:hello"}"#)[1], "snapshot initial-sync ");
}

#[test]
fn a_second_hello_moves_the_membership() {
    let mut story = Story::live();
    let sent = story.says(r#"{"type":"client:hello","branchId":"remal"}"#);
    assert_eq!(sent[..2], ["drop 1", "drop 2"]);
    assert_eq!(sent[3..], ["follow pos as 3"]);
    assert_eq!(story.delta(1, "pos", 1, "x/1"), ["drop 1"], "what was left is not shown");
}

#[test]
fn the_acknowledgement_comes_before_the_event_whichever_is_known_first() {
    let mut story = Story::live();
    assert_eq!(story.says(&publish("pos", "a")), ["submit s-1/a to dar:pos"]);
    assert_eq!(story.outcome("pos", accepted("pos", 1, "s-1/a")), ["server:ack 1"]);
    assert_eq!(story.delta(1, "pos", 1, "s-1/a"), ["server:event 1"]);

    story.says(&publish("pos", "b"));
    assert_eq!(story.delta(1, "pos", 2, "s-1/b"), ["server:ack 2", "server:event 2"]);
    assert!(story.outcome("pos", accepted("pos", 2, "s-1/b")).is_empty(), "only once");
    assert!(story.session.is_idle());
}

#[test]
fn publishes_to_one_module_are_decided_one_after_the_other() {
    let mut story = Story::live();
    assert_eq!(story.says(&publish("pos", "a")), ["submit s-1/a to dar:pos"]);
    assert!(story.says(&publish("pos", "b")).is_empty());
    assert_eq!(story.says(&publish("stock", "c")), ["submit s-1/c to dar:stock"]);
    assert_eq!(
        story.outcome("pos", accepted("pos", 1, "s-1/a")),
        ["server:ack 1", "submit s-1/b to dar:pos"]
    );
}

#[test]
fn a_refused_publish_is_logged_and_answered_with_its_id() {
    let mut story = Story::live();
    story.says(&publish("pos", "a"));
    let refused = Reject::NotFound { table: "tickets".into(), key: RecordKey("k".into()) };
    assert_eq!(
        story.outcome("pos", Ok(Outcome::Rejected(refused))),
        [
            r#"{"type":"server:log","level":"error","message":"Record not found in table \"tickets\".","context":{"requestId":"a","code":"record-not-found"},"ts":"2026-11-21T00:19:37.740Z","serverId":"ws-a"}"#,
            r#"{"type":"server:error","requestId":"a","code":"record-not-found","message":"Record not found in table \"tickets\".","details":{"code":"record-not-found","table":"tickets","key":"k"}}"#,
        ]
    );
}

#[test]
fn an_unknown_outcome_is_acknowledged_when_its_event_comes_after_all() {
    let mut story = Story::live();
    story.says(&publish("pos", "a"));
    let sent = story.outcome("pos", Err(RouteError::Indeterminate));
    assert!(sent[1].contains(r#""code":"outcome-unknown""#), "{sent:?}");
    assert!(sent[1].contains(r#""details":{"outcome":"unknown"}"#), "{sent:?}");
    assert_eq!(story.delta(1, "pos", 1, "s-1/a"), ["server:ack 1", "server:event 1"]);
}

#[test]
fn a_client_that_names_itself_may_repeat_a_request_after_a_reload() {
    let mut story = Story::begin();
    story.says(r#"{"type":"client:hello","branchId":"remal","clientId":"till-7"}"#);
    story.followed(1, "pos", 0);
    assert_eq!(story.says(&publish("pos", "a")), ["submit till-7/a to remal:pos"]);
    let unnamed = r#"{"type":"client:publish","moduleId":"stock","table":"t"}"#;
    assert_eq!(story.says(unnamed), ["follow stock as 2"], "not yet: it would miss its event");
    assert_eq!(story.followed(2, "stock", 0), ["open 2", "submit @server/s-1/1 to remal:stock"]);
}

#[test]
fn a_module_outside_the_list_is_followed_with_the_first_publish_and_kept() {
    let mut story = Story::live();
    assert_eq!(story.says(&publish("extra", "a")), ["follow extra as 3"]);
    assert!(story.session.is_busy());
    assert_eq!(story.followed(3, "extra", 5), ["open 3", "submit s-1/a to dar:extra"]);
    assert_eq!(story.delta(3, "extra", 6, "s-1/a"), ["server:ack 6", "server:event 6"]);
    let sent = story.says(r#"{"type":"client:request:snapshot","requestId":"r"}"#);
    assert_eq!(sent, ["read state of pos now as 4", "read state of stock now as 5"]);
    assert_eq!(story.delta(3, "extra", 7, "x/1"), ["server:event 7"]);
}

#[test]
fn a_module_that_cannot_be_followed_refuses_its_publishes() {
    let mut story = Story::live();
    story.says(&publish("extra", "a"));
    let away = RouteError::Unavailable { reason: "no leader".into(), retry_after: Duration::ZERO };
    let sent = story.answered(3, Err(away));
    assert!(sent[1].contains(r#""requestId":"a","code":"unavailable""#), "{sent:?}");
    assert!(story.session.is_idle());
    assert_eq!(
        story.says(&publish("nomodule", "b")).len(),
        1,
        "the cluster is asked whether there is such a module"
    );
    assert!(story.session.is_busy());
    let away = RouteError::Unavailable { reason: "no leader".into(), retry_after: Duration::ZERO };
    let sent = story.answers(4, Err(away));
    assert!(sent[1].contains(r#""requestId":"b","code":"unavailable""#), "unknown is an answer");
    story.says(&publish("nomodule", "b"));
    let unknown = RouteError::UnknownModule("nomodule".into());
    assert_eq!(
        story.answers(5, Err(unknown))[1],
        r#"{"type":"server:error","requestId":"b","code":"module-not-found","message":"Module \"nomodule\" not defined in modules.json","details":{"moduleId":"nomodule"}}"#
    );
}

#[test]
fn a_snapshot_waits_for_every_module_and_is_told_about_once() {
    let mut story = Story::begin();
    story.says(r#"{"type":"client:hello","branchId":"dar","requestId":"h"}"#);
    story.followed(1, "pos", 0);
    let away =
        || RouteError::Unavailable { reason: "no leader".into(), retry_after: Duration::ZERO };
    let sent = story.answered(2, Err(away()));
    assert_eq!(sent[0], "follow stock as 3 in 200ms");
    assert!(sent[2].contains(r#""requestId":"h""#), "{sent:?}");
    assert!(!story.session.is_busy(), "the client may go on meanwhile");
    assert_eq!(story.says(&publish("pos", "a")), ["submit s-1/a to dar:pos"]);
    assert_eq!(story.answered(3, Err(away())), ["follow stock as 4 in 400ms"]);
    assert_eq!(
        story.followed(4, "stock", 0),
        ["snapshot initial-sync pos@0 stock@0", "open 1", "open 4"]
    );
}

#[test]
fn a_stream_that_ends_is_taken_up_where_it_was() {
    let mut story = Story::live();
    story.delta(1, "pos", 1, "x/1");
    let sent = in_words(&story.session.on_ended(1));
    assert_eq!(sent, ["drop 1", "follow pos as 3 after 1 in 200ms"]);
    assert!(!story.session.is_busy());
    assert_eq!(story.answered(3, Ok(None)), ["open 3"]);
    assert_eq!(story.delta(3, "pos", 2, "x/2"), ["server:event 2"]);
}

#[test]
fn what_cannot_go_on_without_a_gap_begins_again_with_a_snapshot() {
    let mut lagged = Story::live();
    let cx = SessionContext { now: AT, catalogue: &lagged.catalogue };
    let actions = lagged.session.on_resync(1, &snapshot("pos", 9), cx);
    assert_eq!(in_words(&actions), ["read state of pos at 9 as 3", "read state of stock at 0 as 4"]);
    assert!(lagged.session.is_holding(), "what comes now must come after the snapshot");
    lagged.reads(3, "pos", 9);
    assert_eq!(lagged.reads(4, "stock", 2), ["snapshot resync pos@9 stock@2"]);
    assert!(!lagged.session.is_holding());

    let mut gap = Story::live();
    assert_eq!(
        gap.delta(1, "pos", 2, "x/2"),
        ["drop 1", "follow pos as 3", "read state of stock at 0 as 4"]
    );

    let mut too_old = Story::live();
    too_old.session.on_ended(1);
    assert_eq!(too_old.followed(3, "pos", 50), ["read state of stock at 0 as 4"]);
    assert_eq!(too_old.reads(4, "stock", 0), ["snapshot resync pos@50 stock@0", "open 3"]);
}

#[test]
fn an_event_already_shown_is_not_shown_again() {
    let mut story = Story::live();
    assert_eq!(story.delta(1, "pos", 1, "x/1"), ["server:event 1"]);
    assert!(story.delta(1, "pos", 1, "x/1").is_empty());
}

#[test]
fn before_the_hello_only_what_needs_no_branch_is_answered() {
    let mut story = Story::begin();
    let sent = story.says(&publish("pos", "a"));
    assert!(sent[0].contains("Client attempted publish before hello handshake"), "{sent:?}");
    assert!(sent[1].contains(r#""code":"hello-required""#), "{sent:?}");
    assert!(story.says(r#"{"type":"client:request:snapshot"}"#).is_empty());
    assert_eq!(story.says(r#"{"type":"ping","ts":1}"#), [r#"{"type":"pong"}"#]);
    assert!(story.says(r#"{"type":"pong"}"#).is_empty());
    assert_eq!(story.says(r#"{"type":"auth","data":{}}"#), [r#"{"type":"ack","event":"auth"}"#]);
}

#[test]
fn what_cannot_be_read_is_said_so_and_the_socket_stays() {
    let mut story = Story::begin();
    let context = |sent: &[String]| {
        let log = Value::from_json(sent[0].as_bytes()).unwrap();
        let text = |name: &str| log.get(name).unwrap().to_json();
        format!("{} {} {}", text("level"), text("message"), text("context"))
    };
    for (message, log) in [
        ("not json", r#""warn" "Received invalid JSON payload" {"preview":"not json"}"#),
        ("123", r#""warn" "Received invalid JSON payload" {"preview":"123"}"#),
        (r#"{"a":1}"#, r#""warn" "Unknown message type" {}"#),
        (r#"{"type":"hello"}"#, r#""warn" "Unknown message type" {"type":"hello"}"#),
        (r#"{"type":"resume"}"#, r#""warn" "Unknown message type" {"type":"resume"}"#),
        (r#"{"type":7}"#, r#""warn" "Unknown message type" {"type":7}"#),
    ] {
        let sent = story.says(message);
        assert_eq!((sent.len(), context(&sent).as_str()), (1, log));
    }
    let long = format!("{}{}", "é".repeat(79), "z".repeat(100));
    assert!(story.says(&long)[0].contains(&format!("\"preview\":\"{}z\"", "é".repeat(79))));
    let bad = story.says(r#"{"type":"client:hello","branchId":"a/b","requestId":"h"}"#);
    assert!(bad[1].contains(r#""requestId":"h","code":"invalid-name""#), "{bad:?}");
}

#[test]
fn a_socket_with_too_much_to_decide_is_not_read() {
    let mut story = Story::live();
    for n in 0..=crate::limits::PUBLISHES_WAITING_MAX {
        assert!(!story.session.is_busy(), "{n}");
        story.says(&publish("pos", &n.to_string()));
    }
    assert!(story.session.is_busy());
    story.outcome("pos", accepted("pos", 1, "s-1/0"));
    assert!(!story.session.is_busy());
}
