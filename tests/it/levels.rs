//! Data directories of every level that was ever written are opened, read and written to.

use std::fs;

use anyhow::{Context, Result};
use node::CatalogueSource;
use tests::levels::{LevelNode, REPEATED_KEY, all, contents, orders, repeated_order, unpack};

/// The number in an id such as `DAR-001081`.
fn number(id: &serde_json::Value) -> Result<u64> {
    let text = id.as_str().and_then(|id| id.rsplit('-').next()).context("an id has a number")?;
    Ok(text.parse()?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_level_ever_written_is_read_and_goes_on() -> Result<()> {
    let mut levels: Vec<_> = fs::read_dir(all())?.collect::<Result<_, _>>()?;
    levels.sort_by_key(fs::DirEntry::path);
    assert!(!levels.is_empty(), "there is level 1 at least");
    for level in levels {
        let home = tempfile::tempdir()?;
        let data = home.path().join("node-1");
        let expected = unpack(&level.path(), &data)?;

        let node = LevelNode::start(&data, CatalogueSource::Nothing).await?;
        let client = node.client();
        let found = contents(&client).await?;
        for (what, answer) in expected.as_object().context("contents are by name")? {
            assert_eq!(&found[what], answer, "{what} of {}", level.path().display());
        }

        // The key was taken before the directory was made: it names the outcome of then.
        let rows = client.rows(&orders()).await?;
        let again = client.insert(&orders(), Some(REPEATED_KEY), &repeated_order()).await?.ok()?;
        assert_eq!(client.rows(&orders()).await?, rows, "a repeated command changes nothing");
        let new = client.insert(&orders(), None, &repeated_order()).await?.ok()?;
        assert_eq!(client.rows(&orders()).await?.len(), rows.len() + 1);
        let highest = rows.iter().map(|row| number(&row["id"])).collect::<Result<Vec<_>>>()?;
        let highest = highest.into_iter().max().context("there are rows")?;
        let (again, new) = (number(&again["record"]["id"])?, number(&new["record"]["id"])?);
        assert!(again < new && highest < new, "numbers go on: {again}, {highest}, {new}");
        node.stop().await;
    }
    Ok(())
}
