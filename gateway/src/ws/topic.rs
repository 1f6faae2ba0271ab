//! Topic: what the name of a topic says about where its messages come from
//! (docs/original/socket.md#topics).
//!
//! A branch's name may contain `:` and `::`, a module's and a table's may not. Names are therefore
//! read from the right, and a few still have two readings: `sync-table::a::pos::t` is table `t` of
//! module `pos` of branch `a`, or table `t` of branch `a::pos`. `Topic::resolve` chooses by what
//! exists; what clients may say under a name is decided by all its readings, so that it does not
//! depend on what exists where and when.

use model::{BranchId, BranchKey, Catalogue, ModuleId};

/// Where a topic's words come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TopicSource {
    /// From a table's events: `sync-table::{b}::{m}::{t}`, `sync-table::{b}::{t}`, `table::{t}`.
    /// Without a branch it is the session's own.
    Table { branch: Option<BranchId>, module: Option<ModuleId>, table: String },
    /// From a branch's events on a table that was named by an alias, and from clients.
    Channel { branch: BranchId, channel: Channel },
    /// From publishes over sockets and from clients: `sync::{b}::{m}`, `pos:sync:{b}`.
    Sync(BranchKey),
    /// From nowhere: it begins as the topics of tables do and names no table that could be.
    Reserved,
    /// From clients alone.
    Free,
}

/// How the topics of tables begin: one that names a branch, and one of the session's own.
const TABLE_PREFIXES: [&str; 2] = ["sync-table::", "table::"];

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

impl TopicSource {
    /// All that a topic's name can mean, whether it exists or not: at least one reading, at most
    /// two. Where nothing else decides, the earlier one is meant.
    pub(crate) fn readings(name: &str) -> Vec<Self> {
        let mut readings = Self::tables(name);
        readings.extend(Self::sync(name));
        readings.extend(Self::channel(name));
        if readings.is_empty() {
            let reserved = TABLE_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
            readings.push(if reserved { Self::Reserved } else { Self::Free });
        }
        readings
    }

    /// What a topic's name means where this exists: the reading of a configured branch, else of
    /// one that a pattern names, else of any module there is, else the earlier one.
    pub(crate) fn resolve(name: &str, catalogue: &Catalogue) -> Self {
        let mut readings = Self::readings(name).into_iter();
        let first = readings.next().unwrap_or(Self::Free);
        readings.fold(first, |best, next| {
            let is_better = next.evidence(catalogue) > best.evidence(catalogue);
            if is_better { next } else { best }
        })
    }

    /// How much of what a reading names exists.
    fn evidence(&self, catalogue: &Catalogue) -> u8 {
        let listed = |branch: &BranchId, found: bool| match (found, catalogue.branch(branch)) {
            (true, Some(_)) => 3,
            (true, None) => 2,
            (false, _) => 0,
        };
        let of_module = |branch: &BranchId, module: &ModuleId| {
            let is_listed = catalogue.modules_of(branch).contains(module);
            listed(branch, is_listed).max(u8::from(catalogue.module(module).is_some()))
        };
        let has = |module: &ModuleId, table: &str| {
            catalogue.module(module).is_some_and(|module| module.schema.resolve(table).is_some())
        };
        match self {
            Self::Table { branch: Some(branch), module: Some(module), table } => {
                if has(module, table) { of_module(branch, module) } else { 0 }
            }
            Self::Table { branch: Some(branch), module: None, table } => {
                let mut modules = catalogue.modules_of(branch).into_iter();
                listed(branch, modules.any(|module| has(&module, table)))
            }
            Self::Sync(key) => of_module(&key.branch, &key.module),
            Self::Channel { branch, .. } => {
                let mut modules = catalogue.modules_of(branch).into_iter();
                listed(branch, modules.any(|module| module.as_str() == POS))
            }
            Self::Table { branch: None, .. } | Self::Reserved | Self::Free => 0,
        }
    }

    fn tables(name: &str) -> Vec<Self> {
        let of = |branch: Option<&str>, module: Option<&str>, table: &str| {
            // No table's name or alias has a colon.
            if table.is_empty() || table.contains(':') {
                return None;
            }
            let branch = branch.map(BranchId::parse).transpose().ok()?;
            let module = module.map(ModuleId::parse).transpose().ok()?;
            Some(Self::Table { branch, module, table: table.to_owned() })
        };
        if let Some(table) = name.strip_prefix("table::") {
            return of(None, None, table).into_iter().collect();
        }
        let rest = name.strip_prefix("sync-table::").and_then(|rest| rest.rsplit_once("::"));
        let Some((place, table)) = rest else { return Vec::new() };
        let with_module = place
            .rsplit_once("::")
            .and_then(|(branch, module)| of(Some(branch), Some(module), table));
        with_module.into_iter().chain(of(Some(place), None, table)).collect()
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
            Self::Reserved | Self::Free => 5,
        }
    }

    /// Whether clients may post under it.
    pub(crate) fn takes_posts(&self) -> bool {
        match self {
            Self::Table { .. } | Self::Reserved => false,
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

/// The topic of a branch's channel.
pub(crate) fn channel_topic(branch: &BranchId, channel: Channel) -> String {
    format!("{branch}:{}", channel.name())
}

#[cfg(test)]
mod tests;
