//! Tests of the working store: what it keeps, and what happens when it is lost.

use super::*;

const GROUP: GroupKey = GroupKey { group: 1, replica: 7 };
const LONG: Duration = Duration::from_secs(60);

fn put(name: &str, value: &str) -> StoreWrite {
    StoreWrite::Put(
        Bytes::copy_from_slice(name.as_bytes()),
        Bytes::copy_from_slice(value.as_bytes()),
    )
}

fn all(store: &GroupStore) -> Vec<(String, usize)> {
    let found = store.scan(b"", b"\xff", ScanLimit::rows(1000)).unwrap();
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    found.iter().map(|(name, value)| (text(name), value.len())).collect()
}

#[test]
fn writes_survive_restart_with_their_index() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    {
        let files = StoreFiles::open(&path).unwrap();
        let store = files.open_group(GROUP).unwrap();
        store.write(1, vec![put("a", "1"), put("b", "1")]);
        store.write(2, vec![put("a", "22"), StoreWrite::Delete(Bytes::from_static(b"b"))]);
        assert!(store.wait(2, LONG));
        store.write(2, vec![put("a", "skipped")]);
        store.write(3, vec![put("c", "333")]);
        drop(store);
    }
    let files = StoreFiles::open(&path).unwrap();
    let store = files.open_group(GROUP).unwrap();
    assert_eq!((store.stored(), store.needs_rebuild()), (3, false));
    assert_eq!(all(&store), [("a".into(), 2), ("c".into(), 3)]);
    let other = files.open_group(GroupKey { group: 1, replica: 8 }).unwrap();
    assert_eq!((other.stored(), all(&other).len()), (0, 0));
}

#[test]
fn large_values_are_split_and_leave_no_parts_when_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let files = StoreFiles::open(&dir.path().join("store")).unwrap();
    let store = files.open_group(GROUP).unwrap();
    let large = "x".repeat(100_000);
    store.write(1, vec![put("k", &large)]);
    assert!(store.wait(1, LONG));
    assert_eq!(all(&store), [("k".into(), 100_000)]);
    assert_eq!(dir.path().join("store/blobs").read_dir().unwrap().count(), 0);
    store.write(2, vec![put("k", "small")]);
    assert!(store.wait(2, LONG));
    assert_eq!(all(&store), [("k".into(), 5)]);
    store.clear();
    assert_eq!((all(&store).len(), store.stored()), (0, 0));
}

#[test]
fn a_scan_ends_with_the_row_that_reaches_its_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let files = StoreFiles::open(&dir.path().join("store")).unwrap();
    let store = files.open_group(GROUP).unwrap();
    let large = "x".repeat(100_000);
    store.write(1, vec![put("a", &large), put("b", "1"), put("c", &large), put("d", "1")]);
    assert!(store.wait(1, LONG));
    let count = |rows, bytes| store.scan(b"", b"\xff", ScanLimit { rows, bytes }).unwrap().len();
    assert_eq!([count(9, 1), count(9, 100_000), count(9, 100_001)], [1, 1, 2]);
    assert_eq!([count(9, 100_002), count(9, usize::MAX), count(2, usize::MAX)], [3, 4, 2]);
}

#[test]
fn read_during_replacement_sees_old_or_new_value() {
    let dir = tempfile::tempdir().unwrap();
    let files = StoreFiles::open(&dir.path().join("store")).unwrap();
    let store = files.open_group(GROUP).unwrap();
    let value = |index: u64| {
        let letter = char::from(b'a' + (index % 26) as u8);
        letter.to_string().repeat([200_000, 10, 90_000][index as usize % 3])
    };
    store.write(1, vec![put("k", &value(1))]);
    assert!(store.wait(1, LONG));
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for index in 2..60 {
                store.write(index, vec![put("k", &value(index))]);
                assert!(store.wait(index, LONG));
            }
        });
        while !writer.is_finished() {
            let found = store.scan(b"", b"\xff", ScanLimit::rows(9)).unwrap();
            let text = std::str::from_utf8(&found[0].1).unwrap();
            let whole = (1..60).any(|index| value(index) == text);
            assert!(whole, "{} bytes of {:?}", text.len(), &text[..1]);
            // Without a pause the reader could starve the writer on a busy machine.
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    assert!(!store.needs_rebuild());
    store.write(60, vec![StoreWrite::Delete(Bytes::from_static(b"k"))]);
    assert!(store.wait(60, LONG));
    assert_eq!(files.shared.database().unwrap().records(), 1, "only the mark is left");
}

#[test]
fn split_value_editions_are_never_reused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let mut seen = std::collections::BTreeSet::new();
    let files = StoreFiles::open(&path).unwrap();
    let store = files.open_group(GROUP).unwrap();
    let mut index = 0;
    let mut write = |write| {
        index += 1;
        store.write(index, vec![write]);
        assert!(store.wait(index, LONG));
    };
    for _ in 0..4 {
        for size in [200_000, 10, 90_000] {
            write(put("k", &"x".repeat(size)));
            let edition = files.shared.database().unwrap().edition(GROUP, b"k");
            assert!(edition.is_none_or(|edition| seen.insert(edition)), "{edition:?} came twice");
        }
        write(StoreWrite::Delete(Bytes::from_static(b"k")));
    }
    assert_eq!(seen.len(), 8);
}

