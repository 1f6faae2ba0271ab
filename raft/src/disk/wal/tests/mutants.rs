//! Mutants: tests of the log fail when the code is made wrong on purpose.

use std::env;
use std::process::Command;

const MUTANT: &str = "MISHKAH_MUTANT";

/// In the process of a test that should fail: activates the mutant that the environment names.
pub(super) fn choose() {
    if let Ok(name) = env::var(MUTANT) {
        model::mutant::choose(&name).unwrap();
    }
}

/// Runs one test in a process of its own. Returns whether it passes.
fn passes(test: &str, mutant: Option<&str>) -> bool {
    let test = format!("disk::wal::tests::faults::{test}");
    let mut run = Command::new(env::current_exe().unwrap());
    run.args(["--exact", &test]).env_remove(MUTANT).envs(mutant.map(|name| (MUTANT, name)));
    let output = run.output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains("running 1 test"), "{test}: {stdout}");
    output.status.success()
}

fn is_caught(mutant: &str, test: &str) {
    assert!(passes(test, None), "{test} fails without a mutant too");
    assert!(!passes(test, Some(mutant)), "{test} did not notice {mutant}");
}

#[test]
fn disk_missing_batch_sync_is_caught() {
    is_caught("acknowledge-before-fsync", "disk_acknowledged_writes_survive_power_loss");
}

#[test]
fn disk_missing_directory_sync_is_caught() {
    is_caught("skip-directory-fsync", "disk_acknowledged_writes_survive_power_loss");
}

#[test]
fn disk_unsynced_tail_copy_is_caught() {
    let test = "disk_state_reported_after_kill_survives_power_loss";
    is_caught("skip-tail-sync-at-open", test);
}
