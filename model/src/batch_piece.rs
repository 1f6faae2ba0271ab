//! BatchPiece: a piece of a batch that is too large for one log entry, and what waits for the last.
//!
//! Why: an entry of many megabytes holds up every entry behind it, on the disk, on the way to the
//! followers and where it is applied. In pieces, others come in between; and with the last piece
//! the whole is one command again, done or not done.
//!
//! Promises:
//! - what the pieces hold is nobody's until the last one is applied; then all of it is decided at
//!   that entry's place in the log, as a command of its branch;
//! - pieces of two batches are never mixed: one that does not follow is left out, and so is its
//!   batch;
//! - a partition holds the pieces of one batch at most: another one's first piece takes their
//!   place, and so does time ([`STAGED_KEPT_MS`]), for a leader that is gone sends no last piece.
//!
//! Refused: batches of more than one command.

use std::sync::Arc;

use imbl::Vector;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::codec::{self, EntryError, FormatKind};
use crate::command::{Batch, Command};
use crate::ids::BranchKey;

/// How long pieces wait for the next one, in milliseconds of log uptime: a leader that goes on has
/// sent it by then.
const STAGED_KEPT_MS: u64 = 60_000;

/// A piece of a batch of one command, as a log entry of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchPiece {
    /// As [`Batch::level`].
    #[serde(skip)]
    pub level: u16,
    /// The batch's entropy, which names it.
    #[serde(with = "serde_bytes")]
    pub batch: [u8; 16],
    /// Whose command it is.
    pub key: BranchKey,
    /// Which piece, from 0.
    pub number: u32,
    /// How many there are.
    pub count: u32,
    /// As [`Batch::elapsed_ms`].
    pub elapsed_ms: u64,
    /// A stretch of the encoded batch.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

crate::versioned!(BatchPiece => BatchPiece);

impl BatchPiece {
    /// A batch of one command in pieces, with so many bytes of it in each, which tell no time yet.
    /// None where it has another number of commands.
    pub fn split(batch: &Batch, piece_bytes: usize) -> Vec<Self> {
        let [Command { key, .. }] = &batch.commands[..] else { return Vec::new() };
        let whole = batch.encode();
        let stretches = whole.chunks(piece_bytes.max(1));
        let count = u32::try_from(stretches.len()).unwrap_or(u32::MAX);
        let piece = |(number, bytes): (u32, &[u8])| Self {
            level: batch.level,
            batch: batch.entropy,
            key: key.clone(),
            number,
            count,
            elapsed_ms: 0,
            bytes: bytes.to_vec(),
        };
        (0..).zip(stretches).map(piece).collect()
    }

    /// The bytes of the log entry.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode_entry(self.level, self)
    }

    /// Whether its batch is whole with it.
    pub fn is_last(&self) -> bool {
        self.number.checked_add(1) == Some(self.count)
    }
}

/// A log entry of a partition.
#[derive(Debug, Clone, PartialEq)]
pub enum PartitionEntry {
    /// Commands.
    Batch(Batch),
    /// A piece of a large one.
    Piece(BatchPiece),
}

impl PartitionEntry {
    /// Reads a log entry.
    ///
    /// # Errors
    /// [`EntryError`]: this build must not apply it, or cannot read it.
    pub fn decode(entry: &[u8]) -> Result<Self, EntryError> {
        if codec::entry_kind(entry) == Some(FormatKind::BatchPiece as u8) {
            let (level, part) = codec::decode_entry(entry)?;
            return Ok(Self::Piece(BatchPiece { level, ..part }));
        }
        Batch::decode(entry).map(Self::Batch)
    }
}

/// The pieces of one batch that have come so far.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StagedBatch {
    batch: [u8; 16],
    key: BranchKey,
    count: u32,
    pieces: Vector<Arc<[u8]>>,
    bytes: u64,
    /// When the last of them came, in the log's uptime.
    uptime_ms: u64,
}

impl StagedBatch {
    /// With one more piece in it; `None` where that one neither begins a batch nor follows.
    pub(crate) fn with(staged: Option<Self>, part: BatchPiece, uptime_ms: u64) -> Option<Self> {
        let BatchPiece { batch, key, number, count, bytes, .. } = part;
        let begun = match (number, staged) {
            (0, _) => Self { batch, key, count, pieces: Vector::new(), bytes: 0, uptime_ms },
            (_, staged) => staged.filter(|it| {
                let here = (it.batch, &it.key, it.count, it.pieces.len());
                here == (batch, &key, count, usize::try_from(number).unwrap_or(usize::MAX))
            })?,
        };
        let (mut pieces, length) = (begun.pieces, bytes.len() as u64);
        pieces.push_back(bytes.into());
        Some(Self { pieces, bytes: begun.bytes + length, uptime_ms, ..begun })
    }

    /// Whether the next piece will not come any more.
    pub(crate) fn is_stale(&self, uptime_ms: u64) -> bool {
        uptime_ms.saturating_sub(self.uptime_ms) > STAGED_KEPT_MS
    }

    /// How many bytes of memory the pieces take.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.bytes
    }

    /// Whose command it is.
    pub(crate) fn key(&self) -> &BranchKey {
        &self.key
    }

    /// The batch, once all pieces are here.
    pub(crate) fn batch(&self) -> Result<Batch, EntryError> {
        let whole: Vec<u8> = self.pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
        Batch::decode(&whole)
    }

    /// As a checkpoint has it.
    pub(crate) fn chunk(&self) -> StagedChunk {
        StagedChunk {
            batch: self.batch,
            key: self.key.clone(),
            count: self.count,
            uptime_ms: self.uptime_ms,
            pieces: self.pieces.iter().map(|piece| ByteBuf::from(piece.to_vec())).collect(),
        }
    }
}

