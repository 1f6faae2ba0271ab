//! What a batch's acknowledgement and events say of its mutations.

use model::Part;

use super::*;

const BATCH: &str = r#"{"type":"client:batch","moduleId":"pos","requestId":"b","verbs":[{"table":"tickets","record":{"id":"k"},"includeRecord":true},{"action":"delete","table":"tickets","record":{"id":"k"}}]}"#;

/// The two events of one command.
pub(super) fn two(offset: u64, command: &str) -> Delta {
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

pub(super) fn accepted_as(delta: Delta) -> Result<Outcome, RouteError> {
    let delta = Arc::new(delta);
    Ok(Outcome::Accepted(Acceptance { delta, reserved: None, repeated: false }))
}

#[test]
fn a_batch_is_acknowledged_mutation_by_mutation() {
    let mut story = Story::live();
    assert_eq!(story.says(BATCH), ["submit s-1/b to dar:pos"]);
    let cx = SessionContext { now: AT, catalogue: &story.catalogue };
    let actions = story.session.on_outcome(&key("dar", "pos"), accepted_as(two(1, "s-1/b")), cx);
    let [SessionAction::Send(frame, FrameKind::Ack)] = &actions[..] else { panic!("one answer") };
    assert_eq!(
        frame.as_str(),
        r#"{"type":"server:batch:ack","requestId":"b","branchId":"dar","moduleId":"pos","version":3,"results":[{"index":0,"action":"module:insert","table":"tickets","recordRef":{"table":"tickets","key":"k","primaryKey":{"id":"k"},"id":"k"},"record":{"id":"k"},"eventId":"evt-1","sequence":1,"created":true,"deleted":false},{"index":1,"action":"module:delete","table":"tickets","recordRef":{"table":"tickets","key":"k","primaryKey":{"id":"k"},"id":"k"},"eventId":"evt-2","sequence":2,"created":false,"deleted":true}],"cursor":{"epoch":1,"sequence":2}}"#
    );
}

#[test]
fn each_event_of_a_batch_says_which_of_how_many_it_is() {
    let frames = dialect::event_frames(dialect::of_socket(), "ws-a", &two(1, "s-1/b"), None, false);
    let batch =
        |frame: &bytes::Bytes| Value::from_json(frame).unwrap().get("batch").unwrap().to_json();
    assert_eq!(
        frames.iter().map(batch).collect::<Vec<_>>(),
        [r#"{"index":0,"count":2,"id":"b"}"#, r#"{"index":1,"count":2,"id":"b"}"#]
    );
}
