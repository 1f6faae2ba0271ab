//! Stories of clients that come back with their cursors.

use super::*;

const HELLO: &str = r#"{"type":"client:hello","branchId":"dar","requestId":"h","resume":"#;

fn hello(resume: &str) -> String {
    format!("{HELLO}{resume}}}")
}

#[test]
fn a_client_that_names_its_cursors_gets_what_it_missed_and_no_snapshot() {
    let mut story = Story::begin();
    let both = r#"{"pos":{"epoch":1,"sequence":7},"stock":{"epoch":1,"sequence":2}}"#;
    assert_eq!(
        story.says(&hello(both))[1..],
        ["follow pos as 1 resuming 7", "follow stock as 2 resuming 2"]
    );
    assert!(story.session.is_busy(), "nothing is read before it is known what goes on");
    assert!(story.stands(1, 1, 9, true).is_empty());
    assert_eq!(
        story.stands(2, 1, 2, true),
        [
            r#"{"type":"server:resumed","branchId":"dar","modules":{"pos":{"from":{"epoch":1,"sequence":7},"to":{"epoch":1,"sequence":9}},"stock":{"from":{"epoch":1,"sequence":2},"to":{"epoch":1,"sequence":2}}},"requestId":"h"}"#,
            "open 1",
            "open 2",
        ]
    );
    assert_eq!(story.delta(1, "pos", 8, "x/1"), ["server:event 8"]);
    assert_eq!(story.delta(1, "pos", 9, "x/2"), ["server:event 9"]);
    assert_eq!(story.delta(1, "pos", 10, "x/3"), ["server:event 10"]);
}

#[test]
fn modules_without_a_cursor_come_in_a_snapshot_after_the_word_that_the_others_go_on() {
    let mut story = Story::begin();
    let sent = story.says(&hello(r#"{"pos":{"epoch":1,"sequence":7}}"#));
    assert_eq!(sent[1..], ["follow pos as 1 resuming 7", "follow stock as 2"]);
    story.followed(2, "stock", 3);
    let sent = story.stands(1, 1, 7, true);
    assert!(sent[0].starts_with(r#"{"type":"server:resumed""#), "{sent:?}");
    assert_eq!(sent[1..], ["snapshot initial-sync stock@3", "open 1", "open 2"]);
}

#[test]
fn a_cursor_that_cannot_be_continued_is_said_so_and_the_module_begins_again() {
    for (incarnation, last, is_retained, why) in
        [(2, 9, true, "other-epoch"), (1, 6, true, "ahead"), (1, 9, false, "too-old")]
    {
        let mut story = Story::begin();
        story.says(&hello(r#"{"pos":{"epoch":1,"sequence":7},"stock":{"epoch":1,"sequence":1}}"#));
        story.stands(2, 1, 1, true);
        assert_eq!(story.stands(1, incarnation, last, is_retained), ["drop 1", "follow pos as 3"]);
        let sent = story.followed(3, "pos", last);
        assert!(sent[0].contains(r#""modules":{"stock":"#), "{sent:?}");
        assert_eq!(
            sent[1],
            format!(
                r#"{{"type":"server:resync","branchId":"dar","moduleId":"pos","reason":"{why}"}}"#
            )
        );
        assert_eq!(sent[2..], [&format!("snapshot resync pos@{last}"), "open 3", "open 2"]);
    }
}

#[test]
fn what_is_no_cursor_or_of_another_branch_is_said_so() {
    let mut story = Story::begin();
    let sent = story.says(&hello(r#"{"pos":7,"extra":{"epoch":1,"sequence":1}}"#));
    assert_eq!(sent[1..], ["follow pos as 1", "follow stock as 2"]);
    story.followed(1, "pos", 4);
    let sent = story.followed(2, "stock", 4);
    assert!(sent[0].contains(r#""modules":{}"#), "{sent:?}");
    assert!(sent[1].contains(r#""moduleId":"extra","reason":"not-in-branch""#), "{sent:?}");
    assert!(sent[2].contains(r#""moduleId":"pos","reason":"invalid-cursor""#), "{sent:?}");
    assert_eq!(sent[3], "snapshot resync pos@4 stock@4");
}

#[test]
fn a_log_that_cannot_be_asked_now_is_asked_again_under_the_same_cursor() {
    let mut story = Story::begin();
    story.says(&hello(r#"{"pos":{"epoch":1,"sequence":7},"stock":{"epoch":1,"sequence":1}}"#));
    story.stands(2, 1, 1, true);
    let away = RouteError::Unavailable { reason: "no leader".into(), retry_after: Duration::ZERO };
    let sent = story.answered(1, Err(away));
    assert_eq!(sent[0], "follow pos as 3 resuming 7 in 200ms");
    assert_eq!(story.stands(3, 1, 8, true)[1..], ["open 3", "open 2"]);
    assert_eq!(story.delta(3, "pos", 8, "x/1"), ["server:event 8"]);
}

#[test]
fn publishes_wait_until_what_was_missed_is_known_and_are_acknowledged_once() {
    let mut story = Story::begin();
    story.says(
        r#"{"type":"client:hello","branchId":"remal","clientId":"till","resume":{"pos":{"epoch":1,"sequence":7}}}"#,
    );
    assert!(story.says(&publish("pos", "a")).is_empty(), "it may be among what was missed");
    let sent = story.stands(1, 1, 8, true);
    assert_eq!(sent[1..], ["open 1", "submit till/a to remal:pos"]);
    let cx = SessionContext { now: AT, catalogue: &story.catalogue };
    let mut missed = delta("pos", 8, "till/a");
    missed.key = key("remal", "pos");
    let shared = SharedDelta::new(Arc::new(missed));
    let actions = story.session.on_delta(1, &shared, cx);
    assert_eq!(super::in_words(&actions), ["server:ack 8", "server:event 8"]);
    let again = accepted("pos", 8, "till/a");
    let actions = story.session.on_outcome(&key("remal", "pos"), again, cx);
    assert!(actions.is_empty());
}

#[test]
fn a_second_hello_may_resume_what_is_followed_already() {
    let mut story = Story::live();
    story.delta(1, "pos", 1, "x/1");
    let sent = story.says(&hello(r#"{"pos":{"epoch":1,"sequence":0}}"#));
    assert_eq!(sent[..2], ["drop 1", "drop 2"]);
    assert_eq!(sent[3..], ["follow pos as 3 resuming 0", "follow stock as 4"]);
    story.followed(4, "stock", 0);
    story.stands(3, 1, 1, true);
    assert_eq!(story.delta(3, "pos", 1, "x/1"), ["server:event 1"], "it said it had none");
}
