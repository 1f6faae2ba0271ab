//! Play: sends what was sent, to one node or to each in turn, and compares what comes back.
//!
//! On a socket every recorded frame is looked for among those of its type, in order, and what a
//! topic says among what that topic says: order between topics is not promised, each has a node of
//! its own. Frames of other types may come between. One that does not come is a difference, and
//! so is one that was not recorded: neither stops the play.

use std::collections::BTreeMap;
use std::mem;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::compare::{Comparison, Difference, DifferenceKind, Spot, shown};
use super::keep::KeptEvents;
use super::names::NameBindings;
use super::recording::{Does, RecordedAnswer, RecordedCall, RecordedStep, Scenario};
use super::slack;
use super::wire::{Caller, Wire};

/// Path segments after which a name follows, and what it is shown as.
const NAMED: [(&str, &str); 8] = [
    ("branches", "{b}"),
    ("branch", "{b}"),
    ("modules", "{m}"),
    ("tables", "{t}"),
    ("orders", "{id}"),
    ("sync", "{b}"),
    ("pos-sync", "{b}"),
    ("global", "{name}"),
];
/// Members by which a frame differs from others of its type, besides the record it is about.
const TELLING: [&str; 8] =
    ["topic", "table", "requestId", "level", "event", "directive", "branchId", "moduleId"];
/// What tells the words of one topic from each other.
const SAID: [&str; 5] = [
    "/data/mode",
    "/data/set/action",
    "/data/set/mutationId",
    "/data/set/recordRef/key",
    "/data/set/meta/table",
];
/// Where a frame says which request it answers.
const REQUEST: &str = "/meta/clientMeta/requestId";
/// How long a day is in a text.
const DAY: usize = "2026-11-21".len();
/// How the path of a call ends that lets numbers begin again.
const RESET: &str = "/reset";

/// What a play found.
#[derive(Debug, Default)]
pub struct Played {
    /// Requests answered, frames sent and frames compared.
    pub exchanges: usize,
    /// What differed.
    pub differences: Vec<Difference>,
    /// The files played.
    pub files: Vec<String>,
    /// What was written down, by file.
    pub kept: KeptEvents,
}

struct Socket {
    /// The file it was recorded in; calls of another may be made meanwhile.
    file: String,
    wire: Wire,
    /// Of each type and topic, the place of the frame taken last.
    last: BTreeMap<String, usize>,
}

/// Plays scenarios against nodes.
struct Player {
    caller: Caller,
    sockets: BTreeMap<String, Socket>,
    comparison: Comparison,
    exchanges: usize,
    /// What came, where it is written down.
    record: Option<KeptEvents>,
}

/// Plays scenarios in order against these nodes; requests and sockets go to each in turn.
///
/// # Errors
/// The first node does not answer at all.
pub async fn play(scenarios: &[Scenario], nodes: &[SocketAddr]) -> Result<Played> {
    perform(scenarios, nodes, None).await
}

/// Plays as [`play`] and writes down what was asked and all that came of it: after each step every
/// socket is listened to until it is quiet, so that frames stand after what caused them.
///
/// # Errors
/// As [`play`].
pub async fn record(scenarios: &[Scenario], nodes: &[SocketAddr]) -> Result<Played> {
    perform(scenarios, nodes, Some(KeptEvents::default())).await
}

async fn perform(
    scenarios: &[Scenario],
    nodes: &[SocketAddr],
    record: Option<KeptEvents>,
) -> Result<Played> {
    let mut caller = Caller::new(nodes)?;
    let health = caller.call("GET", "/healthz", &Value::Null, None).await?;
    let our_day = day(&health.body["now"]).context("a node tells the time")?;
    let recorded_day = scenarios.iter().find_map(recorded_day).unwrap_or_else(|| our_day.clone());
    let comparison = Comparison::new(NameBindings::new(&recorded_day, &our_day));
    let mut player = Player { caller, sockets: BTreeMap::new(), comparison, exchanges: 0, record };
    let mut files = Vec::new();
    for scenario in scenarios {
        if scenario.is_rehearsal {
            player.rehearse(scenario).await;
            continue;
        }
        player.scenario(scenario).await;
        files.extend(scenario.name.split('+').map(str::to_owned));
    }
    Ok(Played {
        exchanges: player.exchanges,
        differences: player.comparison.differences,
        files,
        kept: player.record.unwrap_or_default(),
    })
}

fn day(now: &Value) -> Option<String> {
    Some(now.as_str()?.get(..DAY)?.to_owned())
}

