//! Memory: how much this machine lets the process have, and how much it holds by now.
//!
//! The allocator is asked what it has given out, the system what is resident: the difference is
//! free memory on its way back. Once a second both are stated, so that what decides by them sees a
//! second ago, and metrics show them.

use std::fs;
use std::path::Path;

use actors::{ClusterStore, Memory};
use metrics::gauge;
use tikv_jemalloc_ctl::{epoch, stats};
use tokio::time::{MissedTickBehavior, interval};

use crate::limits::MEMORY_EVERY;

/// Where the system's control groups are found.
const CONTROL_GROUPS: &str = "/sys/fs/cgroup";

/// The bytes of memory this process can have: the machine's, or what its control groups leave of
/// it; `None` where the system does not say.
pub fn machine_bytes() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| kib(&text, "MemTotal:"));
    let own = fs::read_to_string("/proc/self/cgroup").ok();
    let group = own.as_deref().and_then(own_group).unwrap_or("/");
    let limits = groups(group).into_iter().filter_map(|group| {
        let path = Path::new(CONTROL_GROUPS).join(group).join("memory.max");
        // A group without a limit says "max", which is no number.
        fs::read_to_string(path).ok()?.trim().parse().ok()
    });
    machine.into_iter().chain(limits).min()
}

/// The control group of a process, as `/proc/<pid>/cgroup` names it (version 2: `0::/a/b`).
fn own_group(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::"))
}

/// A group and all that it is in, the innermost first, as paths without a slash in front: the limit
/// of each holds.
fn groups(group: &str) -> Vec<&str> {
    let group = group.trim_matches('/');
    let ends = group.match_indices('/').map(|(at, _)| at).rev();
    let outer = ends.map(|at| &group[..at]);
    let inner = (!group.is_empty()).then_some(group);
    inner.into_iter().chain(outer).chain([""]).collect()
}

/// A line `NAME   1234 kB` of a text of `/proc`, in bytes.
fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim_end().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// What the system says this process holds, in bytes; 0 where it does not say.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    kib(&status, "VmRSS:").unwrap_or_default()
}

/// What the allocator has given out, in bytes. 0 in a program that does not use it.
fn allocated() -> u64 {
    // Its figures are those of the last epoch that was asked for.
    let read = epoch::advance().and_then(|_| stats::allocated::read());
    read.map_or(0, |bytes| bytes as u64)
}

/// States again and again what is held, for decisions and for metrics.
pub(crate) async fn watch(memory: Memory, store: ClusterStore) {
    let mut timer = interval(MEMORY_EVERY);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        store.state_memory();
        memory.state_process(resident(), allocated());
        show(&memory);
    }
}

/// The same as metrics.
fn show(memory: &Memory) {
    let status = memory.status();
    for class in &status.classes {
        let name = class.class.name();
        gauge!("mishkah_memory_bytes", "class" => name).set(class.held as f64);
        gauge!("mishkah_memory_limit_bytes", "class" => name).set(class.share as f64);
    }
    gauge!("mishkah_memory_max_bytes").set(status.limit as f64);
    gauge!("mishkah_memory_resident_bytes").set(status.resident as f64);
    gauge!("mishkah_memory_allocated_bytes").set(status.allocated as f64);
    gauge!("mishkah_memory_unaccounted_bytes").set(status.unaccounted as f64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_bounded_by_every_group_it_is_in() {
        assert_eq!(own_group("1:cpu:/x\n0::/shop/till\n"), Some("/shop/till"));
        assert_eq!(own_group("1:cpu:/x\n"), None);
        assert_eq!(groups("/shop/till/one"), ["shop/till/one", "shop/till", "shop", ""]);
        assert_eq!(groups("/"), [""]);
    }

    #[test]
    fn the_system_says_how_much_there_is_and_is_held() {
        assert_eq!(kib("MemFree: 1 kB\nMemTotal:    2048 kB\n", "MemTotal:"), Some(2048 * 1024));
        assert_eq!(kib("MemTotal: much\n", "MemTotal:"), None);
        let machine = machine_bytes().unwrap();
        assert!((1..machine).contains(&resident()), "of {machine}");
    }
}
