//! Rng: a seeded random number generator. A run that is repeated with its seed draws the same
//! numbers.
//!
//! Promise: one seed gives one series, on every machine and with every version of this program.
//! Refused: secrets. The numbers are easy to predict.

/// A random number generator (SplitMix64: Steele, Lea and Flood, OOPSLA 2014).
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// The generator of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The generator of one stream of a seed. Streams are independent: what one draws does not
    /// change what another draws.
    pub fn with_stream(seed: u64, stream: u64) -> Self {
        let mut rng = Self(seed ^ stream.wrapping_mul(0xD6E8_FEB8_6659_FD93));
        rng.next_u64();
        rng
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number from `from` to `to`, both included.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.next_u64() % (to - from + 1)
    }

    /// `true` with this probability, in percent.
    pub fn random_bool(&mut self, percent: u64) -> bool {
        self.next_u64() % 100 < percent
    }

    /// One item, each with the same probability.
    ///
    /// # Panics
    /// If there are no items.
    pub fn choose<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[usize::try_from(self.next_u64() % items.len() as u64).expect("a slice's length")]
    }

    /// Puts the items in random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            let other = usize::try_from(self.between(0, at as u64)).expect("a slice's length");
            items.swap(at, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_series_and_another_seed_another() {
        let series = |mut rng: Rng| (0..8).map(|_| rng.next_u64()).collect::<Vec<_>>();
        assert_eq!(series(Rng::new(7)), series(Rng::new(7)));
        assert_ne!(series(Rng::new(7)), series(Rng::new(8)));
        assert_ne!(series(Rng::with_stream(7, 1)), series(Rng::with_stream(7, 2)));
    }

    #[test]
    fn a_shuffle_keeps_every_element() {
        let mut items: Vec<u64> = (0..40).collect();
        Rng::new(1).shuffle(&mut items);
        assert_ne!(items, (0..40).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..40).collect::<Vec<_>>());
    }
}
