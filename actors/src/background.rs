//! Background: threads of low priority for work of many milliseconds, so that one client's long
//! work takes what the others' leave.
//!
//! Promise: the threads that serve requests, sockets and heartbeats come before these wherever the
//! processors do not suffice for all. Refused: bounding what waits; whoever hands in work of
//! seconds must leave threads for work of milliseconds (`QUERY_THREADS`). The threads are the
//! process's, whatever nodes run in it.

use std::sync::LazyLock;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::limits::BACKGROUND_THREADS;

/// How much less these threads get than others while there is not enough for all: about a tenth
/// each (the steps of `nice`).
const NICENESS: i32 = 10;

static THREADS: LazyLock<Option<Runtime>> = LazyLock::new(|| {
    let threads = Builder::new_multi_thread()
        .worker_threads(BACKGROUND_THREADS)
        .thread_name("background")
        .on_thread_start(lower_priority)
        .build();
    match threads {
        Ok(threads) => Some(threads),
        Err(error) => {
            tracing::error!(%error, "no threads for long work: it is done where it comes up");
            None
        }
    }
});

/// Does work in the background. What it comes to is received; nothing is, where it panicked.
pub fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> oneshot::Receiver<T> {
    let (reply, receiver) = oneshot::channel();
    spawn(move || {
        // Whoever waited may have left.
        let _ = reply.send(work());
    });
    receiver
}

/// Does work in the background that replies by itself.
pub(crate) fn spawn(work: impl FnOnce() + Send + 'static) {
    // A simulation has one thread, on which time stands still while it works.
    #[cfg(any(test, feature = "simulation"))]
    if raft::simulated::is_active() {
        return work();
    }
    match &*THREADS {
        Some(threads) => drop(threads.spawn(async move { work() })),
        None => work(),
    }
}

/// Lowers the priority of the calling thread.
fn lower_priority() {
    // On Linux this is the priority of the calling thread alone.
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::warn!(%error, "long work runs with the priority of all other work");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_is_done_at_low_priority_and_a_panic_is_an_error() {
        let priority = || rustix::process::getpriority_process(None).unwrap();
        let own = priority();
        assert_eq!(in_background(priority).await, Ok((own + NICENESS).min(19)));
        assert_eq!(priority(), own, "only theirs is lower");
        assert!(in_background(|| panic!("a test asked for it")).await.is_err());
        assert_eq!(in_background(|| 1).await, Ok(1), "its thread lives on");
    }
}
