//! Tests of checkpoints: written, loaded, damaged, repaired, transferred, removed.

use std::collections::BTreeMap;

use futures::FutureExt;
use tempfile::TempDir;

use super::*;
use crate::machine::ChunkSink;

const ONE: GroupKey = GroupKey { group: 1, replica: 10 };
const TWO: GroupKey = GroupKey { group: 2, replica: 20 };

/// A frozen state: chunks with content, and names of chunks to keep.
struct FakeState(Vec<(&'static str, Option<Vec<u8>>)>);

impl FrozenState for FakeState {
    fn write(self: Box<Self>, sink: &mut dyn ChunkSink) {
        for (name, bytes) in self.0 {
            match bytes {
                Some(bytes) => sink.put(name, bytes),
                None => sink.keep(name),
            }
        }
    }
}

fn frozen(chunks: &[(&'static str, Option<&str>)]) -> Box<FakeState> {
    let owned = |(name, bytes): &(&'static str, Option<&str>)| {
        (*name, bytes.map(|bytes| bytes.as_bytes().to_vec()))
    };
    Box::new(FakeState(chunks.iter().map(owned).collect()))
}

fn meta(index: u64) -> CheckpointMeta {
    let text = |what: &str| Bytes::from(format!("{what} {index}"));
    let (log_id, membership) = (text("log id"), text("members"));
    CheckpointMeta { index, term: 1, log_id, membership, extra: Bytes::new() }
}

fn open(dir: &TempDir) -> Checkpoints {
    Checkpoints::open(&dir.path().join("checkpoints")).unwrap()
}

fn content(pinned: &PinnedCheckpoint) -> BTreeMap<String, String> {
    let all: Option<BTreeMap<_, _>> = pinned
        .read(|source| {
            let text = |name: &String| String::from_utf8(source.get(name)?).ok();
            source.names().iter().map(|name| Some((name.clone(), text(name)?))).collect()
        })
        .unwrap();
    all.unwrap()
}

/// Loads the newest checkpoint of which the selected chunks can be read.
fn load(
    checkpoints: &Checkpoints,
    group: GroupKey,
    is_read: impl Fn(&str) -> bool,
) -> Result<Option<PinnedCheckpoint>, CheckpointError> {
    let read = |_: &CheckpointMeta, source: &dyn ChunkSource| {
        source.names().iter().filter(|name| is_read(name)).for_each(|name| drop(source.get(name)));
    };
    let loaded = checkpoints.load(group, read)?;
    Ok(loaded.map(|(pinned, ())| pinned))
}

fn load_whole(
    checkpoints: &Checkpoints,
    group: GroupKey,
) -> Result<Option<PinnedCheckpoint>, CheckpointError> {
    load(checkpoints, group, |_| true)
}

fn content_of(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

fn chunk_files(dir: &TempDir, group: GroupKey) -> Vec<PathBuf> {
    let chunks = open(dir).dir_of(group).join("chunks");
    let mut files: Vec<_> = fs::read_dir(chunks).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn written_bytes_counts_chunks_the_older_checkpoint_lacks() {
    let dir = TempDir::new().unwrap();
    let checkpoints = open(&dir);
    assert_eq!(checkpoints.written_bytes(ONE), 0);
    let old = "an old event ".repeat(100);
    checkpoints.write(ONE, meta(1), frozen(&[("e", Some(&old)), ("r", Some("one"))])).unwrap();
    let first = checkpoints.written_bytes(ONE);
    assert!(first > 1_300, "{first}");
    checkpoints.write(ONE, meta(2), frozen(&[("e", None), ("r", Some("two!"))])).unwrap();
    let manifest = checkpoints.newest(ONE).unwrap().manifest().len() as u64;
    assert_eq!(checkpoints.written_bytes(ONE), 4 + manifest);
}

#[test]
fn disk_unchanged_chunks_are_not_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = open(&dir);
    assert!(load_whole(&checkpoints, ONE).unwrap().is_none());
    checkpoints.write(ONE, meta(5), frozen(&[("b", Some("bee")), ("a", Some("ay"))])).unwrap();
    assert_eq!(checkpoints.oldest_index(ONE), None);
    let written = chunk_files(&dir, ONE);
    let modified_times = |files: &[PathBuf]| -> Vec<_> {
        files.iter().map(|file| fs::metadata(file).unwrap().modified().unwrap()).collect()
    };
    let before = modified_times(&written);
    let state = frozen(&[("b", None), ("again", Some("ay")), ("empty", Some(""))]);
    let id = checkpoints.write(ONE, meta(9), state).unwrap();
    assert_eq!((id.index, checkpoints.oldest_index(ONE)), (9, Some(5)));
    assert_eq!(modified_times(&written), before);
    assert_eq!(chunk_files(&dir, ONE).len(), 3);

    let checkpoints = open(&dir);
    let latest = load_whole(&checkpoints, ONE).unwrap().unwrap();
    assert_eq!((latest.id(), latest.meta()), (id, &meta(9)));
    let names: Vec<_> = latest.chunks().iter().map(|chunk| chunk.name.as_str()).collect();
    assert_eq!(names, ["b", "again", "empty"]);
    assert_eq!(content(&latest), content_of(&[("b", "bee"), ("again", "ay"), ("empty", "")]));
    assert_eq!(latest.read(|source| source.get("a")).unwrap(), None, "it has none of this name");
    assert!(load_whole(&checkpoints, TWO).unwrap().is_none());
}

#[test]
fn disk_keeping_an_unknown_chunk_fails_the_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = open(&dir);
    checkpoints.write(ONE, meta(5), frozen(&[("a", Some("ay"))])).unwrap();
    let error = checkpoints.write(ONE, meta(9), frozen(&[("x", Some("new")), ("b", None)]));
    let error = error.unwrap_err();
    assert!(matches!(&error, CheckpointError::NotKept { name } if name == "b"), "{error}");
    assert_eq!(checkpoints.newest(ONE).unwrap().meta(), &meta(5));
    assert_eq!(chunk_files(&dir, ONE).len(), 1, "what it wrote is gone");
}

#[test]
fn disk_pinned_checkpoints_are_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = open(&dir);
    let write = |index: u64| {
        let (own, shared) = (format!("own {index}"), Some("shared"));
        checkpoints.write(ONE, meta(index), frozen(&[("own", Some(&own)), ("s", shared)])).unwrap();
    };
    write(1);
    let pinned = checkpoints.newest(ONE).unwrap();
    (2..6).for_each(write);
    assert_eq!(chunk_files(&dir, ONE).len(), 4, "the last two, the one in use, and the shared");
    assert_eq!(content(&pinned), content_of(&[("own", "own 1"), ("s", "shared")]));
    drop(pinned);
    write(6);
    assert_eq!(chunk_files(&dir, ONE).len(), 3);
    assert_eq!(open(&dir).oldest_index(ONE), Some(5));
    checkpoints.forget(ONE).unwrap();
    assert!(checkpoints.newest(ONE).is_none());
    assert!(open(&dir).newest(ONE).is_none());
}

#[test]
fn disk_load_falls_back_to_the_older_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let write = |checkpoints: &Checkpoints| {
        checkpoints
            .write(ONE, meta(1), frozen(&[("a", Some("old")), ("s", Some("same"))]))
            .unwrap();
        checkpoints.write(ONE, meta(2), frozen(&[("a", Some("new")), ("s", None)])).unwrap();
    };
    let chunk = |text: &str| {
        let hash = *blake3::hash(text.as_bytes()).as_bytes();
        open(&dir).dir_of(ONE).join("chunks").join(manifest::hex(&hash))
    };
    for damage in ["flip", "cut", "gone"] {
        write(&open(&dir));
        let file = chunk("new");
        match damage {
            "flip" => fs::write(&file, "neu").unwrap(),
            "cut" => fs::write(&file, "n").unwrap(),
            _ => fs::remove_file(&file).unwrap(),
        }
        let checkpoints = open(&dir);
        let newest = checkpoints.newest(ONE).unwrap();
        let mut handed_out = None;
        newest.read(|source| handed_out = source.get("a")).unwrap_err();
        assert_eq!(handed_out, None, "a damaged chunk is never handed out");
        // Also if the damaged chunk is not among those that are read.
        let latest = load(&checkpoints, ONE, |name| name == "s").unwrap().unwrap();
        assert_eq!(latest.meta(), &meta(1), "{damage}");
        assert_eq!(checkpoints.newest(ONE).unwrap().meta(), &meta(1));
        assert_eq!(load_whole(&open(&dir), ONE).unwrap().unwrap().meta(), &meta(1));
    }
    // Damage in a chunk that both share: no checkpoint is left, and every start reports that.
    write(&open(&dir));
    let file = chunk("same");
    fs::write(&file, "sane").unwrap();
    for _ in 0..2 {
        let error = load_whole(&open(&dir), ONE).unwrap_err();
        assert!(error.to_string().contains(&*file.to_string_lossy()), "{error}");
    }
}

#[test]
fn disk_load_verifies_what_it_reads_and_repair_fixes_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    for index in [1, 2] {
        let chunks = [("state", Some("state")), ("old", Some("events")), ("new", Some("more"))];
        open(&dir).write(ONE, meta(index), frozen(&chunks)).unwrap();
    }
    let file = |text: &str| {
        let hash = *blake3::hash(text.as_bytes()).as_bytes();
        open(&dir).dir_of(ONE).join("chunks").join(manifest::hex(&hash))
    };
    fs::write(file("events"), "damage").unwrap();
    let checkpoints = open(&dir);
    let loaded = load(&checkpoints, ONE, |name| name == "state").unwrap().unwrap();
    assert_eq!(loaded.meta(), &meta(2));
    let damaged = |chunk: &&ChunkInfo| loaded.verify(chunk).is_err();
    let found: Vec<ChunkInfo> = loaded.chunks().iter().filter(damaged).cloned().collect();
    let [old] = &*found else { panic!("{found:?}") };
    assert_eq!(old.name, "old");
    let error = loaded.verify(old).unwrap_err();
    assert!(error.to_string().contains(&*file("events").to_string_lossy()), "{error}");
    assert!(loaded.read_piece(old.hash, 0, 3).is_err(), "nor is it sent");
    loaded.repair(old, b"other damage").unwrap_err();
    assert_eq!(fs::read(file("events")).unwrap(), b"damage");
    loaded.repair(old, b"events").unwrap();
    assert_eq!(loaded.chunks().iter().filter(damaged).count(), 0);
    load_whole(&open(&dir), ONE).unwrap().unwrap();
}

#[tokio::test]
async fn disk_damage_and_every_load_request_verification() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = open(&dir);
    let is_notified =
        || checkpoints.verify_requests(ONE).unwrap().notified().now_or_never().is_some();
    load_whole(&checkpoints, ONE).unwrap();
    checkpoints.write(ONE, meta(1), frozen(&[("a", Some("ay"))])).unwrap();
    assert!(!is_notified(), "there is nothing to look at");
    let loaded = load_whole(&checkpoints, ONE).unwrap().unwrap();
    assert!(is_notified() && !is_notified(), "a start");
    fs::write(chunk_files(&dir, ONE).pop().unwrap(), "a").unwrap();
    loaded.read(|source| source.get("a")).unwrap_err();
    assert!(is_notified() && !is_notified(), "a reader");
    loaded.read_piece(loaded.chunks()[0].hash, 0, 1).unwrap_err();
    assert!(is_notified() && !is_notified(), "a sender");
    checkpoints.write(ONE, meta(2), frozen(&[("a", None)])).unwrap_err();
    assert!(is_notified() && !is_notified(), "a writer that keeps it");
}

