//! The examples in `deploy` are read as a node would read them, so that they do not rot.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use node::Config;
use node::config::Settings;

/// Nodes of a large cluster.
const PEERS: usize = 32;

#[test]
fn every_example_configuration_is_one() -> Result<()> {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let examples = examples(&deploy)?;
    assert!(!examples.is_empty(), "there is an example");
    for example in examples {
        Config::check(Settings::read(&example)?)?;
    }
    Ok(())
}

#[test]
fn the_service_may_open_what_the_limits_promise() -> Result<()> {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd/mishkah.service");
    let unit = fs::read_to_string(unit)?;
    let limit = unit.lines().find_map(|line| line.strip_prefix("LimitNOFILE="));
    let limit: u64 = limit.expect("the unit sets a limit").parse()?;
    let budget = node::file_limit::budget(limit, PEERS)?;
    let unlimited = node::file_limit::budget(1 << 24, PEERS)?;
    assert_eq!(budget.connections_max, unlimited.connections_max);
    Ok(())
}

fn examples(below: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(below)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(examples(&path)?);
        } else if path.extension().is_some_and(|end| end == "toml") {
            found.push(path);
        }
    }
    Ok(found)
}