/// The chunk `staged` of a checkpoint.
#[derive(Serialize, Deserialize)]
pub(crate) struct StagedChunk {
    #[serde(with = "serde_bytes")]
    batch: [u8; 16],
    key: BranchKey,
    count: u32,
    uptime_ms: u64,
    pieces: Vec<ByteBuf>,
}

crate::versioned!(StagedChunk => StagedBatch);

impl StagedChunk {
    /// As a partition has it.
    pub(crate) fn staged(self) -> StagedBatch {
        let Self { batch, key, count, uptime_ms, pieces } = self;
        let bytes = pieces.iter().map(|piece| piece.len() as u64).sum();
        let pieces = pieces.into_iter().map(|piece| Arc::from(piece.into_vec())).collect();
        StagedBatch { batch, key, count, pieces, bytes, uptime_ms }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::command::{Action, Request, Transaction};
    use crate::outcome::Outcome;
    use crate::partition::long::LongCommand;
    use crate::testing::{Shop, mutation};

    fn pieces(shop: &mut Shop, random: u8, id: &str) -> Vec<BatchPiece> {
        let mutations = vec![mutation(Action::Insert, "tickets", &format!(r#"{{"id":"{id}"}}"#))];
        pieces_of(shop, random, Request::Transaction(Transaction::of(mutations)))
    }

    fn pieces_of(shop: &mut Shop, random: u8, request: Request) -> Vec<BatchPiece> {
        let command = shop.command(request);
        let batch = Batch {
            level: codec::LEVEL,
            stamped: shop.now,
            elapsed_ms: 0,
            entropy: [random; 16],
            commands: vec![command],
        };
        let pieces = BatchPiece::split(&batch, 20);
        assert!(pieces.len() > 3);
        pieces
    }

    fn stage(shop: &mut Shop, pieces: &[BatchPiece]) -> Option<LongCommand> {
        let mut last = None;
        for piece in pieces {
            last = shop.partition.stage(piece.clone());
        }
        last
    }

    #[test]
    fn nothing_is_done_without_the_last_piece() {
        let mut shop = Shop::lenient();
        let all = pieces(&mut shop, 1, "a");
        let before = shop.branch().state_hash();
        assert!(stage(&mut shop, &all[..all.len() - 1]).is_none());
        assert_eq!(shop.branch().state_hash(), before);
        assert!(shop.partition.memory_bytes() > 20, "what waits is counted");
        let outcome = stage(&mut shop, &all[all.len() - 1..]).unwrap().run().unwrap();
        assert!(matches!(outcome.applied.outcome, Outcome::Accepted(_)));
        shop.partition.finish(outcome);
        assert!(shop.partition.staged.is_none());
        assert_ne!(shop.branch().state_hash(), before);
    }

    #[test]
    fn a_definition_in_pieces_shares_its_schema_with_other_branches() {
        let mut shop = Shop::lenient();
        let schema = Arc::clone(&shop.branch().definition().unwrap().schema);
        let strict =
            crate::testing::definition(crate::Validation::Strict, crate::VersionRule::Read);
        let pieces = pieces_of(&mut shop, 1, Request::Define(Arc::new(strict)));
        let outcome = stage(&mut shop, &pieces).unwrap().run().unwrap();
        shop.partition.finish(outcome);
        let definition = shop.branch().definition().unwrap();
        assert_eq!(definition.validation, crate::Validation::Strict);
        assert!(Arc::ptr_eq(&definition.schema, &schema));
    }

    #[test]
    fn pieces_of_two_batches_are_never_mixed() {
        let mut shop = Shop::lenient();
        let (one, two) = (pieces(&mut shop, 1, "a"), pieces(&mut shop, 2, "b"));
        assert!(stage(&mut shop, &one[..2]).is_none());
        assert!(stage(&mut shop, &two[2..]).is_none(), "they follow none of theirs");
        assert!(stage(&mut shop, &one[2..]).is_none(), "theirs are gone by then");
        assert!(stage(&mut shop, &one[..2]).is_none());
        assert!(stage(&mut shop, &two).is_some(), "another first piece begins anew");
        let gap: Vec<_> = one.iter().filter(|piece| piece.number != 1).cloned().collect();
        assert!(stage(&mut shop, &gap).is_none());
    }

    #[test]
    fn pieces_whose_leader_is_gone_do_not_stay() {
        let mut shop = Shop::lenient();
        let all = pieces(&mut shop, 1, "a");
        assert!(stage(&mut shop, &all[..2]).is_none());
        let mut late = all[2].clone();
        late.elapsed_ms = 10 * STAGED_KEPT_MS;
        assert!(shop.partition.stage(late).is_none());
        assert!(shop.partition.staged.is_some(), "it tells the time of before it");
        shop.elapsed_ms = STAGED_KEPT_MS;
        shop.insert("tickets", "{}").unwrap();
        assert!(shop.partition.staged.is_some());
        shop.elapsed_ms = 1;
        shop.insert("tickets", "{}").unwrap();
        assert!(shop.partition.staged.is_none());
        assert!(stage(&mut shop, &all[3..]).is_none());
    }
}
