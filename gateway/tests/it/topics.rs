//! Stories of topics over sockets: what is said, who hears it, and who does not.

use model::{Action, CatalogueChange, FullSyncFlag, RecordMutation, Timestamp, Value};

use crate::client::{Served, Socket, at};
use crate::fake::{Fake, key};

fn ticket(id: &str) -> RecordMutation {
    RecordMutation::new(Action::Insert, "tickets", [("id", id)].into_iter().collect())
}

async fn subscribe(socket: &mut Socket, topic: &str) {
    socket.say(&format!(r#"{{"type":"subscribe","topic":"{topic}"}}"#)).await;
    let ack = format!(r#"{{"type":"ack","event":"subscribe","topic":"{topic}"}}"#);
    assert_eq!(socket.next_text().await, ack);
}

async fn say(socket: &mut Socket, topic: &str, data: &str) {
    socket.say(&format!(r#"{{"type":"publish","topic":"{topic}","data":{data}}}"#)).await;
}

/// What a `publish` frame says.
async fn heard(socket: &mut Socket, topic: &str) -> Value {
    let frame = socket.expect("publish").await;
    assert_eq!(at(&frame, &["topic"]).as_str(), Some(topic));
    at(&frame, &["data"]).clone()
}

#[tokio::test]
async fn what_is_said_on_one_node_is_heard_on_another_whole_at_first() {
    let fake = Fake::new();
    let first = Served::before(fake.clone(), |_| {}).await;
    let second = Served::before(fake.clone(), |_| {}).await;
    let (mut till, mut kitchen) = (first.open("/ws").await, second.open("/ws").await);
    subscribe(&mut kitchen, "free:topic").await;
    for (said, expected) in [
        (r#"{"a":1,"b":{"c":2}}"#, r#"{"mode":"snapshot","snapshot":{"a":1,"b":{"c":2}}}"#),
        (r#"{"a":1,"b":{"c":3},"d":4}"#, r#"{"mode":"delta","set":{"b":{"c":3},"d":4}}"#),
        (r#"{"d":4}"#, r#"{"mode":"delta","set":{},"remove":["a","b"]}"#),
    ] {
        say(&mut till, "free:topic", said).await;
        assert_eq!(heard(&mut kitchen, "free:topic").await.to_json(), expected);
    }
    say(&mut till, "free:topic", r#"{"d":4}"#).await;
    kitchen.silent().await;
    till.silent().await;
    subscribe(&mut till, "free:topic").await;
    let last = heard(&mut till, "free:topic").await;
    assert_eq!(last.to_json(), r#"{"mode":"snapshot","snapshot":{"d":4}}"#);
    kitchen.say(r#"{"type":"unsubscribe","topic":"free:topic"}"#).await;
    let ack = r#"{"type":"ack","event":"unsubscribe","topic":"free:topic"}"#;
    assert_eq!(kitchen.next_text().await, ack);
    say(&mut till, "free:topic", r#"{"e":5}"#).await;
    heard(&mut till, "free:topic").await;
    kitchen.silent().await;
}

#[tokio::test]
async fn a_tables_topic_tells_of_its_changes_without_a_hello() {
    let served = Served::new(|_| {}).await;
    served.fake.write("dar", "pos", ticket("a"));
    let mut board = served.open("/ws").await;
    let topic = "sync-table::dar::pos::tickets";
    subscribe(&mut board, topic).await;
    let last = heard(&mut board, topic).await;
    assert_eq!(at(&last, &["snapshot", "type"]).as_str(), Some("table:update"));
    assert_eq!(at(&last, &["snapshot", "recordRef", "key"]).as_str(), Some("a"));
    served.fake.write("dar", "pos", ticket("b"));
    let next = heard(&mut board, topic).await;
    assert_eq!(at(&next, &["set", "recordRef", "key"]).as_str(), Some("b"));
    served.fake.write("two", "pos", ticket("c"));
    board.silent().await;
    subscribe(&mut board, "table::tickets").await;
    board.silent().await;
}

#[tokio::test]
async fn a_publish_by_an_alias_reaches_its_channel_and_sync_topic() {
    let served = Served::new(|_| {}).await;
    let (mut till, mut kitchen) = (served.enter("dar").await, served.open("/ws").await);
    subscribe(&mut kitchen, "dar:pos:kds:orders").await;
    subscribe(&mut kitchen, "pos:sync:dar").await;
    till.publish("r", r#""table":"orders","record":{"id":"o","shiftId":"s"}"#).await;
    let notice = heard(&mut kitchen, "dar:pos:kds:orders").await;
    assert_eq!(at(&notice, &["snapshot", "type"]).as_str(), Some("branch:table-notice"));
    let delta = heard(&mut kitchen, "dar:pos:kds:orders").await;
    assert_eq!(at(&delta, &["set", "type"]).as_str(), Some("branch:delta"));
    let sync = heard(&mut kitchen, "pos:sync:dar").await;
    assert_eq!(at(&sync, &["snapshot", "version"]).as_u64(), Some(2));
    let orders = at(&sync, &["snapshot", "snapshot", "tables", "order_header"]);
    assert_eq!(orders.as_array().unwrap().len(), 1, "the state of now");

    say(&mut till, "sync::dar::pos", r#"{"trans_id":"t","action":"notify"}"#).await;
    till.expect("server:ack").await;
    till.expect("server:event").await;
    let word = heard(&mut kitchen, "pos:sync:dar").await;
    assert_eq!(at(&word, &["set", "action"]).as_str(), Some("notify"));
    assert!(at(&word, &["set"]).get("snapshot").is_none(), "it is as before");
    say(&mut till, "sync::dar::pos", r#"{"trans_id":"t","action":"notify","mutationId":"m"}"#)
        .await;
    let again = heard(&mut till, "sync::dar::pos").await;
    assert_eq!(at(&again, &["meta", "duplicateTrans"]).as_bool(), Some(true));
    kitchen.silent().await;
}

#[tokio::test]
async fn a_flag_that_is_set_is_told_to_the_sockets_of_its_branch() {
    use actors::Store as _;
    let served = Served::new(|_| {}).await;
    let (mut till, mut other) = (served.enter("dar").await, served.enter("two").await);
    let flag = FullSyncFlag {
        id: "fsync-1".into(),
        branch: key("dar", "pos").branch,
        module: "*".into(),
        enabled: true,
        reason: None,
        requested_by: None,
        updated_at: Timestamp(0),
        meta: None,
        cleared_by: None,
    };
    served.fake.change("c-1".into(), CatalogueChange::FullSync(vec![flag])).await.unwrap();
    let directive = till.expect("server:directive").await;
    assert_eq!(at(&directive, &["directive"]).as_str(), Some("full-sync-flag"));
    other.silent().await;
    till.say(r#"{"type":"client:request:snapshot"}"#).await;
    let snapshot = till.expect("server:snapshot").await;
    assert_eq!(at(&snapshot, &["fullSyncFlags"]).as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_that_reads_nothing_delays_nobody() {
    let served = Served::new(|_| {}).await;
    let mut slow = served.open("/ws").await;
    subscribe(&mut slow, "sync-table::dar::pos::tickets").await;
    subscribe(&mut slow, "loud").await;
    let (mut till, mut quick) = (served.enter("dar").await, served.enter("dar").await);
    subscribe(&mut quick, "loud").await;
    let events = 500;
    let fake = served.fake.clone();
    let writer = tokio::task::spawn_blocking(move || {
        for n in 0..events {
            fake.write("dar", "pos", ticket(&format!("t-{n}")));
        }
    });
    let large = "x".repeat(20_000);
    for n in 0..200 {
        say(&mut till, "loud", &format!(r#"{{"n":{n},"text":"{large}{n}"}}"#)).await;
    }
    let (mut last, mut events_seen) = (None, 0);
    while last != Some(199) || events_seen < events {
        let frame = quick.next().await;
        match at(&frame, &["type"]).as_str() {
            Some("publish") => {
                let data = at(&frame, &["data"]);
                let of = data.get("set").or_else(|| data.get("snapshot")).unwrap();
                last = of.get("n").and_then(Value::as_u64);
            }
            _ => events_seen += 1,
        }
    }
    writer.await.unwrap();
}

#[tokio::test]
async fn a_topic_is_read_again_when_its_branch_comes_to_be() {
    use actors::Store as _;
    let served = Served::new(|_| {}).await;
    // Else there is a branch of any name.
    let no_defaults = CatalogueChange::Patterns { patterns: Vec::new(), defaults: Vec::new() };
    served.fake.change("no-defaults".into(), no_defaults).await.unwrap();
    let mut board = served.open("/ws").await;
    let topic = "sync-table::a::pos::tickets";
    subscribe(&mut board, topic).await;
    let branch = model::BranchConfig {
        id: model::BranchId::parse("a::pos").unwrap(),
        label: "a::pos".to_owned(),
        modules: vec![model::ModuleId::parse("pos").unwrap()],
        seeds: std::collections::BTreeMap::new(),
    };
    let change = CatalogueChange::AddBranch(std::sync::Arc::new(branch));
    served.fake.change("make".to_owned(), change).await.unwrap();
    served.fake.write("a::pos", "pos", ticket("a"));
    let heard = heard(&mut board, topic).await;
    assert_eq!(at(&heard, &["snapshot", "recordRef", "key"]).as_str(), Some("a"));
}
