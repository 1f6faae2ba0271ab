//! Clock: what time this node stamps: its own wall clock, compared with those of its peers.
//!
//! Promise: where two others can be asked, a stamp is at most [`CLOCK_OFF_MAX`] from the median of
//! the clocks, and a node whose own clock is further off says that it should not lead. Where only
//! one can be asked, the time that this node stamped last, and the monotonic time since, is the
//! third opinion. A node alone stamps on from there when its clock leaps by more than
//! [`CLOCK_LEAP_MAX`], until the leap has lasted for [`CLOCK_LEAP_BELIEVED_AFTER`]: it may have
//! been set right, and nobody else can say.
//! Refused: a time before 1970, which is stamped as 1970.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::{NodeId, Timestamp};
use parking_lot::Mutex;
use raft::{NodeFitness, UnfitReason};
use tokio::time::Instant;

use crate::limits::{
    CLOCK_LEAP_BELIEVED_AFTER, CLOCK_LEAP_MAX, CLOCK_OFF_MAX, CLOCK_READING_AGE_MAX,
};

/// The wall clock of a node. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct WallClock(Arc<AtomicI64>);

impl WallClock {
    /// For tests and simulations: it shows so many milliseconds more than the system's.
    pub fn set_skew_ms(&self, skew_ms: i64) {
        self.0.store(skew_ms, Ordering::Relaxed);
    }

    /// What it shows: read here, and nowhere else on the write path.
    pub(crate) fn millis(&self) -> i64 {
        system_millis().saturating_add(self.0.load(Ordering::Relaxed)).max(0)
    }
}

fn system_millis() -> i64 {
    #[cfg(any(test, feature = "simulation"))]
    if let Some(millis) = raft::simulated::wall_millis() {
        return i64::try_from(millis).unwrap_or(i64::MAX);
    }
    // Before 1970 there is no duration since then: it is 1970.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// What a clock showed, and when that was.
#[derive(Debug, Clone, Copy)]
struct ClockReading {
    millis: i64,
    at: Instant,
}

impl ClockReading {
    /// What it shows by now, if it runs as the monotonic clock does.
    fn by(&self, now: Instant) -> i64 {
        self.millis.saturating_add(millis(now.saturating_duration_since(self.at)))
    }
}

#[derive(Debug, Default)]
struct State {
    peers: BTreeMap<NodeId, ClockReading>,
    /// What was taken for the time last.
    last: Option<ClockReading>,
    /// Whether that was compared with other clocks, then or before.
    is_compared: bool,
    /// Since when the clock of this node, which is alone, differs from that.
    leapt: Option<Instant>,
}

/// This node's clock among those of its peers. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct ClusterClock {
    own: WallClock,
    fitness: NodeFitness,
    state: Arc<Mutex<State>>,
}

impl ClusterClock {
    pub(crate) fn new(own: WallClock, fitness: NodeFitness) -> Self {
        Self { own, fitness, state: Arc::default() }
    }

    /// What this node's own clock shows, right or wrong: for its peers to compare.
    pub(crate) fn own_millis(&self) -> i64 {
        self.own.millis()
    }

    /// What a peer's clock showed half of `round_trip` ago.
    pub(crate) fn observe(&self, peer: NodeId, showed: i64, round_trip: Duration) {
        let millis = showed.saturating_add(millis(round_trip / 2));
        self.state.lock().peers.insert(peer, ClockReading { millis, at: Instant::now() });
    }

    /// The time to stamp. Says in the node's fitness where its own clock is off.
    pub(crate) fn now(&self) -> Timestamp {
        let (own, now) = (self.own.millis(), Instant::now());
        let mut state = self.state.lock();
        state.peers.retain(|_, reading| now - reading.at <= CLOCK_READING_AGE_MAX);
        let expected = state.last.map_or(own, |last| last.by(now));
        let others: Vec<i64> = state.peers.values().map(|reading| reading.by(now)).collect();
        let time = if others.is_empty() {
            state.alone(own, expected, now)
        } else {
            state.leapt = None;
            // Never compared, it is this clock's own opinion again. The earlier of two counts then:
            // a stamp too early is raised to the branch's last, one too late stays in the branch.
            let third = if state.is_compared { expected } else { i64::MIN };
            state.is_compared = true;
            median(own, others, third)
        };
        let off = own.saturating_sub(time);
        let is_off = off.unsigned_abs() > as_millis(CLOCK_OFF_MAX);
        let stamped = if is_off { time } else { own };
        state.last = Some(ClockReading { millis: stamped, at: now });
        drop(state);
        // Some nearer to be fit again: a clock at the bound must not make leaderships come and go.
        let was_off = self.fitness.has(UnfitReason::ClockOff);
        let is_unfit = is_off || (was_off && off.unsigned_abs() > as_millis(CLOCK_OFF_MAX / 2));
        if is_unfit || was_off {
            self.fitness.set(UnfitReason::ClockOff, is_unfit.then(|| off_words(off)));
        }
        Timestamp(stamped)
    }
}

