//! Tests of a replica: what its machine, its checkpoints and its store hold of which entries.

use std::time::Duration;

use bytes::Bytes;
use openraft::entry::RaftEntry;

use super::*;
use crate::consensus::log_id;
use crate::disk::StoreFiles;
use crate::erased::erase;
use crate::limits::STORE_BACKLOG_BYTES;
use crate::machine::{ChunkSink, Machine, StoreWrite};
use crate::testing::RecordingMachine;

#[test]
fn checkpoint_jitter_never_makes_one_due_early() {
    let due: Vec<u64> = (0..64)
        .map(|group| with_jitter(16 << 20, GroupKey { group, replica: u64::from(group) + 100 }))
        .collect();
    assert!(due.iter().all(|&bytes| ((16 << 20)..(20 << 20)).contains(&bytes)));
    let mut distinct = due;
    distinct.sort_unstable();
    distinct.dedup();
    assert!(distinct.len() > 8, "{distinct:?}");
}

struct Fixture {
    replica: Arc<Replica>,
    machine: RecordingMachine,
    fill_hook: FillHook,
    files: Arc<StoreFiles>,
    _dir: tempfile::TempDir,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let key = GroupKey { group: 1, replica: 1 };
    let checkpoints = Checkpoints::open(&dir.path().join("checkpoints")).unwrap();
    let files = Arc::new(StoreFiles::open(&dir.path().join("store")).unwrap());
    let store = files.open_group(key).unwrap();
    let (machine, fill_hook): (_, FillHook) =
        (RecordingMachine::new(), Arc::new(Mutex::new(Box::new(|| ()))));
    let hooked = HookedMachine { machine: machine.clone(), fill_hook: fill_hook.clone() };
    let replica = Replica::new(key, erase(hooked), checkpoints, store, 1 << 20);
    assert_eq!(replica.restore_newest().unwrap(), None);
    Fixture { replica: Arc::new(replica), machine, fill_hook, files, _dir: dir }
}

/// What a test does while a store is filled.
type FillHook = Arc<Mutex<Box<dyn Fn() + Send>>>;

/// A machine that calls a hook while its store is filled.
struct HookedMachine {
    machine: RecordingMachine,
    fill_hook: FillHook,
}

struct HookedFrozenState {
    frozen: Box<dyn FrozenState>,
    fill_hook: FillHook,
}

impl FrozenState for HookedFrozenState {
    fn write(self: Box<Self>, sink: &mut dyn ChunkSink) {
        self.frozen.write(sink);
    }

    fn fill(&self, source: &dyn ChunkSource, put: &mut dyn FnMut(StoreWrite)) -> Result<(), Fatal> {
        self.frozen.fill(source, put)?;
        (self.fill_hook.lock())();
        Ok(())
    }
}

impl Machine for HookedMachine {
    type Response = <RecordingMachine as Machine>::Response;

    fn apply(
        &mut self,
        index: u64,
        entry: &[u8],
        writes: &mut Vec<StoreWrite>,
    ) -> Result<ApplyStep<Self::Response>, Fatal> {
        self.machine.apply(index, entry, writes)
    }

    fn finish_long(&mut self, writes: &mut Vec<StoreWrite>) -> Result<Self::Response, Fatal> {
        self.machine.finish_long(writes)
    }

    fn freeze(&self) -> Box<dyn FrozenState> {
        let fill_hook = Arc::clone(&self.fill_hook);
        Box::new(HookedFrozenState { frozen: self.machine.freeze(), fill_hook })
    }

    fn restore(&mut self, index: u64, source: &dyn ChunkSource) -> Result<(), Fatal> {
        self.machine.restore(index, source)
    }

    fn checkpoint_durable(&mut self, index: u64) {
        self.machine.checkpoint_durable(index);
    }

    fn attach(&mut self, store: Arc<dyn WorkingStore>) {
        self.machine.attach(store);
    }
}

fn entries(indexes: std::ops::Range<u64>) -> Vec<ApplyItem> {
    let entry = |index: u64| EntryData(index.to_string().into());
    indexes
        .map(|index| (ReplicatedEntry::new_normal(log_id(1, index), entry(index)), None))
        .collect()
}

/// The content of the store once it has reached an index.
fn stored(fixture: &Fixture, index: u64) -> Vec<Bytes> {
    assert!(fixture.replica.store.wait(index, Duration::from_secs(60)));
    let stored =
        fixture.replica.store.scan(&[], &[0xff; 9], crate::ScanLimit::rows(usize::MAX)).unwrap();
    stored.into_iter().map(|(_, value)| value).collect()
}

