//! Recording: what was asked of a server and what it answered, as it was written down.
//!
//! A file is a list of exchanges over HTTP or of what happened on sockets. Two of the socket files
//! were recorded while calls were made; they are woven together again by the notes between their
//! frames, so that a scenario is one list of steps in the order they happened.

use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};

/// The files in the order they were recorded; those on one line belong together.
const ORDER: &[&[&str]] = &[
    &["ws-01"],
    &["ws-02"],
    &["ws-03"],
    &["rest-01"],
    &["rest-02"],
    &["rest-03"],
    &["rest-04"],
    &["rest-05"],
    &["rest-06"],
    &["ws-04", "rest-07"],
    &["ws-05", "rest-08"],
];
/// Names the data directory they were taken on; they are kept beside it.
const ORIGINAL: &str = "MISHKAH_ORIGINAL_DATA";
/// The folder beside it.
const TRANSCRIPTS: &str = "transcripts";
/// These were played before, unrecorded, up to the first call that ended the process; the
/// recording of the first shows what that left.
const REHEARSED: [&str; 2] = ["rest-01", "rest-02"];
/// Begins a note that stands for a call which was made but not written down.
const UNWRITTEN: &str = "REST insert";
/// Begins a note of a change in another branch, made by the first call of the other file.
const ELSEWHERE: &str = "A said hello to remal then dar";
/// Begins the name of a call that was made together with its neighbours.
const RACE: &str = "race ";

/// Steps to be played in order on one state.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// The files it was made of, such as `rest-01`.
    pub name: String,
    /// Its steps.
    pub steps: Vec<RecordedStep>,
    /// Whether it is played for the state it leaves only.
    pub is_rehearsal: bool,
}

/// One thing that was done or that came.
#[derive(Debug, Clone)]
pub struct RecordedStep {
    /// The file, such as `rest-01`.
    pub file: String,
    /// Its place in the file, from 0.
    pub at: usize,
    /// In words, where somebody wrote them.
    pub title: String,
    /// What it is.
    pub does: Does,
}

/// What a step is.
#[derive(Debug, Clone)]
pub enum Does {
    /// A request and its answer.
    RecordedCall(RecordedCall),
    /// A client opens a socket at a path.
    Open(String, String),
    /// A client sends a frame: JSON, or text as it is.
    Send(String, Value),
    /// A client is sent a frame.
    Expect(String, Value),
    /// A client closes its socket.
    Close(String),
    /// Words between frames.
    Note,
}

impl Does {
    /// The answer of a call, where it is known.
    pub fn answer(&self) -> Option<&RecordedAnswer> {
        if let Self::RecordedCall(call) = self { call.answer.as_ref() } else { None }
    }

    /// The frame a client is sent.
    pub fn expected(&self) -> Option<&Value> {
        if let Self::Expect(_, frame) = self { Some(frame) } else { None }
    }
}

/// A request and its answer.
#[derive(Debug, Clone)]
pub struct RecordedCall {
    /// The method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The body: null is none, text is sent as it is.
    pub body: Value,
    /// What was answered; nothing where nothing is known of it.
    pub answer: Option<RecordedAnswer>,
}

/// What was answered.
#[derive(Debug, Clone, Default)]
pub struct RecordedAnswer {
    /// The status; none where the server ended instead.
    pub status: Option<u16>,
    /// The headers that matter.
    pub headers: Map<String, Value>,
    /// The body: JSON, or text.
    pub body: Value,
}

/// The data directory the recordings were taken on, where there is one.
pub fn original() -> Option<PathBuf> {
    env::var_os(ORIGINAL).map(PathBuf::from)
}

/// The recordings of the original, where there are any.
pub fn transcripts() -> Option<PathBuf> {
    let folder = original()?.parent()?.join(TRANSCRIPTS);
    folder.is_dir().then_some(folder)
}

/// The recordings of this house, taken on its sample data.
pub fn own() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(TRANSCRIPTS)
}

