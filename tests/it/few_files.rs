//! Few files: a node that may open few files keeps what its log needs, and lives through a crowd.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tests::client::TablePath;
use tests::process_cluster::{Contents, ProcessCluster};

/// Files the process may have, and connections that are opened and then say nothing.
const FILES: u32 = 160;
const IDLE: usize = 320;
/// Writes over the connection that was made before them.
const WRITES: usize = 300;

/// One request over a connection that stays open; gives the status and the body.
fn ask(stream: &mut TcpStream, path: &str, body: &Value) -> Result<(u16, String)> {
    let body = body.to_string();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let head = answer.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
        if let Some(head) = head {
            let text = String::from_utf8_lossy(&answer[..head]).to_lowercase();
            let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.context("an answer has a length")?.trim().parse()?;
            if answer.len() >= head + length {
                let status = text.split(' ').nth(1).context("a status")?.parse()?;
                return Ok((status, String::from_utf8_lossy(&answer[head..]).into_owned()));
            }
        }
        let count = stream.read(&mut piece)?;
        anyhow::ensure!(count > 0, "the node closed the connection");
        answer.extend_from_slice(&piece[..count]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_connections_takes_no_file_from_the_log() -> Result<()> {
    let mut cluster = ProcessCluster::plan(1, Contents::Sample).await?;
    cluster.limit_files(FILES);
    // Small, so that log segments and checkpoints are made while the crowd is there.
    cluster.tell("--checkpoint-log-mib", 1);
    cluster.start_all().await?;
    let status = cluster.client(1).status().await?;
    assert_eq!(status["files"]["fileLimit"], FILES);
    let connections = status["files"]["connectionsMax"].as_u64().context("a number")?;
    assert!(connections < u64::from(FILES) && connections > 16, "{connections}");

    let places = TablePath::pos("dar", "dining_tables");
    let mut first = TcpStream::connect(cluster.http(1))?;
    first.set_read_timeout(Some(Duration::from_secs(30)))?;
    let note = "x".repeat(100_000);
    let record =
        |n: usize| json!({ "record": { "id": format!("t-{n}"), "name": "T", "note": note } });
    assert_eq!(ask(&mut first, &places.path(), &record(0))?.0, 201);

    let soon = Duration::from_secs(5);
    let connect = |_| TcpStream::connect_timeout(&cluster.http(1), soon);
    let crowd: Vec<TcpStream> = (0..IDLE).map(connect).collect::<Result<_, _>>()?;
    let mut acknowledged = 1;
    for n in 1..=WRITES {
        let (status, body) = ask(&mut first, &places.path(), &record(n))?;
        assert!([201, 429, 503].contains(&status), "write {n} was answered {status}: {body}");
        acknowledged += usize::from(status == 201);
    }
    assert!(acknowledged > WRITES / 2, "most writes go through: {acknowledged}");

    // Those that never said a word give way to one that does.
    let late = json!({ "id": "t-late", "name": "T" });
    cluster.client(1).insert(&places, None, &late).await?.ok()?;
    acknowledged += 1;
    drop(crowd);
    cluster.wait_until_ready(1).await?;
    let rows = cluster.client(1).rows(&places).await?;
    let ours = rows.iter().filter(|row| row["id"].as_str().is_some_and(|id| id.starts_with("t-")));
    assert_eq!(ours.count(), acknowledged);
    cluster.stop(1).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_too_few_files_says_so_and_does_not_start() -> Result<()> {
    let mut cluster = ProcessCluster::plan(1, Contents::Sample).await?;
    cluster.limit_files(64);
    assert!(cluster.start_all().await.is_err());
    assert!(cluster.logged(1).contains("may have 64 open files"), "{}", cluster.logged(1));
    Ok(())
}
