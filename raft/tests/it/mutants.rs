//! Mutants: tests fail when the code is made wrong on purpose.

use std::env;
use std::process::Command;

const MUTANT: &str = "MISHKAH_MUTANT";

/// In the process of a test that should fail: activates the mutant that the environment names.
pub(crate) fn choose() {
    if let Ok(name) = env::var(MUTANT) {
        model::mutant::choose(&name).unwrap();
    }
}

/// Runs one test in a process of its own. Returns whether it passes.
fn passes(test: &str, mutant: Option<&str>) -> bool {
    let mut run = Command::new(env::current_exe().unwrap());
    run.args(["--exact", test]).env_remove(MUTANT).envs(mutant.map(|name| (MUTANT, name)));
    let output = run.output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains("running 1 test"), "{test}: {stdout}");
    output.status.success()
}

#[test]
fn log_purged_above_a_durable_checkpoint_is_caught() {
    let test = "recovery::lost_newest_checkpoint_loses_no_entries";
    assert!(passes(test, None), "{test} fails without a mutant too");
    assert!(!passes(test, Some("purge-wal-before-checkpoint-durable")), "nobody noticed");
}
