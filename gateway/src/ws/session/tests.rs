//! One socket: what comes in, and what the session wants done. Its stories are text (`scripts`);
//! here and beside is what they have no words for.

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
        catalogue.modules = ["pos", "stock", "extra"].map(module).into_iter().collect();
        catalogue.patterns =
            vec![model::BranchPattern { matches: "^lab:".into(), modules: Vec::new() }];
        catalogue.branches.put(Arc::new(branch("dar", vec![id("pos"), id("stock")])));
        catalogue.branches.put(Arc::new(branch("remal", vec![id("pos")])));
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

    fn answers(&mut self, call: CallId, result: Result<Answer, RouteError>) -> Vec<String> {
        let cx = SessionContext { now: AT, catalogue: &self.catalogue };
        in_words(&self.session.on_answer(call, result, cx))
    }

    /// These events came, as one delta.
    fn came(&mut self, call: CallId, delta: Delta) -> Vec<String> {
        let cx = SessionContext { now: AT, catalogue: &self.catalogue };
        in_words(&self.session.on_delta(call, &SharedDelta::new(Arc::new(delta)), cx))
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
            format!("snapshot {} {}", frame.reason.wire_name(), modules.join(" "))
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

#[test]
fn a_socket_that_waits_for_too_many_queries_is_not_read() {
    let mut story = Story::live();
    for _ in 0..crate::limits::QUERIES_AT_ONCE {
        assert!(!story.session.is_busy());
        story.says(r#"{"type":"client:query","moduleId":"pos","table":"tickets"}"#);
    }
    assert!(story.session.is_busy());
    story.answers(3, Err(RouteError::Indeterminate));
    assert!(!story.session.is_busy());
}
