//! Render: from a shape to its bytes, large ones away from the threads that serve everybody, and
//! modules of any size piece by piece.

mod pieces;

use std::sync::Arc;

use actors::{Requester, TurnQueue, in_background};
use bytes::Bytes;
use model::ModuleSnapshot;
use serde::Serialize;

use crate::error::{ApiError, Problem};
use crate::limits::{ROWS_INLINE_MAX, WHOLE_BYTES_MAX};

pub(crate) use pieces::{Pieces, Placeholder, RenderedJson, RowLists};

/// Writes a small shape.
pub(crate) fn bytes(shape: &impl Serialize) -> Result<Bytes, ApiError> {
    serde_json::to_vec(shape).map(Bytes::from).map_err(|error| {
        tracing::error!(%error, "a shape could not be written");
        ApiError::new(Problem::Defect, "the answer could not be written")
    })
}

/// Writes large shapes for one requester, when it is their turn: a client that asks for many waits
/// for them itself.
pub(crate) struct Renderer {
    pub(crate) turns: TurnQueue,
    pub(crate) requester: Requester,
    /// Bytes of the largest text.
    pub(crate) bytes_max: u64,
}

impl Renderer {
    /// Writes a shape of so many rows, in the background where they are many.
    ///
    /// # Errors
    /// Those of `write`; a defect where it panics.
    pub(crate) async fn rows<F, T>(&self, rows: u64, write: F) -> Result<T, ApiError>
    where
        F: FnOnce() -> Result<T, ApiError> + Send + 'static,
        T: Send + 'static,
    {
        if rows <= ROWS_INLINE_MAX {
            return write();
        }
        let _turn = self.turns.take(self.requester).await;
        match in_background(write).await {
            Ok(written) => written,
            Err(error) => {
                tracing::error!(%error, "writing a large answer failed");
                Err(ApiError::new(Problem::Defect, "the answer could not be written"))
            }
        }
    }

    /// Writes a shape that shows modules. `write` is given their outlines: it must show no rows
    /// but theirs.
    ///
    /// # Errors
    /// As of [`Renderer::written`].
    pub(crate) async fn modules<F>(
        &self,
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
        self.written(count, outline).await
    }

    /// Writes a text of so many rows: a small one as a whole, a large one so that it can be taken
    /// in pieces.
    ///
    /// # Errors
    /// [`Problem::SnapshotTooLarge`] beyond `bytes_max`; a defect where it cannot be written.
    pub(crate) async fn written<F>(&self, count: u64, outline: F) -> Result<RenderedJson, ApiError>
    where
        F: FnOnce() -> Result<Pieces, ApiError> + Send + 'static,
    {
        let begin = move || {
            let mut pieces = Box::new(outline()?);
            let is_whole = pieces.fill(WHOLE_BYTES_MAX)?;
            Ok((pieces, is_whole))
        };
        let (pieces, is_whole) = self.rows(count, begin).await?;
        if is_whole {
            return Ok(RenderedJson::Whole(pieces.into_written()));
        }
        // Its size is told, or refused, before the first byte is sent: counting takes a while.
        let max = self.bytes_max;
        self.rows(u64::MAX, move || {
            let size = pieces.count(max)?;
            Ok(RenderedJson::Pieces(pieces, size))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;
    use parking_lot::Mutex;

    use super::*;

    #[tokio::test]
    async fn whoever_asks_for_many_large_answers_waits_for_them_alone() {
        let turns = TurnQueue::new(1);
        let renderer = |address: u8| {
            let connection = u64::from(address);
            let requester = Requester { address: Some([10, 0, 0, address].into()), connection };
            Renderer { turns: turns.clone(), requester, bytes_max: 0 }
        };
        let written: Mutex<Vec<u8>> = Mutex::default();
        let busy = turns.take(Requester::default()).await;
        let ask = async |name: u8| {
            renderer(name).rows(u64::MAX, || Ok(())).await.unwrap();
            written.lock().push(name);
        };
        let _: ((), Vec<()>) = tokio::join!(
            async {
                // By now all others wait.
                tokio::task::yield_now().await;
                drop(busy);
            },
            join_all([1, 1, 1, 1, 2].map(ask)),
        );
        let second = written.lock().iter().position(|name| *name == 2);
        assert!(second <= Some(1), "{:?}", written.lock());
    }
}
