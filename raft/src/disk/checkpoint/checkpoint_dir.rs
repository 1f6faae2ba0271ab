//! Checkpoint directory: the checkpoints of one replica, and which files may be removed.
//!
//! Promise: a checkpoint is listed only when its manifest and all chunks are durable and were read
//! back; no chunk is removed that a listed, pinned or incoming checkpoint refers to. Refused: a
//! manifest that is damaged; it is renamed and kept.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::disk::checkpoint::manifest::{Manifest, hex};
use crate::disk::checkpoint::{TEMP_SUFFIX, create_dir_durably, write_atomically};
use crate::disk::device::{retry_shortage, sync_dir};
use crate::disk::{CheckpointError, CheckpointId, CheckpointMeta, ChunkInfo, GroupKey};
use crate::limits;
use crate::machine::{ChunkSink, FrozenState};

const MANIFEST_SUFFIX: &str = ".checkpoint";
const DAMAGED_SUFFIX: &str = ".damaged";
const INCOMING_PREFIX: &str = "incoming-";

/// A checkpoint in the directory. It is in use while anything but the directory holds a reference.
#[derive(Debug)]
pub(super) struct StoredCheckpoint {
    pub(super) id: CheckpointId,
    pub(super) manifest: Manifest,
    pub(super) bytes: Bytes,
}

/// The order of checkpoints: the newest has the highest index, not the highest serial.
fn order_key(stored: &Arc<StoredCheckpoint>) -> (u64, u64) {
    (stored.id.index, stored.id.serial)
}

/// Hashes of chunks that are not removed while anything but the directory holds a reference.
pub(super) type PinnedChunks = Arc<BTreeSet<[u8; 32]>>;

#[derive(Debug, Default)]
struct State {
    /// By index, lowest first. That may differ from the order in which they were added: while one
    /// was written here, one with a higher index may have come from another replica.
    stored: Vec<Arc<StoredCheckpoint>>,
    /// No longer among the last two, but in use when last checked.
    superseded: Vec<Arc<StoredCheckpoint>>,
    /// The chunks of incoming checkpoints.
    pinned_chunks: Vec<PinnedChunks>,
    next_serial: u64,
    next_incoming: u64,
}

/// The checkpoints of one replica.
#[derive(Debug)]
pub(super) struct CheckpointDir {
    dir: PathBuf,
    group: GroupKey,
    /// Held while chunks become files here, so that no other call removes them before their
    /// manifest is listed.
    writing: Mutex<()>,
    state: Mutex<State>,
    /// Notified when the chunks of the newest checkpoint should be verified.
    pub(super) verify_requests: Arc<Notify>,
}

impl CheckpointDir {
    /// Lists the checkpoints, and removes what a crash left unfinished.
    pub(super) fn open(dir: PathBuf, group: GroupKey) -> Result<Self, CheckpointError> {
        let mut state = State::default();
        if dir.is_dir() {
            let mut serials = remove_unfinished(&dir).map_err(CheckpointError::io(&dir))?;
            serials.sort_unstable();
            for serial in serials {
                // Also for a damaged one: its serial must not be used again.
                state.next_serial = serial + 1;
                let path = dir.join(format!("{serial:016}{MANIFEST_SUFFIX}"));
                match load(&path, group, serial) {
                    Ok(stored) => state.stored.push(Arc::new(stored)),
                    Err(error) => rename_damaged(&path, &error),
                }
            }
            state.stored.sort_by_key(order_key);
        }
        let (writing, state) = (Mutex::default(), Mutex::new(state));
        Ok(Self { dir, group, writing, state, verify_requests: Arc::default() })
    }

    pub(super) fn newest(&self) -> Option<Arc<StoredCheckpoint>> {
        self.state.lock().stored.last().cloned()
    }

    pub(super) fn oldest_index(&self) -> Option<u64> {
        let state = self.state.lock();
        let older = state.stored.len().checked_sub(limits::CHECKPOINTS_KEPT)?;
        Some(state.stored[older].id.index)
    }

    /// Bytes that were written for the newest one: its manifest, and the chunks that the next older
    /// one lacks. 0 without a checkpoint.
    pub(super) fn written_bytes(&self) -> u64 {
        let stored = self.state.lock().stored.clone();
        let Some((newest, older)) = stored.split_last() else { return 0 };
        let chunks = |stored: &Arc<StoredCheckpoint>| {
            stored.manifest.chunks.iter().map(|chunk| chunk.hash).collect()
        };
        let shared: BTreeSet<[u8; 32]> = older.last().map(chunks).unwrap_or_default();
        let new = newest.manifest.chunks.iter().filter(|chunk| !shared.contains(&chunk.hash));
        new.map(|chunk| chunk.len).sum::<u64>() + newest.bytes.len() as u64
    }

