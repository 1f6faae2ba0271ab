//! Make a level: writes the data directory that `tests/it/levels.rs` opens from then on.
//!
//! ```sh
//! cargo run -p tests --example make-level -- 1
//! ```
//!
//! For the level this build knows, which a new cluster must have agreed on: this writes level 1,
//! and whoever adds the next has it raised here first. An older one is never written again.
//! It holds inserts, a merge and a delete, a command under a key, a reserved number, an archive
//! entry, a checkpoint, and a log behind it.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use node::CatalogueSource;
use serde_json::json;
use tests::levels::{
    CHECKPOINT_LOG_BYTES, LevelNode, REPEATED_KEY, all, contents, orders, pack, repeated_order,
};
use tests::wait::{WaitState, until};

/// Orders before the checkpoint: their log is longer than what makes one due.
const ORDERS: usize = 60;
/// Letters of the text of each.
const TEXT: usize = 600;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let level = std::env::args().nth(1).context("which level?")?;
    ensure!(level == model::codec::LEVEL.to_string(), "this build writes {}", model::codec::LEVEL);
    ensure!(ORDERS * TEXT > usize::try_from(CHECKPOINT_LOG_BYTES)?, "no checkpoint would be due");
    let home = tempfile::tempdir()?;
    let data = home.path().join("node-1");
    let node = LevelNode::start(&data, CatalogueSource::Sample).await?;
    let client = node.client();
    let (table, module) = (orders(), orders().module_path());

    client.insert(&table, Some(REPEATED_KEY), &repeated_order()).await?.ok()?;
    let purge = json!({"branchId": "dar", "tables": ["order_header"]});
    client.send_json("POST", "/api/manage/purge-live-data", None, &purge).await?.ok()?;
    for n in 0..ORDERS {
        let order = json!({"shiftId": "s", "statusId": "open", "note": "n".repeat(TEXT + n)});
        client.insert(&table, None, &order).await?.ok()?;
    }
    let checkpoints = data.join("raft/checkpoints");
    until("there is a checkpoint", async || {
        let any = has_files(&checkpoints);
        WaitState::when(any, (), || "there is none".to_owned())
    })
    .await?;

    // The log behind the checkpoint.
    let rows = client.rows(&table).await?;
    let (first, last) = (rows.first().context("rows")?, rows.last().context("rows")?);
    let merge = json!({"record": {"id": first["id"], "version": 2, "note": "merged"}});
    client.send_json("PATCH", &table.path(), None, &merge).await?.ok()?;
    let delete = json!({"record": {"id": last["id"]}});
    client.send_json("DELETE", &table.path(), None, &delete).await?.ok()?;
    let field = json!({"table": "order_header", "field": "id"});
    client.send_json("POST", &format!("{module}/sequences"), None, &field).await?.ok()?;

    let contents = contents(&client).await?;
    node.stop().await;
    let to = all().join(format!("level-{level}"));
    if to.exists() {
        std::fs::remove_dir_all(&to)?;
    }
    pack(&data, &to, &contents)
}

fn has_files(dir: &Path) -> bool {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|path| path.is_file() || has_files(&path))
}
