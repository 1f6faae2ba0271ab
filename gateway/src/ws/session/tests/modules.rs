//! Stories of acts on a whole module, and of flags.

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
fn an_act_on_a_module_is_told_and_a_snapshot_at_least_as_new_follows() {
    for (done, reason) in [
        (BulkOperation::Purge, "module-purge"),
        (BulkOperation::Restore, "module-restore"),
        (BulkOperation::Reset, "module-reset"),
    ] {
        let mut story = Story::live();
        story.delta(1, "pos", 1, "x/1");
        assert_eq!(
            story.came(1, operation(done, 2, "{}")),
            [
                &format!("server:event 2 {}", done.wire_name()),
                "read state of pos at 2 as 3",
                "read state of stock at 0 as 4",
            ]
        );
        assert!(story.session.is_holding(), "later events must follow the snapshot");
        story.reads(3, "pos", 4);
        assert_eq!(story.reads(4, "stock", 0), [format!("snapshot {reason} pos@4 stock@0")]);
        assert!(!story.session.is_holding());
        assert!(story.delta(1, "pos", 3, "x/3").is_empty(), "the snapshot held it");
        assert!(story.delta(1, "pos", 4, "x/4").is_empty());
        assert_eq!(story.delta(1, "pos", 5, "x/5"), ["server:event 5"]);
    }
}

#[test]
fn replaced_tables_are_told_by_a_snapshot_alone() {
    let mut story = Story::live();
    assert_eq!(
        story.came(1, operation(BulkOperation::Replace, 1, "{}")),
        ["read state of pos at 1 as 3", "read state of stock at 0 as 4"]
    );
    story.reads(4, "stock", 0);
    assert_eq!(story.reads(3, "pos", 1), ["snapshot module-replace pos@1 stock@0"]);
}

#[test]
fn an_own_publish_that_the_snapshot_held_is_acknowledged_all_the_same() {
    let mut story = Story::live();
    story.says(&publish("pos", "a"));
    story.came(1, operation(BulkOperation::Purge, 1, "{}"));
    story.reads(3, "pos", 2);
    story.reads(4, "stock", 0);
    assert_eq!(story.delta(1, "pos", 2, "s-1/a"), ["server:ack 2"]);
    assert!(story.outcome("pos", accepted("pos", 2, "s-1/a")).is_empty());
}

#[test]
fn a_state_that_cannot_be_read_now_is_read_later() {
    let mut story = Story::live();
    story.came(1, operation(BulkOperation::Purge, 1, "{}"));
    story.reads(4, "stock", 0);
    let away = RouteError::Unavailable { reason: "no leader".into(), retry_after: Duration::ZERO };
    let sent = story.answers(3, Err(away));
    assert_eq!(sent[0], "read state of pos now as 5 in 200ms");
    assert_eq!(story.reads(5, "pos", 1), ["snapshot module-purge pos@1 stock@0"]);
}

#[test]
fn a_replica_that_went_back_is_not_believed() {
    let mut story = Story::live();
    story.delta(1, "pos", 1, "x/1");
    story.came(1, operation(BulkOperation::Purge, 2, "{}"));
    story.reads(4, "stock", 0);
    assert_eq!(story.reads(3, "pos", 1), ["drop 1", "follow pos as 5"]);
    assert_eq!(story.followed(5, "pos", 2), ["snapshot module-purge pos@2 stock@0", "open 5"]);
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

fn flag(module: &str, enabled: bool) -> FullSyncFlag {
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
    fn flags(&mut self, flags: &[FullSyncFlag]) -> Vec<String> {
        for flag in flags {
            let place = (flag.branch.clone(), flag.module.clone());
            self.catalogue.full_sync.insert(place, flag.clone());
        }
        let cx = SessionContext { now: AT, catalogue: &self.catalogue };
        in_words(&self.session.on_catalogue(cx))
    }
}

#[test]
fn a_flag_that_changes_is_told_to_the_branch() {
    let mut story = Story::live();
    assert_eq!(
        story.flags(&[flag("*", true)]),
        [
            r#"{"type":"server:directive","directive":"full-sync-flag","id":"fsync-*","branchId":"dar","moduleId":"*","enabled":true,"reason":"why","requestedBy":null,"updatedAt":"2026-11-21T00:19:37.740Z","meta":null,"toggledVia":"management-api"}"#
        ]
    );
    assert!(story.flags(&[flag("*", true)]).is_empty(), "nothing new");
    let sent = story.flags(&[flag("*", false)]);
    assert!(sent[0].ends_with(r#""toggledVia":"management-api","clearedBy":"other"}"#), "{sent:?}");

    let mut other = Story::begin();
    assert!(other.flags(&[flag("*", true)]).is_empty(), "before the hello there is no branch");
    other.says(r#"{"type":"client:hello","branchId":"remal"}"#);
    assert!(other.flags(&[flag("pos", true)]).is_empty());
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
