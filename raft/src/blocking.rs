//! Blocking: work that may wait for a disk, done where it holds up no other task.

use tokio::task::JoinError;

/// Does work that may block on a thread made for that. Under simulation it is done at once: there
/// is one thread, and no time passes in it.
///
/// # Errors
/// When the work panicked, or the runtime is going away.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    #[cfg(any(test, feature = "testing"))]
    if crate::simulated::is_active() {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await
}
