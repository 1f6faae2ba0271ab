//! Stories of several mutations in one frame.

use model::Part;

use super::*;

const BATCH: &str = r#"{"type":"client:batch","moduleId":"pos","requestId":"b","verbs":[{"table":"tickets","record":{"id":"k"},"includeRecord":true},{"action":"delete","table":"tickets","record":{"id":"k"}}]}"#;

/// The two events of one command.
fn two(offset: u64, command: &str) -> Delta {
    let mut events = Vec::new();
    for (index, effect) in [(0, Effect::Insert), (1, Effect::Delete)] {
        let mut event = (*delta("pos", offset + u64::from(index), command).events[0]).clone();
        event.part = Some(Part { index, count: 2 });
        event.origin = Arc::new(Origin { include_record: index == 0, ..Origin::default() });
        if let EventChange::Record(change) = &mut event.change {
            change.effect = effect;
        }
        events.push(Arc::new(event));
    }
    Delta { events, ..delta("pos", offset, command) }
}

fn done(delta: Delta) -> Result<Outcome, RouteError> {
    let delta = Arc::new(delta);
    Ok(Outcome::Accepted(Acceptance { delta, reserved: None, repeated: false }))
}

#[test]
fn a_batch_is_one_command_and_each_verb_is_answered_before_the_events() {
    let mut story = Story::live();
    assert_eq!(story.says(BATCH), ["submit s-1/b to dar:pos"]);
    let cx = SessionContext { now: AT, catalogue: &story.catalogue };
    let actions = story.session.on_outcome(&key("dar", "pos"), done(two(1, "s-1/b")), cx);
    let [SessionAction::Send(frame, FrameKind::Ack)] = &actions[..] else { panic!("one answer") };
    assert_eq!(
        frame.as_str(),
        r#"{"type":"server:batch:ack","requestId":"b","branchId":"dar","moduleId":"pos","version":3,"results":[{"index":0,"action":"module:insert","table":"tickets","recordRef":{"table":"tickets","key":"k","primaryKey":{"id":"k"},"id":"k"},"record":{"id":"k"},"eventId":"evt-1","sequence":1,"created":true,"deleted":false},{"index":1,"action":"module:delete","table":"tickets","recordRef":{"table":"tickets","key":"k","primaryKey":{"id":"k"},"id":"k"},"eventId":"evt-2","sequence":2,"created":false,"deleted":true}],"cursor":{"epoch":1,"sequence":2}}"#
    );
    assert_eq!(story.came(1, two(1, "s-1/b")), ["server:event 1", "server:event 2"]);
}

#[test]
fn events_that_come_first_answer_for_the_whole_batch_or_not_at_all() {
    let mut story = Story::live();
    story.says(BATCH);
    assert_eq!(
        story.came(1, two(1, "s-1/b")),
        ["server:batch:ack 2", "server:event 1", "server:event 2"]
    );
    assert!(story.outcome("pos", done(two(1, "s-1/b"))).is_empty());

    let mut half = Story::live();
    half.says(BATCH);
    let mut delta = two(1, "s-1/b");
    delta.events.pop();
    assert_eq!(half.came(1, delta), ["server:event 1"], "half of it is no answer");
    assert_eq!(half.outcome("pos", done(two(1, "s-1/b"))), ["server:batch:ack 2"]);
}

#[test]
fn each_event_of_a_batch_says_which_of_how_many_it_is() {
    let frames = dialect::event_frames(
        dialect::of_socket(),
        "ws-a",
        &two(1, "s-1/b"),
        None,
        false,
    );
    let batch =
        |frame: &bytes::Bytes| Value::from_json(frame).unwrap().get("batch").unwrap().to_json();
    assert_eq!(
        frames.iter().map(batch).collect::<Vec<_>>(),
        [r#"{"index":0,"count":2,"id":"b"}"#, r#"{"index":1,"count":2,"id":"b"}"#]
    );
}

#[test]
fn one_delta_may_hold_several_commands_and_each_is_answered_before_its_events() {
    let mut story = Story::live();
    story.says(BATCH);
    let mut delta = two(1, "s-1/b");
    delta.events.extend(super::delta("pos", 3, "x/1").events);
    assert_eq!(
        story.came(1, delta),
        ["server:batch:ack 2", "server:event 1", "server:event 2", "server:event 3"]
    );
}

#[test]
fn a_refused_batch_says_which_verb() {
    let mut story = Story::live();
    story.says(BATCH);
    let reject = Box::new(Reject::NotFound { table: "tickets".into(), key: RecordKey("k".into()) });
    let sent = story.outcome("pos", Ok(Outcome::Rejected(Reject::AtMutation { index: 1, reject })));
    assert_eq!(
        sent[1],
        r#"{"type":"server:error","requestId":"b","code":"record-not-found","message":"Record not found in table \"tickets\".","details":{"code":"record-not-found","table":"tickets","key":"k","index":1}}"#
    );
    let sent = story.says(
        r#"{"type":"client:batch","moduleId":"pos","requestId":"c","verbs":[{"table":"t","record":{}},{}]}"#,
    );
    assert!(sent[1].contains(r#""requestId":"c","code":"missing-table-name""#), "{sent:?}");
    assert!(sent[1].contains(r#""index":1"#), "{sent:?}");
    let sent = Story::begin().says(BATCH);
    assert!(sent[1].contains(r#""code":"hello-required""#), "{sent:?}");
}
