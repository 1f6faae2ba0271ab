//! Native tools: a small C library and a small C program, compiled at the start of a run, and the
//! shared memory by which a run controls them.
//!
//! Promise: a number that is set takes effect at once, without a restart of the tool or the node.
//! Refused: a machine without a C compiler.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The size of a control page, in bytes: at least what either tool maps.
const PAGE_BYTES: u64 = 8192;

/// The paths of the compiled tools.
#[derive(Debug)]
pub(super) struct NativeTools {
    /// The library that is loaded into nodes (`LD_PRELOAD`).
    pub(super) preload: PathBuf,
    /// The program that is the network switch and that cuts a disk's power.
    pub(super) tool: PathBuf,
}

impl NativeTools {
    /// Compiles the tools into a directory.
    ///
    /// # Errors
    /// There is no C compiler, or the directory cannot be written.
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

/// Runs a program to its end and returns its standard output.
///
/// # Errors
/// The program cannot be started, or it fails; the error contains its standard error.
pub(super) fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("running {command:?}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed: {}", stderr.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A file of 64-bit numbers that a tool has mapped into its memory.
#[derive(Debug)]
pub(super) struct ControlPage {
    file: File,
    /// The path of the file.
    pub(super) path: PathBuf,
}

impl ControlPage {
    /// A page on which every number is 0.
    ///
    /// # Errors
    /// The file cannot be created.
    pub(super) fn new(path: PathBuf) -> Result<Self> {
        let file = File::create(&path)?;
        file.set_len(PAGE_BYTES)?;
        Ok(Self { file, path })
    }

    /// Sets one number; the index counts numbers, not bytes.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn set(&self, index: usize, number: i64) -> Result<()> {
        // The mapping is shared, so the tool sees the write without a signal. Aligned numbers are
        // read and written whole.
        Ok(self.file.write_all_at(&number.to_ne_bytes(), index as u64 * 8)?)
    }
}
