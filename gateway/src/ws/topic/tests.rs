//! Which readings a name has, which of them is meant, and that none takes what another refuses.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{BranchConfig, BranchPattern, ModuleConfig, Schema, Validation, Value, VersionRule};
use proptest::prelude::*;

use super::*;

fn branch(name: &str) -> BranchId {
    BranchId::parse(name).unwrap()
}

fn key(branch: &str, module: &str) -> BranchKey {
    BranchKey::new(BranchId::parse(branch).unwrap(), ModuleId::parse(module).unwrap())
}

fn table(name: Option<&str>, module: Option<&str>, table: &str) -> TopicSource {
    TopicSource::Table {
        branch: name.map(branch),
        module: module.map(|module| ModuleId::parse(module).unwrap()),
        table: table.to_owned(),
    }
}

fn channel(name: &str, channel: Channel) -> TopicSource {
    TopicSource::Channel { branch: branch(name), channel }
}

/// These branches, each with `pos` and `stock`, which have the table `t`; branches that begin with
/// `lab` have `pos` by a pattern.
fn catalogue(branches: &[&str]) -> Catalogue {
    let doc = r#"[{"name":"t","fields":[{"name":"id","type":"string","primaryKey":true}]}]"#;
    let schema = Schema::from_definition("pos", &Value::from_json(doc.as_bytes()).unwrap());
    let schema = Arc::new(schema.unwrap());
    let id = |id: &str| ModuleId::parse(id).unwrap();
    let module = |name: &str| ModuleConfig {
        id: id(name),
        label: String::new(),
        description: String::new(),
        tables: Vec::new(),
        source: Arc::new(Value::Null),
        schema: Arc::clone(&schema),
        validation: Validation::Strict,
        version_rule: VersionRule::Read,
        seed: None,
        dedup: model::DedupLimits::default(),
    };
    let config = |name: &str| BranchConfig {
        id: branch(name),
        label: String::new(),
        modules: vec![id("pos"), id("stock")],
        seeds: BTreeMap::new(),
    };
    let mut catalogue = Catalogue::default();
    catalogue.modules =
        ["pos", "stock", "extra"].map(|name| Arc::new(module(name))).into_iter().collect();
    catalogue.branches = branches.iter().map(|name| Arc::new(config(name))).collect();
    catalogue.patterns = vec![BranchPattern { matches: "^lab".into(), modules: vec![id("pos")] }];
    catalogue
}

#[test]
fn a_name_is_read_from_the_right() {
    for (name, readings) in [
        ("table::orders", vec![table(None, None, "orders")]),
        ("sync-table::dar::orders", vec![table(Some("dar"), None, "orders")]),
        (
            "sync-table::lab:a::pos::t",
            vec![table(Some("lab:a"), Some("pos"), "t"), table(Some("lab:a::pos"), None, "t")],
        ),
        (
            "sync-table::cairo::zamalek::pos::t",
            vec![
                table(Some("cairo::zamalek"), Some("pos"), "t"),
                table(Some("cairo::zamalek::pos"), None, "t"),
            ],
        ),
        (
            "sync-table::a:::pos::t",
            vec![table(Some("a:"), Some("pos"), "t"), table(Some("a:::pos"), None, "t")],
        ),
        ("sync-table::::a::POS::t", vec![table(Some("::a::POS"), None, "t")]),
        ("sync::lab:a::pos", vec![TopicSource::Sync(key("lab:a", "pos"))]),
        ("sync::a::b:::pos", vec![TopicSource::Sync(key("a::b:", "pos"))]),
        ("pos:sync:dar", vec![TopicSource::Sync(key("dar", "pos"))]),
        ("lab:a:pos:kds:orders", vec![channel("lab:a", Channel::Orders)]),
        ("dar:pos:payments", vec![channel("dar", Channel::Payments)]),
        ("sync-table::a:pos:payments", vec![channel("sync-table::a", Channel::Payments)]),
        (
            "pos:sync:a:kds:jobs:updates",
            vec![
                TopicSource::Sync(key("a:kds:jobs:updates", "pos")),
                channel("pos:sync:a", Channel::Jobs),
            ],
        ),
        ("dar:kds:delivery:updates", vec![TopicSource::Free]),
        ("sync::dar::POS", vec![TopicSource::Free]),
        (":pos:payments", vec![TopicSource::Free]),
        ("free:topic", vec![TopicSource::Free]),
        ("sync-table::", vec![TopicSource::Reserved]),
        ("sync-table::a/b::pos::t", vec![TopicSource::Reserved]),
        ("table::a::b", vec![TopicSource::Reserved]),
    ] {
        assert_eq!(TopicSource::readings(name), readings, "{name}");
    }
}

