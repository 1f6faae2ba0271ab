//! Stories of batches and queries over sockets.

use model::Value;

use crate::client::{Served, at, members};

fn batch(request: &str, mutations: &str) -> String {
    format!(
        r#"{{"type":"client:batch","moduleId":"pos","requestId":"{request}","verbs":{mutations}}}"#
    )
}

#[tokio::test]
async fn a_batch_is_one_change_and_one_answer() {
    let served = Served::new(|_| {}).await;
    let (mut till, mut kitchen) = (served.enter("dar").await, served.enter("dar").await);
    let mutations = r#"[{"table":"tickets","record":{"id":"a"},"includeRecord":true},
        {"action":"merge","table":"tickets","record":{"id":"a","title":"x"}},
        {"action":"delete","table":"tickets","record":{"id":"a"}}]"#;
    till.say(&batch("b-1", mutations)).await;
    let ack = till.expect("server:batch:ack").await;
    assert_eq!(members(&ack), "type requestId branchId moduleId version results cursor");
    let results = at(&ack, &["results"]).as_array().unwrap();
    assert_eq!(results.len(), 3);
    assert_eq!(
        members(&results[0]),
        "index action table recordRef record eventId sequence created deleted"
    );
    assert_eq!(at(&results[2], &["action"]).as_str(), Some("module:delete"));
    for socket in [&mut till, &mut kitchen] {
        for n in 0..3 {
            let event = socket.expect("server:event").await;
            assert_eq!(
                at(&event, &["batch"]).to_json(),
                format!(r#"{{"index":{n},"count":3,"id":"b-1"}}"#)
            );
        }
    }
}

#[tokio::test]
async fn a_batch_with_one_bad_verb_changes_nothing_and_says_which() {
    let served = Served::new(|_| {}).await;
    let mut till = served.enter("dar").await;
    let mutations = r#"[{"table":"tickets","record":{"id":"a"}},
        {"action":"merge","table":"tickets","record":{"id":"nope"}}]"#;
    till.say(&batch("b-1", mutations)).await;
    till.expect("server:log").await;
    let error = till.expect("server:error").await;
    assert_eq!(at(&error, &["requestId"]).as_str(), Some("b-1"));
    assert_eq!(at(&error, &["code"]).as_str(), Some("record-not-found"));
    assert_eq!(at(&error, &["details", "index"]).as_u64(), Some(1));
    till.silent().await;
    let snapshot = till.say(r#"{"type":"client:request:snapshot"}"#);
    snapshot.await;
    let snapshot = till.expect("server:snapshot").await;
    let tickets = at(&snapshot, &["modules", "pos", "tables", "tickets"]);
    assert!(tickets.as_array().unwrap().is_empty());
}

#[tokio::test]
async fn rows_are_found_over_a_socket() {
    let served = Served::new(|_| {}).await;
    let mut till = served.enter("dar").await;
    for id in ["a", "b"] {
        till.publish(id, &format!(r#""table":"tickets","record":{{"id":"{id}"}}"#)).await;
        till.expect("server:ack").await;
        till.expect("server:event").await;
    }
    let query = |more: &str| {
        format!(
            r#"{{"type":"client:query","moduleId":"pos","table":"tickets","requestId":"q"{more}}}"#
        )
    };
    till.say(&query("")).await;
    let found = till.expect("server:query:result").await;
    assert_eq!(members(&found), "type requestId table queryType result timestamp");
    assert_eq!(at(&found, &["result"]).as_array().unwrap().len(), 2);
    till.say(&query(r#","queryType":"get","id":"b""#)).await;
    let found = till.expect("server:query:result").await;
    assert_eq!(at(&found, &["result", "id"]).as_str(), Some("b"));
    till.say(&query(r#","queryType":"get","id":"zzz""#)).await;
    let found = till.expect("server:query:result").await;
    assert_eq!(found.get("result"), Some(&Value::Null));
    till.say(&query(r#","queryType":"get""#)).await;
    let error = till.expect("server:query:error").await;
    assert_eq!(at(&error, &["error"]).as_str(), Some("Missing record ID for get query"));
}
