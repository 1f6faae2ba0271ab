//! Fuzz: what clients send, as functions of bytes, for the fuzzers in tests/fuzz. Their corpora run
//! here as plain tests.
//!
//! Promise: whatever the bytes, each target returns.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use actors::RouteError;
use model::{
    BranchConfig, BranchId, BranchKey, Catalogue, CatalogueChange, Head, Incarnation, ModuleConfig,
    ModuleId, ModuleSnapshot, Offset, Origin, Revision, Schema, Timestamp, Validation, Value,
    VersionRule,
};

use crate::batch;
use crate::preconditions;
use crate::publish::Publish;
use crate::rest::fuzz::read_bodies;
use crate::scoped_store::PolicyClass;
use crate::ws::dialect;
use crate::ws::session::{Session, SessionAction, SessionContext};
use crate::ws::subscription::{FollowStart, LogEnd};

/// When everything here happens.
const AT: Timestamp = Timestamp(1_795_220_377_740);
/// Actions worked off for one frame: a session that asks for ever is a finding by its time.
const ACTIONS_MAX: usize = 1_000;

/// A REST body, into the parts of a command or a read, by every reader that might get it.
pub fn rest_body(data: &[u8]) {
    let Ok(Value::Object(body)) = Value::from_json(data) else { return };
    // A refusal is an answer like any other.
    let _ = Publish::read(body.clone(), "rest", |_| Validation::Strict);
    let _ = batch::read(body.clone(), &Origin::default(), Validation::Strict);
    let _ = preconditions::read(&body, Some("2026-11-21"));
    read_bodies(&body);
}

/// The frames of one socket, one a line, into what its session does. What it follows begins at
/// once, what it asks cannot be told.
pub fn socket_frame(data: &[u8]) {
    let catalogue = catalogue();
    let cx = SessionContext { now: AT, catalogue: &catalogue };
    let (mut session, _) = Session::new(
        "socket".into(),
        "ws-1".into(),
        dialect::of_socket(),
        PolicyClass::EVERYONE,
        AT,
    );
    for frame in data.split(|byte| *byte == b'\n') {
        let mut todo: VecDeque<SessionAction> = session.on_message(frame, cx).into();
        for _ in 0..ACTIONS_MAX {
            let Some(action) = todo.pop_front() else { break };
            match action {
                SessionAction::Follow { call, key, .. } => {
                    let log =
                        LogEnd { incarnation: Incarnation(1), last: Offset(7), is_retained: true };
                    let begun = FollowStart { snapshot: Some(snapshot(key)), log: Some(log) };
                    todo.extend(session.on_followed(call, Ok(begun), cx));
                }
                SessionAction::Submit(command) => {
                    let unknown = Err(RouteError::Indeterminate);
                    todo.extend(session.on_outcome(&command.key, unknown, cx));
                }
                SessionAction::Send(..)
                | SessionAction::Write(_)
                | SessionAction::Open(_)
                | SessionAction::Drop(_)
                | SessionAction::Read { .. }
                | SessionAction::SubscribeTopic { .. }
                | SessionAction::Post(_) => {}
            }
        }
    }
}

/// An empty module, some events old.
fn snapshot(key: BranchKey) -> Arc<ModuleSnapshot> {
    let (incarnation, offset) = (Incarnation(1), Offset(7));
    let head =
        Head { key, incarnation, offset, revision: Revision(8), last_updated_at: AT, rows: 0 };
    Arc::new(ModuleSnapshot { head, tables: Vec::new() })
}

/// A branch `dar` with a module `pos` of one table.
fn catalogue() -> Catalogue {
    let source =
        r#"{"tables":[{"name":"t","fields":[{"name":"id","type":"string","primaryKey":true}]}]}"#;
    let source = Value::from_json(source.as_bytes()).expect("it is JSON");
    let id = ModuleId::parse("pos").expect("a good name");
    let module = ModuleConfig {
        id: id.clone(),
        label: String::new(),
        description: String::new(),
        tables: Vec::new(),
        schema: Arc::new(
            Schema::read_under("pos", &source, &compat::conventions())
                .expect("a definition")
                .schema,
        ),
        source: Arc::new(source),
        validation: Validation::Lenient,
        version_rule: VersionRule::Next,
        seed: None,
        dedup: model::DedupLimits::default(),
    };
    let branch = BranchConfig {
        id: BranchId::parse("dar").expect("a good name"),
        label: String::new(),
        modules: vec![id],
        seeds: BTreeMap::new(),
    };
    let mut catalogue = Catalogue::default();
    let changes = [
        CatalogueChange::AddModule(Arc::new(module)),
        CatalogueChange::AddBranch(Arc::new(branch)),
    ];
    for (id, change) in ["module", "branch"].into_iter().zip(changes) {
        let entry = model::CatalogueEntry { id: id.to_owned(), at: AT, change };
        catalogue.apply(&entry).expect("there is room");
    }
    catalogue
}

#[cfg(test)]
#[path = "../../tests/fuzz/seeds.rs"]
mod seeds;

#[cfg(test)]
mod tests {
    use super::seeds::all;

    #[test]
    fn the_corpus_of_rest_body_is_taken_without_harm() {
        all("rest_body", super::rest_body);
    }

    #[test]
    fn the_corpus_of_socket_frame_is_taken_without_harm() {
        all("socket_frame", super::socket_frame);
    }
}
