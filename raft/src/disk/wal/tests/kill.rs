//! Kill: a process that is killed at any moment keeps what was acknowledged.

use std::env;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::*;
use crate::disk::testing::Rng;

const DIR: &str = "MISHKAH_TEST_WAL_DIR";
const CHECK: &str = "MISHKAH_TEST_WAL_CHECK";
const KILLS: u64 = 24;
const GROUPS: u16 = 3;

fn key(group: u16) -> GroupKey {
    GroupKey { group, replica: 1 }
}

fn config() -> WalConfig {
    let mut config = WalConfig::new(|reason| panic!("{reason}"));
    config.segment_bytes = 16 << 10;
    config.compact_after_segments = 2;
    config
}

/// Not a test of its own: the process that is killed. It appends as fast as it can, and writes each
/// acknowledged entry to a file.
#[test]
fn disk_child_process_that_is_killed() {
    let Ok(dir) = env::var(DIR) else { return };
    let dir = PathBuf::from(dir);
    let (wal, _) = reopened(&dir.join("wal"));
    let acks = fs::OpenOptions::new().create(true).append(true).open(dir.join("acks")).unwrap();
    let acks = Arc::new(acks);
    loop {
        for group in 0..GROUPS {
            let state = wal.state(key(group));
            let next = state.last.map_or(1, |(last, _)| last + 1);
            let mut ops = vec![append(key(group), next..next + 1)];
            if next > 300 && next % 300 == u64::from(group) {
                ops.push(purge(key(group), next - u64::from(group) * 60 - 40));
            }
            let acks = acks.clone();
            let done = move |result: io::Result<()>| {
                result.unwrap();
                (&*acks).write_all(format!("{group} {next}\n").as_bytes()).unwrap();
            };
            wal.submit(ops, Box::new(done));
        }
        std::thread::yield_now();
    }
}

/// Opens the log once the killed process holds no lock any more.
fn reopened(dir: &Path) -> (Wal, RecoveredLog) {
    loop {
        match Wal::open(dir, config()) {
            Err(WalError::InUse { .. }) => std::thread::yield_now(),
            opened => return opened.unwrap(),
        }
    }
}

/// The highest acknowledged index of each group.
fn acked(dir: &Path) -> Vec<u64> {
    let mut highest = vec![0; usize::from(GROUPS)];
    let text = fs::read_to_string(dir.join("acks")).unwrap_or_default();
    for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        let (group, index) = line.trim().split_once(' ').unwrap();
        let highest: &mut u64 = &mut highest[group.parse::<usize>().unwrap()];
        *highest = (*highest).max(index.parse().unwrap());
    }
    highest
}

/// Opens the log and checks that every acknowledged entry is there. Returns their number.
fn check(dir: &Path) -> u64 {
    let acked = acked(dir);
    let (wal, _) = reopened(&dir.join("wal"));
    for group in 0..GROUPS {
        let state = wal.state(key(group));
        let acked = acked[usize::from(group)];
        let last = state.last.map_or(0, |(last, _)| last);
        assert!(last >= acked, "group {group} has {last}, acknowledged were {acked}");
        let purged = state.purged.map_or(0, |(index, _)| index);
        assert_eq!(indexes(&wal, key(group)), (purged + 1..=last).collect::<Vec<_>>());
    }
    acked.iter().sum()
}

/// Not a test of its own: for manual tests that cut the power of the machine under the other
/// process and then check the log.
#[test]
fn disk_child_process_that_checks() {
    if let Ok(dir) = env::var(CHECK) {
        eprintln!("{} acknowledged, all there", check(Path::new(&dir)));
    }
}

#[test]
fn disk_acknowledged_entries_survive_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut rng = Rng(5);
    let mut acknowledged = 0;
    for _ in 0..KILLS {
        let mut child = Command::new(env::current_exe().unwrap())
            .args([
                "--exact",
                "disk::wal::tests::kill::disk_child_process_that_is_killed",
                "--nocapture",
            ])
            .env(DIR, dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let started = Instant::now();
        while acked(dir.path()).iter().sum::<u64>() <= acknowledged {
            assert!(started.elapsed() < Duration::from_secs(60), "no acknowledgement came");
            assert_eq!(child.try_wait().unwrap(), None, "it ended by itself");
            std::thread::sleep(Duration::from_millis(2));
        }
        std::thread::sleep(Duration::from_micros(rng.below(30_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        acknowledged = check(dir.path());
    }
    assert!(acknowledged > KILLS * 20, "{acknowledged} acknowledged");
}
