//! Tools: the two small C programs of the storm, compiled where it takes place, and the pages of
//! memory by which they are told what to do.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Room of a page; more than either program reads.
const PAGE_BYTES: u64 = 8192;

/// The compiled tools.
#[derive(Debug)]
pub(super) struct NativeTools {
    /// The library loaded into nodes.
    pub(super) preload: PathBuf,
    /// The switch, and what cuts a disk's power.
    pub(super) tool: PathBuf,
}

impl NativeTools {
    /// Compiles them into a folder.
    ///
    /// # Errors
    /// There is no C compiler.
    pub(super) fn build(dir: &Path) -> Result<Self> {
        let preload = compile(
            dir,
            "preload",
            include_str!("../native/preload.c"),
            &["-shared", "-fPIC", "-ldl"],
        )?;
        let tool = compile(dir, "tool", include_str!("../native/tool.c"), &[])?;
        Ok(Self { preload, tool })
    }
}

fn compile(dir: &Path, name: &str, source_text: &str, flags: &[&str]) -> Result<PathBuf> {
    let source = dir.join(format!("{name}.c"));
    let program = dir.join(name);
    fs::write(&source, source_text)?;
    run(Command::new("cc").arg("-O2").arg("-o").arg(&program).arg(&source).args(flags))
        .context("a C compiler is needed (Debian: apt-get install gcc)")?;
    Ok(program)
}

/// Runs a program to its end.
///
/// # Errors
/// It cannot be started or fails, with what it said.
pub(super) fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("running {command:?}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed: {}", stderr.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A page of numbers that one of the tools has mapped.
#[derive(Debug)]
pub(super) struct ControlPage {
    file: File,
    /// Where it is.
    pub(super) path: PathBuf,
}

impl ControlPage {
    /// An empty page.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn new(path: PathBuf) -> Result<Self> {
        let file = File::create(&path)?;
        file.set_len(PAGE_BYTES)?;
        Ok(Self { file, path })
    }

    /// Sets the number at a place, counted in numbers.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn set(&self, index: usize, number: i64) -> Result<()> {
        Ok(self.file.write_all_at(&number.to_ne_bytes(), index as u64 * 8)?)
    }
}
