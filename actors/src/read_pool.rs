//! Read pool: reads that look at many rows are done in the background.
//!
//! ```text
//!   read ── few rows ──────► answered at once, where it came in
//!        ├─ a module's rows ─► a background thread: takes them as they are, which is soon done
//!        └─ a query ─────────► place ── turn ── a background thread ──► answer
//!                                └── none left: Busy
//! ```
//!
//! Promises:
//! - the threads that serve sockets, requests and heartbeats never look at more than
//!   `READ_INLINE_WORK` rows for a client;
//! - a query whose client has left, or that took `READ_TIMEOUT`, looks at a slice of rows more at
//!   most; what it found by then it may still have to sort;
//! - queries have only some of the background's threads at once: what else is done there, such as
//!   snapshots and large bodies, does not wait for them.
//!
//! Refused: more than `QUERIES_AT_ONCE` that run or wait; the next is told that this node is busy.

use std::sync::Arc;
use std::time::Duration;

use model::{Answer, Branch, BranchReadError, Read, Reject, StillWanted};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

use crate::background::{self, in_background};
use crate::limits::{QUERIES_AT_ONCE, QUERY_THREADS, READ_INLINE_WORK, READ_TIMEOUT};
use crate::message::{BusyScope, Refusal};
use crate::snapshots::Snapshots;

/// The pool of one node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ReadPool {
    /// One permit for each query that runs or waits.
    places: Arc<Semaphore>,
    /// One permit for each that runs.
    turns: Arc<Semaphore>,
    snapshots: Snapshots,
}

impl ReadPool {
    pub(crate) fn new() -> Self {
        Self {
            places: Arc::new(Semaphore::new(QUERIES_AT_ONCE)),
            turns: Arc::new(Semaphore::new(QUERY_THREADS)),
            snapshots: Snapshots::default(),
        }
    }

    /// Answers a read from a branch as it is: at once if it is small, else in the pool.
    ///
    /// # Errors
    /// `Busy` where the pool is full.
    pub(crate) async fn read(
        &self,
        branch: Arc<Branch>,
        read: &Read,
    ) -> Result<Result<Answer, Reject>, Refusal> {
        if branch.read_work(read) <= READ_INLINE_WORK {
            return Ok(branch.read(read));
        }
        let read = read.clone();
        if matches!(read, Read::Query(_)) {
            return self.query(READ_TIMEOUT, move |wanted| branch.read_while(&read, wanted)).await;
        }
        let snapshots = self.snapshots.clone();
        let work = move || {
            if matches!(read, Read::Snapshot) {
                snapshots.read(&branch)
            } else {
                branch.read(&read)
            }
        };
        // The read panicked; its thread lives on.
        Ok(in_background(work).await.unwrap_or(Err(Reject::Defect)))
    }

    /// Does the work of a query, when its turn comes.
    async fn query(
        &self,
        timeout: Duration,
        work: impl FnOnce(StillWanted<'_>) -> Result<Answer, BranchReadError> + Send + 'static,
    ) -> Result<Result<Answer, Reject>, Refusal> {
        let Ok(_place) = self.places.try_acquire() else {
            return Err(Refusal::Busy { what: BusyScope::Node });
        };
        let timed_out = || {
            let after_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
            Ok(Err(Reject::ReadTimeout { after_ms }))
        };
        // Counted from here: the wait for a turn is part of what the client waits for.
        let deadline = Instant::now() + timeout;
        let turn = tokio::time::timeout_at(deadline, Arc::clone(&self.turns).acquire_owned());
        let Ok(Ok(turn)) = turn.await else { return timed_out() };
        let (reply, answer) = oneshot::channel();
        background::spawn(move || {
            // Whoever asked holds the other end: it is closed once the client has left.
            let result = work(&|| !reply.is_closed() && Instant::now() < deadline);
            // Before the answer is sent: who has it may ask the next question at once.
            drop(turn);
            // Nobody is there: the client left after the last row.
            let _ = reply.send(result);
        });
        match answer.await {
            Ok(Ok(answer)) => Ok(Ok(answer)),
            Ok(Err(BranchReadError::Rejected(reject))) => Ok(Err(reject)),
            Ok(Err(BranchReadError::Interrupted)) => timed_out(),
            // The query panicked; its thread lives on.
            Err(_) => Ok(Err(Reject::Defect)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    fn finished() -> Result<Answer, BranchReadError> {
        Ok(Answer::Archive(Vec::new()))
    }

    /// Works for as long as it is wanted.
    fn endless(wanted: StillWanted<'_>) -> Result<Answer, BranchReadError> {
        while wanted() {
            std::thread::yield_now();
        }
        Err(BranchReadError::Interrupted)
    }

    #[tokio::test]
    async fn a_query_ends_when_its_client_has_left() {
        let pool = ReadPool::new();
        let (ended, end) = mpsc::channel();
        let query = pool.query(LONG, move |wanted| {
            let interrupted = endless(wanted);
            ended.send(()).unwrap();
            interrupted
        });
        // Dropped while the query is at work.
        assert!(tokio::time::timeout(Duration::from_millis(50), query).await.is_err());
        tokio::task::spawn_blocking(move || end.recv().unwrap()).await.unwrap();
        assert_eq!(pool.places.available_permits(), QUERIES_AT_ONCE);
    }

    #[tokio::test]
    async fn a_query_that_takes_too_long_is_refused() {
        let pool = ReadPool::new();
        let refused = Ok(Err(Reject::ReadTimeout { after_ms: 20 }));
        assert_eq!(pool.query(Duration::from_millis(20), endless).await, refused);
        // The same where its turn does not come.
        let turns = u32::try_from(QUERY_THREADS).unwrap();
        let _turns = pool.turns.acquire_many(turns).await.unwrap();
        assert_eq!(pool.query(Duration::from_millis(20), |_| finished()).await, refused);
    }

    #[tokio::test]
    async fn a_full_pool_refuses_and_takes_queries_again() {
        let pool = ReadPool::new();
        let places = u32::try_from(QUERIES_AT_ONCE).unwrap();
        let held = pool.places.acquire_many(places).await.unwrap();
        let refused = pool.query(LONG, |_| finished()).await;
        assert_eq!(refused, Err(Refusal::Busy { what: BusyScope::Node }));
        drop(held);
        assert_eq!(
            pool.query(LONG, |_| finished()).await,
            Ok(finished().map_err(|_| Reject::Defect))
        );
        assert_eq!(pool.places.available_permits(), QUERIES_AT_ONCE);
    }

    #[tokio::test]
    async fn a_query_that_panics_is_a_defect_and_gives_its_turn_back() {
        let pool = ReadPool::new();
        let defect = pool.query(LONG, |_| panic!("a test asked for it")).await;
        assert_eq!(defect, Ok(Err(Reject::Defect)));
        // Waited for: it is told before the thread has let go of the turn.
        let turns = u32::try_from(QUERY_THREADS).unwrap();
        assert!(pool.turns.acquire_many(turns).await.is_ok());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn queries_leave_threads_for_what_else_is_in_the_background() {
        let pool = ReadPool::new();
        let queries: Vec<_> = (0..2 * QUERY_THREADS)
            .map(|_| {
                let pool = pool.clone();
                tokio::spawn(async move { pool.query(LONG, endless).await })
            })
            .collect();
        while pool.turns.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(in_background(|| 1).await, Ok(1));
        queries.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
