//! Simulated: one thread on which time and chance are given, so that a run can be repeated.
//!
//! Not part of the product. Promise: between [`begin`] and [`end`] every number this room and the
//! rooms above draw on this thread comes from one seed, the wall clock follows tokio's, and work
//! that may block is done at once, on the spot. Refused: a second thread; what it draws is chance.

use std::cell::RefCell;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::time::Instant;

/// Milliseconds since 1970 when every simulation begins.
const EPOCH_MILLIS: u64 = 1_780_000_000_000;

/// A small generator: a seed gives one series.
#[derive(Debug, Clone)]
pub struct Rng(pub u64);

impl Rng {
    /// The next number, any of 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below another, which is above 0.
    pub fn below(&mut self, below: u64) -> u64 {
        self.next_u64() % below
    }

    /// Whether something happens that does so this often in a thousand.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    /// A duration between two, the first one below the second.
    pub fn between(&mut self, from: Duration, to: Duration) -> Duration {
        let span = u64::try_from((to - from).as_nanos()).unwrap_or(u64::MAX);
        from + Duration::from_nanos(self.below(span.max(1)))
    }
}

struct Simulation {
    rng: Rng,
    started: Instant,
}

thread_local! {
    static SIMULATION: RefCell<Option<Simulation>> = const { RefCell::new(None) };
}

/// From now on this thread is simulated. To be called where tokio's paused clock is current.
pub fn begin(seed: u64) {
    let simulation = Simulation { rng: Rng(seed), started: Instant::now() };
    SIMULATION.with(|cell| *cell.borrow_mut() = Some(simulation));
}

/// From now on it is not.
pub fn end() {
    SIMULATION.with(|cell| *cell.borrow_mut() = None);
}

/// Whether this thread is simulated.
pub fn is_active() -> bool {
    SIMULATION.with(|cell| cell.borrow().is_some())
}

/// Virtual time since the simulation of this thread began; `None` where none runs.
pub fn elapsed() -> Option<Duration> {
    SIMULATION.with(|cell| cell.borrow().as_ref().map(|simulation| simulation.started.elapsed()))
}

/// The next number of the seed; `None` where nothing is simulated.
pub fn next_u64() -> Option<u64> {
    SIMULATION.with(|cell| cell.borrow_mut().as_mut().map(|simulation| simulation.rng.next_u64()))
}

/// Milliseconds since 1970 by virtual time; `None` where nothing is simulated.
pub fn wall_millis() -> Option<u64> {
    let passed = u64::try_from(elapsed()?.as_millis()).unwrap_or(u64::MAX);
    Some(EPOCH_MILLIS.saturating_add(passed))
}

/// What openraft draws its waits from: the seed, or chance where nothing is simulated.
pub(crate) fn openraft_rng() -> StdRng {
    StdRng::seed_from_u64(crate::groups::random_u64())
}