/// The day a scenario was recorded, from the first greeting in it.
fn recorded_day(scenario: &Scenario) -> Option<String> {
    scenario.steps.iter().find_map(|step| {
        let body = step.does.answer().map(|answer| &answer.body);
        let said = body.or_else(|| step.does.expected())?;
        day(&said["now"]).or_else(|| day(&said["updatedAt"]))
    })
}

impl Player {
    async fn scenario(&mut self, scenario: &Scenario) {
        self.comparison.begin();
        for step in &scenario.steps {
            self.step(step).await;
        }
        for client in self.sockets.keys().cloned().collect::<Vec<_>>() {
            self.close(&client).await;
        }
    }

    /// Plays a scenario for the state it leaves.
    async fn rehearse(&mut self, scenario: &Scenario) {
        let exchanges = self.exchanges;
        let record = self.record.take();
        let rehearsal = self.comparison.rehearsal();
        let comparison = mem::replace(&mut self.comparison, rehearsal);
        self.scenario(scenario).await;
        let rehearsal = mem::replace(&mut self.comparison, comparison);
        self.comparison.rehearsed(rehearsal);
        self.exchanges = exchanges;
        self.record = record;
    }

    /// Writes down, where this is recorded.
    fn note(&mut self, write: impl FnOnce(&mut KeptEvents)) {
        if let Some(kept) = &mut self.record {
            write(kept);
        }
    }

    /// Writes down what comes to every socket until it is quiet, where this is recorded.
    async fn settle(&mut self) {
        let Some(kept) = &mut self.record else { return };
        for (client, socket) in &mut self.sockets {
            for frame in socket.wire.settle().await {
                kept.came(&socket.file, client, &frame);
            }
        }
    }

    async fn step(&mut self, step: &RecordedStep) {
        let spot = |what: String, call: &str| Spot {
            file: step.file.clone(),
            step: step.at,
            what,
            call: call.to_owned(),
        };
        match &step.does {
            Does::RecordedCall(call) => {
                let path = call.path.split('?').next().unwrap_or_default();
                self.comparison.stand(spot(endpoint(&call.method, path), path));
                self.call(step, call).await;
            }
            Does::Open(client, path) => {
                self.note(|kept| kept.opened(&step.file, client, path));
                self.comparison.stand(spot(format!("open {path}"), ""));
                let node = self.caller.turn();
                match Wire::open(node, path).await {
                    Ok(wire) => {
                        let file = step.file.clone();
                        let socket = Socket { file, wire, last: BTreeMap::new() };
                        self.sockets.insert(client.clone(), socket);
                    }
                    Err(error) => self.fails("a socket", &error),
                }
            }
            Does::Send(client, frame) => {
                self.comparison.stand(spot(format!("send {}", title(frame)), ""));
                self.send(step, client, frame).await;
            }
            Does::Expect(client, frame) => {
                self.comparison.stand(spot(format!("frame {}", title(frame)), ""));
                self.expect(client, frame).await;
            }
            Does::Close(client) => {
                self.comparison.stand(spot(String::new(), ""));
                self.close(client).await;
                self.note(|kept| kept.closed(&step.file, client));
            }
            Does::Note => self.note(|kept| kept.noted(&step.file, &step.title)),
        }
        if !matches!(step.does, Does::Expect(..) | Does::Note) {
            self.settle().await;
        }
    }

    fn fails(&mut self, recorded: &str, error: &anyhow::Error) {
        self.comparison.differs(&[], DifferenceKind::Silence, recorded, &format!("{error:#}"));
    }

    async fn call(&mut self, step: &RecordedStep, call: &RecordedCall) {
        self.exchanges += 1;
        let path = self.comparison.names.translate(&call.path);
        let body = self.comparison.names.translate_all(&call.body);
        let asked = match &call.answer {
            Some(answer) if call.method == "OPTIONS" => {
                answer.headers.get("access-control-allow-headers").and_then(Value::as_str)
            }
            _ => None,
        };
        let ours = match self.caller.call(&call.method, &path, &body, asked).await {
            Ok(ours) => ours,
            Err(error) => return self.fails("an answer", &error),
        };
        if path.split('?').next().is_some_and(|path| path.ends_with(RESET)) {
            self.comparison.names.forget_numbers();
        }
        match &call.answer {
            Some(recorded) => {
                let made = RecordedCall { path, body, ..call.clone() };
                self.note(|kept| kept.called(&step.file, &step.title, &made, &ours));
                self.answers(recorded, &ours);
            }
            None => self.comparison.remember(&ours.body),
        }
    }

