//! Shared: what the laws of `model` and those of `compat` both draw on: random orders, and a
//! checkpoint in memory.

use std::collections::BTreeMap;

use model::partition::{ChunkSink, ChunkSource};
use model::{Object, Value};
use proptest::prelude::*;

/// An order as a till may send it.
#[derive(Debug)]
pub(crate) struct OrderParts {
    /// Under one of a few ids, so that orders are saved again; with a version that may be any, and
    /// a shift that is missing now and then.
    pub(crate) header: Object,
    /// Rows under few keys, so that orders take each other's; one in four lists is not sent.
    pub(crate) lines: Option<Vec<Object>>,
    /// Likewise.
    pub(crate) payments: Option<Vec<Object>>,
}

/// Any order.
pub(crate) fn any_order_parts() -> impl Strategy<Value = OrderParts> {
    let id = (0..4_u32).prop_map(|n| format!("o{n}"));
    let version = prop_oneof![1 => Just(None), 3 => (1..4_u64).prop_map(Some)];
    let shift = prop_oneof![9 => Just("s1"), 1 => Just("")];
    (id, version, shift, few("l"), few("p")).prop_map(|(id, version, shift, lines, payments)| {
        let mut header: Object = [("id", id.as_str()), ("shiftId", shift)].into_iter().collect();
        if let Some(version) = version {
            header.insert("version", Value::from(version));
        }
        OrderParts { header, lines, payments }
    })
}

fn few(prefix: &'static str) -> impl Strategy<Value = Option<Vec<Object>>> {
    let id = (0..4_u32).prop_map(move |n| format!("{prefix}{n}"));
    let row = id.prop_map(|id| -> Object { [("id", id)].into_iter().collect() });
    prop::option::weighted(0.75, prop::collection::vec(row, 0..3))
}

/// A checkpoint in memory.
#[derive(Default)]
pub(crate) struct StoreContents(BTreeMap<String, Vec<u8>>);

impl ChunkSink for StoreContents {
    fn put(&mut self, name: &str, bytes: Vec<u8>) {
        assert!(self.0.insert(name.to_owned(), bytes).is_none(), "{name} twice");
    }

    fn keep(&mut self, name: &str) {
        panic!("{name} was never let go in a history this short");
    }
}

impl ChunkSource for StoreContents {
    fn get(&self, name: &str) -> Option<Vec<u8>> {
        self.0.get(name).cloned()
    }

    fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }
}