    /// The result of `load` for the newest checkpoint that it does not find damaged. Newer ones are
    /// renamed. `load` also gets the next older one.
    pub(super) fn load<T>(
        &self,
        mut load: impl FnMut(
            &Arc<StoredCheckpoint>,
            Option<&StoredCheckpoint>,
        ) -> Result<T, CheckpointError>,
    ) -> Result<Option<T>, CheckpointError> {
        let all = self.state.lock().stored.clone();
        let mut damaged: Vec<(CheckpointId, CheckpointError)> = Vec::new();
        for (at, stored) in all.iter().enumerate().rev() {
            let older = at.checked_sub(1).map(|older| &*all[older]);
            match load(stored, older) {
                Ok(loaded) => {
                    // Only now that an older one has loaded: if all are damaged, they are kept.
                    for (id, error) in damaged {
                        self.state.lock().stored.retain(|stored| stored.id != id);
                        rename_damaged(&self.manifest_path(id.serial), &error);
                    }
                    // `load` verified what it read; the rest is verified while the replica serves.
                    self.verify_requests.notify_one();
                    return Ok(Some(loaded));
                }
                Err(error) => damaged.push((stored.id, error)),
            }
        }
        damaged.into_iter().next().map_or(Ok(None), |(_, error)| Err(error))
    }

    /// Writes a frozen state as a checkpoint.
    pub(super) fn write(
        &self,
        meta: CheckpointMeta,
        frozen: Box<dyn FrozenState>,
    ) -> Result<CheckpointId, CheckpointError> {
        let _writing = self.writing.lock();
        self.make_dirs()?;
        let newest = self.newest();
        let before = newest.iter().flat_map(|newest| newest.manifest.by_name()).collect();
        let mut sink =
            ChunkWriter { dir: self, before, chunks: Vec::new(), new: Vec::new(), error: None };
        frozen.write(&mut sink);
        let ChunkWriter { chunks, new, error, .. } = sink;
        let published = match error {
            None => self.publish(Manifest { meta, chunks }, &new),
            Some(error) => Err(error),
        };
        // Also after an error, for the chunks that were written.
        self.remove_unreferenced();
        published
    }

    /// Installs received chunks: they become files here, then their manifest is published.
    pub(super) fn install(
        &self,
        manifest: Manifest,
        received: &[(ChunkInfo, PathBuf)],
    ) -> Result<CheckpointId, CheckpointError> {
        let _writing = self.writing.lock();
        self.make_dirs()?;
        for (chunk, file) in received {
            let path = self.chunk_path(&chunk.hash);
            fs::rename(file, &path).map_err(CheckpointError::io(&path))?;
        }
        let new: Vec<ChunkInfo> = received.iter().map(|(chunk, _)| chunk.clone()).collect();
        let published = self.publish(manifest, &new);
        self.remove_unreferenced();
        published
    }

    /// Publishes a checkpoint whose chunks are all files here. `new`: the chunks to read back.
    fn publish(
        &self,
        manifest: Manifest,
        new: &[ChunkInfo],
    ) -> Result<CheckpointId, CheckpointError> {
        // The names of the chunks must be durable before a manifest that refers to them exists.
        let chunks = self.dir.join("chunks");
        sync_dir(&chunks).map_err(CheckpointError::io(&chunks))?;
        for chunk in new {
            self.read_chunk(chunk)?;
        }
        // A serial is used once, also if this attempt fails: an older file is never overwritten.
        let serial = {
            let mut state = self.state.lock();
            state.next_serial += 1;
            state.next_serial - 1
        };
        let path = self.manifest_path(serial);
        write_atomically(&path, &manifest.encode())?;
        sync_dir(&self.dir).map_err(CheckpointError::io(&self.dir))?;
        // Listed only after it was read back: the log is purged on the strength of this list.
        let stored = load(&path, self.group, serial)?;
        if stored.manifest != manifest {
            return Err(CheckpointError::damaged(&path, "it reads back differently"));
        }
        let id = stored.id;
        let mut state = self.state.lock();
        state.stored.push(Arc::new(stored));
        state.stored.sort_by_key(order_key);
        let superseded = state.stored.len().saturating_sub(limits::CHECKPOINTS_KEPT);
        let superseded: Vec<_> = state.stored.drain(..superseded).collect();
        // Not removed here: a reader may still hold it. `remove_unreferenced` decides.
        state.superseded.extend(superseded);
        Ok(id)
    }

