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
fn holds(story: &str, mutant: Option<&str>) -> bool {
    let mut run = Command::new(env::current_exe().unwrap());
    run.args(["--exact", story]).env_remove(MUTANT).envs(mutant.map(|name| (MUTANT, name)));
    let said = run.output().unwrap();
    let words = String::from_utf8_lossy(&said.stdout);
    assert!(words.contains("running 1 test"), "{story}: {words}");
    said.status.success()
}

#[test]
fn a_log_cut_up_to_a_checkpoint_that_may_be_lost_is_caught() {
    let story = "recovery::a_newest_checkpoint_that_is_lost_costs_nothing";
    assert!(holds(story, None), "{story} fails without a mutant too");
    assert!(!holds(story, Some("purge-wal-before-checkpoint-durable")), "nobody noticed");
}
