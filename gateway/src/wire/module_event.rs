//! Module event: one act on a whole module as `server:event`
//! (docs/original/socket.md#module-events).

use model::{BranchKey, BulkOperation, Delta, Event, ModuleChange, ModuleSnapshot, Object, Value};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::wire::cursor::{BatchPart, WireCursor};
use crate::wire::snapshot::ModuleShape;

/// One act on a whole module.
pub(crate) struct ModuleEvent<'a> {
    server_id: &'a str,
    delta: &'a Delta,
    event: &'a Event,
    change: &'a ModuleChange,
    snapshot: Option<&'a ModuleSnapshot>,
}

impl<'a> ModuleEvent<'a> {
    /// As this server shows it; `None` for a replacement, which is told by a snapshot alone.
    pub(crate) fn new(
        server_id: &'a str,
        delta: &'a Delta,
        event: &'a Event,
        change: &'a ModuleChange,
        snapshot: Option<&'a ModuleSnapshot>,
    ) -> Option<Self> {
        let shown = change.operation != BulkOperation::Replace;
        shown.then_some(Self { server_id, delta, event, change, snapshot })
    }
}

/// The `meta` of an act on a whole module: as it was agreed, and, but for a restore, who tells it.
pub(crate) fn module_meta(server_id: &str, key: &BranchKey, change: &ModuleChange) -> Object {
    let agreed = change.details.get("meta").and_then(Value::as_object);
    let mut meta = agreed.cloned().unwrap_or_default();
    if change.operation != BulkOperation::Restore {
        meta.insert("serverId", server_id.into());
    }
    if change.operation == BulkOperation::Reset {
        meta.insert("moduleId", key.module.as_str().into());
    }
    meta
}

impl Serialize for ModuleEvent<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self { server_id, delta, event, change, snapshot } = self;
        let own = [
            "type", "action", "branchId", "moduleId", "version", "meta", "cursor", "batch",
            // A restore says in its meta which entry it is of.
            "entryId",
        ];
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("type", "server:event")?;
        map.serialize_entry("action", change.operation.wire_name())?;
        map.serialize_entry("branchId", &delta.key.branch)?;
        map.serialize_entry("moduleId", &delta.key.module)?;
        map.serialize_entry("version", &event.revision)?;
        if change.operation == BulkOperation::Reset {
            map.serialize_entry("snapshot", &snapshot.map(ModuleShape))?;
            map.serialize_entry("record", &())?;
        }
        for (name, value) in change.details.iter() {
            let reset = change.operation == BulkOperation::Reset
                && matches!(&**name, "snapshot" | "record");
            // What the frame says of itself must not come a second time out of the details.
            if !own.contains(&&**name) && !reset {
                map.serialize_entry(&**name, value)?;
            }
        }
        map.serialize_entry("meta", &module_meta(server_id, &delta.key, change))?;
        map.serialize_entry("cursor", &WireCursor::new(delta.incarnation, event.offset))?;
        if let Some(batch) = BatchPart::of(event) {
            map.serialize_entry("batch", &batch)?;
        }
        map.end()
    }
}
