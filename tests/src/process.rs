//! Process: what the kernel knows of a running process: its children, its time, its memory.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

/// Ticks of a second in `/proc`: the same on every Linux we run on.
const TICKS_PER_SECOND: u64 = 100;

/// The processes a process started, in order, each with its command line, which is empty for a
/// moment after a start.
///
/// # Errors
/// `/proc` cannot be read.
pub fn children(parent: u32) -> Result<Vec<(u32, String)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        // A process may end between the listing and the look.
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(fields) = stat(pid) else { continue };
        if fields.get(1).and_then(|field| field.parse().ok()) == Some(parent) {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            found.push((pid, String::from_utf8_lossy(&line).replace('\0', " ")));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The time a process has used on all cores.
///
/// # Errors
/// It does not run.
pub fn cpu(pid: u32) -> Result<Duration> {
    let fields = stat(pid)?;
    let ticks =
        |at: usize| -> Result<u64> { Ok(fields.get(at).context("a process has times")?.parse()?) };
    let used = ticks(11)? + ticks(12)?;
    Ok(Duration::from_millis(used * 1000 / TICKS_PER_SECOND))
}

/// The memory a process holds, in KiB.
///
/// # Errors
/// It does not run.
pub fn resident_kib(pid: u32) -> Result<u64> {
    memory_kib(pid, "VmRSS:")
}

/// The most memory a process has held so far, in KiB.
///
/// # Errors
/// It does not run.
pub fn peak_kib(pid: u32) -> Result<u64> {
    memory_kib(pid, "VmHWM:")
}

fn memory_kib(pid: u32, name: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.context("a process has memory")?.trim().trim_end_matches(" kB");
    Ok(kib.parse()?)
}

/// The fields of a process's line after its name, which may hold blanks: state, parent, …
fn stat(pid: u32) -> Result<Vec<String>> {
    let path = PathBuf::from(format!("/proc/{pid}/stat"));
    let line = fs::read_to_string(path)?;
    let (_, rest) = line.rsplit_once(')').context("a process has a name")?;
    Ok(rest.split_whitespace().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio, id};

    use super::*;

    #[test]
    fn a_child_is_found_and_has_time_and_memory() {
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        // A process has no command line for a moment after it was started.
        let line = loop {
            let found = children(id()).unwrap();
            let (_, line) = found.into_iter().find(|(pid, _)| *pid == child.id()).unwrap();
            if !line.is_empty() || child.try_wait().unwrap().is_some() {
                break line;
            }
            std::thread::yield_now();
        };
        assert_eq!(line, "sleep 60 ");
        assert!(cpu(child.id()).unwrap() < Duration::from_secs(60));
        assert!(resident_kib(id()).unwrap() > 0);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
