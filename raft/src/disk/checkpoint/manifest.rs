//! Manifest: the list of a checkpoint's chunks.
//!
//! Promise: a hash over the list is part of the encoding, so a damaged manifest is never decoded.

use std::collections::HashMap;
use std::fmt::Write;
use std::path::Path;

use model::codec;
use serde::{Deserialize, Serialize};

use crate::disk::{CheckpointError, CheckpointMeta, ChunkInfo};

const HASH: usize = 32;

/// The metadata and the chunks of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) meta: CheckpointMeta,
    pub(super) chunks: Vec<ChunkInfo>,
}

model::versioned!(Manifest => CheckpointManifest);

impl Manifest {
    /// Encodes an envelope, the list, and the hash of both.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = codec::encode(self);
        let hash = blake3::hash(&bytes);
        bytes.extend_from_slice(hash.as_bytes());
        bytes
    }

    /// Decodes what [`Manifest::encode`] gave. `file`: the source, for the message.
    pub(super) fn decode(bytes: &[u8], file: &Path) -> Result<Self, CheckpointError> {
        let cut = bytes.len().checked_sub(HASH);
        let cut = cut.ok_or_else(|| CheckpointError::damaged(file, "it is cut off"))?;
        let (list, hash) = bytes.split_at(cut);
        if blake3::hash(list).as_bytes() != hash {
            return Err(CheckpointError::damaged(file, "its list has another hash"));
        }
        codec::decode(list).map_err(|error| CheckpointError::damaged(file, error.to_string()))
    }

    /// The chunks by their names. For whoever asks for many: a branch with a long history has
    /// thousands.
    pub(super) fn by_name(&self) -> HashMap<&str, &ChunkInfo> {
        self.chunks.iter().map(|chunk| (chunk.name.as_str(), chunk)).collect()
    }
}

/// The hash as lower-case hexadecimal digits, which is the name of a chunk's file.
pub(super) fn hex(hash: &[u8; HASH]) -> String {
    hash.iter().fold(String::with_capacity(2 * HASH), |mut name, byte| {
        write!(name, "{byte:02x}").expect("strings can be written to");
        name
    })
}
