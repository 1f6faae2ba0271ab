//! The tutorial, run from the document: every command in its order, every answer compared with the
//! one that is shown, and its page in a real browser.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::binary::mishkah;
use tests::browser::{ForeignServer, chromium};
use tests::demo::Demo;
use tokio::task::JoinHandle;

const TUTORIAL: &str = include_str!("../../docs/tutorial.md");
/// The line that starts the nodes, which the test does itself.
const START: &str = "cargo run --release -- demo --static page";
/// How the document calls the program.
const PROGRAM: &str = "cargo run --release -- ";
/// The command that writes the page.
const WRITES_PAGE: &str = "cat > page/index.html";
/// What the page shows in the end: Omar's points after the last change.
const SHOWN_AT_LAST: &str = "35.00";
/// A page that shows the tutorial's and reports its table once the last change is in it.
const OBSERVER: &str = r#"<!doctype html><iframe id="page" src="/"></iframe><script>
  const wait = setInterval(() => {
    const rows = document.getElementById('page').contentDocument?.getElementById('rows');
    if (!rows?.textContent.includes('SHOWN_AT_LAST')) return;
    clearInterval(wait);
    const report = [...rows.children].map(row => [...row.children].map(cell => cell.textContent));
    fetch('REPORT_URL', { method: 'POST', mode: 'no-cors', body: JSON.stringify(report) });
  }, 50);
</script>"#;
/// What stands for a text that differs from run to run.
const ANY: &str = "…";

/// A command of the document, and the answer shown after it.
#[derive(Debug, PartialEq)]
struct TutorialStep {
    command: String,
    answer: Option<String>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_of_the_tutorial_answers_as_it_says() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let page = folder.path().join("page");
    let mut steps = steps(TUTORIAL).into_iter();
    let first = steps.next().context("the tutorial has commands")?;
    run(&first.command, folder.path())?;
    let second = steps.next().context("the tutorial starts the nodes")?;
    ensure!(second.command.trim() == START, "the nodes are started by `{START}`");
    let mut demo = Demo::start_with_files(3, &page).await?;
    let (mut seen_by_browser, mut differences) = (None, Vec::new());
    for step in steps {
        let printed = run(&at_the_nodes_of(&demo, &step.command)?, folder.path())?;
        if step.command.starts_with(WRITES_PAGE) {
            seen_by_browser = observe(&demo, &page).await?;
        }
        let Some(shown) = &step.answer else { continue };
        let shown: Value = serde_json::from_str(shown)
            .with_context(|| format!("the answer shown is no JSON: {shown}"))?;
        let given: Value = serde_json::from_str(&printed)
            .with_context(|| format!("`{}` printed no JSON: {printed}", step.command))?;
        if let Err(difference) = is_part_of(&shown, &given, "") {
            differences.push(format!("{}{difference}\nanswered: {given:#}", step.command));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
    if let Some(seen) = seen_by_browser {
        let rows = seen.await??;
        let expected = serde_json::json!([
            ["C-1001", "Mona", "gold", "7.50"],
            ["C-1002", "Omar", "silver", SHOWN_AT_LAST],
        ]);
        assert_eq!(rows, expected, "what the page shows");
    }
    demo.stop().await
}

/// Opens the page in a browser, and returns what it shows once the last change is in it.
#[allow(clippy::print_stderr, reason = "a part that is skipped is said to be")]
async fn observe(demo: &Demo, page: &Path) -> Result<Option<JoinHandle<Result<Value>>>> {
    let Some(program) = chromium() else {
        eprintln!("skipped: there is no chromium on this machine; the page is not looked at");
        return Ok(None);
    };
    let node = demo.http(1);
    let mut server = ForeignServer::start(String::new(), node).await?;
    let observer = OBSERVER
        .replace("SHOWN_AT_LAST", SHOWN_AT_LAST)
        .replace("REPORT_URL", &server.report_url());
    fs::write(page.join("observer.html"), observer)?;
    Ok(Some(tokio::spawn(async move {
        server.first_report(&program, &format!("http://{node}/observer.html")).await
    })))
}

#[test]
fn commands_and_their_answers_are_read_from_fences() {
    let text = "a\n```sh\none\ntwo\n```\nb\n```json\n{}\n```\n```sh\nthree\n```\n";
    let step = |command: &str, answer: Option<&str>| TutorialStep {
        command: command.to_owned(),
        answer: answer.map(str::to_owned),
    };
    assert_eq!(steps(text), [step("one\ntwo\n", Some("{}\n")), step("three\n", None)]);
}

#[test]
fn an_answer_is_compared_member_by_member() {
    let given = serde_json::json!({ "a": 1, "b": [{ "c": 2, "d": "x" }] });
    let compare = |shown: Value| is_part_of(&shown, &given, "");
    assert!(compare(serde_json::json!({ "b": [{ "d": ANY }] })).is_ok());
    assert!(compare(serde_json::json!({ "a": 2 })).is_err());
    assert!(compare(serde_json::json!({ "e": ANY })).is_err(), "it must be there");
    assert!(compare(serde_json::json!({ "b": [] })).is_err(), "a list has its length");
}

/// The commands of a document and their answers, in order.
fn steps(text: &str) -> Vec<TutorialStep> {
    let mut steps: Vec<TutorialStep> = Vec::new();
    let mut fence: Option<(&str, String)> = None;
    for line in text.lines() {
        match (&mut fence, line.strip_prefix("```")) {
            (None, Some(language)) => fence = Some((language, String::new())),
            (Some((_, body)), None) => {
                body.push_str(line);
                body.push('\n');
            }
            (Some(_), Some(_)) => match fence.take() {
                Some(("sh", command)) => steps.push(TutorialStep { command, answer: None }),
                Some(("json", answer)) => {
                    let step = steps.last_mut().expect("an answer follows a command");
                    step.answer = Some(answer);
                }
                Some(_) | None => {}
            },
            (None, None) => {}
        }
    }
    steps
}

/// A command as it reaches the nodes of this demo, by the program that runs them.
fn at_the_nodes_of(demo: &Demo, command: &str) -> Result<String> {
    let program = mishkah()?.get_program().to_string_lossy().into_owned();
    let mut command = command.replace(PROGRAM, &format!("{program} "));
    for (node, port) in [(1, 3200), (2, 3201), (3, 3202)] {
        command = command.replace(&format!("localhost:{port}"), &demo.http(node).to_string());
    }
    Ok(command)
}

/// What a command prints.
fn run(command: &str, folder: &Path) -> Result<String> {
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", command])
        .current_dir(folder)
        .output()
        .context("starting bash")?;
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "`{command}` failed ({}): {out}{err}", output.status);
    Ok(out.into_owned())
}

/// Whether an answer has all that is shown of it.
fn is_part_of(shown: &Value, given: &Value, path: &str) -> Result<(), String> {
    match (shown, given) {
        (Value::Object(shown), Value::Object(given)) => {
            for (name, shown) in shown {
                let path = format!("{path}/{name}");
                let given = given.get(name).ok_or_else(|| format!("{path} is not there"))?;
                is_part_of(shown, given, &path)?;
            }
            Ok(())
        }
        (Value::Array(shown), Value::Array(given)) if shown.len() == given.len() => {
            let pairs = shown.iter().zip(given).enumerate();
            pairs.into_iter().try_for_each(|(at, (shown, given))| {
                is_part_of(shown, given, &format!("{path}/{at}"))
            })
        }
        (Value::String(text), _) if text == ANY => Ok(()),
        (shown, given) if shown == given => Ok(()),
        (shown, given) => Err(format!("{path} is {given}, not {shown} as shown")),
    }
}
