//! Binary: where the program `mishkah` comes from: built once, beside the program that asks, so
//! that a story never meets yesterday's.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::{env, str};

use anyhow::{Context, Result, ensure};

/// Names a program to use instead.
const GIVEN: &str = "MISHKAH_BIN";

/// The program, built on the first call.
///
/// # Errors
/// It cannot be built.
pub fn binary() -> Result<&'static Path> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| find_or_build().map_err(|error| format!("{error:#}")));
    match built {
        Ok(path) => Ok(path),
        Err(error) => Err(anyhow::anyhow!("{error}")),
    }
}

/// The program as the next level would build it, in a target folder of its own: what other stories
/// run meanwhile stays what it is.
///
/// # Errors
/// It cannot be built.
pub fn next_level() -> Result<PathBuf> {
    let target = profile()?;
    let target = target.parent().context("a profile stands in a target folder")?.join("next-level");
    let mut build = cargo(&target);
    build.args(["--features", "node/next-level"]);
    // Nobody debugs it.
    build.env("CARGO_PROFILE_DEV_DEBUG", "0");
    run(build)?;
    Ok(target.join("debug/mishkah"))
}

/// A call of the program without this process's settings in its environment.
///
/// # Errors
/// It cannot be built.
pub fn mishkah() -> Result<Command> {
    Ok(call(binary()?))
}

/// The same of a program that was built otherwise.
pub fn call(binary: &Path) -> Command {
    let mut command = Command::new(binary);
    for (name, _) in env::vars_os().filter(|(name, _)| is_ours(name)) {
        command.env_remove(name);
    }
    command
}

fn is_ours(variable: &OsStr) -> bool {
    variable.to_str().is_some_and(|name| name.starts_with("MISHKAH_"))
}

fn find_or_build() -> Result<PathBuf> {
    if let Some(given) = env::var_os(GIVEN) {
        return Ok(given.into());
    }
    let profile = profile()?;
    let mut build = cargo(profile.parent().context("a profile stands in a target folder")?);
    if profile.ends_with("release") {
        build.arg("--release");
    }
    run(build)?;
    Ok(profile.join("mishkah"))
}

/// The folder of the profile this program was built in: it stands in `target/<profile>/deps` or in
/// `target/<profile>/examples`.
fn profile() -> Result<PathBuf> {
    let me = env::current_exe()?;
    Ok(me.ancestors().nth(2).context("this program stands in a target folder")?.to_owned())
}

fn cargo(target: &Path) -> Command {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut build = Command::new(cargo);
    // The whole workspace's features, so that what a test run compiled is not compiled again.
    build.args(["build", "--quiet", "--workspace", "--bin", "mishkah", "--target-dir"]).arg(target);
    build.arg("--manifest-path").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml"));
    build
}

fn run(mut build: Command) -> Result<()> {
    let done = build.output().context("cargo cannot be started")?;
    let said = str::from_utf8(&done.stderr).unwrap_or_default();
    ensure!(done.status.success(), "mishkah cannot be built:\n{said}");
    Ok(())
}
