//! Data directory: whose it is, and that only one process uses it.
//!
//! ```text
//!   DATA/lock         held by the running node
//!   DATA/node.json    whose directory it is, written once
//!   DATA/raft/    log, checkpoints and store, made and read by `raft`
//! ```
//!
//! Promise: a directory's id is made once and never changes; what is opened belongs to this node
//! of this cluster and to no other process.
//! Refused: a directory in use, one that cannot be written, one of another node or cluster, one
//! of a later layout, one with a log but without `node.json`: each with what to do.

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use model::NodeId;
use serde::{Deserialize, Serialize};

/// The layout this build writes and reads.
const LAYOUT: u32 = 1;
/// Where the replicas keep what they must not forget.
const REPLICAS: &str = "raft";

/// Why a data directory is not opened.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// It cannot be made or written.
    #[error(
        "cannot write the data directory {dir}: {source}; give one this user may write with --data"
    )]
    Unwritable {
        /// The directory.
        dir: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process has it.
    #[error(
        "the data directory {dir} is in use by another process; \
         stop that one, or give this node its own with --data"
    )]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// It belongs to somebody else.
    #[error(
        "the data directory {dir} belongs to node {node} of cluster {cluster:?}, and this is node \
         {own_node} of cluster {own_cluster:?}; give this node its own with --data, or say --node \
         {node} --cluster {cluster}"
    )]
    Foreign {
        /// The directory.
        dir: PathBuf,
        /// Its node.
        node: u64,
        /// Its cluster.
        cluster: String,
        /// This node.
        own_node: NodeId,
        /// This cluster.
        own_cluster: String,
    },
    /// It cannot be understood.
    #[error("{file}: {problem}")]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
}

/// What `node.json` holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeFile {
    layout: u32,
    data_id: String,
    node: u64,
    cluster: String,
}

/// An opened data directory. Dropping it lets another process have it.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    data_id: String,
    _lock: File,
}

impl DataDir {
    /// Opens the directory, making it if there is none.
    ///
    /// # Errors
    /// [`DataDirError`], with what to do.
    pub fn open(path: &Path, node: NodeId, cluster: &str) -> Result<Self, DataDirError> {
        let unwritable = |source| DataDirError::Unwritable { dir: path.to_owned(), source };
        fs::create_dir_all(path).map_err(unwritable)?;
        // Locked before anything is read: whoever holds the lock may still be writing. The file
        // stays for ever; if it were removed, two processes could hold locks of two files of this
        // name.
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join("lock"))
            .map_err(unwritable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(DataDirError::Locked { dir: path.to_owned() });
            }
            Err(TryLockError::Error(error)) => return Err(unwritable(error)),
        }
        let file = path.join("node.json");
        let known = match fs::read(&file) {
            Ok(bytes) => read(&file, &bytes)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                // Before a new id is made: a log beside it would get an owner by accident.
                refuse_orphan(path, &file)?;
                let made = NodeFile {
                    layout: LAYOUT,
                    data_id: uuid::Uuid::new_v4().to_string(),
                    node: node.0,
                    cluster: cluster.to_owned(),
                };
                write(path, &file, &made).map_err(unwritable)?;
                made
            }
            Err(error) => return Err(unwritable(error)),
        };
        if known.node != node.0 || known.cluster != cluster {
            return Err(DataDirError::Foreign {
                dir: path.to_owned(),
                node: known.node,
                cluster: known.cluster,
                own_node: node,
                own_cluster: cluster.to_owned(),
            });
        }
        Ok(Self { path: path.to_owned(), data_id: known.data_id, _lock: lock })
    }

    /// Where the replicas keep what they must not forget.
    pub fn replicas(&self) -> PathBuf {
        self.path.join(REPLICAS)
    }

    /// Its name for ever.
    pub fn data_id(&self) -> &str {
        &self.data_id
    }
}

fn read(file: &Path, bytes: &[u8]) -> Result<NodeFile, DataDirError> {
    let damaged = |problem: String| DataDirError::Damaged { file: file.to_owned(), problem };
    let known: NodeFile = serde_json::from_slice(bytes).map_err(|error| {
        damaged(format!("it cannot be read ({error}); restore it, or begin with a new directory"))
    })?;
    if known.layout != LAYOUT {
        return Err(damaged(format!(
            "it was written by another version, with layout {}; this build reads layout {LAYOUT}",
            known.layout
        )));
    }
    Ok(known)
}

/// A log without a name may be anybody's.
fn refuse_orphan(dir: &Path, file: &Path) -> Result<(), DataDirError> {
    if !dir.join(REPLICAS).exists() {
        return Ok(());
    }
    let problem = "it is missing, but there are replicas beside it; restore it, or move the directory \
                   away and begin with a new one";
    Err(DataDirError::Damaged { file: file.to_owned(), problem: problem.to_owned() })
}

/// Writes aside, syncs, renames, syncs the directory: it is there whole, or not at all.
fn write(dir: &Path, file: &Path, node: &NodeFile) -> std::io::Result<()> {
    let aside = dir.join("node.json.new");
    let mut new = File::create(&aside)?;
    let mut text = serde_json::to_vec_pretty(node)?;
    text.push(b'\n');
    new.write_all(&text)?;
    // Synced before it gets its name: after a power cut the name would lead to an empty file.
    new.sync_all()?;
    fs::rename(&aside, file)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_keeps_its_id_and_is_used_by_one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/data");
        let open = || DataDir::open(&path, NodeId(1), "shop");
        let first = open().unwrap();
        assert!(matches!(open(), Err(DataDirError::Locked { .. })));
        let id = first.data_id().to_owned();
        drop(first);
        assert_eq!(open().unwrap().data_id(), id);
    }

    #[test]
    fn anothers_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(DataDir::open(dir.path(), NodeId(1), "shop").unwrap());
        for (node, cluster) in [(2, "shop"), (1, "other")] {
            let error = DataDir::open(dir.path(), NodeId(node), cluster).unwrap_err().to_string();
            assert!(error.contains("belongs to node 1 of cluster \"shop\""), "{error}");
        }
    }

    #[test]
    fn what_cannot_be_understood_or_written_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let problem = || DataDir::open(dir.path(), NodeId(1), "shop").unwrap_err().to_string();
        fs::create_dir(dir.path().join(REPLICAS)).unwrap();
        assert!(problem().contains("there are replicas beside it"));
        fs::write(dir.path().join("node.json"), "{").unwrap();
        assert!(problem().contains("cannot be read"));
        let later = r#"{"layout":9,"dataId":"x","node":1,"cluster":"shop"}"#;
        fs::write(dir.path().join("node.json"), later).unwrap();
        assert!(problem().contains("layout 9"));
        let file = dir.path().join("node.json");
        assert!(matches!(
            DataDir::open(&file, NodeId(1), "shop"),
            Err(DataDirError::Unwritable { .. })
        ));
    }
}
