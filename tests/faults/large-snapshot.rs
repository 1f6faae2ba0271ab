//! Large snapshot: what a node's memory does when sockets load a branch of many megabytes.
//!
//! One node is filled with records of 0.96 MB, then sockets say hello to the branch one after
//! the other, then all at once; each counts the bytes and frames of its snapshot. A socket must
//! cost the node a few MiB, whatever the branch holds.
//!
//! `--records N` (150), `--sockets N` (4).
#![allow(clippy::print_stdout, reason = "a drill prints what it measured")]

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use futures::{SinkExt, StreamExt};
use serde_json::json;
use tests::client::TablePath;
use tests::drill::DrillOptions;
use tests::process::{peak_kib, resident_kib};
use tests::process_cluster::ProcessCluster;
use tokio::time::Instant;
use tokio_tungstenite::connect_async_with_config;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// Characters of each record's text.
const TEXT: usize = 960_000;
/// What a node may use more for each socket that loads a snapshot, in MiB.
const MORE_PER_SOCKET_MIB: u64 = 16;

#[tokio::main]
async fn main() -> Result<()> {
    let options = DrillOptions::of_this_program(&["--records", "--sockets"])?;
    let (records, sockets) = (options.value("--records", 150)?, options.value("--sockets", 4)?);
    let mut cluster = ProcessCluster::start(1).await?;
    cluster.keep_quiet();
    let (client, place) = (cluster.client(1), TablePath::pos("dar", "dining_tables"));
    let text = "x".repeat(TEXT);
    for n in 0..records {
        let record = json!({ "id": format!("large-{n}"), "name": "T", "note": text });
        client.insert(&place, None, &record).await?.ok()?;
    }
    let pid = cluster.pid(1)?;
    let mib = |kib: u64| kib / 1024;
    let (resident, peak) = (mib(resident_kib(pid)?), mib(peak_kib(pid)?));
    println!("filled with {records} records: resident {resident} MiB, peak {peak} MiB");

    let node = cluster.http(1);
    load(node, records).await?;
    let after_one = mib(peak_kib(pid)?);
    println!("after one socket: peak {after_one} MiB, {} MiB more", after_one - peak);
    try_join_all((0..sockets).map(|_| load(node, records))).await?;
    let after_all = mib(peak_kib(pid)?);
    println!("after {sockets} more at once: peak {after_all} MiB, {} MiB more", after_all - peak);
    let allowed = MORE_PER_SOCKET_MIB * (sockets as u64 + 1);
    ensure!(after_all - peak <= allowed, "more than {allowed} MiB for all sockets");
    cluster.stop(1).await
}

/// Says hello to the branch and takes its snapshot.
async fn load(node: SocketAddr, records: usize) -> Result<()> {
    let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
    let url = format!("ws://{node}/ws");
    let (mut socket, _) = connect_async_with_config(url, Some(config), false).await?;
    let hello = json!({ "type": "client:hello", "branchId": "dar", "requestId": "h" });
    socket.send(Message::text(hello.to_string())).await?;
    let began = Instant::now();
    loop {
        let message = socket.next().await.context("the socket was closed")??;
        let Message::Text(text) = message else { continue };
        ensure!(!text.starts_with(r#"{"type":"server:error""#), "{}", text.as_str());
        if text.starts_with(r#"{"type":"server:snapshot""#) {
            let (bytes, took) = (text.len(), began.elapsed());
            ensure!(text.matches("\"large-").count() >= records, "records are missing");
            println!("  a snapshot of {:.1} MB in {took:.1?}", bytes as f64 / 1e6);
            return Ok(());
        }
    }
}
