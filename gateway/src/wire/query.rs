//! Query: the rows a `client:query` found, with all that is needed to write them elsewhere.

use std::sync::Arc;

use model::{Object, Timestamp, Value};
use serde::Serialize;

/// `server:query:result`.
pub(crate) struct QueryFrame {
    pub(crate) request_id: Option<Value>,
    /// As it was asked for.
    pub(crate) table: String,
    /// Whether one record was asked for by its id.
    pub(crate) single: bool,
    pub(crate) rows: Vec<Arc<Object>>,
    pub(crate) at: Timestamp,
    /// What of the query was passed over.
    pub(crate) warnings: Vec<String>,
}

impl Serialize for QueryFrame {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(untagged)]
        enum Found<'a> {
            One(Option<&'a Arc<Object>>),
            All(&'a [Arc<Object>]),
        }
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Shape<'a> {
            r#type: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            request_id: Option<&'a Value>,
            table: &'a str,
            query_type: &'a str,
            result: Found<'a>,
            timestamp: String,
            #[serde(skip_serializing_if = "<[String]>::is_empty")]
            warnings: &'a [String],
        }
        let result =
            if self.single { Found::One(self.rows.first()) } else { Found::All(&self.rows) };
        Shape {
            r#type: "server:query:result",
            request_id: self.request_id.as_ref(),
            table: &self.table,
            query_type: if self.single { "get" } else { "list" },
            result,
            timestamp: self.at.to_iso(),
            warnings: &self.warnings,
        }
        .serialize(to)
    }
}
