//! Slack: what is compared by its type alone, and what an answer of ours may have more.
//!
//! Both lists are short and named, so that nothing new slips in unseen.

use serde_json::Value;

/// Members whose value depends on the run, wherever they stand.
const OF_THE_RUN: &[&str] = &[
    "serverId",
    "queryTime",
    "counter",
    "labCounter",
    "invoiceSequence",
    "totalEvents",
    "instance",
];
/// Members whose value counts records of an earlier, unwritten state: the member and what it
/// stands in, `*` for anything.
const COUNTS: &[(&str, &str)] = &[
    ("stats/*", "total"),
    ("stats/*", "returned"),
    ("*", "removed"),
    ("*", "totalRemoved"),
    ("*", "totalRecords"),
    ("*", "totalPurged"),
    ("*", "totalRestored"),
    ("restored/*", "restored"),
    ("restored/*", "duplicates"),
    ("restored/*", "skipped"),
    ("tables/*", "count"),
    ("summary/*", "count"),
];
/// Members that depend on the run at the end of these paths only.
const OF_A_CALL: &[(&str, &str)] = &[("/sequences", "value")];
/// Errors whose message is the words of a parser.
const PARSERS_WORDS: &[&str] = &["invalid-json"];

/// What an error's body may have more.
const ERRORS_MORE: &[&str] =
    &["type", "title", "status", "detail", "instance", "details", "message", "path"];
/// What any object at this path may have more: the end of the path, and the members.
const MORE: &[(&str, &[&str])] = &[
    ("frame", &["cursor", "cursors", "gap", "resume"]),
    ("frame/context", &["requestId", "code", "details"]),
    ("body", &["cursor"]),
    ("ack", &["cursor"]),
    ("meta", &["cursor", "cursorMatched"]),
    ("body/cursor", &["position"]),
];
/// Frames of ours that may come between those recorded.
const FRAMES_MORE: &[&str] = &["server:error", "server:resumed"];

/// Whether only the type of this member is compared. `path` ends with the member.
pub fn is_of_the_run(call: &str, path: &[String]) -> bool {
    let Some((name, above)) = path.split_last() else { return false };
    OF_THE_RUN.contains(&name.as_str())
        || COUNTS.iter().any(|(end, member)| name == member && ends_with(above, end))
        || OF_A_CALL.iter().any(|(end, member)| name == member && call.ends_with(end))
}

/// Whether the message of such an error is not ours to choose.
pub fn is_parsers_word(body: &Value, member: &str) -> bool {
    member == "message" && body["error"].as_str().is_some_and(|code| PARSERS_WORDS.contains(&code))
}

/// Whether an object at this path may have a member that was not recorded.
pub fn may_have(path: &[String], recorded: &Value, member: &str) -> bool {
    let is_error = path == ["body"] && recorded["error"].is_string();
    (is_error && ERRORS_MORE.contains(&member))
        || MORE.iter().any(|(end, members)| ends_with(path, end) && members.contains(&member))
}

/// Whether a topic tells of a state that the original kept apart from the module's own, so that
/// its versions are at another distance.
pub fn is_of_a_state(topic: &str) -> bool {
    let is_of_tables = topic.starts_with("sync-table::") || topic.starts_with("table::");
    !topic.is_empty() && !is_of_tables
}

/// Whether a frame may come although none was recorded.
pub fn may_come(frame: &Value) -> bool {
    frame["type"].as_str().is_some_and(|kind| FRAMES_MORE.contains(&kind))
}

/// Whether a path ends so; `*` stands for one step.
fn ends_with(path: &[String], end: &str) -> bool {
    let mut steps = path.iter().rev();
    end.split('/').rev().all(|like| steps.next().is_some_and(|step| like == "*" || step == like))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn path(text: &str) -> Vec<String> {
        text.split('/').map(str::to_owned).collect()
    }

    #[test]
    fn what_depends_on_the_run_is_named() {
        assert!(is_of_the_run("/x", &path("body/serverId")));
        assert!(is_of_the_run("/x", &path("body/stats/order_line/total")));
        assert!(!is_of_the_run("/x", &path("body/order/total")));
        assert!(is_of_the_run("/modules/pos/sequences", &path("body/value")));
        assert!(!is_of_the_run("/x", &path("body/value")));
    }

    #[test]
    fn an_error_may_say_more_and_an_answer_may_not() {
        let (error, answer) = (json!({ "error": "x" }), json!({ "id": 1 }));
        assert!(may_have(&path("body"), &error, "title"));
        assert!(!may_have(&path("body"), &answer, "title"));
        assert!(may_have(&path("frame/context"), &answer, "code"));
        assert!(is_of_a_state("pos:sync:dar") && !is_of_a_state(""));
        assert!(!is_of_a_state("sync-table::dar::t") && !is_of_a_state("table::t"));
        assert!(may_come(&json!({ "type": "server:error" })));
        assert!(!may_come(&json!({ "type": "server:event" })));
    }
}
