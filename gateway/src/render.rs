//! Render: from a shape to its bytes, large ones away from the threads that serve everybody, and
//! modules of any size piece by piece.

mod pieces;

use std::sync::Arc;

use actors::in_background;
use bytes::Bytes;
use model::ModuleSnapshot;
use serde::Serialize;
use tokio::sync::Semaphore;

use crate::app::App;
use crate::error::{ApiError, Problem};
use crate::limits::ROWS_INLINE_MAX;

pub(crate) use pieces::{Pieces, Placeholder, RenderedJson, RowLists, written};

/// Writes a small shape.
pub(crate) fn bytes(shape: &impl Serialize) -> Result<Bytes, ApiError> {
    serde_json::to_vec(shape).map(Bytes::from).map_err(|error| {
        tracing::error!(%error, "a shape could not be written");
        ApiError::new(Problem::Defect, "the answer could not be written")
    })
}

/// Writes a shape of so many rows, in the background where they are many.
pub(crate) async fn rows<F, T>(renders: &Semaphore, rows: u64, write: F) -> Result<T, ApiError>
where
    F: FnOnce() -> Result<T, ApiError> + Send + 'static,
    T: Send + 'static,
{
    if rows <= ROWS_INLINE_MAX {
        return write();
    }
    let _permit = renders.acquire().await.expect("the semaphore is never closed");
    match in_background(write).await {
        Ok(written) => written,
        Err(error) => {
            tracing::error!(%error, "writing a large answer failed");
            Err(ApiError::new(Problem::Defect, "the answer could not be written"))
        }
    }
}

/// Writes a shape that shows modules. `write` is given their outlines: it must show no rows but
/// theirs.
pub(crate) async fn modules<F>(
    app: &App,
    modules: Vec<Arc<ModuleSnapshot>>,
    write: F,
) -> Result<RenderedJson, ApiError>
where
    F: FnOnce(Vec<Arc<ModuleSnapshot>>) -> Result<Bytes, ApiError> + Send + 'static,
{
    let count = modules.iter().map(|module| module.head.rows).sum();
    let outline = move || {
        let mark = Placeholder::new();
        let outline = write(mark.modules(&modules))?;
        Pieces::new(&outline, &mark, RowLists::Modules(modules))
    };
    written(&app.renders, count, app.limits.snapshot_bytes_max, outline).await
}