#[test]
fn disk_damaged_manifest_falls_back_to_older_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = open(&dir);
    checkpoints.write(ONE, meta(1), frozen(&[("a", Some("old"))])).unwrap();
    checkpoints.write(ONE, meta(2), frozen(&[("a", Some("new"))])).unwrap();
    let path = checkpoints.dir_of(ONE).join("0000000000000001.checkpoint");
    let bytes = fs::read(&path).unwrap();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        fs::write(&path, damaged).unwrap();
        assert_eq!(load_whole(&open(&dir), ONE).unwrap().unwrap().meta(), &meta(1), "byte {at}");
        fs::write(&path, &bytes[..at]).unwrap();
        assert_eq!(load_whole(&open(&dir), ONE).unwrap().unwrap().meta(), &meta(1), "cut at {at}");
    }
    fs::write(&path, &bytes).unwrap();
    assert_eq!(load_whole(&open(&dir), ONE).unwrap().unwrap().meta(), &meta(2));
}

/// Transfers the missing chunks in pieces of three bytes, each piece twice.
fn send(from: &PinnedCheckpoint, incoming: &mut IncomingCheckpoint) {
    for chunk in incoming.missing() {
        let mut offset = 0;
        while offset < chunk.len {
            let read_piece = from.read_piece(chunk.hash, offset, 3).unwrap();
            incoming.put_chunk(chunk.hash, offset, &read_piece).unwrap();
            incoming.put_chunk(chunk.hash, offset, &read_piece).unwrap();
            offset += read_piece.len() as u64;
        }
    }
}

