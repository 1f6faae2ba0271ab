//! The demo, as a newcomer meets it.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::client::Client;
use tests::demo::Demo;
use tests::wait::{WaitState, until};
use tests::writer::OrderWriter;

const README: &str = include_str!("../../README.md");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lines_it_prints_and_those_of_the_readme_work_at_any_node() -> Result<()> {
    let mut demo = Demo::start(3).await?;
    for node in demo.ids() {
        let base = demo.client(node).base().to_owned();
        assert!(demo.said().contains(&base), "the demo names {base}:\n{}", demo.said());
    }
    for (place, text) in [("the demo", demo.said()), ("README.md", README.to_owned())] {
        let lines = curl_lines(&text);
        assert!(lines.len() >= 3, "{place} has three lines to try:\n{text}");
        for (line, node) in
            lines.iter().flat_map(|line| demo.ids().into_iter().map(move |node| (line, node)))
        {
            let reply = as_curl(line, demo.client(node).base()).await?;
            assert!((200..300).contains(&reply), "`{line}` at node {node} answered {reply}");
        }
    }
    demo.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_and_started_again_it_goes_on_where_it_was() -> Result<()> {
    let mut demo = Demo::start(3).await?;
    let mut writer = OrderWriter::new("demo", "dar", vec![demo.client(2)]);
    writer.write_many(10).await?;
    demo.stop().await?;
    demo.start_again().await?;
    writer.write_many(10).await?;
    writer.recording.judge("dar", &[demo.client(3)]).await?.assert_hold();
    demo.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dies_is_missed_and_started_again() -> Result<()> {
    let mut demo = Demo::start(3).await?;
    let before = demo.pids()?;
    demo.kill(2)?;
    until("the demo has started node 2 again", async || match demo.pids() {
        Ok(now) => {
            WaitState::when(now[1] != before[1], (), || "the old process is there".to_owned())
        }
        Err(error) => WaitState::NotYet(format!("{error:#}")),
    })
    .await?;
    demo.wait_until_ready().await?;
    assert!(demo.said().contains("node 2"), "it says so:\n{}", demo.said());
    demo.stop().await
}

/// The lines that begin with `curl`, each with the lines it goes on in.
fn curl_lines(text: &str) -> Vec<String> {
    let whole = text.replace("\\\n", " ");
    whole
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("curl "))
        .map(str::to_owned)
        .collect()
}

/// Does what curl would, at another node; returns the status.
async fn as_curl(line: &str, base: &str) -> Result<u16> {
    let words = shell_words(line);
    let after = |flag: &str| {
        words
            .iter()
            .position(|word| word == flag)
            .and_then(|at| words.get(at + 1))
            .map(String::as_str)
    };
    let host = |word: &&String| word.trim_start_matches("http://").starts_with(['l', '1']);
    let url = words.iter().skip(1).find(host).context("a line has a URL")?;
    let url = url.trim_start_matches("http://");
    let (_, path) = url.split_once('/').context("a URL has a path")?;
    let body: Option<Value> = after("-d").map(serde_json::from_str).transpose()?;
    let usual = if body.is_some() { "POST" } else { "GET" };
    let method = after("-X").unwrap_or(usual);
    let client = Client::new(base.trim_start_matches("http://").parse()?);
    let reply = match body {
        Some(body) => client.send_json(method, &format!("/{path}"), None, &body).await?,
        None => client.get(&format!("/{path}")).await?,
    };
    ensure!(!reply.body.is_null(), "`{line}` answered no JSON");
    Ok(reply.status)
}

/// Splits a line as a shell does, as far as the demo's lines go.
fn shell_words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for c in line.chars() {
        let word = words.last_mut().expect("there is always a word");
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), _) if open == c => quote = None,
            (None, ' ') => words.push(String::new()),
            _ => word.push(c),
        }
    }
    words
}
