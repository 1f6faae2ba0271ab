//! Render: from a shape to its bytes, large ones away from the threads that serve everybody.

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::Semaphore;

use crate::error::{ApiError, Problem};
use crate::limits::ROWS_INLINE_MAX;

/// Writes a small shape.
pub(crate) fn bytes(shape: &impl Serialize) -> Result<Bytes, ApiError> {
    serde_json::to_vec(shape).map(Bytes::from).map_err(|error| {
        tracing::error!(%error, "a shape could not be written");
        ApiError::new(Problem::Defect, "the answer could not be written")
    })
}

/// Writes a shape of so many rows, in its own thread where they are many.
pub(crate) async fn rows<F, T>(renders: &Semaphore, rows: u64, write: F) -> Result<T, ApiError>
where
    F: FnOnce() -> Result<T, ApiError> + Send + 'static,
    T: Send + 'static,
{
    if rows <= ROWS_INLINE_MAX {
        return write();
    }
    let _permit = renders.acquire().await.expect("the semaphore is never closed");
    match tokio::task::spawn_blocking(write).await {
        Ok(written) => written,
        Err(error) => {
            tracing::error!(%error, "writing a large answer failed");
            Err(ApiError::new(Problem::Defect, "the answer could not be written"))
        }
    }
}