    /// Removes superseded manifests, and the chunks to which no listed, pinned or incoming
    /// checkpoint refers. The caller holds `writing`. What cannot be removed now is removed by a
    /// later call.
    fn remove_unreferenced(&self) {
        // Held to the end: a checkpoint that is pinned meanwhile would lose its chunks.
        let mut state = self.state.lock();
        let manifests: BTreeSet<PathBuf> =
            state.stored.iter().map(|stored| self.manifest_path(stored.id.serial)).collect();
        // A count of one means that only this list holds it.
        state.superseded.retain(|superseded| Arc::strong_count(superseded) > 1);
        state.pinned_chunks.retain(|pinned_chunks| Arc::strong_count(pinned_chunks) > 1);
        let stored = state.stored.iter().chain(&state.superseded);
        let mut needed: BTreeSet<[u8; 32]> =
            stored.flat_map(|s| s.manifest.chunks.iter().map(|chunk| chunk.hash)).collect();
        needed.extend(
            state.pinned_chunks.iter().flat_map(|pinned_chunks| pinned_chunks.iter().copied()),
        );
        let chunks = self.dir.join("chunks");
        let needed: BTreeSet<PathBuf> = needed.iter().map(|hash| self.chunk_path(hash)).collect();
        let is_manifest = |path: &Path| path.to_string_lossy().ends_with(MANIFEST_SUFFIX);
        // Manifests first: after a crash in between, a manifest must not refer to missing chunks.
        let removed =
            remove_files(&self.dir, |path| is_manifest(path) && !manifests.contains(path))
                .and_then(|()| remove_files(&chunks, |path| !needed.contains(path)));
        if let Err(error) = removed {
            tracing::warn!(dir = %self.dir.display(), %error, "old checkpoints stay for now");
        }
    }

    /// Reads a chunk and checks that it is what was written.
    pub(super) fn read_chunk(&self, chunk: &ChunkInfo) -> Result<Vec<u8>, CheckpointError> {
        let path = self.chunk_path(&chunk.hash);
        let bytes = match retry_shortage(|| fs::read(&path)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(CheckpointError::damaged(&path, "it is missing"));
            }
            Err(error) => return Err(CheckpointError::io(&path)(error)),
        };
        match bytes.len() as u64 == chunk.len && *blake3::hash(&bytes).as_bytes() == chunk.hash {
            true => Ok(bytes),
            false => Err(CheckpointError::damaged(&path, "its content has another hash")),
        }
    }

    /// Writes a damaged chunk again.
    pub(super) fn repair(&self, chunk: &ChunkInfo, bytes: &[u8]) -> Result<(), CheckpointError> {
        // Under the lock, so that the chunk is not removed between the write and the read below.
        let _writing = self.writing.lock();
        write_atomically(&self.chunk_path(&chunk.hash), bytes)?;
        let chunks = self.dir.join("chunks");
        sync_dir(&chunks).map_err(CheckpointError::io(&chunks))?;
        self.read_chunk(chunk).map(drop)
    }

    /// Keeps chunks from being removed while the returned reference lives, and creates a directory
    /// for the chunks that are received.
    pub(super) fn pin_chunks(
        &self,
        hashes: BTreeSet<[u8; 32]>,
    ) -> Result<(PinnedChunks, PathBuf), CheckpointError> {
        // Listed before the caller looks for the chunks: from then on none of them is removed.
        let pinned_chunks = Arc::new(hashes);
        let mut state = self.state.lock();
        state.pinned_chunks.push(pinned_chunks.clone());
        let incoming_dir = self.dir.join(format!("{INCOMING_PREFIX}{}", state.next_incoming));
        state.next_incoming += 1;
        drop(state);
        create_dir_durably(&incoming_dir)?;
        Ok((pinned_chunks, incoming_dir))
    }

    pub(super) fn chunk_path(&self, hash: &[u8; 32]) -> PathBuf {
        self.dir.join("chunks").join(hex(hash))
    }

    fn manifest_path(&self, serial: u64) -> PathBuf {
        self.dir.join(format!("{serial:016}{MANIFEST_SUFFIX}"))
    }

    fn make_dirs(&self) -> Result<(), CheckpointError> {
        create_dir_durably(&self.dir)?;
        create_dir_durably(&self.dir.join("chunks"))?;
        // They may be there already without their names being durable: an earlier run was killed.
        let all = self.dir.parent().unwrap_or(&self.dir);
        sync_dir(all).map_err(CheckpointError::io(all))
    }
}

