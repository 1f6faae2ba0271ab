//! Parts: the rows that belong to an order, whatever their kind.

use std::sync::Arc;

use model::{Field, Object, ProcedureContext, RecordKey, Reject, ReplaceChildren, Table, Value};

use crate::orders::ORDER;

/// The header as stored, which its parts refer to.
pub(super) struct SavedHeader {
    pub(super) id: Value,
    /// As it was before; `None` for a new order.
    pub(super) before: Option<Arc<Object>>,
    pub(super) header: Arc<Object>,
}

/// Replaces the order's parts of one kind, where the module has such a table.
pub(super) fn replace_parts(
    context: &mut ProcedureContext<'_, '_>,
    name: &str,
    rows: Vec<Object>,
    saved: &SavedHeader,
) -> Result<(), Reject> {
    let Some(table) = context.definition().schema.table(name) else { return Ok(()) };
    if table.field(ORDER).is_none() {
        return context.save_rows(table, rows).map(drop);
    }
    let (table, parent_field) = (name.to_owned(), ORDER.to_owned());
    let parent = saved.id.clone();
    context.replace_children(&ReplaceChildren { table, parent_field, parent, rows }).map(drop)
}

/// The keys of an order's rows of one kind, in key order.
pub(super) fn parts(context: &ProcedureContext<'_, '_>, name: &str, id: &Value) -> Vec<RecordKey> {
    let table = context.definition().schema.table(name);
    let table = table.and_then(|table| Some((table, table.field(ORDER)?)));
    table.map_or_else(Vec::new, |(table, field)| context.children(table, field, id))
}

/// The field that is the whole key.
pub(super) fn id_field(table: &Table) -> Option<&Field> {
    match &table.key[..] {
        [name] => table.field(name),
        _ => None,
    }
}

/// Takes a value over, where there is one and the table has a place for it.
pub(super) fn copy(table: &Table, row: &mut Object, from: &Object, name: &str) {
    let value = from.get(name).filter(|value| !is_empty(Some(value)));
    if let (Some(field), Some(value)) = (table.field(name), value) {
        row.insert(Arc::clone(&field.name), value.clone());
    }
}

/// Whether nothing was sent or stored here: missing, `null` or the empty text.
pub(super) fn is_empty(value: Option<&Value>) -> bool {
    value.is_none_or(|value| value.is_null() || value.as_str() == Some(""))
}
