//! Malformed: what no client should send, sent to a real node: every request gets a 4xx in the
//! documented shape, or is answered as the contract says; the process lives, its memory stays flat.

mod bodies;
mod raw;

use std::net::SocketAddr;

use anyhow::Result;
use serde_json::{Value, json};
use tests::process::resident_kib;
use tests::process_cluster::ProcessCluster;
use tests::session::ClientSession;

use bodies::{BODIES, ENDPOINTS, frames, large};
use raw::{RawAnswer, request, send};

/// What a node's memory may grow by when everything is sent once more, in KiB.
const GROWTH_MAX_KIB: u64 = 32 * 1024;

/// An answer that is right: a success, or a refusal in the documented shape.
fn judge(what: &str, answer: &RawAnswer) {
    assert!(answer.status < 500, "{what}: {answer:?}");
    if answer.status < 400 {
        return;
    }
    let body: Value = serde_json::from_slice(&answer.body)
        .unwrap_or_else(|error| panic!("{what}: {error}: {answer:?}"));
    assert!(body["error"].as_str().is_some_and(|code| !code.is_empty()), "{what}: {body}");
    assert!(body["message"].as_str().is_some_and(|text| !text.is_empty()), "{what}: {body}");
    assert!(body["details"].is_object(), "{what}: {body}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_sent_is_refused_in_words_and_the_node_lives_on() -> Result<()> {
    let cluster = ProcessCluster::start(1).await?;
    let (node, pid) = (cluster.http(1), cluster.pid(1)?);
    let sent = send_all(node).await?;
    // What is made once is there by now: the same again must not take more.
    let before = resident_kib(pid)?;
    send_all(node).await?;
    let after = resident_kib(pid)?;
    println!("{sent} requests twice; resident {before} KiB, then {after} KiB");
    assert!(sent >= 300, "{sent} requests");
    assert!(after < before + GROWTH_MAX_KIB, "{before} KiB grew to {after} KiB");
    assert!(cluster.client(1).is_ready().await);
    Ok(())
}

/// Sends everything once and judges every answer.
async fn send_all(node: SocketAddr) -> Result<usize> {
    let mut sent = 0;
    for (method, path) in ENDPOINTS {
        for body in BODIES.iter().map(|body| body.to_vec()).chain([large()]) {
            let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
            let what = format!("{method} {path} {shown:?}");
            judge(&what, &send(node, &request(method, path, &[], &body)).await?);
            sent += 1;
        }
    }
    for (what, bytes) in raw::requests() {
        // A request that is no HTTP may also be answered by the end of the connection.
        if let Ok(answer) = send(node, &bytes).await
            && !answer.body.is_empty()
        {
            judge(&what, &answer);
        }
        sent += 1;
    }
    Ok(sent)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_frame_is_sent_the_socket_goes_on_or_says_why_not() -> Result<()> {
    let cluster = ProcessCluster::start(1).await?;
    let frames = frames();
    for has_entered in [false, true] {
        let mut session = ClientSession::open(cluster.http(1)).await?;
        if has_entered {
            session.send(&json!({ "type": "client:hello", "branchId": "dar" })).await?;
            session.wait_for("server:snapshot").await?;
        }
        for frame in &frames {
            session.send_text(frame).await?;
            // Whatever it means, the next question is answered.
            let answers = session.drain().await?;
            for answer in answers.iter().filter(|answer| answer["type"] == "server:error") {
                assert!(answer["code"].is_string() && answer["message"].is_string(), "{answer}");
            }
        }
    }
    println!("{} frames, before and after a hello", frames.len());
    assert!(cluster.client(1).is_ready().await);
    Ok(())
}
