//! Read pool: reads that look at many rows are done in the background, and only so many at once.
//!
//! ```text
//!   read ── few rows ────► answered at once, where it came in
//!        └─ many rows ──► place in the pool ── a background thread ──► answer
//!                               └── none left: Busy
//! ```
//!
//! Promises:
//! - the threads that serve sockets, requests and heartbeats never look at more than
//!   `READ_INLINE_WORK` rows for a client;
//! - a read whose client has left, or that took `READ_TIMEOUT`, ends within a slice of rows.
//!
//! Refused: more than `READS_AT_ONCE` in the pool; the next is told that this node is busy.

use std::sync::Arc;
use std::time::Duration;

use model::{Answer, Branch, BranchReadError, Read, Reject};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

use crate::background;
use crate::limits::{READ_INLINE_WORK, READ_TIMEOUT, READS_AT_ONCE};
use crate::message::{BusyScope, Refusal};

/// The pool of one node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ReadPool(Arc<Semaphore>);

impl ReadPool {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(READS_AT_ONCE)))
    }

    /// Answers a read from a branch as it is: at once if it is small, else in the pool.
    ///
    /// # Errors
    /// `Busy` where the pool is full.
    pub(crate) async fn read(
        &self,
        branch: Branch,
        read: &Read,
    ) -> Result<Result<Answer, Reject>, Refusal> {
        if branch.read_work(read) <= READ_INLINE_WORK || is_simulated() {
            return Ok(branch.read(read));
        }
        self.run(READ_TIMEOUT, {
            let read = read.clone();
            move |wanted| branch.read_while(&read, wanted)
        })
        .await
    }

    /// Does the work of a read on a thread of the pool.
    async fn run(
        &self,
        timeout: Duration,
        work: impl FnOnce(model::StillWanted<'_>) -> Result<Answer, BranchReadError> + Send + 'static,
    ) -> Result<Result<Answer, Reject>, Refusal> {
        let Ok(place) = Arc::clone(&self.0).try_acquire_owned() else {
            return Err(Refusal::Busy { what: BusyScope::Node });
        };
        let (reply, answer) = oneshot::channel();
        // Counted from here: a place in the queue is part of what the client waits for.
        let deadline = Instant::now() + timeout;
        background::spawn(move || {
            // Whoever asked holds the other end: it is closed once the client has left.
            let wanted = || !reply.is_closed() && Instant::now() < deadline;
            let result = if wanted() { work(&wanted) } else { Err(BranchReadError::Interrupted) };
            // Before the answer is sent: who has it may ask the next question at once.
            drop(place);
            // Nobody is there: the client left after the last row.
            let _ = reply.send(result);
        });
        Ok(match answer.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(BranchReadError::Rejected(reject))) => Err(reject),
            Ok(Err(BranchReadError::Interrupted)) => {
                let after_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
                Err(Reject::ReadTimeout { after_ms })
            }
            // The read panicked; its thread lives on.
            Err(_) => Err(Reject::Defect),
        })
    }
}

/// In a simulation there is one thread, and time stands still while it works.
fn is_simulated() -> bool {
    #[cfg(any(test, feature = "simulation"))]
    return raft::simulated::is_active();
    #[cfg(not(any(test, feature = "simulation")))]
    false
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn finished() -> Result<Answer, BranchReadError> {
        Ok(Answer::Archive(Vec::new()))
    }

    #[tokio::test]
    async fn a_read_ends_when_its_client_has_left() {
        let pool = ReadPool::new();
        let (ended, end) = mpsc::channel();
        let read = pool.run(Duration::from_secs(600), move |wanted| {
            while wanted() {
                std::thread::yield_now();
            }
            ended.send(()).unwrap();
            Err(BranchReadError::Interrupted)
        });
        // Dropped while the read is at work.
        assert!(tokio::time::timeout(Duration::from_millis(50), read).await.is_err());
        tokio::task::spawn_blocking(move || end.recv().unwrap()).await.unwrap();
    }

    #[tokio::test]
    async fn a_read_that_takes_too_long_is_refused() {
        let pool = ReadPool::new();
        let refused = pool.run(Duration::from_millis(20), |wanted| {
            while wanted() {
                std::thread::yield_now();
            }
            Err(BranchReadError::Interrupted)
        });
        let refused = refused.await;
        assert_eq!(refused, Ok(Err(Reject::ReadTimeout { after_ms: 20 })));
    }

    #[tokio::test]
    async fn a_full_pool_refuses_and_takes_reads_again() {
        let pool = ReadPool::new();
        let held = Arc::clone(&pool.0);
        let held = held.acquire_many_owned(u32::try_from(READS_AT_ONCE).unwrap()).await.unwrap();
        let refused = pool.run(READ_TIMEOUT, |_| finished()).await;
        assert_eq!(refused, Err(Refusal::Busy { what: BusyScope::Node }));
        drop(held);
        assert_eq!(
            pool.run(READ_TIMEOUT, |_| finished()).await,
            Ok(Ok(Answer::Archive(Vec::new())))
        );
        assert_eq!(pool.0.available_permits(), READS_AT_ONCE);
    }

    #[tokio::test]
    async fn a_read_that_panics_is_a_defect_and_gives_its_place_back() {
        let pool = ReadPool::new();
        let defect = pool.run(READ_TIMEOUT, |_| panic!("a test asked for it")).await;
        assert_eq!(defect, Ok(Err(Reject::Defect)));
        assert_eq!(
            pool.run(READ_TIMEOUT, |_| finished()).await,
            Ok(Ok(Answer::Archive(Vec::new())))
        );
        assert_eq!(pool.0.available_permits(), READS_AT_ONCE);
    }
}
