//! Dice: chance that can be thrown again. One seed gives one series, on every machine.

/// A series of numbers from a seed (SplitMix64: Steele, Lea and Flood, OOPSLA 2014).
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// The series of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A series of its own for one who is named by a number: what others throw does not move it.
    pub fn of(seed: u64, who: u64) -> Self {
        let mut dice = Self(seed ^ who.wrapping_mul(0xD6E8_FEB8_6659_FD93));
        dice.throw();
        dice
    }

    /// The next number.
    pub fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number from `from` to `to`, both included.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.throw() % (to - from + 1)
    }

    /// Whether something happens that does so in this many of a hundred cases.
    pub fn percent(&mut self, of_hundred: u64) -> bool {
        self.throw() % 100 < of_hundred
    }

    /// One of several; there is at least one.
    ///
    /// # Panics
    /// If there is none.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[usize::try_from(self.throw() % from.len() as u64).expect("a slice's length")]
    }

    /// Puts things in an order of chance.
    pub fn shuffle<T>(&mut self, things: &mut [T]) {
        for at in (1..things.len()).rev() {
            let other = usize::try_from(self.between(0, at as u64)).expect("a slice's length");
            things.swap(at, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_series_and_another_seed_another() {
        let series = |mut dice: Rng| (0..8).map(|_| dice.throw()).collect::<Vec<_>>();
        assert_eq!(series(Rng::new(7)), series(Rng::new(7)));
        assert_ne!(series(Rng::new(7)), series(Rng::new(8)));
        assert_ne!(series(Rng::of(7, 1)), series(Rng::of(7, 2)));
    }

    #[test]
    fn a_shuffle_keeps_everything() {
        let mut cards: Vec<u64> = (0..40).collect();
        Rng::new(1).shuffle(&mut cards);
        assert_ne!(cards, (0..40).collect::<Vec<_>>());
        cards.sort_unstable();
        assert_eq!(cards, (0..40).collect::<Vec<_>>());
    }
}
