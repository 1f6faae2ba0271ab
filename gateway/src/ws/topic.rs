//! Topic: what the name of a topic says about where its words come from (contract.md 6.4).

use std::borrow::Cow;

use model::{BranchId, BranchKey, ModuleId};
use serde::Deserialize;
use serde::de::IgnoredAny;

/// Where a topic's words come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Topic {
    /// From a table's events: `sync-table::{b}::{m}::{t}`, `sync-table::{b}::{t}`, `table::{t}`.
    /// Without a branch it is the session's own.
    Table { branch: Option<BranchId>, module: Option<ModuleId>, table: String },
    /// From a branch's events on a table that was named by an alias, and from clients.
    Channel { branch: BranchId, channel: Channel },
    /// From publishes over sockets and from clients: `sync::{b}::{m}`, `pos:sync:{b}`.
    Sync(BranchKey),
    /// From clients alone.
    Free,
}

/// The channels of a branch that tills and kitchens share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Channel {
    Orders,
    Jobs,
    Payments,
}

impl Channel {
    const ALL: [Self; 3] = [Self::Orders, Self::Jobs, Self::Payments];

    /// Its name within the branch.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Orders => "pos:kds:orders",
            Self::Jobs => "kds:jobs:updates",
            Self::Payments => "pos:payments",
        }
    }

    /// The table names, as sent, that it tells of.
    fn aliases(self) -> &'static [&'static str] {
        match self {
            Self::Orders => &["orders"],
            Self::Jobs => &["job_orders", "job_order_headers", "jobs"],
            Self::Payments => &["payments", "order_payments"],
        }
    }

    /// The channel that tells of a table named so.
    pub(crate) fn of_table(sent: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|channel| channel.aliases().contains(&sent))
    }
}

/// The module whose tills and kitchens share channels.
pub(crate) const POS: &str = "pos";

impl Topic {
    /// Reads a topic's name. What names no branch, module or table that could be is free.
    pub(crate) fn parse(name: &str) -> Self {
        Self::table(name)
            .or_else(|| Self::sync(name))
            .or_else(|| Self::channel(name))
            .unwrap_or(Self::Free)
    }

    fn table(name: &str) -> Option<Self> {
        let parts: Vec<&str> = name.split("::").collect();
        let (branch, module, table) = match parts[..] {
            ["table", table] => (None, None, table),
            ["sync-table", branch, table] => (Some(branch), None, table),
            ["sync-table", branch, module, table] => (Some(branch), Some(module), table),
            _ => return None,
        };
        let branch = branch.map(BranchId::parse).transpose().ok()?;
        let module = module.map(ModuleId::parse).transpose().ok()?;
        Some(Self::Table { branch, module, table: table.to_owned() })
    }

    fn sync(name: &str) -> Option<Self> {
        let (branch, module) = match name.strip_prefix("sync::") {
            Some(rest) => rest.rsplit_once("::")?,
            None => (name.strip_prefix("pos:sync:")?, POS),
        };
        let (branch, module) = (BranchId::parse(branch).ok()?, ModuleId::parse(module).ok()?);
        Some(Self::Sync(BranchKey::new(branch, module)))
    }

    fn channel(name: &str) -> Option<Self> {
        Channel::ALL.into_iter().find_map(|channel| {
            let branch = name.strip_suffix(channel.name())?.strip_suffix(':')?;
            Some(Self::Channel { branch: BranchId::parse(branch).ok()?, channel })
        })
    }

    /// Which topics are told of an event first: those of one table, the narrower the earlier.
    pub(crate) fn rank(&self) -> u8 {
        match self {
            Self::Table { module: Some(_), .. } => 0,
            Self::Table { branch: Some(_), .. } => 1,
            Self::Table { .. } => 2,
            Self::Channel { .. } => 3,
            Self::Sync(_) => 4,
            Self::Free => 5,
        }
    }

    /// Whether clients may post under it.
    pub(crate) fn takes_posts(&self) -> bool {
        match self {
            Self::Table { .. } => false,
            Self::Channel { .. } | Self::Sync(_) | Self::Free => true,
        }
    }
}

/// The topics that tell of a module's changes: `sync::{b}::{m}`, and `pos:sync:{b}` for `pos`.
pub(crate) fn sync_topics(key: &BranchKey) -> Vec<String> {
    let mut topics = vec![format!("sync::{}::{}", key.branch, key.module)];
    if key.module.as_str() == POS {
        topics.push(format!("pos:sync:{}", key.branch));
    }
    topics
}

/// Whether a message is a post with a snapshot under a sync topic. It is only skimmed: nothing of
/// it is kept.
pub(crate) fn brings_snapshot(message: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Frame<'a> {
        #[serde(borrow)]
        r#type: Cow<'a, str>,
        #[serde(borrow)]
        topic: Cow<'a, str>,
        data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        snapshot: Option<IgnoredAny>,
    }
    serde_json::from_slice::<Frame<'_>>(message).is_ok_and(|frame| {
        frame.r#type == "publish"
            && frame.data.snapshot.is_some()
            && matches!(Topic::parse(&frame.topic), Topic::Sync(_))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(branch: &str, module: &str) -> BranchKey {
        BranchKey::new(BranchId::parse(branch).unwrap(), ModuleId::parse(module).unwrap())
    }

    #[test]
    fn a_name_says_where_its_words_come_from() {
        let branch = |name: &str| BranchId::parse(name).unwrap();
        let table = |branch, module: Option<&str>, table: &str| Topic::Table {
            branch,
            module: module.map(|module| ModuleId::parse(module).unwrap()),
            table: table.to_owned(),
        };
        for (name, topic) in [
            ("table::orders", table(None, None, "orders")),
            ("sync-table::dar::orders", table(Some(branch("dar")), None, "orders")),
            ("sync-table::lab:a::pos::t", table(Some(branch("lab:a")), Some("pos"), "t")),
            ("sync::lab:a::pos", Topic::Sync(key("lab:a", "pos"))),
            ("pos:sync:dar", Topic::Sync(key("dar", "pos"))),
            (
                "lab:a:pos:kds:orders",
                Topic::Channel { branch: branch("lab:a"), channel: Channel::Orders },
            ),
            (
                "dar:pos:payments",
                Topic::Channel { branch: branch("dar"), channel: Channel::Payments },
            ),
            ("dar:kds:delivery:updates", Topic::Free),
            ("sync::dar::POS", Topic::Free),
            (":pos:payments", Topic::Free),
            ("free:topic", Topic::Free),
        ] {
            assert_eq!(Topic::parse(name), topic, "{name}");
        }
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

    #[test]
    fn only_a_snapshot_under_a_sync_topic_may_be_large() {
        let post = |topic: &str, data: &str| {
            format!(r#"{{"type":"publish","topic":"{topic}","data":{data}}}"#)
        };
        let snapshot = r#"{"trans_id":"t","snapshot":{"tables":{"t":[{}]}}}"#;
        assert!(brings_snapshot(post("pos:sync:dar", snapshot).as_bytes()));
        for other in [
            post("free", snapshot),
            post("sync::dar::pos", r#"{"trans_id":"t"}"#),
            post("sync::dar::pos", r#"{"snapshot":null}"#),
            post("sync::dar::pos", "[]"),
            post("sync::dar::pos", snapshot).replace("publish", "client:publish"),
            format!("{}x", post("sync::dar::pos", snapshot)),
        ] {
            assert!(!brings_snapshot(other.as_bytes()), "{other}");
        }
    }
}