#[test]
fn rebuild_of_a_lost_store_leaves_the_machine_unchanged() {
    let fixture = fixture();
    fixture.replica.apply(entries(0..100)).unwrap();
    fixture.replica.write_checkpoint().unwrap();
    fixture.replica.apply(entries(100..150)).unwrap();
    drop(fixture.replica.store.rebuild().unwrap());
    assert!(fixture.replica.store.needs_rebuild());
    fixture.replica.rebuild_store().unwrap();
    assert!(!fixture.replica.store.needs_rebuild());
    assert_eq!(fixture.replica.state().0, Some(log_id(1, 149)));
    assert_eq!((fixture.machine.count(), fixture.machine.restored()), (150, (0, 1)));
    fixture.replica.apply(entries(150..160)).unwrap();
    assert_eq!(stored(&fixture, 159), fixture.machine.entries());
}

#[test]
fn entries_applied_during_a_rebuild_reach_the_store() {
    let fixture = fixture();
    fixture.replica.apply(entries(0..100)).unwrap();
    fixture.replica.store.mark_lost();
    let (begun, is_begun) = std::sync::mpsc::channel();
    let (applied, is_applied) = std::sync::mpsc::channel();
    *fixture.fill_hook.lock() = Box::new(move || {
        begun.send(()).unwrap();
        is_applied.recv_timeout(Duration::from_secs(60)).expect("applied while it is filled");
    });
    let replica = Arc::clone(&fixture.replica);
    let rebuilding = std::thread::spawn(move || replica.rebuild_store());
    is_begun.recv().unwrap();
    fixture.replica.apply(entries(100..200)).unwrap();
    applied.send(()).unwrap();
    rebuilding.join().unwrap().unwrap();
    fixture.replica.apply(entries(200..250)).unwrap();
    assert_eq!(stored(&fixture, 249), fixture.machine.entries());
}

#[test]
fn store_lost_during_rebuild_is_rebuilt_again() {
    let fixture = fixture();
    fixture.replica.apply(entries(0..100)).unwrap();
    fixture.replica.store.mark_lost();
    let store = fixture.replica.store.clone();
    *fixture.fill_hook.lock() = Box::new(move || store.mark_lost());
    fixture.replica.rebuild_store().unwrap_err();
    assert!(fixture.replica.store.needs_rebuild());
    *fixture.fill_hook.lock() = Box::new(|| ());
    fixture.replica.apply(entries(100..150)).unwrap();
    fixture.replica.rebuild_store().unwrap();
    assert_eq!(stored(&fixture, 149), fixture.machine.entries());
}

#[test]
fn failed_store_rebuild_is_retried_and_stops_no_replica() {
    let fixture = fixture();
    fixture.replica.apply(entries(0..100)).unwrap();
    fixture.replica.write_checkpoint().unwrap();
    fixture.replica.store.mark_lost();
    let files = Arc::clone(&fixture.files);
    *fixture.fill_hook.lock() = Box::new(move || files.fail());
    for _ in 0..10 {
        fixture.replica.rebuild_store().unwrap_err();
        assert!(fixture.replica.store.needs_rebuild());
    }
    fixture.replica.apply(entries(100..150)).unwrap();
    assert_eq!((fixture.replica.failure(), fixture.machine.count()), (None, 150));
    assert!(fixture.replica.restore_newest().unwrap().is_some(), "it also starts so");
    fixture.replica.apply(entries(100..150)).unwrap();
    *fixture.fill_hook.lock() = Box::new(|| ());
    fixture.replica.rebuild_store().unwrap();
    assert_eq!(stored(&fixture, 149).len(), 150);
}

#[test]
fn nothing_is_applied_after_a_failure() {
    let fixture = fixture();
    fixture.replica.apply(entries(0..3)).unwrap();
    let failing = ReplicatedEntry::new_normal(log_id(1, 3), EntryData("panic".into()));
    let failure = fixture.replica.apply(vec![(failing, None)]).unwrap_err();
    assert!(failure.0.contains("panic while applying an entry: as the entry demands"), "{failure}");
    assert_eq!(fixture.replica.apply(entries(4..5)), Err(failure.clone()));
    assert_eq!(fixture.replica.failure(), Some(failure));
    assert_eq!(fixture.machine.count(), 3);
}

