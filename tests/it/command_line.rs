//! The command line as scripts and operators use it: pipes that close early, exit codes, logs.

use std::fs::File;
use std::io::pipe;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Output, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::binary::mishkah;
use tests::process_cluster::{Contents, ProcessCluster, alone};
use tests::wait::{WaitState, until};

/// What `status` ends with when there are warnings.
const WARNINGS: Option<i32> = Some(3);

/// Runs a command whose reader has left before the first line.
fn unread(arguments: &[&str]) -> Result<Output> {
    let (reader, writer) = pipe()?;
    drop(reader);
    Ok(mishkah()?.args(arguments).stdout(writer).output()?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_leaves_changes_no_exit_code() -> Result<()> {
    let mut cluster = ProcessCluster::plan(1, Contents::Sample).await?;
    cluster.tell("--allow-origin", "*");
    cluster.start_all().await?;
    let node = cluster.client(1).base().to_owned();
    for (arguments, code) in [
        (vec!["help"], 0),
        (vec!["help", "start"], 0),
        (vec!["--version"], 0),
        // Every origin is allowed, which is warned about.
        (vec!["status", "--node", &node], 3),
        (vec!["status", "--json", "--node", &node], 3),
        (vec!["watch", "--node", &node], 0),
    ] {
        let done = unread(&arguments)?;
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(!said.contains("panicked") && !said.contains("pipe"), "{arguments:?}: {said}");
    }
    let full = File::options().write(true).open("/dev/full")?;
    let done = mishkah()?.args(["status", "--node", &node]).stdout(full).output()?;
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot be written"), "{said}");
    Ok(())
}

/// A node's process, killed when it is dropped.
struct ChildProcess(Child);

impl Drop for ChildProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a node that may never come to serve.
fn start(
    home: &Path,
    cluster: &str,
    node: usize,
    http: SocketAddr,
    peers: &[(usize, SocketAddr)],
) -> Result<ChildProcess> {
    let peers: Vec<String> = peers.iter().map(|(id, peer)| format!("{id}={peer}")).collect();
    let log = File::create(home.join(format!("log-{cluster}-{node}")))?;
    let mut command = mishkah()?;
    command
        .args(["start", "--cluster", cluster, "--node", &node.to_string()])
        .args(["--peers", &peers.join(","), "--listen", &http.to_string()])
        .arg("--data")
        .arg(home.join(format!("{cluster}-{node}")))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    Ok(ChildProcess(command.spawn()?))
}

fn addresses(count: usize) -> Result<Vec<SocketAddr>> {
    let held: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    held.iter().map(|listener| Ok(listener.local_addr()?)).collect()
}

/// Waits until `status` says this and ends with 3.
async fn says(node: SocketAddr, part: &str) -> Result<()> {
    let mut command = mishkah()?;
    command.args(["status", "--node", &node.to_string()]);
    until(&format!("status of {node} says {part:?}"), async || match command.output() {
        Ok(done) => {
            let text = String::from_utf8_lossy(&done.stdout).into_owned();
            let is_printed = text.contains(part) && done.status.code() == WARNINGS;
            WaitState::when(is_printed, (), || format!("{}: {text}", done.status))
        }
        Err(error) => WaitState::NotYet(error.to_string()),
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_of_a_node_in_no_cluster_says_why_and_fails() -> Result<()> {
    let _alone = alone().await;
    let home = tempfile::tempdir()?;
    let all = addresses(6)?;
    let peers = [(1, all[3]), (2, all[4]), (3, all[5])];
    let one = start(home.path(), "one", 1, all[0], &peers)?;
    says(all[0], "node 1 is in no cluster yet").await?;
    says(all[0], "not formed yet").await?;
    // The second is told of another cluster: it refuses, and is refused.
    let other = start(home.path(), "other", 2, all[1], &peers)?;
    says(all[0], "belongs to cluster \"other\"").await?;
    says(all[1], "belongs to cluster \"one\"").await?;
    drop((one, other));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_logs_have_numbers_and_polls_are_no_warnings() -> Result<()> {
    let mut cluster = ProcessCluster::plan(3, Contents::Sample).await?;
    cluster.tell("--log", "json");
    cluster.tell("--log-level", "debug");
    cluster.start_all().await?;
    cluster.leaders_return().await?;
    cluster.kill(3)?;
    cluster.client(1).get("/api/branches").await?.ok()?;
    cluster.restart(3).await?;
    let mut polls = 0;
    for node in cluster.ids() {
        for line in cluster.logged(node).lines() {
            let entry: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
            let members = entry.as_object().context("a line is an object")?;
            for (name, value) in members {
                let is_number = value.as_str().is_some_and(|text| text.parse::<f64>().is_ok());
                ensure!(!is_number, "{name} is a number in quotes: {line}");
            }
            if entry["path"] == "/readyz" {
                assert_eq!(entry["level"], "DEBUG", "{line}");
                polls += 1;
            }
        }
    }
    assert!(polls > 0, "the nodes were polled");
    cluster.keep_quiet();
    Ok(())
}

/// The number is another's, or a mistake of whoever imported it: the counter stays, and an operator
/// is told until it is set.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_shows_a_number_that_a_sequence_does_not_follow() -> Result<()> {
    let mut cluster = ProcessCluster::plan(1, Contents::Sample).await?;
    cluster.start_all().await?;
    let (client, node) = (cluster.client(1), cluster.client(1).base().to_owned());
    let definition = serde_json::json!({"id": "bills", "schema": {"tables": [{
        "name": "bill",
        "fields": [{"name": "id", "type": "string", "primaryKey": true,
                    "sequence": {"prefix": "B"}}],
    }]}});
    client.send_json("POST", "/api/modules", None, &definition).await?.ok()?;
    client
        .send_json(
            "POST",
            "/api/branches",
            None,
            &serde_json::json!({"id": "n", "modules": ["bills"]}),
        )
        .await?
        .ok()?;
    let bills = "/api/branches/n/modules/bills/tables/bill";
    let first = client.send_json("POST", bills, None, &serde_json::json!({})).await?.ok()?;
    let id = first.pointer("/record/id").and_then(Value::as_str).context("it has an id")?;
    let absurd = id.replace(|digit: char| digit.is_ascii_digit(), "") + "999999999999999";
    client.send_json("POST", bills, None, &serde_json::json!({"id": absurd})).await?.ok()?;
    let output = mishkah()?.args(["status", "--node", &node]).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), WARNINGS, "{text}");
    let said = format!("bill.id of n/bills stands at 1 and does not follow \"{absurd}\"");
    assert!(text.contains(&said), "{text}");
    let counter = serde_json::json!({"next": 2});
    client
        .send_json("PUT", "/api/branches/n/modules/bills/sequences/bill/id", None, &counter)
        .await?
        .ok()?;
    let output = mishkah()?.args(["status", "--node", &node]).output()?;
    assert!(!String::from_utf8_lossy(&output.stdout).contains("does not follow"));
    Ok(())
}
