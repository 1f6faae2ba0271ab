//! Mutants: what these stories hold fails when it is done wrong on purpose.

use std::env;
use std::process::Command;

const MUTANT: &str = "MISHKAH_MUTANT";

/// In the process of a story that is to fail: does wrong what it was told to.
pub(crate) fn choose() {
    if let Ok(name) = env::var(MUTANT) {
        model::mutant::choose(&name).unwrap();
    }
}

/// Runs one story in a process of its own; whether it holds.
fn passes(test: &str, mutant: Option<&str>) -> bool {
    let mut run = Command::new(env::current_exe().unwrap());
    run.args(["--exact", test]).env_remove(MUTANT).envs(mutant.map(|name| (MUTANT, name)));
    let output = run.output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains("running 1 test"), "{test}: {stdout}");
    output.status.success()
}

#[test]
fn a_log_cut_up_to_a_checkpoint_that_may_be_lost_is_caught() {
    let test = "recovery::a_newest_checkpoint_that_is_lost_costs_nothing";
    assert!(passes(test, None), "{test} fails without a mutant too");
    assert!(!passes(test, Some("purge-wal-before-checkpoint-durable")), "nobody noticed");
}
