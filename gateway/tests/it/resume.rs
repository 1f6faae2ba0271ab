//! Stories of clients that come back, to this node or another, with the cursors they had.

use model::{Action, BulkOperation, RecordMutation, Value};

use crate::client::{Served, Socket, at, members};
use crate::fake::Fake;

fn elsewhere(id: &str) -> RecordMutation {
    let record = [("id", id)].into_iter().collect();
    RecordMutation::new(Action::Insert, "tickets", record)
}

fn sequence(frame: &Value) -> u64 {
    at(frame, &["cursor", "sequence"]).as_u64().unwrap()
}

async fn resume(socket: &mut Socket, branch: &str, cursors: &str) {
    let hello = format!(
        r#"{{"type":"client:hello","branchId":"{branch}","requestId":"h","resume":{cursors}}}"#
    );
    socket.say(&hello).await;
    socket.expect("server:log").await;
}

#[tokio::test]
async fn a_till_gets_exactly_what_it_missed_at_another_node() {
    let fake = Fake::new();
    let first = Served::before(fake.clone(), |_| {}).await;
    let second = Served::before(fake.clone(), |config| config.server_id = "ws-n2".into()).await;
    let mut till = first.enter("dar").await;
    fake.write("dar", "pos", elsewhere("a"));
    let seen = till.expect("server:event").await;
    let cursor = at(&seen, &["cursor"]).to_json();
    drop(till);
    for id in ["b", "c", "d"] {
        fake.write("dar", "pos", elsewhere(id));
    }
    let mut till = second.open("/ws").await;
    resume(&mut till, "dar", &format!(r#"{{"pos":{cursor}}}"#)).await;
    let resumed = till.expect("server:resumed").await;
    assert_eq!(members(&resumed), "type branchId modules requestId");
    assert_eq!(
        at(&resumed, &["modules"]).to_json(),
        r#"{"pos":{"from":{"epoch":1,"sequence":1},"to":{"epoch":1,"sequence":4}}}"#
    );
    for missed in 2..=4 {
        assert_eq!(sequence(&till.expect("server:event").await), missed);
    }
    fake.write("dar", "pos", elsewhere("e"));
    assert_eq!(sequence(&till.expect("server:event").await), 5);
    till.silent().await;
}

#[tokio::test]
async fn a_cursor_of_a_snapshot_serves_as_well_as_one_of_an_event() {
    let served = Served::new(|_| {}).await;
    served.fake.write("two", "pos", elsewhere("a"));
    let mut till = served.open("/ws").await;
    till.say(r#"{"type":"client:hello","branchId":"two"}"#).await;
    till.expect("server:log").await;
    let snapshot = till.expect("server:snapshot").await;
    let cursors = at(&snapshot, &["cursors"]).to_json();
    assert_eq!(cursors, r#"{"kds":{"epoch":1,"sequence":0},"pos":{"epoch":1,"sequence":1}}"#);
    served.fake.write("two", "pos", elsewhere("b"));
    let mut again = served.open("/ws").await;
    resume(&mut again, "two", &cursors).await;
    again.expect("server:resumed").await;
    assert_eq!(sequence(&again.expect("server:event").await), 2);
    again.silent().await;
}

#[tokio::test]
async fn what_cannot_be_continued_comes_in_a_snapshot_that_says_so() {
    let served = Served::new(|_| {}).await;
    served.fake.write("dar", "pos", elsewhere("a"));
    for (cursor, why) in [
        (r#"{"epoch":9,"sequence":1}"#, "other-epoch"),
        (r#"{"epoch":1,"sequence":7}"#, "ahead"),
        ("5", "invalid-cursor"),
    ] {
        let mut till = served.open("/ws").await;
        resume(&mut till, "dar", &format!(r#"{{"pos":{cursor}}}"#)).await;
        let resumed = till.expect("server:resumed").await;
        assert_eq!(at(&resumed, &["modules"]).to_json(), "{}");
        let resync = till.expect("server:resync").await;
        assert_eq!(at(&resync, &["reason"]).as_str(), Some(why));
        let snapshot = till.expect("server:snapshot").await;
        assert_eq!(at(&snapshot, &["meta", "reason"]).as_str(), Some("resync"));
        assert_eq!(members(at(&snapshot, &["modules"])), "pos");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_and_comes_back_under_load_sees_every_event_once() {
    let served = Served::new(|_| {}).await;
    let fake = served.fake.clone();
    let events = 600;
    let writer = tokio::task::spawn_blocking(move || {
        for n in 0..events {
            fake.write("dar", "pos", elsewhere(&format!("t-{n}")));
            std::thread::sleep(std::time::Duration::from_micros(300));
        }
    });
    let mut seen = 0;
    while seen < events {
        let mut till = served.open("/ws").await;
        let cursor = format!(r#"{{"pos":{{"epoch":1,"sequence":{seen}}}}}"#);
        resume(&mut till, "dar", &cursor).await;
        till.expect("server:resumed").await;
        for _ in 0..37.min(events - seen) {
            seen += 1;
            assert_eq!(sequence(&till.expect("server:event").await), seen);
        }
    }
    writer.await.unwrap();
}

#[tokio::test]
async fn a_bulk_operation_is_followed_by_a_snapshot_for_everybody() {
    let served = Served::new(|_| {}).await;
    let (mut till, mut kitchen) = (served.enter("two").await, served.enter("two").await);
    let details = r#"{"tables":[],"totalRemoved":0,"meta":{"reason":"r"}}"#;
    for (n, (operation, action, reason)) in [
        (BulkOperation::Purge, Some("module:purge"), "module-purge"),
        (BulkOperation::Restore, Some("module:restore"), "module-restore"),
        (BulkOperation::Reset, Some("module:reset"), "module-reset"),
        (BulkOperation::Replace, None, "module-replace"),
    ]
    .into_iter()
    .enumerate()
    {
        let offset = 2 * n as u64 + 1;
        served.fake.operation("two", "pos", operation, details);
        for socket in [&mut till, &mut kitchen] {
            if let Some(action) = action {
                let event = socket.expect("server:event").await;
                assert_eq!(at(&event, &["action"]).as_str(), Some(action));
                let server_id = at(&event, &["meta"]).get("serverId").and_then(Value::as_str);
                assert_eq!(server_id, (operation != BulkOperation::Restore).then_some("ws-n1"));
                assert!(event.get("table").is_none());
                assert_eq!(event.get("snapshot").is_some(), operation == BulkOperation::Reset);
                assert_eq!(sequence(&event), offset);
            }
            let snapshot = socket.expect("server:snapshot").await;
            assert_eq!(at(&snapshot, &["meta", "reason"]).as_str(), Some(reason));
            assert_eq!(members(at(&snapshot, &["modules"])), "kds pos", "all of the branch");
            let stands = at(&snapshot, &["cursors", "pos", "sequence"]).as_u64();
            assert_eq!(stands, Some(offset));
        }
        served.fake.write("two", "pos", elsewhere(&format!("after-{n}")));
        for socket in [&mut till, &mut kitchen] {
            assert_eq!(sequence(&socket.expect("server:event").await), offset + 1);
        }
    }
}
