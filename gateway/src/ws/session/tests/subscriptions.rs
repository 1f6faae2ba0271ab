//! Stories of topics: what feeds them, what is said under them, and what is not.

use actors::Post;
use model::{BulkOperation, Events, ModuleChange};

use super::*;

fn subscribe(topic: &str) -> String {
    format!(r#"{{"type":"subscribe","topic":"{topic}"}}"#)
}

fn post(topic: &str, data: &str) -> String {
    format!(r#"{{"type":"publish","topic":"{topic}","data":{data}}}"#)
}

fn ack(topic: &str) -> String {
    format!(r#"{{"type":"ack","event":"subscribe","topic":"{topic}"}}"#)
}

/// A change of an order under the name `orders`, over a socket or not.
fn order(offset: u64, client: Option<&str>) -> Delta {
    let mut delta = delta("pos", offset, "x/1");
    let mut event = (*delta.events[0]).clone();
    event.origin = Arc::new(Origin { client: client.map(str::to_owned), ..Origin::default() });
    if let EventChange::Record(change) = &mut event.change {
        change.table = TableName::parse("order_header").unwrap();
        change.table_sent = Some("orders".into());
    }
    delta.events = vec![Arc::new(event)];
    delta
}

impl Story {
    fn says_post(&mut self, call: CallId, topic: &str, data: &str) -> Vec<String> {
        let data = Value::from_json(data.as_bytes()).unwrap().as_object().unwrap().clone();
        in_words(&self.session.on_post(call, Arc::new(Post { topic: topic.into(), data })))
    }

    fn recalls(&mut self, call: CallId, events: Vec<Arc<Event>>) -> Vec<String> {
        let last = events.last().map_or(Offset(0), |event| event.offset);
        let found = Events { incarnation: Incarnation(1), last, events: Some(events) };
        self.answers(call, Ok(Answer::Events(found)))
    }
}

#[test]
fn a_subscription_needs_a_topic_and_is_acknowledged() {
    let mut story = Story::begin();
    let refused =
        r#"{"type":"error","code":"invalid-topic","message":"Subscription topic required."}"#;
    assert_eq!(story.says(r#"{"type":"subscribe"}"#), [refused]);
    assert_eq!(story.says(r#"{"type":"subscribe","room":"1:2"}"#), [refused]);
    assert_eq!(
        story.says(&subscribe("free:topic")),
        [ack("free:topic"), "listen to free:topic as 1".into()]
    );
    assert_eq!(
        story.says(r#"{"type":"unsubscribe","topic":"free:topic"}"#),
        ["drop 1", r#"{"type":"ack","event":"unsubscribe","topic":"free:topic"}"#]
    );
    assert_eq!(story.says_post(1, "free:topic", "{}"), ["drop 1"]);
    assert!(story.says(&subscribe(&"x".repeat(513)))[0].contains("invalid-topic"));
    for n in 0..crate::limits::TOPICS_MAX {
        assert_eq!(story.says(&subscribe(&n.to_string())).len(), 2);
    }
    assert!(story.says(&subscribe("more"))[0].contains("too-many-topics"));
}

#[test]
fn a_free_topic_says_all_at_first_then_what_changed() {
    let mut story = Story::begin();
    story.says(&subscribe("t"));
    let empty_post = Arc::new(Post { topic: "t".into(), data: Object::new() });
    assert_eq!(
        in_words(&story.session.on_topic_subscribed(1, Ok(Some(empty_post)))),
        [r#"{"type":"publish","topic":"t","data":{"mode":"snapshot","snapshot":{}}}"#]
    );
    assert_eq!(
        story.says_post(1, "t", r#"{"a":1}"#),
        [r#"{"type":"publish","topic":"t","data":{"mode":"delta","set":{"a":1}}}"#]
    );
    assert!(story.says_post(1, "t", r#"{"a":1}"#).is_empty());
    assert_eq!(
        story.says(&subscribe("t"))[1],
        r#"{"type":"publish","topic":"t","data":{"mode":"snapshot","snapshot":{"a":1}}}"#
    );
}

#[test]
fn what_is_said_is_said_in_order_and_without_an_answer() {
    let mut story = Story::begin();
    assert_eq!(story.says(&post("t", r#"{"a":1}"#)), [r#"say t {"a":1}"#]);
    assert!(story.says(&post("t", "7")).is_empty(), "it waits for the first");
    assert_eq!(in_words(&story.session.on_posted(Ok(()))), ["say t {}"]);
    let sent = in_words(&story.session.on_posted(Err(RouteError::Indeterminate)));
    assert!(sent[0].contains(r#""code":"outcome-unknown""#), "{sent:?}");
    assert!(story.says(r#"{"type":"publish","data":{}}"#).is_empty());
    let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(crate::limits::TOPIC_DATA_BYTES_MAX));
    assert!(story.says(&post("t", &large))[0].contains("topic-data-too-large"));
    assert!(story.says(&post("table::orders", "{}"))[0].contains("topic-not-writable"));
}

#[test]
fn a_table_is_told_of_under_each_of_its_names() {
    let mut story = Story::live();
    for topic in ["sync-table::dar::pos::order_header", "sync-table::dar::orders", "table::orders"]
    {
        assert_eq!(story.says(&subscribe(topic)), [ack(topic)]);
    }
    story.says(&subscribe("table::tickets"));
    let sent = story.came(1, order(1, None));
    assert_eq!(sent.len(), 4, "{sent:?}");
    assert_eq!(sent[0], "server:event 1");
    assert_eq!(
        sent[2],
        r#"{"type":"publish","topic":"sync-table::dar::orders","data":{"mode":"snapshot","snapshot":{"type":"table:update","branchId":"dar","moduleId":"pos","table":"orders","action":"module:insert","recordRef":{"table":"orders","key":"k","primaryKey":{"id":"k"},"id":"k"},"eventId":"evt-1","sequence":1,"version":2,"timestamp":"2026-11-21T00:19:37.740Z","created":true,"deleted":false,"meta":{"serverId":"ws-a","branchId":"dar","moduleId":"pos","table":"orders","timestamp":"2026-11-21T00:19:37.740Z","recordKey":"k","recordId":"k","eventId":"evt-1","sequence":1,"recordRef":{"table":"orders","key":"k","primaryKey":{"id":"k"},"id":"k"}}}}}"#
    );
    assert!(sent[1].contains(r#""moduleId":"pos","table":"order_header","action""#), "{sent:?}");
    let sent = story.came(1, order(2, None));
    assert!(
        sent[1].contains(r#""mode":"delta","set":{"eventId":"evt-2","sequence":2"#),
        "{sent:?}"
    );
    assert!(!sent[1].contains("created"), "{sent:?}");
}

#[test]
fn a_purge_is_told_to_the_tables_it_emptied_before_the_event() {
    let mut story = Story::live();
    story.says(&subscribe("table::tickets"));
    story.says(&subscribe("table::orders"));
    let details = r#"{"tables":[{"table":"tickets","status":"cleared","removed":2},{"table":"order_header","status":"skipped","reason":"x"}],"meta":{"reason":"r"}}"#;
    let sent = story.came(1, modules::operation(BulkOperation::Purge, 1, details));
    assert_eq!(
        sent[..2],
        [
            r#"{"type":"publish","topic":"table::tickets","data":{"mode":"snapshot","snapshot":{"type":"table:update","branchId":"dar","moduleId":"pos","table":"tickets","action":"table:purge","removed":2,"status":"cleared","meta":{"reason":"r","serverId":"ws-a"}}}}"#,
            "server:event 1 module:purge",
        ]
    );
}

#[test]
fn what_was_said_last_is_found_in_the_log() {
    let mut story = Story::begin();
    story.says(r#"{"type":"client:hello","branchId":"remal"}"#);
    story.followed(1, "pos", 300);
    assert_eq!(
        story.says(&subscribe("sync-table::dar::pos::orders"))[1..],
        ["follow pos as 2 from now"]
    );
    assert!(story.session.is_busy(), "it must hear what is published next");
    assert_eq!(
        story.stands(2, 1, 300, true),
        ["open 2", "read events after 44 of pos at 300 as 3"]
    );
    let events = |offset| order(offset, None).events;
    let recent = [events(298), events(299), delta("pos", 300, "x/1").events].concat();
    let sent = story.recalls(3, recent);
    assert_eq!(sent.len(), 1);
    assert!(sent[0].contains(r#""sequence":299,"version":300"#), "{sent:?}");
    let sent = story.came(2, order(301, None));
    assert_eq!(sent.len(), 1, "no event of another branch: {sent:?}");
    assert!(sent[0].contains(r#""mode":"delta""#), "{sent:?}");
}

#[test]
fn what_came_meanwhile_is_not_overtaken_by_what_was_said_last() {
    let mut story = Story::live();
    story.delta(1, "pos", 1, "x/1");
    assert_eq!(
        story.says(&subscribe("table::orders"))[1..],
        ["read events after 0 of pos at 1 as 3"]
    );
    assert_eq!(story.came(1, order(2, None)).len(), 2);
    assert!(story.recalls(3, order(2, None).events).is_empty());
}

#[test]
fn a_topic_without_a_branch_tells_of_the_sessions_own_alone() {
    let mut story = Story::begin();
    assert_eq!(story.says(&subscribe("table::orders")), [ack("table::orders")]);
    let sent = story.says(r#"{"type":"client:hello","branchId":"remal"}"#);
    assert_eq!(sent[1..], ["follow pos as 1"]);
    assert_eq!(
        story.followed(1, "pos", 1),
        ["snapshot initial-sync pos@1", "open 1", "read events after 0 of pos at 1 as 2"]
    );
    let mut own = order(2, None);
    own.key = key("remal", "pos");
    assert_eq!(story.came(1, own).len(), 2);
    let sent = story.says(r#"{"type":"client:hello","branchId":"dar"}"#);
    assert_eq!(sent[0], "drop 1", "nothing of the branch that was left is kept");
    story.followed(3, "pos", 0);
    story.followed(4, "stock", 0);
    let sent = story.came(3, order(1, None));
    assert!(
        sent[1].contains(r#""mode":"snapshot","snapshot":{"type":"table:update","branchId":"dar""#)
    );
}

#[test]
fn a_topic_keeps_its_branch_when_the_session_moves() {
    let mut story = Story::live();
    story.says(&subscribe("sync-table::dar::pos::orders"));
    let sent = story.says(r#"{"type":"client:hello","branchId":"remal"}"#);
    assert_eq!(sent[0], "drop 2", "pos of dar still feeds the topic");
    story.followed(3, "pos", 0);
    let sent = story.came(1, order(1, None));
    assert_eq!(sent.len(), 1, "the event itself is not shown: {sent:?}");
    assert_eq!(
        story.says(r#"{"type":"unsubscribe","topic":"sync-table::dar::pos::orders"}"#)[0],
        "drop 1"
    );
}

#[test]
fn a_module_that_is_followed_for_a_topic_is_shown_from_its_snapshot_on() {
    let mut story = Story::begin();
    story.says(&subscribe("sync-table::dar::pos::orders"));
    story.stands(1, 1, 5, true);
    let sent = story.says(r#"{"type":"client:hello","branchId":"dar"}"#);
    assert_eq!(sent[1..], ["read state of pos now as 3", "follow stock as 4"]);
    assert!(story.session.is_holding());
    story.followed(4, "stock", 0);
    assert_eq!(story.reads(3, "pos", 6), ["snapshot initial-sync pos@6 stock@0", "open 4"]);
    assert_eq!(story.came(1, order(6, None)).len(), 1, "the topic hears it, the snapshot held it");
    assert_eq!(story.came(1, order(7, None)).len(), 2);
}

#[test]
fn a_channel_tells_of_a_table_named_by_its_alias() {
    let mut story = Story::live();
    assert_eq!(
        story.says(&subscribe("dar:pos:kds:orders"))[1..],
        ["listen to dar:pos:kds:orders as 3"]
    );
    let sent = story.came(1, order(1, Some("till")));
    assert_eq!(
        sent[1],
        r#"{"type":"publish","topic":"dar:pos:kds:orders","data":{"mode":"snapshot","snapshot":{"type":"branch:table-notice","table":"orders","moduleId":"pos","action":"module:insert","eventId":"evt-1","sequence":1,"recordRef":{"table":"orders","key":"k","primaryKey":{"id":"k"},"id":"k"},"meta":{"serverId":"ws-a","branchId":"dar","moduleId":"pos","table":"orders","timestamp":"2026-11-21T00:19:37.740Z","recordKey":"k","recordId":"k","eventId":"evt-1","sequence":1,"recordRef":{"table":"orders","key":"k","primaryKey":{"id":"k"},"id":"k"}},"branchId":"dar","topic":"pos:kds:orders","publishedAt":"2026-11-21T00:19:37.740Z"}}}"#
    );
    assert_eq!(
        sent[2],
        r#"{"type":"publish","topic":"dar:pos:kds:orders","data":{"mode":"delta","set":{"type":"branch:delta","version":2,"mutationId":null,"meta":{"branchId":"dar","moduleId":"pos","serverId":"ws-a","version":2,"updatedAt":"2026-11-21T00:19:37.740Z","table":"orders","source":"ws-client-insert","clientId":"till"}},"remove":["table","eventId","sequence","recordRef"]}}"#
    );
    assert_eq!(story.came(1, order(2, None)).len(), 2, "not over a socket: the notice alone");
    assert_eq!(story.delta(1, "pos", 3, "x/1").len(), 1, "no alias: nothing");
    assert_eq!(story.says_post(3, "dar:pos:kds:orders", r#"{"a":1}"#).len(), 1);
}

#[test]
fn a_sync_topic_shows_the_state_of_now_and_only_when_it_changed() {
    let mut story = Story::live();
    assert_eq!(story.says(&subscribe("sync::dar::pos"))[1..], ["listen to sync::dar::pos as 3"]);
    assert_eq!(story.came(1, order(1, None)), ["server:event 1"], "not over a socket");
    assert_eq!(
        story.came(1, order(2, Some("till"))),
        ["server:event 2", "read state of pos at 2 as 4"]
    );
    assert_eq!(
        story.reads(4, "pos", 2),
        [
            r#"{"type":"publish","topic":"sync::dar::pos","data":{"mode":"snapshot","snapshot":{"action":"module:insert","branchId":"dar","moduleId":"pos","version":3,"snapshot":{"moduleId":"pos","branchId":"dar","version":3,"tables":{},"meta":{"lastUpdatedAt":"2026-11-21T00:19:37.740Z","counter":0,"labCounter":0}},"mutationId":null,"meta":{"branchId":"dar","moduleId":"pos","serverId":"ws-a","version":3,"updatedAt":"2026-11-21T00:19:37.740Z","table":"orders","source":"ws-client-insert","clientId":"till"}}}}"#
        ]
    );
    assert_eq!(
        story.says_post(3, "sync::dar::pos", r#"{"action":"notify","trans_id":"t1"}"#),
        ["read state of pos at 2 as 5"]
    );
    assert_eq!(
        story.reads(5, "pos", 2),
        [
            r#"{"type":"publish","topic":"sync::dar::pos","data":{"mode":"delta","set":{"action":"notify","meta":{"branchId":"dar","moduleId":"pos","serverId":"ws-a","version":3,"updatedAt":"2026-11-21T00:19:37.740Z"},"trans_id":"t1"}}}"#
        ]
    );
    story.came(1, order(3, Some("till")));
    let sent = story.reads(6, "pos", 3);
    assert!(sent[0].contains(r#""snapshot":{"moduleId":"pos""#), "{sent:?}");
}

fn call(repeated: bool) -> Result<Outcome, RouteError> {
    let delta = Arc::new(Delta { events: Vec::new(), ..delta("pos", 1, "x/1") });
    Ok(Outcome::Accepted(Acceptance { delta, reserved: None, repeated }))
}

/// The ticket an action names last.
fn number_of(action: &str) -> CallId {
    action.rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[test]
fn a_word_under_a_sync_topic_takes_its_id_and_is_said_once() {
    let mut story = Story::begin();
    assert_eq!(
        story.says(&post("sync::dar::pos", r#"{"action":"x"}"#)),
        [
            r#"{"type":"error","code":"missing-trans-id","message":"Publish frames must include a trans_id.","topic":"sync::dar::pos"}"#
        ]
    );
    let said =
        r#"{"trans_id":"t1","action":"notify","mutationId":"m1","meta":{"x":1},"table":"orders"}"#;
    assert_eq!(story.says(&post("sync::dar::pos", said)), ["submit trans/dar/pos/t1 to dar:pos"]);
    let first = story.outcome("pos", call(false));
    let [say, read] = &first[..] else { panic!("{first:?}") };
    assert_eq!(*say, format!("say sync::dar::pos {said}"));
    assert!(read.starts_with("read "), "{read}");
    let stand: CallId = number_of(read);
    assert_eq!(in_words(&story.session.on_posted(Ok(()))), [format!("say pos:sync:dar {said}")]);
    assert!(story.session.on_posted(Ok(())).is_empty());
    let head = Ok(Answer::Head(snapshot("pos", 7).head));
    assert_eq!(
        story.answers(stand, head),
        [
            r#"say dar:pos:kds:orders {"type":"branch:delta","branchId":"dar","moduleId":"pos","action":"notify","version":8,"mutationId":"m1","meta":{"branchId":"dar","moduleId":"pos","serverId":"ws-a","version":8,"updatedAt":"2026-11-21T00:19:37.740Z","x":1},"topic":"pos:kds:orders","publishedAt":"2026-11-21T00:19:37.740Z"}"#
        ]
    );
    assert!(story.session.on_posted(Ok(())).is_empty());

    let again = r#"{"trans_id":"t1","action":"notify","mutationId":"m2"}"#;
    for outcome in [call(true), Ok(Outcome::Rejected(Reject::KeyReused))] {
        story.says(&post("sync::dar::pos", again));
        let listens = story.outcome("pos", outcome);
        let [listen] = &listens[..] else { panic!("{listens:?}") };
        let number = number_of(listen);
        let data = Value::from_json(said.as_bytes()).unwrap().as_object().unwrap().clone();
        let last = Arc::new(Post { topic: "sync::dar::pos".into(), data });
        let actions = in_words(&story.session.on_topic_subscribed(number, Ok(Some(last))));
        let [dropped, read] = &actions[..] else { panic!("{actions:?}") };
        assert_eq!(*dropped, format!("drop {number}"));
        let read = number_of(read);
        assert_eq!(
            story.reads(read, "pos", 7),
            [
                r#"{"type":"publish","topic":"sync::dar::pos","data":{"action":"notify","branchId":"dar","moduleId":"pos","version":8,"snapshot":{"moduleId":"pos","branchId":"dar","version":8,"tables":{},"meta":{"lastUpdatedAt":"2026-11-21T00:19:37.740Z","counter":0,"labCounter":0}},"mutationId":"m2","meta":{"branchId":"dar","moduleId":"pos","serverId":"ws-a","version":8,"updatedAt":"2026-11-21T00:19:37.740Z","x":1,"duplicateTrans":true,"transId":"t1","previousMutationId":"m1","ackedMutationId":"m2"},"trans_id":"t1","table":"orders"}}"#
            ]
        );
    }
}

#[test]
fn tables_that_a_word_brings_are_replaced_or_it_is_said_why_not() {
    let mut story = Story::begin();
    let word = r#"{"trans_id":"t","snapshot":{"version":4,"tables":{"tickets":[{"id":"a"}]}}}"#;
    let cx = SessionContext { now: AT, catalogue: &story.catalogue };
    let actions = story.session.on_message(post("pos:sync:dar", word).as_bytes(), cx);
    let [SessionAction::Submit(command)] = &actions[..] else { panic!("one command") };
    let model::Request::Replace(replace) = &command.request else { panic!("{command:?}") };
    assert_eq!(replace.revision, Some(4));
    assert!(replace.tables.get("tickets").is_some());
    let reject = Reject::Replace { reason: "version-regression".into(), details: Object::new() };
    assert_eq!(
        story.outcome("pos", Ok(Outcome::Rejected(reject))),
        [
            r#"{"type":"error","code":"insert-only-violation","message":"Incoming snapshot violates insert-only policy.","topic":"pos:sync:dar","details":{"ok":false,"reason":"version-regression"}}"#
        ]
    );
    story.says(&post("pos:sync:dar", r#"{"trans_id":"u"}"#));
    let sent = story.outcome("pos", Ok(Outcome::Rejected(Reject::Defect)));
    assert!(sent[0].contains(r#""code":"sync-snapshot-failed""#), "{sent:?}");
    assert_eq!(
        story.says(&post("pos:sync:dar", r#"{"trans_id":"v","action":"create-order","order":{}}"#)),
        [
            r#"{"type":"error","code":"order-persist-failed","message":"Incoming snapshot violates insert-only policy."}"#
        ]
    );
}

#[test]
fn tables_replaced_by_a_word_are_not_told_of_twice_under_its_topic() {
    let mut story = Story::live();
    story.says(&subscribe("sync::dar::pos"));
    let replaced = |offset, session: &str| {
        let mut delta =
            modules::operation(BulkOperation::Replace, offset, r#"{"action":"module:replace"}"#);
        let mut event = (*delta.events[0]).clone();
        event.command.session = session.into();
        let (details, records) = (Object::new(), Vec::new());
        event.change = EventChange::Module(ModuleChange {
            operation: BulkOperation::Replace,
            details,
            records,
        });
        delta.events = vec![Arc::new(event)];
        delta
    };
    let sent = story.came(1, replaced(1, "trans/dar/pos"));
    assert_eq!(sent, ["read state of pos at 1 as 4", "read state of stock at 0 as 5"]);
    story.reads(4, "pos", 1);
    story.reads(5, "stock", 0);
    let sent = story.came(1, replaced(2, "rest"));
    assert_eq!(sent[0], "read state of pos at 2 as 6", "for the topic: {sent:?}");
    assert!(story.reads(6, "pos", 2)[0].contains(r#""action":"module:replace""#));
}

#[test]
fn a_word_is_not_shown_with_a_state_before_it() {
    let mut story = Story::live();
    story.says(&subscribe("sync::dar::pos"));
    assert_eq!(story.came(1, order(1, Some("till")))[1..], ["read state of pos at 1 as 4"]);
    assert_eq!(story.came(1, order(2, Some("till"))).len(), 1, "one state at a time is read");
    let sent = story.reads(4, "pos", 1);
    assert_eq!(sent.len(), 2, "{sent:?}");
    assert_eq!(sent[1], "read state of pos at 2 as 5");
    assert!(story.reads(5, "pos", 2)[0].contains(r#""version":3"#));
}

#[test]
fn an_ear_that_was_closed_is_opened_again() {
    let mut story = Story::begin();
    story.says(&subscribe("t"));
    let sent = in_words(&story.session.on_ended(1));
    assert_eq!(sent, ["drop 1", "listen to t as 2"]);
    assert_eq!(story.says_post(2, "t", r#"{"a":1}"#).len(), 1);
}

/// Another branch of the list, with `pos` and `stock`.
fn with_branch(story: &mut Story, name: &str) {
    let modules = ["pos", "stock"].map(|id| ModuleId::parse(id).unwrap()).into();
    story.catalogue.branches.push(Arc::new(model::BranchConfig {
        id: BranchId::parse(name).unwrap(),
        label: name.into(),
        modules,
        seeds: BTreeMap::new(),
    }));
}

/// What comes of the catalogue that is there now.
fn catalogue_changes(story: &mut Story) -> Vec<String> {
    let cx = SessionContext { now: AT, catalogue: &story.catalogue };
    in_words(&story.session.on_catalogue(cx))
}

#[test]
fn a_branch_with_colons_has_all_its_topics() {
    for name in ["cairo::zamalek", "a:", ":a", "::", "sync-table", "sync-table::x", "api", "دار"]
    {
        for topic in [
            format!("sync-table::{name}::pos::tickets"),
            format!("sync-table::{name}::tickets"),
            format!("sync::{name}::pos"),
            format!("pos:sync:{name}"),
            format!("{name}:pos:kds:orders"),
        ] {
            let mut story = Story::begin();
            with_branch(&mut story, name);
            let sent = story.says(&subscribe(&topic));
            let feeds = sent.iter().filter(|line| line.starts_with("follow pos")).count();
            assert_eq!((sent[0].clone(), feeds), (ack(&topic), 1), "{topic}: {sent:?}");
        }
    }
}

#[test]
fn no_client_speaks_as_a_table_of_any_branch() {
    let mut story = Story::begin();
    with_branch(&mut story, "cairo::zamalek");
    let forged = r#"{"type":"table:update","branchId":"cairo::zamalek","table":"tickets"}"#;
    for topic in [
        "sync-table::cairo::zamalek::pos::tickets",
        "sync-table::cairo::zamalek::tickets",
        "sync-table::nowhere::at::all::pos::tickets",
        "sync-table::a/b::pos::tickets",
        "sync-table::x",
        "table::a::b",
        "table::",
    ] {
        let sent = story.says(&post(topic, forged));
        assert!(sent.len() == 1 && sent[0].contains("topic-not-writable"), "{topic}: {sent:?}");
    }
}

#[test]
fn a_channel_that_may_be_a_sync_topic_needs_an_id() {
    let mut story = Story::begin();
    with_branch(&mut story, "pos:sync:a");
    let topic = "pos:sync:a:pos:payments";
    assert!(story.says(&post(topic, r#"{"x":1}"#))[0].contains("missing-trans-id"));
    let said = story.says(&post(topic, r#"{"x":1,"trans_id":"t"}"#));
    assert_eq!(said, [format!(r#"say {topic} {{"x":1,"trans_id":"t"}}"#)]);
}

#[test]
fn a_topic_of_what_comes_to_exist_later_is_fed_then() {
    let mut story = Story::begin();
    let topic = "sync-table::new::branch::tickets";
    assert_eq!(story.says(&subscribe(topic)), [ack(topic)]);
    assert!(catalogue_changes(&mut story).is_empty());
    with_branch(&mut story, "new::branch");
    let sent = catalogue_changes(&mut story);
    assert_eq!(sent, ["follow pos as 1 from now", "follow stock as 2 from now"]);
    assert!(catalogue_changes(&mut story).is_empty());
}
