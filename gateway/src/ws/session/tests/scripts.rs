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

use actors::Post;
use model::{BulkOperation, Events, QueryPage};

use super::batches::{accepted_as, two};
use super::modules::{flag, operation};
use super::subscriptions::order;
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
            ["read", _, "finds", ref what @ ..] => self.story.answers(call, Ok(answer(what))),
            ["event", _, at, ref what @ ..] => self.story.came(call, delta_of(at, what)),
            ["resync", _, at] => {
                let (module, offset) = place(at);
                let cx = SessionContext { now: AT, catalogue: &self.story.catalogue };
                let state = snapshot(module, offset);
                in_words(&self.story.session.on_resync(call, &state, cx))
            }
            ["stream", _, "ends"] => in_words(&self.story.session.on_ended(call)),
            ["accepts", module] => self.story.outcome(module, without_events(false)),
            ["repeats", module] => self.story.outcome(module, without_events(true)),
            ["accepts", at, command, ref what @ ..] => {
                let delta = delta_of(at, &[&["of", command], what].concat());
                self.story.outcome(place(at).0, accepted_as(delta))
            }
            ["rejects", module, ref what @ ..] => {
                self.story.outcome(module, Ok(Outcome::Rejected(reject(what))))
            }
            ["fails", module, why] => self.story.outcome(module, Err(error(why))),
            ["subscribed", _, ref last @ ..] => {
                let last = last.first().map(|data| post(data));
                in_words(&self.story.session.on_topic_subscribed(call, Ok(last)))
            }
            ["post", _, data] => in_words(&self.story.session.on_post(call, post(data))),
            ["posted"] => in_words(&self.story.session.on_posted(Ok(()))),
            ["posted", "fails", why] => in_words(&self.story.session.on_posted(Err(error(why)))),
            ["module", id, "is", "strict"] => {
                let modules = &mut self.story.catalogue.modules;
                let id = ModuleId::parse(id).unwrap();
                let mut module = (**modules.get(&id).unwrap()).clone();
                module.validation = Validation::Strict;
                modules.put(Arc::new(module));
                Vec::new()
            }
            ["flag", module, "on"] => self.story.flags(&[flag(module, true)]),
            ["flag", module, "off"] => self.story.flags(&[flag(module, false)]),
            ["catalogue", ref branches @ ..] => {
                branches.iter().for_each(|name| self.story.add_branch(name));
                self.story.catalogue_changes()
            }
            _ => panic!("the store does not say {said:?}"),
        }
    }

    /// `incarnation/last`.
    fn log(&mut self, call: CallId, at: &str, is_retained: bool) -> Vec<String> {
        let (incarnation, last) = at.split_once('/').unwrap();
        self.story.stands(call, incarnation.parse().unwrap(), last.parse().unwrap(), is_retained)
    }
}

/// What a read finds: a state, `head` and where it stands, `rows`, or events named `orders`.
fn answer(what: &[&str]) -> Answer {
    match *what {
        ["head", at] => Answer::Head(snapshot(place(at).0, place(at).1).head),
        ["rows", ref rows @ ..] => {
            let rows = rows.iter().map(|json| Arc::new(object(json))).collect();
            Answer::Query(QueryPage { table: TableName::parse("tickets").unwrap(), rows })
        }
        ["orders", ref places @ ..] => {
            let events: Vec<_> =
                places.iter().flat_map(|at| order(place(at).1, None).events).collect();
            let last = events.last().unwrap().offset;
            Answer::Events(Events { incarnation: Incarnation(1), last, events: Some(events) })
        }
        [at] => Answer::Snapshot(Arc::new(snapshot(place(at).0, place(at).1))),
        _ => panic!("no read finds {what:?}"),
    }
}

/// The events at a place: of a command, of orders by their alias, or of the module as a whole.
fn delta_of(at: &str, what: &[&str]) -> Delta {
    let (module, offset) = place(at);
    match *what {
        ["of", command] => delta(module, offset, command),
        ["of", command, "first-of-two"] => {
            let mut delta = two(offset, command);
            delta.events.pop();
            delta
        }
        ["of", command, "both-of-two"] => two(offset, command),
        ["of", command, "both-of-two", "then", next] => {
            let mut both = two(offset, command);
            both.events.extend(delta(module, offset + 2, next).events);
            both
        }
        ["orders"] => order(offset, None),
        ["orders", "by", client] => order(offset, Some(client)),
        [kind] => operation(bulk(kind), offset, "{}"),
        [kind, details] => operation(bulk(kind), offset, details),
        [kind, "of", command] => {
            let mut delta = operation(bulk(kind), offset, "{}");
            let (session, request) = command.rsplit_once('/').unwrap();
            let event = Arc::make_mut(&mut delta.events[0]);
            event.command = CommandId { session: session.into(), request: request.into() };
            delta
        }
        _ => panic!("no events are {what:?}"),
    }
}

fn bulk(kind: &str) -> BulkOperation {
    let kinds = [
        BulkOperation::Purge,
        BulkOperation::Restore,
        BulkOperation::Reset,
        BulkOperation::Replace,
    ];
    kinds.into_iter().find(|known| known.wire_name() == kind).unwrap()
}

fn reject(what: &[&str]) -> Reject {
    let missing = Reject::NotFound { table: "tickets".into(), key: RecordKey("k".into()) };
    match *what {
        [] => missing,
        ["at", index] => {
            Reject::AtMutation { index: index.parse().unwrap(), reject: Box::new(missing) }
        }
        ["key-reused"] => Reject::KeyReused,
        ["defect"] => Reject::Defect,
        ["replace", reason] => Reject::Replace { reason: reason.into(), details: Object::new() },
        _ => panic!("nothing is rejected as {what:?}"),
    }
}

/// An outcome that changed nothing: a post took its id, or had it already.
fn without_events(repeated: bool) -> Result<Outcome, RouteError> {
    let delta = Arc::new(Delta { events: Vec::new(), ..delta("pos", 1, "x/1") });
    Ok(Outcome::Accepted(Acceptance { delta, reserved: None, repeated }))
}

fn object(json: &str) -> Object {
    Value::from_json(json.as_bytes()).unwrap().as_object().unwrap().clone()
}

/// A post with this data; whoever gets it knows its topic.
fn post(data: &str) -> Arc<Post> {
    Arc::new(Post { topic: String::new(), data: object(data) })
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
