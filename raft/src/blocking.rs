//! Blocking: runs work that may wait for a disk where it holds up no other task.

use tokio::task::JoinError;

/// Runs work that may block on tokio's pool of blocking threads. In a simulation it runs at once,
/// on the only thread, and takes no time.
///
/// # Errors
/// When the work panicked, or the runtime is shutting down.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    #[cfg(any(test, feature = "testing"))]
    if crate::simulated::is_active() {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await
}
