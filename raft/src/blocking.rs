//! Blocking: runs work that may wait for a disk where it holds up no other task.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinError;

/// How much less the processor is given to work that may lie behind, in the steps of `nice`.
const NICENESS: i32 = 10;
/// How long such work waits at most in a simulation before it runs, in milliseconds.
#[cfg(any(test, feature = "testing"))]
const SIMULATED_PAUSE_MAX_MS: u64 = 2_000;

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

/// Runs work of up to seconds on a thread of its own of low priority, which takes what everything
/// else leaves. In a simulation it runs at once.
///
/// # Errors
/// When the work panicked, or no thread could be started.
pub(crate) async fn low_priority<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, oneshot::error::RecvError> {
    #[cfg(any(test, feature = "testing"))]
    if crate::simulated::is_active() {
        return Ok(work());
    }
    let (reply, result) = oneshot::channel();
    let run = move || {
        lower_priority();
        // Whoever waited may have left.
        let _ = reply.send(work());
    };
    // Not from tokio's pool: a thread cannot take its priority back.
    if let Err(error) = std::thread::Builder::new().name("long work".into()).spawn(run) {
        tracing::error!(%error, "no thread for long work");
    }
    result.await
}

/// Runs work of up to seconds on a thread of its own of low priority, without waiting for it. In a
/// simulation it runs a little later. Where no thread can be started it runs at once.
pub(crate) fn run_beside(work: impl FnOnce() + Send + 'static) {
    #[cfg(any(test, feature = "testing"))]
    if crate::simulated::is_active() {
        let pause = crate::simulated::next_u64().unwrap_or(0) % SIMULATED_PAUSE_MAX_MS;
        tokio::spawn(async move {
            tokio::time::sleep(std::time::Duration::from_millis(pause)).await;
            work();
        });
        return;
    }
    // Shared, as a thread that cannot be started takes the work with it.
    let work = Arc::new(Mutex::new(Some(work)));
    let beside = Arc::clone(&work);
    let run = move || {
        lower_priority();
        if let Some(work) = beside.lock().take() {
            work();
        }
    };
    if let Err(error) = std::thread::Builder::new().name("long work".into()).spawn(run) {
        tracing::error!(%error, "no thread for long work");
        if let Some(work) = work.lock().take() {
            work();
        }
    }
}

/// Runs work of moments from a thread of low priority where it has the usual one: on tokio's pool
/// of blocking threads, or at once where there is none. What takes a lock that others wait for is
/// run so: a thread that is given little of the processor would keep it for long.
pub(crate) fn run_at_usual_priority(runtime: Option<Handle>, work: impl FnOnce() + Send + 'static) {
    match runtime {
        // Dropped with a runtime that is shutting down, as all else is.
        Some(runtime) => drop(runtime.spawn_blocking(work)),
        None => work(),
    }
}

/// The runtime of this thread, for [`run_at_usual_priority`]. None in a simulation.
pub(crate) fn runtime() -> Option<Handle> {
    #[cfg(any(test, feature = "testing"))]
    if crate::simulated::is_active() {
        return None;
    }
    Handle::try_current().ok()
}

/// Drops a value of many parts, which takes long, on a thread of low priority.
pub fn drop_beside<T: Send + 'static>(value: T) {
    #[cfg(any(test, feature = "testing"))]
    if crate::simulated::is_active() {
        return drop(value);
    }
    run_beside(move || drop(value));
}

/// Lowers the priority of the calling thread.
pub(crate) fn lower_priority() {
    // On Linux this is the priority of the calling thread alone.
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::debug!(%error, "long work runs with the priority of all other work");
    }
}