/// One entry with this content.
fn one(index: u64, content: &'static str) -> Vec<ApplyItem> {
    let entry = EntryData(content.into());
    vec![(ReplicatedEntry::new_normal(log_id(1, index), entry), None)]
}

#[test]
fn entries_behind_a_long_one_are_applied_while_it_is_under_way() {
    let fixture = fixture();
    fixture.replica.apply(entries(1..3)).unwrap();
    let release = fixture.machine.hold_long();
    fixture.replica.apply(one(3, "long")).unwrap();
    fixture.replica.apply(entries(4..9)).unwrap();
    assert_eq!(fixture.replica.state().0, Some(log_id(1, 8)), "reads need not wait for it");
    assert!(!fixture.replica.store.wait(3, Duration::from_millis(20)), "the store waits for it");
    release.send(()).unwrap();
    assert_eq!(stored(&fixture, 8), fixture.machine.entries());
    fixture.replica.apply(entries(9..20)).unwrap();
    assert_eq!(stored(&fixture, 19), fixture.machine.entries());
}

#[test]
fn an_entry_that_needs_a_long_one_waits_for_it() {
    let fixture = fixture();
    let release = fixture.machine.hold_long();
    fixture.replica.apply(one(1, "long")).unwrap();
    let replica = Arc::clone(&fixture.replica);
    let applying = std::thread::spawn(move || {
        replica.apply(one(2, "behind")).unwrap();
        replica.apply(one(3, "long")).unwrap();
        replica.apply(one(4, "long")).unwrap();
    });
    drop(release);
    applying.join().unwrap();
    assert_eq!(stored(&fixture, 4), fixture.machine.entries());
    assert_eq!(fixture.machine.entries(), ["long", "behind", "long", "long"]);
}

#[test]
fn a_checkpoint_while_an_entry_is_under_way_is_of_before_it() {
    let fixture = fixture();
    fixture.replica.apply(entries(0..70)).unwrap();
    let release = fixture.machine.hold_long();
    fixture.replica.apply(one(70, "long")).unwrap();
    fixture.replica.apply(entries(71..90)).unwrap();
    let checkpoint = fixture.replica.write_checkpoint().unwrap().unwrap();
    assert_eq!(checkpoint.meta().index, 69);
    // As a start from it would do.
    assert_eq!(fixture.replica.restore_newest().unwrap(), Some(log_id(1, 69)));
    assert_eq!(fixture.machine.count(), 70);
    drop(release);
    fixture.replica.apply(one(70, "long")).unwrap();
    fixture.replica.apply(entries(71..90)).unwrap();
    fixture.replica.apply(one(90, "behind")).unwrap();
    assert_eq!(fixture.machine.count(), 91);
    let checkpoint = fixture.replica.write_checkpoint().unwrap().unwrap();
    assert_eq!(checkpoint.meta().index, 90);
}

#[test]
fn a_failure_of_a_long_entry_stops_the_replica() {
    let fixture = fixture();
    fixture.replica.apply(one(0, "long panic")).unwrap();
    let failure = fixture.replica.apply(one(1, "behind")).unwrap_err();
    assert!(failure.0.contains("as the entry demands"), "{failure}");
    assert_eq!(fixture.replica.failure(), Some(failure));
}

#[test]
fn what_waits_behind_a_long_entry_is_bounded() {
    let fixture = fixture();
    let release = fixture.machine.hold_long();
    fixture.replica.apply(one(1, "long")).unwrap();
    let large = |index| {
        let entry = EntryData(vec![b'x'; 1 << 20].into());
        vec![(ReplicatedEntry::new_normal(log_id(1, index), entry), None)]
    };
    let replica = Arc::clone(&fixture.replica);
    let (applied, progress) = std::sync::mpsc::channel();
    let applying = std::thread::spawn(move || {
        for index in 2..=41 {
            replica.apply(large(index)).unwrap();
            applied.send(index).unwrap();
        }
    });
    let bound = STORE_BACKLOG_BYTES as u64 >> 20;
    for expected in 2..=bound + 1 {
        assert_eq!(progress.recv_timeout(Duration::from_secs(60)), Ok(expected));
    }
    assert!(progress.recv_timeout(Duration::from_millis(50)).is_err(), "it waits for the long one");
    drop(release);
    applying.join().unwrap();
    assert_eq!(stored(&fixture, 41).len(), 41);
}