/// Writes the chunks of a machine. A [`ChunkSink`] cannot return an error, so the first one is kept
/// and all later calls do nothing.
struct ChunkWriter<'a> {
    dir: &'a CheckpointDir,
    /// Those of the checkpoint before, by name.
    before: HashMap<&'a str, &'a ChunkInfo>,
    chunks: Vec<ChunkInfo>,
    /// The chunks that became files in this session.
    new: Vec<ChunkInfo>,
    error: Option<CheckpointError>,
}

impl ChunkWriter<'_> {
    fn try_put(&mut self, name: &str, bytes: &[u8]) -> Result<(), CheckpointError> {
        let hash = *blake3::hash(bytes).as_bytes();
        let chunk = ChunkInfo { name: name.to_owned(), hash, len: bytes.len() as u64 };
        let path = self.dir.chunk_path(&hash);
        // Compared by content, not by name: a damaged file is written again.
        if fs::read(&path).is_ok_and(|found| found == bytes) {
            self.chunks.push(chunk);
            return Ok(());
        }
        write_atomically(&path, bytes)?;
        self.new.push(chunk.clone());
        self.chunks.push(chunk);
        Ok(())
    }

    fn try_keep(&mut self, name: &str) -> Result<(), CheckpointError> {
        let chunk = *self
            .before
            .get(name)
            .ok_or_else(|| CheckpointError::NotKept { name: name.to_owned() })?;
        // The length only: to read every kept chunk would make a checkpoint as slow as the state is
        // large. Other damage is found by the verifier.
        let path = self.dir.chunk_path(&chunk.hash);
        let len = fs::metadata(&path).map(|file| file.len());
        if len.is_ok_and(|len| len == chunk.len) {
            self.chunks.push(chunk.clone());
            Ok(())
        } else {
            self.dir.verify_requests.notify_one();
            Err(CheckpointError::damaged(&path, "it is missing or cut off"))
        }
    }

    fn record_error(&mut self, result: Result<(), CheckpointError>) {
        self.error = self.error.take().or_else(|| result.err());
    }
}

impl ChunkSink for ChunkWriter<'_> {
    fn put(&mut self, name: &str, bytes: Vec<u8>) {
        if self.error.is_none() {
            let result = self.try_put(name, &bytes);
            self.record_error(result);
        }
    }

    fn keep(&mut self, name: &str) {
        if self.error.is_none() {
            let result = self.try_keep(name);
            self.record_error(result);
        }
    }
}

/// Reads the manifest of a checkpoint.
fn load(path: &Path, group: GroupKey, serial: u64) -> Result<StoredCheckpoint, CheckpointError> {
    let bytes = retry_shortage(|| fs::read(path)).map_err(CheckpointError::io(path))?;
    let manifest = Manifest::decode(&bytes, path)?;
    let id = CheckpointId { group, serial, index: manifest.meta.index };
    Ok(StoredCheckpoint { id, manifest, bytes: bytes.into() })
}

/// Renames a damaged manifest, which is kept for inspection.
fn rename_damaged(path: &Path, error: &CheckpointError) {
    tracing::warn!(checkpoint = %path.display(), %error, "a damaged checkpoint is renamed");
    let mut aside = path.as_os_str().to_owned();
    aside.push(DAMAGED_SUFFIX);
    if let Err(error) = fs::rename(path, &aside) {
        tracing::warn!(checkpoint = %path.display(), %error, "it could not be renamed");
    }
}

/// Removes unfinished files, and returns the serials of the manifests.
fn remove_unfinished(dir: &Path) -> io::Result<Vec<u64>> {
    let mut serials = Vec::new();
    for found in fs::read_dir(dir)? {
        let path = found?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.ends_with(TEMP_SUFFIX) {
            fs::remove_file(&path)?;
        } else if name.starts_with(INCOMING_PREFIX) {
            fs::remove_dir_all(&path)?;
        } else if let Some(serial) =
            name.strip_suffix(MANIFEST_SUFFIX).and_then(|name| name.parse().ok())
        {
            serials.push(serial);
        }
    }
    Ok(serials)
}

fn remove_files(dir: &Path, may_go: impl Fn(&Path) -> bool) -> io::Result<()> {
    for found in fs::read_dir(dir)? {
        let path = found?.path();
        if may_go(&path) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}
