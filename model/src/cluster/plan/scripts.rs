//! Scripts: what the planner says of a catalogue and an observation, as text, one file each in
//! `scripts/`:
//!
//! ```text
//! # The rule this part shows.
//! node 1 of 3        a new node, of a cluster of so many first ones
//! catalogue …        what the catalogue says besides
//! observed …         what the node sees besides
//! next               asks for the next step
//! done, failed       carries out the step that was named last, or postpones it
//! = the step, or that there is nothing to do
//! ```
//!
//! A script must read as it is played (`testing/scripts.rs`).

use super::tests::{execute, form, nothing, postpone, record, take};
use super::*;
use crate::cluster::CatalogueChange;
use crate::testing;

#[test]
fn every_script_reads_as_it_is_played() {
    testing::scripts::check("src/cluster/plan/scripts", play);
}

/// A node that has just started for the first time, in a cluster of two partitions.
fn new_node(id: u64, nodes: u64) -> Observation {
    Observation {
        node: record(id),
        initial: (1..=nodes).map(NodeId).collect(),
        partitions: 2,
        group_0_members: BTreeSet::new(),
        leads_group_0: false,
        running: BTreeSet::new(),
        catalogue_complete: false,
        entries: Vec::new(),
        done: Vec::new(),
        postponed: Vec::new(),
    }
}

/// The script with the steps as they are planned.
fn play(script: &str) -> String {
    let mut player =
        Player { catalogue: Catalogue::default(), observed: new_node(1, 1), named: None };
    let mut played = String::new();
    for line in script.lines().filter(|line| !line.starts_with("= ")) {
        played.push_str(line);
        played.push('\n');
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if player.asks(line) {
            player.named = next_step(&player.catalogue, &player.observed);
            let named = player.named.as_ref().map_or_else(|| "nothing to do".to_owned(), said);
            played.push_str(&format!("= {named}\n"));
        }
    }
    played
}

struct Player {
    catalogue: Catalogue,
    observed: Observation,
    /// The step that was planned last.
    named: Option<Step>,
}

impl Player {
    /// Takes one line; whether the next step is asked for.
    fn asks(&mut self, line: &str) -> bool {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["node", node, "of", nodes] => {
                self.catalogue = Catalogue::default();
                self.observed = new_node(node.parse().unwrap(), nodes.parse().unwrap());
            }
            ["catalogue", ref says @ ..] => self.catalogue_says(says),
            ["observed", ref sees @ ..] => self.observed_sees(sees),
            ["next"] => return true,
            ["done"] => {
                let step = self.named.take().expect("a step was named");
                execute(&step, &mut self.catalogue, &mut self.observed);
                return true;
            }
            // As the executor does before the catalogue shows it.
            ["done", "unseen"] => {
                self.observed.done.push(self.named.take().expect("a step was named"));
                return true;
            }
            ["failed"] => {
                postpone(self.named.take().expect("a step was named"), &mut self.observed);
                return true;
            }
            ["again"] => {
                self.observed.postponed.clear();
                return true;
            }
            _ => panic!("{line:?} says nothing to a planner"),
        }
        false
    }

    fn catalogue_says(&mut self, says: &[&str]) {
        let initial = self.observed.initial.clone();
        match says {
            ["formed"] => {
                let placements = place(self.observed.partitions, &initial, ReplicaId(1));
                form(&mut self.catalogue, &initial, placements);
            }
            ["node", node] => {
                let change = CatalogueChange::Node(record(node.parse().unwrap()));
                take(&mut self.catalogue, "node", change);
            }
            ["entry", id] => take(&mut self.catalogue, id, nothing()),
            _ => panic!("a catalogue does not say {says:?}"),
        }
    }

    fn observed_sees(&mut self, sees: &[&str]) {
        let observed = &mut self.observed;
        match sees {
            ["members", members @ ..] => {
                observed.group_0_members =
                    members.iter().map(|node| NodeId(node.parse().unwrap())).collect();
            }
            ["leads"] => observed.leads_group_0 = true,
            ["follows"] => observed.leads_group_0 = false,
            ["running", partitions @ ..] => {
                observed.running =
                    partitions.iter().map(|id| PartitionId(id.parse().unwrap())).collect();
            }
            ["complete"] => observed.catalogue_complete = true,
            ["entries", ids @ ..] => {
                observed.entries = ids.iter().map(|id| (*id).to_owned()).collect();
            }
            ["postponed", "partition", id] => {
                let partition = PartitionId(id.parse().unwrap());
                observed.postponed.push(Step::StartPartitions(vec![partition]));
            }
            _ => panic!("a node does not see {sees:?}"),
        }
    }
}

/// A step with all that it is about.
fn said(step: &Step) -> String {
    let list = |items: Vec<String>| items.join(" ");
    let nodes = |nodes: &[NodeId]| list(nodes.iter().map(ToString::to_string).collect());
    match step {
        Step::InitializeGroup0 { voters } => {
            format!("initialize group 0 with voters {}", nodes(voters))
        }
        Step::FormCluster { placements } => {
            let placed = placements.iter().map(|(partition, placement)| {
                let held: Vec<NodeId> = placement.replicas.values().copied().collect();
                format!("{partition} on {}", nodes(&held))
            });
            format!("form the cluster: partition {}", placed.collect::<Vec<_>>().join(", "))
        }
        Step::StartPartitions(partitions) => {
            let ids = partitions.iter().map(ToString::to_string).collect();
            format!("start partitions {}", list(ids))
        }
        Step::AddLearner(_)
        | Step::CatchUpCatalogue
        | Step::RegisterNode
        | Step::BringInEntry { .. } => step.to_string(),
    }
}
