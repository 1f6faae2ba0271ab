//! Scripts: stories as text, one file each, of which what goes out is written by playing them.

use std::fs;
use std::path::{Path, PathBuf};

/// Plays every script of a folder of this crate. Each must read as it is played; with
/// `UPDATE_SCRIPTS=1` those that do not are written anew.
pub(crate) fn check(folder: &str, play: impl Fn(&str) -> String) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let is_script = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "txt");
    let mut paths: Vec<_> = files.filter(is_script).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no script in {}", folder.display());
    let mut wrong = Vec::new();
    for path in paths {
        let script = fs::read_to_string(&path).unwrap();
        let played = play(&script);
        if played == script {
            continue;
        }
        if std::env::var_os("UPDATE_SCRIPTS").is_some() {
            fs::write(&path, &played).unwrap();
        }
        wrong.push(format!("{}\n{}", path.display(), difference(&script, &played)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// From the first line that differs on, what the script says and what was played.
fn difference(script: &str, played: &str) -> String {
    let (script, played): (Vec<_>, Vec<_>) = (script.lines().collect(), played.lines().collect());
    let same = script.iter().zip(&played).take_while(|(a, b)| a == b).count();
    let show = |mark: &str, lines: &[&str]| -> String {
        lines.iter().skip(same).take(4).map(|line| format!("  {mark} {line}\n")).collect()
    };
    format!("line {}:\n{}{}", same + 1, show("-", &script), show("+", &played))
}
