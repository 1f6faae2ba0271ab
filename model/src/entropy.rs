//! Entropy: the random bytes a command may use, derived from what the leader stamped.
//!
//! Every replica draws the same bytes in the same order, because they are a function of the
//! batch's seed and the command's place alone. Promise: two places of one seed share no bytes.
//! Refused: asking the operating system for anything.

use std::fmt;

/// A deterministic stream of bytes for one command.
#[derive(Clone)]
pub struct Entropy {
    stream: blake3::OutputReader,
}

impl Entropy {
    /// The stream of the command at `place` of the batch stamped with `seed`.
    pub fn new(seed: [u8; 16], place: u64) -> Self {
        // The context string separates these bytes from every other use of the same seed, for ever.
        let mut hasher = blake3::Hasher::new_derive_key("mishkah store: entropy of a command, 1");
        hasher.update(&seed).update(&place.to_le_bytes());
        Self { stream: hasher.finalize_xof() }
    }

    /// Sixteen bytes never drawn before from this stream.
    pub fn bytes(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.stream.fill(&mut bytes);
        bytes
    }

    /// A random uuid (version 4), lower case with dashes.
    pub fn uuid4(&mut self) -> String {
        let mut bytes = self.bytes();
        // The version and variant bits that make it a uuid of version 4.
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        let mut text = String::with_capacity(36);
        for (place, byte) in bytes.iter().enumerate() {
            if matches!(place, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            for half in [byte >> 4, byte & 0x0f] {
                text.push(char::from_digit(u32::from(half), 16).expect("half a byte is a digit"));
            }
        }
        text
    }
}

impl fmt::Debug for Entropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entropy(at {})", self.stream.position())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_and_places_draw_equal_streams_and_others_do_not() {
        let draw = |seed, place| {
            let mut entropy = Entropy::new([seed; 16], place);
            [entropy.uuid4(), entropy.uuid4()]
        };
        assert_eq!(draw(7, 0), draw(7, 0));
        assert_ne!(draw(7, 0)[0], draw(7, 0)[1]);
        assert_ne!(draw(7, 0), draw(7, 1));
        assert_ne!(draw(7, 0), draw(8, 0));
    }

    #[test]
    fn the_stream_is_the_same_in_every_build() {
        let mut entropy = Entropy::new([1; 16], 2);
        let uuid = entropy.uuid4();
        assert_eq!(uuid.len(), 36);
        assert_eq!(&uuid[14..15], "4");
        assert!(matches!(&uuid[19..20], "8" | "9" | "a" | "b"));
        assert_eq!(uuid, "29070613-dc94-487a-8edf-dbb68349093c");
    }
}
