//! Snapshot: a module's whole state as the wire shows it, and the frame that carries several.

use std::sync::Arc;

use model::{BranchId, FullSyncFlag, ModuleSnapshot, Value};
use serde::{Serialize, Serializer};

use crate::wire::Members;
use crate::wire::cursor::WireCursor;
use crate::wire::flag::Flag;

/// `moduleSnapshot`.
#[derive(Clone, Copy)]
pub(crate) struct ModuleShape<'a>(pub(crate) &'a ModuleSnapshot);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ModuleMeta {
    last_updated_at: String,
    counter: u64,
    lab_counter: u64,
}

impl ModuleShape<'_> {
    /// Its `meta`.
    pub(crate) fn meta(self) -> ModuleMeta {
        ModuleMeta::of(&self.0.head)
    }

    /// Its `tables`.
    pub(crate) fn tables(&self) -> impl Serialize {
        Members(self.0.tables.iter().map(|(name, rows)| (name, rows)))
    }
}

impl ModuleMeta {
    /// The `meta` these counters show.
    pub(crate) fn of(head: &model::Head) -> Self {
        Self {
            last_updated_at: head.last_updated_at.to_iso(),
            counter: head.rows,
            lab_counter: head.rows,
        }
    }
}

impl Serialize for ModuleShape<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Shape<'a, T> {
            module_id: &'a str,
            branch_id: &'a str,
            version: u64,
            tables: T,
            meta: ModuleMeta,
        }
        let head = &self.0.head;
        Shape {
            module_id: head.key.module.as_str(),
            branch_id: head.key.branch.as_str(),
            version: head.revision.0,
            tables: self.tables(),
            meta: self.meta(),
        }
        .serialize(to)
    }
}

/// Several modules by their ids.
pub(crate) fn by_id(modules: &[Arc<ModuleSnapshot>]) -> impl Serialize {
    Members(modules.iter().map(|module| (&module.head.key.module, ModuleShape(module))))
}

/// Why a snapshot is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SnapshotReason {
    /// The client entered a branch.
    Hello,
    /// The client asked for one.
    Request,
    /// The client asked for what came before; there is only what stands now.
    HistoryRequest,
    /// A module cannot go on without a gap.
    Resync,
    /// A module was changed as a whole.
    Purge,
    Restore,
    Reset,
    Replace,
}

impl SnapshotReason {
    /// As frames show it.
    pub(crate) fn wire_name(self) -> &'static str {
        match self {
            Self::Hello => "initial-sync",
            Self::Request => "explicit-request",
            Self::HistoryRequest => "history-request",
            Self::Resync => "resync",
            Self::Purge => "module-purge",
            Self::Restore => "module-restore",
            Self::Reset => "module-reset",
            Self::Replace => "module-replace",
        }
    }
}

/// `server:snapshot`, with all that is needed to write it elsewhere.
pub(crate) struct SnapshotFrame {
    pub(crate) branch: BranchId,
    pub(crate) modules: Vec<Arc<ModuleSnapshot>>,
    pub(crate) reason: SnapshotReason,
    pub(crate) request_id: Option<Value>,
    pub(crate) server_id: Arc<str>,
    pub(crate) lang: Option<Value>,
    /// The branch's full-sync flags that stand.
    pub(crate) flags: Vec<Arc<FullSyncFlag>>,
}

impl SnapshotFrame {
    /// Rows in all modules: how much work it is to write.
    pub(crate) fn rows(&self) -> u64 {
        self.modules.iter().map(|module| module.head.rows).sum()
    }
}

impl Serialize for SnapshotFrame {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Shape<'a, M, C> {
            r#type: &'a str,
            branch_id: &'a BranchId,
            modules: M,
            full_sync_flags: &'a [Flag<'a>],
            meta: Meta<'a>,
            cursors: C,
        }
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Meta<'a> {
            reason: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            request_id: Option<&'a Value>,
            server_id: &'a str,
            branch_id: &'a BranchId,
            #[serde(skip_serializing_if = "Option::is_none")]
            lang: Option<&'a Value>,
            #[serde(skip_serializing_if = "Option::is_none")]
            full_sync_required: Option<bool>,
            #[serde(skip_serializing_if = "Option::is_none")]
            full_sync_flags: Option<&'a [Flag<'a>]>,
        }
        let flags: Vec<Flag<'_>> = self.flags.iter().map(|flag| Flag::of(flag)).collect();
        let place = |head: &model::Head| WireCursor::new(head.incarnation, head.offset);
        let cursors = self.modules.iter().map(|m| (&m.head.key.module, place(&m.head)));
        Shape {
            r#type: "server:snapshot",
            branch_id: &self.branch,
            modules: by_id(&self.modules),
            full_sync_flags: &flags,
            meta: Meta {
                reason: self.reason.wire_name(),
                request_id: self.request_id.as_ref(),
                server_id: &self.server_id,
                branch_id: &self.branch,
                lang: self.lang.as_ref(),
                full_sync_required: (!flags.is_empty()).then_some(true),
                full_sync_flags: (!flags.is_empty()).then_some(&flags),
            },
            cursors: Members(cursors),
        }
        .serialize(to)
    }
}
