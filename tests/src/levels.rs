//! Levels: small data directories, one for each level of the formats, that every build must open.
//!
//! `data/level-N` holds what one node of a build of level N wrote: `node/` is its data directory,
//! `files.json` how long each of its files is, `contents.json` what clients and operators read from
//! it. The ends of files that are nothing but zeros (room the log takes in advance) are not kept.
//! Promise: what [`unpack`] gives has the bytes that [`pack`] was given.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use model::NodeId;
use node::{CatalogueSource, Config, Node, Sockets};
use serde_json::{Value, json};
use tokio::sync::MutexGuard;

use crate::client::{Client, TablePath};
use crate::process_cluster::alone;
use crate::wait::{WaitState, until};

/// A command that was sent when a level's directory was made, and is sent again to it.
pub const REPEATED_KEY: &str = "level-repeated";
/// Log after which the node writes a checkpoint, in bytes: little, so that a small log has one.
pub const CHECKPOINT_LOG_BYTES: u64 = 32 * 1024;

/// Where the directories of all levels are.
pub fn all() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data")
}

/// The table the stories of a level write to.
pub fn orders() -> TablePath<'static> {
    TablePath::pos("dar", "order_header")
}

/// The record that [`REPEATED_KEY`] inserts.
pub fn repeated_order() -> Value {
    json!({"shiftId": "level", "statusId": "open", "note": "once"})
}

/// One node in this process, on a data directory of a level.
pub struct LevelNode {
    node: Node,
    _alone: MutexGuard<'static, ()>,
}

impl LevelNode {
    /// Starts it and waits until it serves.
    ///
    /// # Errors
    /// The directory is not opened, or the node does not come to serve.
    pub async fn start(data: &Path, catalogue: CatalogueSource) -> Result<Self> {
        let alone = alone().await;
        let bind = || TcpListener::bind("127.0.0.1:0").context("finding a free port");
        let sockets = Sockets { http: bind()?, peer: bind()? };
        let config = Config {
            node: NodeId(1),
            name: "node-1".to_owned(),
            peers: [(NodeId(1), sockets.peer.local_addr()?.to_string())].into(),
            listen: sockets.http.local_addr()?,
            peer_listen: sockets.peer.local_addr()?,
            partitions: 2,
            checkpoint_log_bytes: CHECKPOINT_LOG_BYTES,
            catalogue,
            ..Config::new(data)
        };
        let on_fatal = Arc::new(|reason| panic!("a node's disk failed: {reason}"));
        let node = Box::pin(Node::start_on(config, sockets, on_fatal)).await?;
        let level = Self { node, _alone: alone };
        let client = level.client();
        until("the node serves", async || {
            WaitState::when(client.is_ready().await, (), || "it does not yet".to_owned())
        })
        .await?;
        Ok(level)
    }

    /// A client of it.
    pub fn client(&self) -> Client {
        Client::new(self.node.http_addr())
    }

    /// Stops it well.
    pub async fn stop(self) {
        self.node.stop().await;
    }
}

/// All that is compared: records, events, archive, sequences, and the hash of each partition's
/// state, in which the remembered outcomes are too. The chain of events is walked.
///
/// # Errors
/// No answer, or a broken chain.
pub async fn contents(client: &Client) -> Result<Value> {
    let module = orders().module_path();
    let mut found = serde_json::Map::new();
    let archive = "/api/manage/purge-history?branch=dar&module=pos";
    for path in
        [&*module, &format!("{module}/events?limit=1000"), &format!("{module}/sequences"), archive]
    {
        found.insert(path.to_owned(), stable(client.get(path).await?.ok()?));
    }
    for entry in found[archive]["entries"].as_array().cloned().unwrap_or_default() {
        let id = entry["id"].as_str().context("an archive entry has an id")?;
        let path = format!("{archive}&entryId={id}");
        found.insert(path.clone(), stable(client.get(&path).await?.ok()?));
    }
    let replicas = client.get("/api/cluster/replicas?verify=true").await?.ok()?;
    for replica in replicas["replicas"].as_array().into_iter().flatten() {
        ensure!(replica.get("brokenChain").is_none_or(Value::is_null), "{replica}");
        // Group 0 notes the address of the node at each start.
        if replica["partition"] != 0 {
            found.insert(format!("state {}", replica["partition"]), replica["stateHash"].clone());
        }
    }
    Ok(Value::Object(found))
}

/// An answer without what tells when and by whom it was given.
fn stable(mut answer: Value) -> Value {
    const VOLATILE: [&str; 4] = ["serverId", "serverTime", "now", "generatedAt"];
    match &mut answer {
        Value::Object(members) => {
            members.retain(|name, _| !VOLATILE.contains(&name.as_str()));
            members.values_mut().for_each(|member| *member = stable(member.take()));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = stable(item.take())),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    answer
}

/// Keeps a stopped node's data directory and its contents as those of a level.
///
/// # Errors
/// A file cannot be read or written.
pub fn pack(data: &Path, level: &Path, contents: &Value) -> Result<()> {
    let mut lengths = BTreeMap::new();
    for file in files(data)? {
        let bytes = fs::read(data.join(&file))?;
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let kept = level.join("node").join(&file);
        fs::create_dir_all(kept.parent().context("a file is in a directory")?)?;
        fs::write(kept, &bytes[..end])?;
        lengths.insert(file.to_string_lossy().into_owned(), bytes.len());
    }
    fs::write(level.join("files.json"), serde_json::to_string_pretty(&lengths)? + "\n")?;
    fs::write(level.join("contents.json"), serde_json::to_string(contents)? + "\n")?;
    Ok(())
}

/// Copies a level's data directory as its node left it; its contents.
///
/// # Errors
/// A file is missing.
pub fn unpack(level: &Path, data: &Path) -> Result<Value> {
    let lengths: BTreeMap<PathBuf, u64> =
        serde_json::from_slice(&fs::read(level.join("files.json"))?)?;
    for (file, length) in lengths {
        let to = data.join(&file);
        fs::create_dir_all(to.parent().context("a file is in a directory")?)?;
        // An empty file is not kept by every tool that copies a repository.
        fs::write(&to, fs::read(level.join("node").join(&file)).unwrap_or_default())?;
        OpenOptions::new().write(true).open(&to)?.set_len(length)?;
    }
    Ok(serde_json::from_slice(&fs::read(level.join("contents.json"))?)?)
}

/// The paths of all files in a directory, from there.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let (mut files, mut open) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next)? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else {
                files.push(path.strip_prefix(dir)?.to_owned());
            }
        }
    }
    files.sort();
    Ok(files)
}
