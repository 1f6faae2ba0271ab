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
//!   snapshots and large bodies, does not wait for them;
//! - addresses and their connections take turns (`turns.rs`).
//!
//! Refused: more than `QUERIES_AT_ONCE` that run or wait, and more of one address than leaves some
//! to others; the next is told whose bound it met.

use std::sync::Arc;
use std::time::Duration;

use model::{Answer, Branch, BranchReadError, Read, Reject, StillWanted};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::background::{self, in_background};
use crate::limits::{QUERIES_AT_ONCE, QUERY_THREADS, READ_INLINE_WORK, READ_TIMEOUT};
use crate::message::{BusyScope, Refusal};
use crate::shares::{Requester, ShareLimiter};
use crate::snapshots::Snapshots;
use crate::turns::TurnQueue;

/// The pool of one node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ReadPool {
    /// One place for each query that runs or waits, shared by addresses.
    places: ShareLimiter,
    /// One for each that runs.
    turns: TurnQueue,
    snapshots: Snapshots,
}

impl ReadPool {
    /// A pool of whose places one address may hold this share, in percent.
    pub(crate) fn new(address_percent: u8) -> Self {
        Self {
            places: ShareLimiter::new(QUERIES_AT_ONCE, address_percent),
            turns: TurnQueue::new(QUERY_THREADS),
            snapshots: Snapshots::default(),
        }
    }

    /// Answers a read from a branch as it is: at once if it is small, else in the pool.
    ///
    /// # Errors
    /// `Busy` where the pool is full.
    pub(crate) async fn read(
        &self,
        requester: Requester,
        branch: Arc<Branch>,
        read: &Read,
    ) -> Result<Result<Answer, Reject>, Refusal> {
        if branch.read_work(read) <= READ_INLINE_WORK {
            return Ok(branch.read(read));
        }
        let read = read.clone();
        if matches!(read, Read::Query(_)) {
            let work = move |wanted: StillWanted<'_>| branch.read_while(&read, wanted);
            return self.query(requester, READ_TIMEOUT, work).await;
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
        requester: Requester,
        timeout: Duration,
        work: impl FnOnce(StillWanted<'_>) -> Result<Answer, BranchReadError> + Send + 'static,
    ) -> Result<Result<Answer, Reject>, Refusal> {
        let place = self.places.acquire(requester, 1);
        let _place = place.map_err(|it| Refusal::exhausted(BusyScope::Queries, it))?;
        let timed_out = || {
            let after_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
            Ok(Err(Reject::ReadTimeout { after_ms }))
        };
        // Counted from here: the wait for a turn is part of what the client waits for.
        let deadline = Instant::now() + timeout;
        let turn = tokio::time::timeout_at(deadline, self.turns.take(requester));
        let Ok(turn) = turn.await else { return timed_out() };
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
    use crate::limits::ADDRESS_PERCENT;
    use crate::shares::ShareScope;

    const LONG: Duration = Duration::from_secs(600);
    /// Whoever has only the bound of everybody.
    const NODE: Requester = Requester { address: None, connection: 0 };

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
        let pool = ReadPool::new(ADDRESS_PERCENT);
        let (ended, end) = mpsc::channel();
        let query = pool.query(NODE, LONG, move |wanted| {
            let interrupted = endless(wanted);
            ended.send(()).unwrap();
            interrupted
        });
        // Dropped while the query is at work.
        assert!(tokio::time::timeout(Duration::from_millis(50), query).await.is_err());
        tokio::task::spawn_blocking(move || end.recv().unwrap()).await.unwrap();
        assert_eq!(pool.places.used(), 0);
    }

    #[tokio::test]
    async fn a_query_that_takes_too_long_is_refused() {
        let pool = ReadPool::new(ADDRESS_PERCENT);
        let refused = Ok(Err(Reject::ReadTimeout { after_ms: 20 }));
        assert_eq!(pool.query(NODE, Duration::from_millis(20), endless).await, refused);
        // The same where its turn does not come.
        let mut turns = Vec::new();
        for _ in 0..QUERY_THREADS {
            turns.push(pool.turns.take(NODE).await);
        }
        assert_eq!(pool.query(NODE, Duration::from_millis(20), |_| finished()).await, refused);
    }

    #[tokio::test]
    async fn a_full_pool_refuses_and_takes_queries_again() {
        let pool = ReadPool::new(ADDRESS_PERCENT);
        let held = pool.places.acquire(NODE, QUERIES_AT_ONCE).unwrap();
        let refused = pool.query(NODE, LONG, |_| finished()).await;
        assert!(matches!(refused, Err(Refusal::Exhausted { what: BusyScope::Queries, .. })));
        drop(held);
        assert_eq!(
            pool.query(NODE, LONG, |_| finished()).await,
            Ok(finished().map_err(|_| Reject::Defect))
        );
        assert_eq!(pool.places.used(), 0);
    }

    #[tokio::test]
    async fn queries_of_one_address_leave_places_to_others() {
        let pool = ReadPool::new(ADDRESS_PERCENT);
        let of = |address: u8, connection| Requester {
            address: Some([10, 0, 0, address].into()),
            connection,
        };
        let places = || (0..).map_while(|n| pool.places.acquire(of(1, n), 1).ok());
        let held: Vec<_> = places().collect();
        assert_eq!(held.len() as u64, QUERIES_AT_ONCE / 2);
        let refused = pool.query(of(1, 9_999), LONG, |_| finished()).await;
        let Err(Refusal::Exhausted { scope, .. }) = refused else { panic!("{refused:?}") };
        assert_eq!(scope, ShareScope::Address);
        assert!(pool.query(of(2, 1), LONG, |_| finished()).await.is_ok());
    }

    #[tokio::test]
    async fn a_query_that_panics_is_a_defect_and_gives_its_turn_back() {
        let pool = ReadPool::new(ADDRESS_PERCENT);
        let defect = pool.query(NODE, LONG, |_| panic!("a test asked for it")).await;
        assert_eq!(defect, Ok(Err(Reject::Defect)));
        // Waited for: it is told before the thread has let go of the turn.
        while pool.turns.free() < QUERY_THREADS {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn queries_leave_threads_for_what_else_is_in_the_background() {
        let pool = ReadPool::new(ADDRESS_PERCENT);
        let queries: Vec<_> = (0..2 * QUERY_THREADS)
            .map(|_| {
                let pool = pool.clone();
                tokio::spawn(async move { pool.query(NODE, LONG, endless).await })
            })
            .collect();
        while pool.turns.free() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(in_background(|| 1).await, Ok(1));
        queries.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
