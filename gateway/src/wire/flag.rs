//! Flag: a full-sync flag, in a snapshot and as the directive that tells of its change.

use model::{FullSyncFlag, Value};
use serde::Serialize;

/// A flag as snapshots list it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Flag<'a> {
    id: &'a str,
    branch_id: &'a str,
    module_id: &'a str,
    enabled: bool,
    reason: Option<&'a str>,
    requested_by: Option<&'a str>,
    updated_at: String,
    meta: Option<&'a Value>,
    cleared_by: Option<&'a str>,
}

impl<'a> Flag<'a> {
    pub(crate) fn of(flag: &'a FullSyncFlag) -> Self {
        Self {
            id: &flag.id,
            branch_id: flag.branch.as_str(),
            module_id: &flag.module,
            enabled: flag.enabled,
            reason: flag.reason.as_deref(),
            requested_by: flag.requested_by.as_deref(),
            updated_at: flag.updated_at.to_iso(),
            meta: flag.meta.as_ref(),
            cleared_by: flag.cleared_by.as_deref(),
        }
    }

    /// The same, shown with another reason.
    pub(crate) fn because(self, reason: &'a str) -> Self {
        Self { reason: Some(reason), ..self }
    }
}

/// `server:directive`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Directive<'a> {
    r#type: &'a str,
    directive: &'a str,
    id: &'a str,
    branch_id: &'a str,
    module_id: &'a str,
    enabled: bool,
    reason: Option<&'a str>,
    requested_by: Option<&'a str>,
    updated_at: String,
    meta: Option<&'a Value>,
    toggled_via: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cleared_by: Option<&'a str>,
}

impl<'a> Directive<'a> {
    pub(crate) fn of(flag: &'a FullSyncFlag) -> Self {
        Self {
            r#type: "server:directive",
            directive: "full-sync-flag",
            id: &flag.id,
            branch_id: flag.branch.as_str(),
            module_id: &flag.module,
            enabled: flag.enabled,
            reason: flag.reason.as_deref(),
            requested_by: flag.requested_by.as_deref(),
            updated_at: flag.updated_at.to_iso(),
            meta: flag.meta.as_ref(),
            toggled_via: "management-api",
            cleared_by: flag.cleared_by.as_deref(),
        }
    }
}