    fn answers(&mut self, recorded: &RecordedAnswer, ours: &RecordedAnswer) {
        let code = |answer: &RecordedAnswer| match (answer.status, answer.body["error"].as_str()) {
            (None, _) => "the process ends".to_owned(),
            (Some(status), None) => status.to_string(),
            (Some(status), Some(error)) => format!("{status} {error}"),
        };
        if recorded.status != ours.status {
            let path = ["status".to_owned()];
            self.comparison.differs(&path, DifferenceKind::Status, &code(recorded), &code(ours));
            self.comparison.remember(&ours.body);
            return;
        }
        for (name, value) in &recorded.headers {
            let path = ["headers".to_owned(), name.clone()];
            match ours.headers.get(name) {
                _ if !has_meaning(name) => {}
                None => self.comparison.differs(&path, DifferenceKind::Missing, &shown(value), ""),
                Some(ours) if is_alike(name, value, ours) => {}
                Some(ours) => {
                    self.comparison.differs(
                        &path,
                        DifferenceKind::Value,
                        &shown(value),
                        &shown(ours),
                    );
                }
            }
        }
        match (&recorded.body, &ours.body) {
            (Value::String(left), Value::String(right)) if left.contains("# TYPE ") => {
                let left = figures(left);
                let mut right = figures(right);
                right.retain(|name, _| left.contains_key(name));
                self.comparison.values("body", &left.into(), &right.into());
            }
            (left, right) => self.comparison.values("body", left, right),
        }
    }

    async fn send(&mut self, step: &RecordedStep, client: &str, frame: &Value) {
        self.exchanges += 1;
        let frame = self.comparison.names.translate_all(frame);
        self.note(|kept| kept.sent(&step.file, client, &frame));
        let Some(socket) = self.sockets.get_mut(client) else { return };
        if let Err(error) = socket.wire.send(&frame).await {
            self.fails("a frame is taken", &error);
        }
    }

    async fn expect(&mut self, client: &str, recorded: &Value) {
        self.exchanges += 1;
        let Some(socket) = self.sockets.get_mut(client) else { return };
        let names = &self.comparison.names;
        let kind = kind(recorded);
        let taken = socket.wire.take(&kind, |ours| is_counterpart(recorded, ours, names)).await;
        let path = ["frame".to_owned()];
        let Some((place, ours)) = taken else {
            return self.comparison.differs(&path, DifferenceKind::Missing, &shown(recorded), "");
        };
        let last = socket.last.insert(stream(recorded), place);
        if let Some(last) = last.filter(|last| *last > place) {
            let ours = format!("it came {} too early", last - place);
            self.comparison.differs(&path, DifferenceKind::Order, &title(recorded), &ours);
        }
        self.comparison.values("frame", recorded, &ours);
    }

    async fn close(&mut self, client: &str) {
        let Some(mut socket) = self.sockets.remove(client) else { return };
        for frame in socket.wire.rest().await {
            self.comparison.remember(&frame);
            if !slack::may_come(&frame) {
                self.comparison.says(format!("unasked frame {}", title(&frame)));
                self.comparison.differs(
                    &[client.to_owned()],
                    DifferenceKind::Extra,
                    "",
                    &shown(&frame),
                );
            }
        }
    }
}

/// Whether a header of an answer is part of the contract.
fn has_meaning(name: &str) -> bool {
    name == "content-type" || name.starts_with("access-control-")
}

/// Whether a header says the same: a type without its parameters, a list in any order.
fn is_alike(name: &str, recorded: &Value, ours: &Value) -> bool {
    let parts = |value: &Value| {
        let text = value.as_str().unwrap_or_default().to_ascii_lowercase();
        let text = if name == "content-type" {
            text.split(';').next().unwrap_or_default().to_owned()
        } else {
            text
        };
        let mut parts: Vec<String> = text.split(',').map(|part| part.trim().to_owned()).collect();
        parts.sort();
        parts
    };
    parts(recorded) == parts(ours)
}

/// The store's own figures in a text of metrics, by name.
fn figures(text: &str) -> Map<String, Value> {
    let mut names: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .filter(|name| name.starts_with("ws2_"))
        .collect();
    names.sort_unstable();
    names.into_iter().map(|name| (name.to_owned(), json!(1))).collect()
}

/// A request without its names.
fn endpoint(method: &str, path: &str) -> String {
    let mut shown = Vec::new();
    let mut before = "";
    for segment in path.split('/') {
        let name = NAMED.iter().find(|(after, _)| *after == before).map(|(_, name)| *name);
        shown.push(match name {
            Some(name) => name,
            None if before.starts_with('{') => "{m}",
            None => segment,
        });
        before = segment;
    }
    format!("{method} {}", shown.join("/"))
}