/// The scenarios of a folder in playing order.
///
/// # Errors
/// A file cannot be read, or has another form.
pub fn read_all(folder: &Path) -> Result<Vec<Scenario>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|ext| ext == "json") {
            files.push(read(&path)?);
        }
    }
    let mut scenarios = Vec::new();
    for group in ORDER {
        let mut parts = Vec::new();
        for name in *group {
            let Some(at) = files.iter().position(|file: &Scenario| file.name == *name) else {
                continue;
            };
            parts.push(files.swap_remove(at));
        }
        scenarios.extend(joined(parts));
    }
    if let Some(unknown) = files.first() {
        bail!("nobody said when {} is played", unknown.name);
    }
    ensure!(!scenarios.is_empty(), "there are no recordings in {}", folder.display());
    Ok(scenarios)
}

/// The scenarios of the original: as [`read_all`], with what was played unrecorded.
///
/// # Errors
/// A file cannot be read, or has another form.
pub fn read_original(folder: &Path) -> Result<Vec<Scenario>> {
    let mut scenarios = read_all(folder)?;
    let of = |name: &&str| scenarios.iter().find(|scenario| scenario.name == **name);
    let steps = REHEARSED.iter().filter_map(of).flat_map(|scenario| scenario.steps.clone());
    let lives =
        |step: &RecordedStep| step.does.answer().is_none_or(|answer| answer.status.is_some());
    let steps = steps.take_while(lives).collect();
    let rehearsal = Scenario { name: "unrecorded".to_owned(), steps, is_rehearsal: true };
    let first = scenarios.iter().position(|scenario| scenario.name == REHEARSED[0]);
    scenarios.insert(first.unwrap_or_default(), rehearsal);
    Ok(scenarios)
}

/// The short name of a file: its first two words.
fn short(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    stem.split('-').take(2).collect::<Vec<_>>().join("-")
}

fn read(path: &Path) -> Result<Scenario> {
    let text = fs::read_to_string(path)?;
    let items: Vec<Value> =
        serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
    let name = short(path);
    let steps = items.iter().enumerate().map(|(at, item)| {
        let does = does(item).with_context(|| format!("{name}#{at}"))?;
        let title = item["name"].as_str().or_else(|| item["note"].as_str()).unwrap_or_default();
        Ok(RecordedStep { file: name.clone(), at, title: title.to_owned(), does })
    });
    let steps = steps.collect::<Result<_>>()?;
    Ok(Scenario { name, steps, is_rehearsal: false })
}

fn does(item: &Value) -> Result<Does> {
    if item.get("request").is_some() {
        return call(item).map(Does::RecordedCall);
    }
    if item.get("note").is_some() {
        return Ok(Does::Note);
    }
    let client = item["client"].as_str().context("a step names its client")?.to_owned();
    Ok(match item["dir"].as_str().unwrap_or_default() {
        "open" => Does::Open(client, item["url"].as_str().unwrap_or("/ws").to_owned()),
        "client->server" => Does::Send(client, item["frame"].clone()),
        "server->client" => Does::Expect(client, item["frame"].clone()),
        "close" => Does::Close(client),
        other => bail!("a step in the direction {other:?}"),
    })
}

fn call(item: &Value) -> Result<RecordedCall> {
    let (request, response) = (&item["request"], &item["response"]);
    let text = |name: &str| -> Result<String> {
        Ok(request[name].as_str().with_context(|| format!("a request has a {name}"))?.to_owned())
    };
    let status = response["status"].as_u64().map(u16::try_from).transpose()?;
    let answer = RecordedAnswer {
        status,
        headers: response["headers"].as_object().cloned().unwrap_or_default(),
        body: response["body"].clone(),
    };
    let body = request["body"].clone();
    Ok(RecordedCall { method: text("method")?, path: text("path")?, body, answer: Some(answer) })
}