impl State {
    /// The time where no other node can be asked.
    fn alone(&mut self, own: i64, expected: i64, now: Instant) -> i64 {
        if own.abs_diff(expected) <= as_millis(CLOCK_LEAP_MAX) {
            self.leapt = None;
            return own;
        }
        let since = *self.leapt.get_or_insert(now);
        if now - since < CLOCK_LEAP_BELIEVED_AFTER {
            return expected;
        }
        self.leapt = None;
        own
    }
}

/// The middle one of all clocks; where two are in the middle, the third opinion decides.
fn median(own: i64, others: Vec<i64>, third: i64) -> i64 {
    let mut all = others;
    all.push(own);
    if all.len().is_multiple_of(2) {
        all.push(third);
    }
    all.sort_unstable();
    all[all.len() / 2]
}

fn off_words(off: i64) -> String {
    let seconds = off.unsigned_abs() / 1000;
    let direction = if off > 0 { "ahead of" } else { "behind" };
    format!(
        "its clock is {seconds} s {direction} the other clocks, or of what it was; set it right"
    )
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn as_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CENTURIES: i64 = 317 * 365 * 86_400_000;

    fn clock() -> (ClusterClock, WallClock) {
        let own = WallClock::default();
        (ClusterClock::new(own.clone(), NodeFitness::default()), own)
    }

    fn is_off(clock: &ClusterClock) -> bool {
        clock.fitness.has(UnfitReason::ClockOff)
    }

    /// Whether the clock gives the right time, whatever it shows.
    fn is_right(clock: &ClusterClock) -> bool {
        clock.now().0.abs_diff(system_millis()) <= as_millis(CLOCK_OFF_MAX)
    }

    fn observe_peers(clock: &ClusterClock, peers: u64) {
        for peer in 1..=peers {
            clock.observe(NodeId(peer), system_millis(), Duration::ZERO);
        }
    }

    #[test]
    fn a_leap_is_not_stamped_whoever_can_be_asked() {
        for peers in 0..4 {
            for leap in [CENTURIES, -CENTURIES, 61_000] {
                let (clock, own) = clock();
                observe_peers(&clock, peers);
                assert!(is_right(&clock));
                own.set_skew_ms(leap);
                assert!(is_right(&clock), "{leap} ms with {peers} peers");
                assert!(is_off(&clock), "{leap} ms with {peers} peers");
                own.set_skew_ms(0);
                assert!(is_right(&clock) && !is_off(&clock), "back, with {peers} peers");
            }
        }
    }

    #[test]
    fn a_wrong_clock_of_a_peer_changes_nothing() {
        let (clock, _) = clock();
        observe_peers(&clock, 2);
        clock.observe(NodeId(1), system_millis() + CENTURIES, Duration::ZERO);
        assert!(is_right(&clock) && !is_off(&clock));
    }

    #[test]
    fn a_node_that_starts_with_a_wrong_clock_takes_its_peers() {
        for peers in [1, 2] {
            let (clock, own) = clock();
            own.set_skew_ms(CENTURIES);
            // As it does before any link stands.
            clock.now();
            observe_peers(&clock, peers);
            assert!(is_right(&clock) && is_off(&clock), "with {peers} peers");
            assert!(is_right(&clock), "and goes on with {peers} peers");
        }
    }

    #[test]
    fn a_clock_before_1970_shows_1970() {
        let (clock, own) = clock();
        own.set_skew_ms(-100 * CENTURIES);
        assert_eq!(clock.now(), Timestamp(0));
        assert_eq!(clock.own_millis(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_leap_of_a_node_alone_is_believed_when_it_lasts() {
        let (clock, own) = clock();
        assert!(is_right(&clock));
        own.set_skew_ms(CENTURIES);
        let before = clock.now();
        tokio::time::sleep(CLOCK_LEAP_BELIEVED_AFTER / 2).await;
        assert!(clock.now() < Timestamp(before.0 + CENTURIES / 2) && is_off(&clock));
        tokio::time::sleep(CLOCK_LEAP_BELIEVED_AFTER).await;
        assert!(clock.now() > Timestamp(before.0 + CENTURIES / 2) && !is_off(&clock));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reading_of_long_ago_counts_no_more() {
        let (clock, _) = clock();
        clock.observe(NodeId(1), system_millis() + CENTURIES, Duration::ZERO);
        clock.observe(NodeId(2), system_millis() + CENTURIES, Duration::ZERO);
        tokio::time::sleep(CLOCK_READING_AGE_MAX + Duration::from_secs(1)).await;
        assert!(is_right(&clock));
    }
}