#[test]
fn deleted_database_is_recreated_with_index_zero() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    {
        let files = StoreFiles::open(&path).unwrap();
        files.open_group(GROUP).unwrap().write(5, vec![put("a", "1")]);
    }
    std::fs::remove_dir_all(&path).unwrap();
    let files = StoreFiles::open(&path).unwrap();
    let store = files.open_group(GROUP).unwrap();
    assert_eq!((store.stored(), all(&store).len()), (0, 0), "behind any checkpoint");
    let mut rebuild = store.rebuild().unwrap();
    rebuild.put(put("a", "1"));
    rebuild.finish(5).unwrap();
    assert_eq!((store.stored(), all(&store).len()), (5, 1));
}

#[test]
fn changes_wait_for_a_rebuild_only_once_its_state_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let files = StoreFiles::open(&dir.path().join("store")).unwrap();
    let store = files.open_group(GROUP).unwrap();
    let rebuild = store.rebuild().unwrap();
    let (written, is_written) = std::sync::mpsc::channel();
    let writer = Arc::clone(&store);
    let writing = std::thread::spawn(move || {
        // Each is more than half of the bound.
        let large = "x".repeat(STORE_REBUILD_BACKLOG_BYTES / 2 + 1);
        for index in 1..=4 {
            writer.write(index, vec![put(&index.to_string(), &large)]);
            written.send(index).unwrap();
            if index == 3 {
                std::thread::park();
            }
        }
    });
    let next = || is_written.recv_timeout(LONG).unwrap();
    assert_eq!([next(), next(), next()], [1, 2, 3], "whoever takes the state may wait for them");
    rebuild.state_taken();
    writing.thread().unpark();
    assert!(is_written.recv_timeout(Duration::from_millis(50)).is_err(), "the backlog is full");
    rebuild.finish(0).unwrap();
    assert_eq!(next(), 4);
    writing.join().unwrap();
    assert!(store.wait(4, LONG));
    assert_eq!(all(&store).len(), 4);
}

#[test]
fn damaged_database_opens_or_is_recreated() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    {
        let files = StoreFiles::open(&path).unwrap();
        let store = files.open_group(GROUP).unwrap();
        (1..50).for_each(|index| store.write(index, vec![put(&format!("{index:03}"), "value")]));
    }
    let saved: Vec<(PathBuf, Vec<u8>)> = ["conf", "db"]
        .map(|name| (path.join(name), std::fs::read(path.join(name)).unwrap()))
        .into();
    let mut rng = crate::disk::testing::Rng(3);
    for _ in 0..12 {
        for (file, bytes) in &saved {
            let mut bytes = bytes.clone();
            let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1;
            (0..8).for_each(|_| bytes[rng.below(used) as usize] ^= 1 << rng.below(8));
            std::fs::write(file, bytes).unwrap();
        }
        let files = StoreFiles::open(&path).unwrap();
        let store = files.open_group(GROUP).unwrap();
        if store.scan(b"", b"\xff", ScanLimit::rows(1000)).is_err() {
            assert!(!store.wait(u64::MAX, LONG), "a failed read gives the database up");
        }
        store.rebuild().unwrap().finish(1).unwrap();
        assert_eq!(all(&store).len(), 0);
    }
}

#[test]
fn unfinished_rebuild_is_detected_after_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    {
        let files = StoreFiles::open(&path).unwrap();
        let store = files.open_group(GROUP).unwrap();
        let mut rebuild = store.rebuild().unwrap();
        rebuild.put(put("a", "1"));
        store.write(9, vec![put("ignored", "1")]);
    }
    let files = StoreFiles::open(&path).unwrap();
    let store = files.open_group(GROUP).unwrap();
    assert!(store.needs_rebuild());
    let mut rebuild = store.rebuild().unwrap();
    (0..1000).for_each(|n| rebuild.put(put(&format!("{n:04}"), "v")));
    rebuild.finish(5).unwrap();
    assert_eq!((store.stored(), store.needs_rebuild(), all(&store).len()), (5, false, 1000));
    store.write(6, vec![put("next", "v")]);
    assert!(store.wait(6, LONG));
}

#[test]
fn unreadable_database_is_moved_aside_and_recreated() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    for round in 1..=4 {
        std::fs::create_dir_all(&path).unwrap();
        for name in ["conf", "db"] {
            std::fs::write(path.join(name), vec![0xAB; 9000]).unwrap();
        }
        let files = StoreFiles::open(&path).unwrap();
        let store = files.open_group(GROUP).unwrap();
        assert_eq!(store.stored(), 0, "round {round}");
        store.write(1, vec![put("a", "1")]);
        assert!(store.wait(1, LONG));
    }
    let broken =
        dir.path().read_dir().unwrap().filter(|entry| {
            entry.as_ref().unwrap().file_name().to_string_lossy().contains("broken")
        });
    assert_eq!(broken.count(), 2, "only the last two are kept");
}

#[test]
fn failed_database_is_replaced_and_replicas_are_notified() {
    let dir = tempfile::tempdir().unwrap();
    let files = StoreFiles::open(&dir.path().join("store")).unwrap();
    let store = files.open_group(GROUP).unwrap();
    store.write(1, vec![put("a", "1")]);
    assert!(store.wait(1, LONG));
    let (lost_sent, lost_received) = sync_channel(1);
    store.on_lost(Box::new(move || lost_sent.send(()).unwrap()));
    files.fail();
    lost_received.recv_timeout(LONG).unwrap();
    assert_eq!((store.stored(), store.needs_rebuild(), store.wait(1, LONG)), (0, true, false));
    let mut rebuild = store.rebuild().unwrap();
    rebuild.put(put("a", "1"));
    rebuild.finish(1).unwrap();
    assert_eq!((store.stored(), all(&store)), (1, vec![("a".into(), 1)]));
}
