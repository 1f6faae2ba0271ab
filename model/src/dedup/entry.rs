//! Entry: one remembered decision in 36 bytes, so that millions fit in memory.
//!
//! A command is known by 16 bytes of its id's hash, its content by 8 of its payload's: two commands
//! of one id and different content pass for each other once in 2^64.

use crate::canonical;
use crate::codec;
use crate::command::Command;
use crate::hash::Hash;
use crate::ids::{CommandId, Offset};

/// Bytes of an entry in memory and in a checkpoint.
pub(crate) const ENTRY_BYTES: usize = 36;
/// The unit in which an entry keeps the time of its decision: 2^32 of these are 13 years, and
/// what is compared are ages, so that an overflow only makes an old entry look younger.
pub(crate) const TICK_MS: u64 = 100;

/// 16 bytes of a command id's hash: nobody finds two ids that share them.
pub(crate) type IdHash = [u8; 16];
/// 8 bytes of a payload's hash.
pub(crate) type PayloadHash = [u8; 8];

/// One decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DedupEntry {
    pub(crate) id: IdHash,
    pub(crate) payload: PayloadHash,
    /// See [`PackedOutcome::pack`]; in two halves, so that an entry is aligned to 4 bytes.
    decision: [u32; 2],
    /// The log's uptime when it was decided, in ticks, rounded up: never forgotten early.
    tick: u32,
}

/// What was decided, as an entry holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PackedOutcome {
    /// It made these events; none for `Define` and `Seed`.
    Events { first: Offset, count: u32 },
    /// It took a number, which is kept as an attachment.
    Reserved,
    /// It was refused. The place of the refusal's code in the table's list; the whole refusal is
    /// an attachment while it is among the newest.
    Rejected { code: u32 },
}

const COUNT_BITS: u32 = 18;
const OFFSET_BITS: u32 = 44;

impl PackedOutcome {
    /// Two bits of kind, 44 of offset (eleven years at 50,000 events a second), 18 of count.
    fn pack(self) -> u64 {
        match self {
            Self::Events { first, count } => {
                // Packed silently it would point a retry at another command's events.
                assert!(first.0 < 1 << OFFSET_BITS, "offset {first} is beyond what is counted");
                // More events than any request is answered with: the first of them are.
                (first.0 << COUNT_BITS) | u64::from(count).min((1 << COUNT_BITS) - 1)
            }
            Self::Reserved => 1 << 62,
            Self::Rejected { code } => (2 << 62) | u64::from(code),
        }
    }

    /// `None` for bytes that no decision has.
    fn unpack(packed: u64) -> Option<Self> {
        let count_mask = (1 << COUNT_BITS) - 1;
        Some(match packed >> 62 {
            0 => Self::Events {
                first: Offset(packed >> COUNT_BITS),
                count: u32::try_from(packed & count_mask).ok()?,
            },
            1 => Self::Reserved,
            2 => Self::Rejected { code: u32::try_from(packed & u64::from(u32::MAX)).ok()? },
            _ => return None,
        })
    }
}

impl DedupEntry {
    pub(crate) fn new(
        id: &CommandId,
        payload: PayloadHash,
        uptime_ms: u64,
        decision: PackedOutcome,
    ) -> Self {
        let packed = decision.pack();
        Self {
            id: id_hash(id),
            payload,
            decision: [low(packed >> 32), low(packed)],
            tick: low(uptime_ms.div_ceil(TICK_MS)),
        }
    }

    pub(crate) fn decision(&self) -> PackedOutcome {
        PackedOutcome::unpack(self.packed()).expect("checked when it was made or read")
    }

    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self.decision(), PackedOutcome::Rejected { .. })
    }

    fn packed(&self) -> u64 {
        (u64::from(self.decision[0]) << 32) | u64::from(self.decision[1])
    }

    /// How long ago it was decided, in milliseconds of log uptime, rounded down to a tick.
    pub(crate) fn age_ms(&self, uptime_ms: u64) -> u64 {
        // Ages and not times are compared: a tick wraps after 13 years, the age of an entry does
        // not.
        let ticks = low(uptime_ms / TICK_MS).wrapping_sub(self.tick);
        // Rounded up, a tick may lie a little ahead of now.
        if ticks > u32::MAX / 2 { 0 } else { u64::from(ticks) * TICK_MS }
    }

    pub(crate) fn to_bytes(self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..16].copy_from_slice(&self.id);
        bytes[16..24].copy_from_slice(&self.payload);
        bytes[24..32].copy_from_slice(&self.packed().to_le_bytes());
        bytes[32..].copy_from_slice(&self.tick.to_le_bytes());
        bytes
    }

    /// `None` for bytes that no entry has.
    pub(crate) fn from_bytes(bytes: &[u8; ENTRY_BYTES]) -> Option<Self> {
        let packed = u64::from_le_bytes(bytes[24..32].try_into().ok()?);
        // Checked here once, so that `decision` can rely on it at every look.
        PackedOutcome::unpack(packed)?;
        Some(Self {
            id: bytes[..16].try_into().ok()?,
            payload: bytes[16..24].try_into().ok()?,
            decision: [low(packed >> 32), low(packed)],
            tick: u32::from_le_bytes(bytes[32..].try_into().ok()?),
        })
    }
}

/// The lower half of a number.
fn low(number: u64) -> u32 {
    number as u32
}

/// Names what a command asks, whoever asks and whenever, in whatever order its members were sent.
pub(crate) fn payload_hash(command: &Command) -> PayloadHash {
    let hash = blake3::hash(&canonical::bytes(&(&command.key, &command.request)));
    hash.as_bytes()[..8].try_into().expect("32 bytes hold 8")
}

/// The same for a call, of which only its procedure knows what it means.
pub(crate) fn call_hash(command: &Command, procedure: &str, meaning: &Hash) -> PayloadHash {
    let hash = blake3::hash(&canonical::bytes(&(&command.key, procedure, meaning)));
    hash.as_bytes()[..8].try_into().expect("32 bytes hold 8")
}

pub(crate) fn id_hash(id: &CommandId) -> IdHash {
    let hash = blake3::hash(&codec::bare(id));
    hash.as_bytes()[..16].try_into().expect("32 bytes hold 16")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_36_bytes_and_reads_back() {
        assert_eq!(size_of::<DedupEntry>(), ENTRY_BYTES);
        let id = CommandId { session: "s".to_owned(), request: "1".to_owned() };
        for decision in [
            PackedOutcome::Events { first: Offset(0), count: 0 },
            PackedOutcome::Events { first: Offset((1 << 44) - 1), count: (1 << 18) - 1 },
            PackedOutcome::Reserved,
            PackedOutcome::Rejected { code: u32::MAX },
        ] {
            let entry = DedupEntry::new(&id, [7; 8], 12_345, decision);
            assert_eq!(entry.decision(), decision);
            assert_eq!(DedupEntry::from_bytes(&entry.to_bytes()), Some(entry));
        }
        assert_eq!(DedupEntry::from_bytes(&[0xff; ENTRY_BYTES]), None);
    }

    #[test]
    fn an_age_is_never_overstated() {
        let id = CommandId { session: "s".to_owned(), request: "1".to_owned() };
        let entry = |at| DedupEntry::new(&id, [0; 8], at, PackedOutcome::Reserved);
        assert_eq!(entry(101).age_ms(101), 0);
        assert_eq!(entry(101).age_ms(299), 0);
        assert_eq!(entry(101).age_ms(300), 100);
        let wraps = u64::from(u32::MAX) * TICK_MS;
        assert_eq!(entry(wraps).age_ms(wraps + 1_000), 1_000, "across an overflow");
    }
}
