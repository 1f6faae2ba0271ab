//! Topics whose names have colons, forged posts, and what a socket may have of both; the stories of
//! topics are scripts.

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
pub(super) fn order(offset: u64, client: Option<&str>) -> Delta {
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
    /// Another branch of the list, with `pos` and `stock`.
    pub(super) fn add_branch(&mut self, name: &str) {
        let modules = ["pos", "stock"].map(|id| ModuleId::parse(id).unwrap()).into();
        self.catalogue.branches.put(Arc::new(model::BranchConfig {
            id: BranchId::parse(name).unwrap(),
            label: name.into(),
            modules,
            seeds: BTreeMap::new(),
        }));
    }

    /// What comes of the catalogue that is there now.
    pub(super) fn catalogue_changes(&mut self) -> Vec<String> {
        let cx = SessionContext { now: AT, catalogue: &self.catalogue };
        in_words(&self.session.on_catalogue(cx))
    }
}

#[test]
fn a_topic_has_a_short_name_and_a_socket_few_of_them() {
    let mut story = Story::begin();
    assert!(story.says(&subscribe(&"x".repeat(513)))[0].contains("invalid-topic"));
    for n in 0..crate::limits::TOPICS_MAX {
        assert_eq!(story.says(&subscribe(&n.to_string())).len(), 2);
    }
    assert!(story.says(&subscribe("more"))[0].contains("too-many-topics"));
}

#[test]
fn what_a_client_posts_must_be_small() {
    let mut story = Story::begin();
    let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(crate::limits::TOPIC_DATA_BYTES_MAX));
    assert!(story.says(&post("t", &large))[0].contains("topic-data-too-large"));
}

#[test]
fn the_tables_that_a_post_brings_replace_those_of_its_module() {
    let mut story = Story::begin();
    let data = r#"{"trans_id":"t","snapshot":{"version":4,"tables":{"tickets":[{"id":"a"}]}}}"#;
    let cx = SessionContext { now: AT, catalogue: &story.catalogue };
    let actions = story.session.on_message(post("pos:sync:dar", data).as_bytes(), cx);
    let [SessionAction::Submit(command)] = &actions[..] else { panic!("one command") };
    let model::Request::Replace(replace) = &command.request else { panic!("{command:?}") };
    assert_eq!(replace.revision, Some(4));
    assert!(replace.tables.get("tickets").is_some());
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
            story.add_branch(name);
            let sent = story.says(&subscribe(&topic));
            let feeds = sent.iter().filter(|line| line.starts_with("follow pos")).count();
            assert_eq!((sent[0].clone(), feeds), (ack(&topic), 1), "{topic}: {sent:?}");
        }
    }
}

#[test]
fn no_client_speaks_as_a_table_of_any_branch() {
    let mut story = Story::begin();
    story.add_branch("cairo::zamalek");
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