#[test]
fn disk_transfer_sends_only_missing_chunks() {
    let (sender_dir, receiver_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (sender, receiver) = (open(&sender_dir), open(&receiver_dir));
    let state = [("a", Some("a long chunk")), ("s", Some("shared")), ("twin", Some("shared"))];
    let state: Vec<_> = state.into_iter().chain([("empty", Some(""))]).collect();
    sender.write(ONE, meta(7), frozen(&state)).unwrap();
    receiver.write(TWO, meta(3), frozen(&[("mine", Some("shared"))])).unwrap();
    let pinned = sender.newest(ONE).unwrap();
    let mut incoming = receiver.incoming(TWO, &pinned.manifest()).unwrap();
    let missing: Vec<_> = incoming.missing().into_iter().map(|chunk| chunk.name).collect();
    assert_eq!(missing, ["a"], "the shared one is here, the empty one needs no sending");
    // The pinned chunk is kept, although no checkpoint refers to it any more.
    receiver.write(TWO, meta(4), frozen(&[("mine", Some("other"))])).unwrap();
    receiver.write(TWO, meta(5), frozen(&[("mine", Some("another"))])).unwrap();
    send(&pinned, &mut incoming);
    let id = incoming.finish().unwrap();
    assert_eq!((id.index, id.group), (7, TWO));
    let latest = load_whole(&open(&receiver_dir), TWO).unwrap().unwrap();
    assert_eq!(latest.manifest(), pinned.manifest());
    assert_eq!(content(&latest), content(&pinned));
    receiver.write(TWO, meta(8), frozen(&[("a", None), ("s", None)])).unwrap();
}

#[test]
fn disk_newest_checkpoint_has_the_highest_index() {
    let (sender_dir, receiver_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (sender, receiver) = (open(&sender_dir), open(&receiver_dir));
    sender.write(ONE, meta(70), frozen(&[("late", Some("state"))])).unwrap();
    receiver.write(ONE, meta(30), frozen(&[("early", Some("state"))])).unwrap();
    let pinned = sender.newest(ONE).unwrap();
    let mut incoming = receiver.incoming(ONE, &pinned.manifest()).unwrap();
    send(&pinned, &mut incoming);
    incoming.finish().unwrap();
    // A state that was frozen before the other checkpoint came is written only now.
    receiver.write(ONE, meta(50), frozen(&[("early", Some("other"))])).unwrap();
    for receiver in [receiver, open(&receiver_dir)] {
        assert_eq!(receiver.newest(ONE).unwrap().meta().index, 70);
        assert_eq!(load_whole(&receiver, ONE).unwrap().unwrap().meta().index, 70);
        assert_eq!(receiver.oldest_index(ONE), Some(50));
    }
    // The chunk of the newest checkpoint is still there to be kept.
    open(&receiver_dir).write(ONE, meta(80), frozen(&[("late", None)])).unwrap();
}

#[test]
fn disk_invalid_pieces_are_rejected_and_leave_no_files() {
    let (sender_dir, receiver_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (sender, receiver) = (open(&sender_dir), open(&receiver_dir));
    sender.write(ONE, meta(7), frozen(&[("a", Some("abcdef"))])).unwrap();
    let pinned = sender.newest(ONE).unwrap();
    let mut manifest = pinned.manifest().to_vec();
    manifest[3] ^= 1;
    assert!(receiver.incoming(ONE, &manifest).is_err());
    let mut incoming = receiver.incoming(ONE, &pinned.manifest()).unwrap();
    let hash = incoming.missing()[0].hash;
    assert!(incoming.put_chunk([0; 32], 0, b"x").is_err());
    assert!(incoming.put_chunk(hash, 1, b"b").is_err(), "a gap");
    assert!(incoming.put_chunk(hash, 0, b"abcdefg").is_err(), "too long");
    incoming.put_chunk(hash, 0, b"abcd").unwrap();
    assert!(incoming.put_chunk(hash, 4, b"zz").is_err(), "another hash");
    assert_eq!(incoming.missing().len(), 1);
    incoming.put_chunk(hash, 0, b"abc").unwrap();
    incoming.put_chunk(hash, 1, b"bcdef").unwrap();
    assert!(incoming.missing().is_empty());
    drop(incoming);
    assert!(receiver.newest(ONE).is_none());
    let left = fs::read_dir(receiver.dir_of(ONE)).unwrap().count();
    assert_eq!(left, 0, "an abandoned transfer leaves nothing");
    let incoming = receiver.incoming(ONE, &pinned.manifest()).unwrap();
    assert!(incoming.finish().is_err(), "nothing came");
    // A damaged chunk is not sent.
    fs::write(chunk_files(&sender_dir, ONE).pop().unwrap(), "abcdeg").unwrap();
    assert!(matches!(pinned.read_piece(hash, 0, 3), Err(CheckpointError::Damaged { .. })));
}

#[test]
fn disk_open_removes_unfinished_checkpoint_files() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = open(&dir);
    checkpoints.write(ONE, meta(1), frozen(&[("a", Some("ay"))])).unwrap();
    let folder = checkpoints.dir_of(ONE);
    fs::write(folder.join("0000000000000001.checkpoint.new"), "half").unwrap();
    fs::write(folder.join("chunks/abc.new"), "half").unwrap();
    fs::create_dir(folder.join("incoming-7")).unwrap();
    let checkpoints = open(&dir);
    checkpoints.write(ONE, meta(2), frozen(&[("a", None)])).unwrap();
    assert_eq!(checkpoints.oldest_index(ONE), Some(1));
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 3, "two manifests and the chunks");
    assert_eq!(chunk_files(&dir, ONE).len(), 1);
}
