//! Decimals: how amounts of money are written. A number token is exact here and stays so; whoever
//! reads it with a parser that makes floats of numbers asks for text instead.
//!
//! Refuses any other word than `number` and `text`.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use model::{ModuleSnapshot, Object, Schema};

use crate::app::App;
use crate::error::{ApiError, Problem};

/// The header that asks.
pub(crate) const HEADER: &str = "x-mishkah-decimals";

/// Whether fields that hold exact decimals are written as text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decimals {
    as_text: bool,
}

impl FromRequestParts<App> for Decimals {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, ApiError> {
        match parts.headers.get(HEADER).map(|value| value.as_bytes()) {
            None | Some(b"number") => Ok(Self { as_text: false }),
            Some(b"text") => Ok(Self { as_text: true }),
            Some(_) => {
                let right = format!("{HEADER} must be number or text");
                Err(ApiError::new(Problem::InvalidHeader, right))
            }
        }
    }
}

impl Decimals {
    /// The rows of a table as they are to be written.
    pub(crate) fn rows(self, schema: &Schema, table: &str, rows: &mut [Arc<Object>]) {
        let Some(table) = schema.table(table).filter(|_| self.as_text) else { return };
        for row in rows {
            *row = Arc::new(table.decimals_as_text(row));
        }
    }

    /// A module as it is to be written.
    pub(crate) fn module(
        self,
        schema: &Schema,
        module: Arc<ModuleSnapshot>,
    ) -> Arc<ModuleSnapshot> {
        if !self.as_text {
            return module;
        }
        let mut module = Arc::unwrap_or_clone(module);
        for (table, rows) in &mut module.tables {
            self.rows(schema, table.as_str(), rows);
        }
        Arc::new(module)
    }
}
