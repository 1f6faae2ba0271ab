//! What frames say of changes of a whole module, and of flags.

use model::{BulkOperation, FullSyncFlag, ModuleChange};

use super::*;

/// An act on the module `pos` at this offset.
pub(super) fn operation(operation: BulkOperation, offset: u64, details: &str) -> Delta {
    let mut delta = delta("pos", offset, "admin/1");
    let details = Value::from_json(details.as_bytes()).unwrap().as_object().unwrap().clone();
    let mut event = (*delta.events[0]).clone();
    event.change = EventChange::Module(ModuleChange { operation, details, records: Vec::new() });
    delta.events = vec![Arc::new(event)];
    delta
}

fn text(delta: &Delta, snapshot: Option<&ModuleSnapshot>) -> Vec<String> {
    let frames = dialect::event_frames(dialect::of_socket(), "ws-a", delta, snapshot, false);
    frames.iter().map(|frame| String::from_utf8(frame.to_vec()).unwrap()).collect()
}

#[test]
fn a_purge_tells_what_was_taken_out_and_who_tells_it() {
    let details = r#"{"tables":[{"table":"tickets","status":"cleared","removed":2}],"totalRemoved":2,"meta":{"reason":"r","requestedBy":"me"}}"#;
    assert_eq!(
        text(&operation(BulkOperation::Purge, 2, details), None),
        [
            r#"{"type":"server:event","action":"module:purge","branchId":"dar","moduleId":"pos","version":3,"tables":[{"table":"tickets","status":"cleared","removed":2}],"totalRemoved":2,"meta":{"reason":"r","requestedBy":"me","serverId":"ws-a"},"cursor":{"epoch":1,"sequence":2}}"#
        ]
    );
}

#[test]
fn a_reset_carries_the_state_it_began_again_with() {
    let reset = operation(BulkOperation::Reset, 2, r#"{"meta":{"reason":"daily-reset"}}"#);
    let sent = text(&reset, Some(&snapshot("pos", 2)));
    assert_eq!(
        sent,
        [
            r#"{"type":"server:event","action":"module:reset","branchId":"dar","moduleId":"pos","version":3,"snapshot":{"moduleId":"pos","branchId":"dar","version":3,"tables":{},"meta":{"lastUpdatedAt":"2026-11-21T00:19:37.740Z","counter":0,"labCounter":0}},"record":null,"meta":{"reason":"daily-reset","serverId":"ws-a","moduleId":"pos"},"cursor":{"epoch":1,"sequence":2}}"#
        ]
    );
    assert_eq!(text(&operation(BulkOperation::Replace, 2, "{}"), None), [""]);
}

pub(super) fn flag(module: &str, enabled: bool) -> FullSyncFlag {
    FullSyncFlag {
        id: format!("fsync-{module}"),
        branch: BranchId::parse("dar").unwrap(),
        module: module.into(),
        enabled,
        reason: Some("why".into()),
        requested_by: None,
        updated_at: AT,
        meta: None,
        cleared_by: (!enabled).then(|| "other".into()),
    }
}

impl Story {
    pub(super) fn flags(&mut self, flags: &[FullSyncFlag]) -> Vec<String> {
        for flag in flags {
            self.catalogue.full_sync.put(flag.clone());
        }
        self.catalogue_changes()
    }
}

#[test]
fn a_snapshot_shows_the_flags_that_stand() {
    let mut story = Story::begin();
    story.flags(&[flag("*", true), flag("pos", false)]);
    story.says(r#"{"type":"client:hello","branchId":"dar"}"#);
    story.followed(1, "pos", 0);
    let cx = SessionContext { now: AT, catalogue: &story.catalogue };
    let begun = FollowStart { snapshot: Some(Arc::new(snapshot("stock", 0))), log: None };
    let actions = story.session.on_followed(2, Ok(begun), cx);
    let SessionAction::Write(LargeFrame::Snapshot(frame)) = &actions[0] else {
        panic!("a snapshot")
    };
    let frame = Value::from_json(frame_text(frame).as_bytes()).unwrap();
    let flags = frame.get("fullSyncFlags").unwrap();
    assert_eq!(
        flags.to_json(),
        r#"[{"id":"fsync-*","branchId":"dar","moduleId":"*","enabled":true,"reason":"why","requestedBy":null,"updatedAt":"2026-11-21T00:19:37.740Z","meta":null,"clearedBy":null}]"#
    );
    let meta = frame.get("meta").unwrap();
    assert_eq!(meta.get("fullSyncRequired").and_then(Value::as_bool), Some(true));
    assert_eq!(meta.get("fullSyncFlags"), Some(flags));
    assert_eq!(
        frame.get("cursors").unwrap().to_json(),
        r#"{"pos":{"epoch":1,"sequence":0},"stock":{"epoch":1,"sequence":0}}"#
    );
}

fn frame_text(frame: &SnapshotFrame) -> String {
    serde_json::to_string(frame).unwrap()
}
