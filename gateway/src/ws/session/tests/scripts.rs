//! Scripts: stories of one socket as text, one file each in `scripts/`. A line is one thing that
//! comes in or goes out:
//!
//! ```text
//! # The rule this part shows.
//! > a frame of the client
//! store: what the store, or the socket, says
//! < a frame to the client; events, acknowledgements and snapshots in short
//! = what the session wants done besides, or that it reads and pulls no more
//! ```
//!
//! A script must read as the session plays it: what goes out is compared line by line. With
//! `UPDATE_SCRIPTS=1` it is written anew.

use std::fs;
use std::path::{Path, PathBuf};

use model::BulkOperation;

use super::modules::operation;
use super::*;

fn scripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ws/session/scripts");
    let mut paths: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn every_script_reads_as_it_is_played() {
    let mut wrong = Vec::new();
    for path in scripts() {
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

/// The script with what goes out as the session has it.
fn play(script: &str) -> String {
    let mut player = Player { story: Story::begin(), state: "" };
    let mut played = String::new();
    for line in script.lines() {
        if line.starts_with("< ") || line.starts_with("= ") {
            continue;
        }
        played.push_str(line);
        played.push('\n');
        let out = match line.split_once(' ') {
            Some((">", frame)) => player.story.says(frame),
            Some(("store:", said)) => player.store(said),
            _ if line.is_empty() || line.starts_with('#') => continue,
            _ => panic!("{line:?} is neither a frame, nor of the store, nor a comment"),
        };
        for line in out.into_iter().chain(player.state()) {
            let is_frame = line.starts_with('{')
                || line.starts_with("server:")
                || line.starts_with("snapshot ");
            played.push_str(&format!("{} {line}\n", if is_frame { "<" } else { "=" }));
        }
    }
    played
}

struct Player {
    story: Story,
    state: &'static str,
}

impl Player {
    /// What the socket may do now, where it is something else than before.
    fn state(&mut self) -> Option<String> {
        let state = match (self.story.session.is_busy(), self.story.session.is_holding()) {
            (true, _) => "the client is not read",
            (false, true) => "no stream is pulled",
            (false, false) => "the client is read, streams are pulled",
        };
        (std::mem::replace(&mut self.state, state) != state).then(|| state.to_owned())
    }

    fn store(&mut self, said: &str) -> Vec<String> {
        let words: Vec<&str> = said.split(' ').collect();
        let call = words.get(1).and_then(|word| word.parse().ok()).unwrap_or_default();
        match words[..] {
            ["follow", _, "fails", why] => self.story.answered(call, Err(error(why))),
            ["follow", _, "starts"] => self.story.answered(call, Ok(None)),
            ["follow", _, "starts", at] => {
                let (module, offset) = place(at);
                self.story.followed(call, module, offset)
            }
            ["log", _, "ends", at] => self.log(call, at, true),
            ["log", _, "ends", at, "cut"] => self.log(call, at, false),
            ["read", _, "fails", why] => self.story.answers(call, Err(error(why))),
            ["read", _, "finds", at] => {
                let (module, offset) = place(at);
                self.story.reads(call, module, offset)
            }
            ["event", _, at, "of", command] => {
                let (module, offset) = place(at);
                self.story.delta(call, module, offset, command)
            }
            ["event", _, at, kind] => {
                let kinds = [
                    BulkOperation::Purge,
                    BulkOperation::Restore,
                    BulkOperation::Reset,
                    BulkOperation::Replace,
                ];
                let kind = kinds.into_iter().find(|known| known.wire_name() == kind).unwrap();
                self.story.came(call, operation(kind, place(at).1, "{}"))
            }
            ["resync", _, at] => {
                let (module, offset) = place(at);
                let cx = SessionContext { now: AT, catalogue: &self.story.catalogue };
                let state = snapshot(module, offset);
                in_words(&self.story.session.on_resync(call, &state, cx))
            }
            ["stream", _, "ends"] => in_words(&self.story.session.on_ended(call)),
            ["accepts", at, command] => {
                let (module, offset) = place(at);
                self.story.outcome(module, accepted(module, offset, command))
            }
            ["rejects", module] => {
                let key = RecordKey("k".into());
                let reject = Reject::NotFound { table: "tickets".into(), key };
                self.story.outcome(module, Ok(Outcome::Rejected(reject)))
            }
            ["fails", module, why] => self.story.outcome(module, Err(error(why))),
            _ => panic!("the store does not say {said:?}"),
        }
    }

    /// `incarnation/last`.
    fn log(&mut self, call: CallId, at: &str, is_retained: bool) -> Vec<String> {
        let (incarnation, last) = at.split_once('/').unwrap();
        self.story.stands(call, incarnation.parse().unwrap(), last.parse().unwrap(), is_retained)
    }
}

/// `module@offset`.
fn place(at: &str) -> (&str, u64) {
    let (module, offset) = at.split_once('@').unwrap();
    (module, offset.parse().unwrap())
}

fn error(why: &str) -> RouteError {
    match why {
        "unavailable" => {
            RouteError::Unavailable { reason: "no leader".into(), retry_after: Duration::ZERO }
        }
        "indeterminate" => RouteError::Indeterminate,
        module => RouteError::UnknownModule(module.to_owned()),
    }
}
