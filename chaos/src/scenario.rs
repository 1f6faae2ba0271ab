//! Scenario: which kinds of faults a run injects, by a name or as a list.
//!
//! Refused: a name that does not exist, and a scenario of which the environment allows no fault.

use anyhow::{Result, bail, ensure};

use crate::environment::Environment;
use crate::nemesis::{FAULT_KINDS, FaultKind, HOSTILE_CLIENT, Requirement, fault_kind};

/// The scenarios: name, and what they contain.
pub const SCENARIOS: [(&str, &str); 8] = [
    ("all", "every fault this machine allows"),
    ("kills", "killed nodes, one and many"),
    ("leaders", "leaders killed, paused, isolated and restarted"),
    ("network", "cuts, delay, loss, duplicates, little bandwidth"),
    ("disks", "disks that fail, corrupt data, fill up and are slow"),
    ("power", "power cuts of one node and of all"),
    ("machines", "clocks, memory, processor"),
    ("clients", "clients that hold connections or send too much"),
];

/// The kinds of faults of a scenario, or of a list of names separated by commas, without those that
/// the environment does not allow.
///
/// # Errors
/// A name is not known, or the environment allows none of the faults.
pub fn kinds(name: &str, environment: Environment) -> Result<Vec<&'static FaultKind>> {
    let names: Vec<&str> = match name {
        "all" => FAULT_KINDS.iter().map(|kind| kind.name).collect(),
        "kills" => vec!["kill-follower", "kill-leader", "kill-majority", "kill-all"],
        "leaders" => vec!["kill-leader", "pause-leader", "isolate-leader", "restart-leader"],
        "network" => vec![
            "isolate-leader",
            "split",
            "ring",
            "one-way",
            "peer-port",
            "delay",
            "loss",
            "twice",
            "narrow",
        ],
        "disks" => vec![
            "sync-error",
            "write-error",
            "slow-sync",
            "slow-disk",
            "disk-full",
            "disk-full-leader",
            "disks-full",
            "flip-wal",
            "flip-checkpoint",
            "flip-store",
            "empty-disk",
        ],
        "power" => vec!["power-one", "power-all"],
        "clients" => vec![HOSTILE_CLIENT],
        "machines" => vec!["clock-ahead", "clock-behind", "clock-leap", "starve", "memory-kill"],
        names => names.split(',').map(str::trim).collect(),
    };
    let mut kinds = Vec::new();
    for name in names {
        let Some(kind) = fault_kind(name) else {
            bail!("there is no fault or scenario `{name}`: see mishkah-chaos kinds");
        };
        if kind.requires == Requirement::Nothing || environment == Environment::Namespaces {
            kinds.push(kind);
        }
    }
    ensure!(!kinds.is_empty(), "none of these faults can be injected on loopback");
    Ok(kinds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_names_existing_faults() {
        for (name, _) in SCENARIOS {
            assert!(!kinds(name, Environment::Namespaces).unwrap().is_empty(), "{name}");
        }
    }

    #[test]
    fn loopback_omits_faults_that_need_namespaces() {
        assert!(
            kinds("all", Environment::Loopback)
                .unwrap()
                .iter()
                .all(|k| k.requires == Requirement::Nothing)
        );
        assert!(kinds("power", Environment::Loopback).is_err());
        assert!(kinds("earthquake", Environment::Loopback).is_err());
    }
}