#[test]
fn what_exists_decides_between_two_readings() {
    let name = "sync-table::cairo::pos::t";
    let of_cairo = table(Some("cairo"), Some("pos"), "t");
    let of_cairo_pos = table(Some("cairo::pos"), None, "t");
    for (branches, meant) in [
        (&["cairo"][..], &of_cairo),
        (&["cairo::pos"], &of_cairo_pos),
        (&["cairo", "cairo::pos"], &of_cairo),
        (&[], &of_cairo),
    ] {
        assert_eq!(TopicSource::resolve(name, &catalogue(branches)), *meant, "{branches:?}");
    }
    let resolve = |name: &str, branches: &[&str]| TopicSource::resolve(name, &catalogue(branches));
    let by_pattern = table(Some("lab"), Some("pos"), "t");
    assert_eq!(resolve("sync-table::lab::pos::t", &[]), by_pattern);
    let configured = table(Some("lab::pos"), None, "t");
    assert_eq!(resolve("sync-table::lab::pos::t", &["lab::pos"]), configured);
    let unlisted = table(Some("cairo"), Some("extra"), "t");
    assert_eq!(resolve("sync-table::cairo::extra::t", &["cairo"]), unlisted);
    let name = "pos:sync:a:pos:payments";
    assert_eq!(resolve(name, &["pos:sync:a"]), channel("pos:sync:a", Channel::Payments));
    let both = ["pos:sync:a", "a:pos:payments"];
    assert_eq!(resolve(name, &both), TopicSource::Sync(key("a:pos:payments", "pos")));
}

#[test]
fn only_an_alias_is_told_of_in_a_channel() {
    assert_eq!(Channel::of_table("orders"), Some(Channel::Orders));
    assert_eq!(Channel::of_table("payments"), Some(Channel::Payments));
    assert_eq!(Channel::of_table("order_header"), None);
}

#[test]
fn a_module_has_its_sync_topics() {
    assert_eq!(sync_topics(&key("dar", "pos")), ["sync::dar::pos", "pos:sync:dar"]);
    assert_eq!(sync_topics(&key("dar", "crm")), ["sync::dar::crm"]);
}

/// Any name a branch may have, often one that looks like a part of a topic.
fn any_branch() -> impl Strategy<Value = BranchId> {
    let piece = prop::sample::select(vec![
        ":",
        "::",
        "a",
        "pos",
        "t",
        "sync",
        "sync-table",
        "table",
        "stock",
        "kds:orders",
        "pos:sync:",
        "pos:payments",
        "kds:jobs:updates",
        " ",
        "%3A",
        "?",
        "#",
        "دار",
        "🏪",
        "..",
    ]);
    let pieces = prop::collection::vec(piece, 1..7).prop_map(|pieces| pieces.concat());
    let any = prop_oneof![3 => pieces, 1 => "\\PC{1,40}"];
    any.prop_filter_map("a branch's name", |name| BranchId::parse(&name).ok())
}

fn any_module() -> impl Strategy<Value = ModuleId> {
    let name = prop_oneof![Just("pos".to_owned()), Just("stock".to_owned()), "[a-z0-9_-]{1,9}"];
    name.prop_filter_map("a module's name", |name| ModuleId::parse(&name).ok())
}

proptest! {
    #[test]
    fn a_topic_of_a_change_is_read_back_to_the_change(
        branch in any_branch(),
        module in any_module(),
        table in "[A-Za-z_][A-Za-z0-9_]{0,9}",
    ) {
        let key = BranchKey::new(branch.clone(), module.clone());
        for name in sync_topics(&key) {
            prop_assert!(TopicSource::readings(&name).contains(&TopicSource::Sync(key.clone())), "{}", name);
        }
        for channel in Channel::ALL {
            let (name, topic) = (channel_topic(&branch, channel), TopicSource::Channel {
                branch: branch.clone(),
                channel,
            });
            prop_assert!(TopicSource::readings(&name).contains(&topic), "{}", name);
        }
        // Where only its branch exists, that is what every one of its topics means.
        let exists = catalogue(&[branch.as_str()]);
        let known = exists.module(&module).is_some();
        if known && module.as_str() != "extra" && !branch.as_str().contains("lab") {
            for name in sync_topics(&key) {
                prop_assert_eq!(TopicSource::resolve(&name, &exists), TopicSource::Sync(key.clone()));
            }
            let of = |module| TopicSource::Table { branch: Some(branch.clone()), module, table: "t".into() };
            let long = format!("sync-table::{branch}::{module}::t");
            prop_assert_eq!(TopicSource::resolve(&long, &exists), of(Some(module.clone())));
            let short = format!("sync-table::{branch}::t");
            prop_assert_eq!(TopicSource::resolve(&short, &exists), of(None));
        }
        let names = [
            format!("sync-table::{branch}::{module}::{table}"),
            format!("sync-table::{branch}::{table}"),
            format!("table::{table}"),
        ];
        for name in names {
            prop_assert!(TopicSource::readings(&name).iter().all(|topic| !topic.takes_posts()), "{}", name);
        }
    }

    #[test]
    fn no_name_that_takes_posts_is_that_of_a_table(
        parts in prop::collection::vec(any_branch(), 1..4),
        prefix in prop::sample::select(vec!["sync-table::", "table::", "sync::", "pos:sync:", ""]),
    ) {
        let parts: Vec<&str> = parts.iter().map(BranchId::as_str).collect();
        let name = format!("{prefix}{}", parts.join("::"));
        let readings = TopicSource::readings(&name);
        prop_assert!((1..=2).contains(&readings.len()), "{:?}", readings);
        if readings.iter().any(TopicSource::takes_posts) {
            let tables = |topic: &TopicSource| matches!(topic, TopicSource::Table { .. } | TopicSource::Reserved);
            prop_assert!(!readings.iter().any(tables), "{}: {:?}", name, readings);
        }
    }
}