fn kind(frame: &Value) -> String {
    frame["type"].as_str().unwrap_or("?").to_owned()
}

/// Within which frames keep their order.
fn stream(frame: &Value) -> String {
    format!("{} {}", kind(frame), frame["topic"].as_str().unwrap_or_default())
}

/// A frame in a few words.
fn title(frame: &Value) -> String {
    let mut words = vec![kind(frame)];
    for name in ["action", "event", "directive", "level", "queryType"] {
        words.extend(frame[name].as_str().map(str::to_owned));
    }
    if let Some(topic) = frame["topic"].as_str() {
        words.push(topic.to_owned());
    }
    if frame["type"] == "publish"
        && let Some(mode) = frame["data"]["mode"].as_str()
    {
        words.push(mode.to_owned());
    }
    if frame["type"] == "server:log" && frame["level"] == "error" {
        let message = frame["message"].as_str().unwrap_or_default();
        words.push(message.split([':', '"']).next().unwrap_or_default().trim().to_owned());
    }
    words.join(" ")
}

/// Whether our frame is the one a recorded frame stands for; its values may still differ.
fn is_counterpart(recorded: &Value, ours: &Value, names: &NameBindings) -> bool {
    let alike = |left: &Value, right: &Value| match (left.as_str(), right.as_str()) {
        (Some(left), Some(right)) => names.may_match(left, right),
        (Some(_), None) => false,
        (None, _) => true,
    };
    let same = |path: &str| match (recorded.pointer(path), ours.pointer(path)) {
        (Some(left), Some(right)) => alike(left, right),
        (left, right) => left.is_none() == right.is_none(),
    };
    let is_answer = recorded.pointer(REQUEST).is_some();
    let is = |name: &str| recorded["type"] == name;
    // By these a topic's message differs from the one before.
    let says = |path: &str| {
        alike(
            recorded.pointer(path).unwrap_or(&Value::Null),
            ours.pointer(path).unwrap_or(&Value::Null),
        )
    };
    // What names its request answers no other; the original's errors do not.
    let asked = |path: &str| recorded.pointer(path).is_none() || same(path);
    recorded["type"] == ours["type"]
        && SAID.iter().all(|path| says(path))
        && TELLING.iter().all(|name| alike(&recorded[*name], &ours[*name]))
        && same(REQUEST)
        && (is_answer || same("/recordRef/key"))
        && (!is("server:event") || recorded["recordRef"].is_object() || same("/action"))
        && ["/context/requestId", "/meta/requestId", "/requestId"].iter().all(|path| asked(path))
        && (!is("server:log")
            || (recorded["level"] == "error" && asked("/context/code"))
            || (same("/message") && same("/context/type")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_by_what_they_are_for() {
        let path = "/api/branches/dar/modules/pos/tables/t/x";
        assert_eq!(endpoint("GET", path), "GET /api/branches/{b}/modules/{m}/tables/{t}/x");
        assert_eq!(endpoint("GET", "/api/branches"), "GET /api/branches");
    }

    #[test]
    fn a_frame_is_found_by_what_it_is_about() {
        let names = NameBindings::new("2026-11-21", "2026-11-21");
        let event = |key: &str| json!({ "type": "server:event", "recordRef": { "key": key } });
        assert!(is_counterpart(&event("a"), &event("a"), &names));
        assert!(!is_counterpart(&event("a"), &event("b"), &names));
        assert!(is_counterpart(&event("AAA-000001"), &event("AAA-000002"), &names));
        let word = |action: &str| json!({ "type": "publish", "data": { "mode": "delta", "set": { "action": action } } });
        assert!(is_counterpart(&word("a"), &word("a"), &names));
        assert!(!is_counterpart(&word("a"), &word("b"), &names));
        let log = |level: &str| json!({ "type": "server:log", "level": level });
        assert!(!is_counterpart(&log("warn"), &log("error"), &names));
    }

    #[test]
    fn headers_say_the_same_in_any_order() {
        assert!(is_alike(
            "content-type",
            &json!("application/json"),
            &json!("application/json; charset=utf-8")
        ));
        assert!(is_alike("access-control-allow-methods", &json!("GET,PUT"), &json!("PUT, GET")));
        assert!(!is_alike("access-control-allow-origin", &json!("*"), &json!("x")));
    }
}
