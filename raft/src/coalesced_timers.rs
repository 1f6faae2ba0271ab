//! Coalesced timers: openraft's runtime on tokio, with deadlines rounded up to a common interval.
//!
//! Each group ticks about fifty times a second, each with its own phase. With rounded deadlines the
//! timers of all groups of a node expire together and wake it once: three idle nodes use half the
//! processor time.
//!
//! Promise: a timer never expires early, and at most one interval late; a heartbeat of 100 ms is
//! sent after 100 to 140 ms. Refused: rounding of waits shorter than half an interval, which belong
//! to a faster timing than this is for.

use std::sync::LazyLock;
use std::time::Duration;

use openraft::async_runtime::Instant as _;
use openraft::{AsyncRuntime, OptionalSend, TokioRuntime};

type Tokio = TokioRuntime;
type Instant = <Tokio as AsyncRuntime>::Instant;

/// Deadlines are rounded up to multiples of this. Shorter than a tick of the default timing, so
/// that no tick is missed.
const GRANULARITY: Duration = Duration::from_millis(20);

static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The time from which the multiples are counted, the same for all groups.
fn epoch() -> Instant {
    #[cfg(any(test, feature = "testing"))]
    if let Some(age) = crate::simulated::elapsed() {
        return Instant::now() - age;
    }
    *EPOCH
}

/// openraft's tokio runtime with coalesced timers.
#[derive(Debug)]
pub(crate) struct CoalescedTimers(Tokio);

impl AsyncRuntime for CoalescedTimers {
    type JoinError = <Tokio as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <Tokio as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <Tokio as AsyncRuntime>::Sleep;
    type Instant = Instant;
    type TimeoutError = <Tokio as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <Tokio as AsyncRuntime>::Timeout<R, T>;
    #[cfg(not(any(test, feature = "testing")))]
    type ThreadLocalRng = <Tokio as AsyncRuntime>::ThreadLocalRng;
    #[cfg(any(test, feature = "testing"))]
    type ThreadLocalRng = rand::rngs::StdRng;
    type Mpsc = <Tokio as AsyncRuntime>::Mpsc;
    type Watch = <Tokio as AsyncRuntime>::Watch;
    type Oneshot = <Tokio as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <Tokio as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        Tokio::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        Tokio::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        // Rounding would more than double a short wait.
        if deadline < Instant::now() + GRANULARITY / 2 {
            return Tokio::sleep_until(deadline);
        }
        let since = deadline - epoch();
        let past = since.as_nanos() % GRANULARITY.as_nanos();
        let left = if past == 0 { 0 } else { GRANULARITY.as_nanos() - past };
        let left = u64::try_from(left).expect("less than the granularity");
        Tokio::sleep_until(deadline + Duration::from_nanos(left))
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        Tokio::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        Tokio::timeout_at(deadline, future)
    }

    fn is_panic(error: &Self::JoinError) -> bool {
        Tokio::is_panic(error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        #[cfg(any(test, feature = "testing"))]
        return crate::random::openraft_rng();
        #[cfg(not(any(test, feature = "testing")))]
        Tokio::thread_rng()
    }

    fn new(threads: usize) -> Self {
        Self(Tokio::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }
}
