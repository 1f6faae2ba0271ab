//! The examples in `deploy` are read as a node would read them, so that they do not rot.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use node::Config;
use node::config::Settings;

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
