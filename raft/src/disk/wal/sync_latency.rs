//! Sync latency: how long the disk took, over the last seconds, to make the log durable.
//!
//! Promise: a sync that has not returned counts as well, or a disk that hangs would look idle.
//! Refused: exact percentiles. Durations are counted by powers of two, which costs nothing.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::limits::{SYNC_IDLE_FIT_AFTER, SYNC_SLOW_COUNT_MIN, SYNC_WINDOW};

/// Slots of one second, one more than the window: the current second is not over.
const SLOTS: usize = SYNC_WINDOW.as_secs() as usize + 1;
/// Durations by powers of two of a millisecond: up to 1 ms, 2 ms, … 128 s.
const BUCKETS: usize = 18;

/// The syncs of one second.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    second: u64,
    counts: [u32; BUCKETS],
    longest: [Duration; BUCKETS],
}

#[derive(Debug)]
struct State {
    slots: [Slot; SLOTS],
    in_flight: Option<Instant>,
    /// When the last sync returned.
    last: Option<Instant>,
}

/// The durations of the syncs of the last seconds.
#[derive(Debug)]
pub(crate) struct SyncLatency {
    began: Instant,
    state: Mutex<State>,
}

impl Default for SyncLatency {
    fn default() -> Self {
        let state = State { slots: [Slot::default(); SLOTS], in_flight: None, last: None };
        Self { began: Instant::now(), state: Mutex::new(state) }
    }
}

impl SyncLatency {
    /// A sync begins.
    pub(super) fn begin(&self) {
        self.state.lock().in_flight = Some(Instant::now());
    }

    /// The sync that began last has returned. Gives how long it took.
    pub(super) fn end(&self) -> Duration {
        let now = Instant::now();
        let began = self.state.lock().in_flight.take();
        let took = began.map_or(Duration::ZERO, |began| now.saturating_duration_since(began));
        self.record(took);
        took
    }

    /// A sync took this long, and has just returned.
    pub(crate) fn record(&self, took: Duration) {
        let now = Instant::now();
        let second = now.saturating_duration_since(self.began).as_secs();
        let mut state = self.state.lock();
        state.last = Some(now);
        let slot = &mut state.slots[second as usize % SLOTS];
        if slot.second != second {
            *slot = Slot { second, ..Slot::default() };
        }
        let bucket = bucket(took);
        slot.counts[bucket] += 1;
        slot.longest[bucket] = slot.longest[bucket].max(took);
    }

    /// The 99th percentile of the last seconds, where it is above `bound` and so often that it is
    /// no accident. `was_slow`: what was slow counts as slow until it is seen to be quick, or
    /// nothing was synced for a while.
    pub(crate) fn slow(&self, bound: Duration, was_slow: bool) -> Option<Duration> {
        let now = Instant::now();
        let second = now.saturating_duration_since(self.began).as_secs();
        let state = self.state.lock();
        let mut counts = [0_u32; BUCKETS];
        let mut longest = [Duration::ZERO; BUCKETS];
        let mut over = 0_u32;
        for slot in state.slots.iter().filter(|slot| slot.second + SLOTS as u64 > second) {
            for bucket in 0..BUCKETS {
                counts[bucket] += slot.counts[bucket];
                longest[bucket] = longest[bucket].max(slot.longest[bucket]);
                if slot.longest[bucket] > bound {
                    over += slot.counts[bucket];
                }
            }
        }
        if let Some(began) = state.in_flight {
            let waited = now.saturating_duration_since(began);
            let bucket = bucket(waited);
            counts[bucket] += 1;
            longest[bucket] = longest[bucket].max(waited);
            // One that hangs is as bad as many that are slow, one after the other.
            let times = waited.as_millis() / bound.as_millis().max(1);
            over += u32::try_from(times).unwrap_or(u32::MAX / 2);
        }
        let all: u32 = counts.iter().sum();
        if all == 0 {
            // Nothing says that it is quick again: it is believed after a while.
            let idle = state.last.map_or(Duration::MAX, |last| now.saturating_duration_since(last));
            return (was_slow && idle < SYNC_IDLE_FIT_AFTER).then_some(bound);
        }
        let p99 = percentile(&counts, &longest, all);
        (p99 > bound && (was_slow || over >= SYNC_SLOW_COUNT_MIN)).then_some(p99)
    }
}

/// The longest of the bucket that holds the 99th percentile.
fn percentile(counts: &[u32], longest: &[Duration], all: u32) -> Duration {
    // The slowest hundredth, one at least.
    let mut slowest = all.div_ceil(100);
    for (count, longest) in counts.iter().zip(longest).rev() {
        if *count >= slowest {
            return *longest;
        }
        slowest -= count;
    }
    Duration::ZERO
}

fn bucket(took: Duration) -> usize {
    let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    ((u64::BITS - millis.leading_zeros()) as usize).min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_secs(1);

    async fn sync(latency: &SyncLatency, millis: u64) {
        latency.begin();
        tokio::time::sleep(Duration::from_millis(millis)).await;
        latency.end();
    }

    #[tokio::test(start_paused = true)]
    async fn one_slow_sync_is_an_accident_and_three_are_not() {
        let latency = SyncLatency::default();
        sync(&latency, 1_500).await;
        assert_eq!(latency.slow(BOUND, false), None);
        sync(&latency, 1_500).await;
        sync(&latency, 1_500).await;
        assert_eq!(latency.slow(BOUND, false), Some(Duration::from_millis(1_500)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_sync_that_hangs_is_slow_before_it_returns() {
        let latency = SyncLatency::default();
        for _ in 0..50 {
            sync(&latency, 10).await;
        }
        latency.begin();
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(latency.slow(BOUND, false), None);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(latency.slow(BOUND, false), Some(Duration::from_secs(4)));
    }

    #[tokio::test(start_paused = true)]
    async fn fewer_slow_syncs_than_a_hundredth_do_not_count() {
        let latency = SyncLatency::default();
        for _ in 0..500 {
            latency.record(Duration::from_millis(5));
        }
        for _ in 0..4 {
            latency.record(Duration::from_millis(1_200));
        }
        assert_eq!(latency.slow(BOUND, false), None);
        for _ in 0..4 {
            latency.record(Duration::from_millis(1_200));
        }
        assert!(latency.slow(BOUND, false).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_disk_is_quick_once_its_syncs_are() {
        let latency = SyncLatency::default();
        for _ in 0..3 {
            sync(&latency, 2_000).await;
        }
        assert!(latency.slow(BOUND, false).is_some());
        tokio::time::sleep(Duration::from_secs(12)).await;
        assert!(latency.slow(BOUND, true).is_some(), "nothing was synced since");
        sync(&latency, 10).await;
        assert_eq!(latency.slow(BOUND, true), None);
        tokio::time::sleep(SYNC_IDLE_FIT_AFTER + Duration::from_secs(12)).await;
        assert_eq!(latency.slow(BOUND, true), None, "idle for so long that it is believed");
    }
}
