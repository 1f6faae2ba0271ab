//! Random: numbers nobody can foresee, or those of the seed in a simulation.

use std::hash::{BuildHasher as _, Hasher as _};

/// A random number: the next one of the seed in a simulation.
pub(crate) fn random_u64() -> u64 {
    #[cfg(any(test, feature = "testing"))]
    if let Some(number) = crate::simulated::next_u64() {
        return number;
    }
    std::hash::RandomState::new().build_hasher().finish()
}

/// The generator of openraft's random timeouts: seeded by the simulation, or randomly without one.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn openraft_rng() -> rand::rngs::StdRng {
    rand::SeedableRng::seed_from_u64(random_u64())
}
