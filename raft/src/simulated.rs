//! Simulated: one thread on which time and random numbers are controlled, so that a run can be
//! repeated.
//!
//! Not part of the product. Promise: between [`begin`] and [`end`] every random number that this
//! crate and the crates above draw on this thread comes from one seed, the wall clock follows
//! tokio's, and work that may block runs at once. Refused: control over other threads.

use std::cell::RefCell;
use std::time::Duration;

use tokio::time::Instant;

/// The wall clock at the start of every simulation, in milliseconds since 1970.
const EPOCH_MILLIS: u64 = 1_780_000_000_000;

/// A small random number generator (SplitMix64): one seed gives one sequence.
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

    /// A number below `below`, which must not be 0.
    pub fn below(&mut self, below: u64) -> u64 {
        self.next_u64() % below
    }

    /// `true` with a probability of `per_mille` in a thousand.
    pub fn random_bool(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    /// A duration from `from` up to `to`, which must be longer.
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

/// Begins a simulation on this thread. Must be called within a tokio runtime whose clock is paused.
pub fn begin(seed: u64) {
    let simulation = Simulation { rng: Rng(seed), started: Instant::now() };
    SIMULATION.with(|cell| *cell.borrow_mut() = Some(simulation));
}

/// Ends the simulation on this thread.
pub fn end() {
    SIMULATION.with(|cell| *cell.borrow_mut() = None);
}

/// Whether this thread is simulated.
pub fn is_active() -> bool {
    SIMULATION.with(|cell| cell.borrow().is_some())
}

/// Virtual time since the simulation of this thread began; `None` without one.
pub fn elapsed() -> Option<Duration> {
    SIMULATION.with(|cell| cell.borrow().as_ref().map(|simulation| simulation.started.elapsed()))
}

/// The next random number of the simulation; `None` without one.
pub fn next_u64() -> Option<u64> {
    SIMULATION.with(|cell| cell.borrow_mut().as_mut().map(|simulation| simulation.rng.next_u64()))
}

/// The wall clock of the simulation, in milliseconds since 1970; `None` without one.
pub fn wall_millis() -> Option<u64> {
    let passed = u64::try_from(elapsed()?.as_millis()).unwrap_or(u64::MAX);
    Some(EPOCH_MILLIS.saturating_add(passed))
}