/// One scenario of the files that were recorded together.
fn joined(mut parts: Vec<Scenario>) -> Option<Scenario> {
    let mut calls: Vec<RecordedStep> =
        if parts.len() > 1 { parts.pop().map(|part| part.steps)? } else { Vec::new() };
    let mut joined = parts.pop()?;
    winners_first(&mut calls);
    winners_first(&mut joined.steps);
    if let Some(first) = calls.first() {
        joined.name = format!("{}+{}", joined.name, first.file);
    }
    let named = |step: &RecordedStep, notes: &[RecordedStep]| {
        notes.iter().any(|note| note.title == step.title)
    };
    let mut woven = Vec::new();
    let mut rest = calls.as_slice();
    for (at, step) in joined.steps.iter().enumerate() {
        woven.push(step.clone());
        if !matches!(step.does, Does::Note) {
            continue;
        }
        let after = &joined.steps[at + 1..];
        let mut take = 0;
        if let Some(found) = rest.iter().position(|call| call.title == step.title) {
            let unnamed = rest[found + 1..].iter().take_while(|call| !named(call, after));
            take = found + 1 + unnamed.count();
        } else if step.title.starts_with(ELSEWHERE) && !rest.is_empty() {
            take = 1;
        } else if step.title.starts_with(UNWRITTEN) {
            woven.extend(unwritten(step, after));
        }
        woven.extend_from_slice(&rest[..take]);
        rest = &rest[take..];
    }
    woven.extend_from_slice(rest);
    Some(Scenario { steps: woven, ..joined })
}

/// Calls made together were written down as they ended. They are played one by one, those that
/// succeeded first, so that the same one wins.
fn winners_first(steps: &mut [RecordedStep]) {
    let group = |step: &RecordedStep| {
        step.title.starts_with(RACE).then(|| step.title.split('#').next().unwrap_or("").to_owned())
    };
    let status = |step: &RecordedStep| step.does.answer().and_then(|answer| answer.status);
    for run in steps.chunk_by_mut(|a, b| group(a).is_some() && group(a) == group(b)) {
        run.sort_by_key(status);
    }
}

/// The call behind a note, made again from the event it caused.
fn unwritten(note: &RecordedStep, after: &[RecordedStep]) -> Option<RecordedStep> {
    let mut frames = after.iter().filter_map(|step| step.does.expected());
    let event = frames.find(|frame| frame["type"] == "server:event")?;
    let place = |name: &str| event[name].as_str().unwrap_or_default();
    let path = format!(
        "/api/branches/{}/modules/{}/tables/{}",
        place("branchId"),
        place("moduleId"),
        place("table")
    );
    let body = json!({ "record": event["entry"]["record"] });
    let call = RecordedCall { method: "POST".to_owned(), path, body, answer: None };
    Some(RecordedStep { does: Does::RecordedCall(call), ..note.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(title: &str, does: Does) -> RecordedStep {
        RecordedStep { file: "f".to_owned(), at: 0, title: title.to_owned(), does }
    }

    fn called(title: &str, status: u16) -> RecordedStep {
        let answer = RecordedAnswer { status: Some(status), ..RecordedAnswer::default() };
        let (method, path) = ("GET".to_owned(), "/".to_owned());
        step(
            title,
            Does::RecordedCall(RecordedCall {
                method,
                path,
                body: Value::Null,
                answer: Some(answer),
            }),
        )
    }

    fn titles(scenario: &Scenario) -> Vec<&str> {
        scenario.steps.iter().map(|step| step.title.as_str()).collect()
    }

    #[test]
    fn calls_are_woven_in_where_a_note_names_them() {
        let sockets = ["a", "c"].map(|title| step(title, Does::Note)).to_vec();
        let calls = ["a", "b", "c", "d"].map(|title| called(title, 200)).to_vec();
        let parts = [sockets, calls].map(|steps| Scenario {
            name: "s".to_owned(),
            steps,
            is_rehearsal: false,
        });
        let woven = joined(parts.to_vec()).unwrap();
        assert_eq!(titles(&woven), ["a", "a", "b", "c", "c", "d"]);
    }

    #[test]
    fn the_winner_of_a_race_goes_first() {
        let steps = vec![called("x", 500), called("race p #1", 409), called("race p #0", 200)];
        let played =
            joined(vec![Scenario { name: "s".to_owned(), steps, is_rehearsal: false }]).unwrap();
        assert_eq!(titles(&played), ["x", "race p #0", "race p #1"]);
    }
}
