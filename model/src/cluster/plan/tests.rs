//! The planner's laws, over every state a node may be found in.

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

use super::*;
use crate::cluster::{CatalogueChange, CatalogueEntry};
use crate::ids::Timestamp;

pub(super) fn record(id: u64) -> NodeRecord {
    NodeRecord {
        id: NodeId(id),
        name: format!("node-{id}"),
        http: String::new(),
        peer: String::new(),
        data_id: format!("data-{id}"),
        version: "test".to_owned(),
        level: crate::codec::LEVEL,
    }
}

/// Applies a change that must be taken.
pub(super) fn take(catalogue: &mut Catalogue, id: &str, change: CatalogueChange) {
    let entry = CatalogueEntry { id: id.to_owned(), at: Timestamp::default(), change };
    catalogue.apply(&entry).unwrap();
}

pub(super) fn nothing() -> CatalogueChange {
    CatalogueChange::Patterns { patterns: Vec::new(), defaults: Vec::new() }
}

pub(super) fn form(
    catalogue: &mut Catalogue,
    initial: &[NodeId],
    placements: BTreeMap<PartitionId, Placement>,
) {
    // As peers know them at first: each node registers what it alone can tell.
    let nodes = initial.iter().map(|id| NodeRecord { data_id: String::new(), ..record(id.0) });
    let nodes = nodes.collect();
    take(
        catalogue,
        "form",
        CatalogueChange::Form { cluster_id: "c".to_owned(), nodes, placements },
    );
}

/// Does a step as the executor would, and shows it as `observed` and the catalogue do.
pub(super) fn execute(step: &Step, catalogue: &mut Catalogue, observed: &mut Observation) {
    match step {
        Step::InitializeGroup0 { voters } => observed.group_0_members.extend(voters),
        Step::AddLearner(node) => {
            observed.group_0_members.insert(*node);
        }
        Step::FormCluster { placements } => {
            form(catalogue, &observed.initial, placements.clone());
        }
        Step::StartPartitions(partitions) => observed.running.extend(partitions),
        Step::CatchUpCatalogue => observed.catalogue_complete = true,
        Step::RegisterNode => {
            take(catalogue, "node", CatalogueChange::Node(observed.node.clone()));
        }
        Step::BringInEntry { id } => take(catalogue, id, nothing()),
    }
}

pub(super) fn postpone(step: Step, observed: &mut Observation) {
    let steps = if let Step::StartPartitions(partitions) = step {
        partitions.into_iter().map(|id| Step::StartPartitions(vec![id])).collect()
    } else {
        vec![step]
    };
    observed.postponed.extend(steps);
}

/// Any state: a cluster of up to seven nodes, formed or not, of which some things are done.
fn any_state() -> impl Strategy<Value = (Catalogue, Observation)> {
    let group_0 = (btree_set(1u64..=7, 0..=7), any::<bool>());
    let here = (btree_set(1u16..=6, 0..=6), any::<bool>(), any::<bool>());
    let taken = vec(any::<bool>(), 4);
    (1u64..=7, 1u64..=7, any::<bool>(), group_0, here, taken).prop_map(
        |(nodes, own, is_formed, (members, leads), (running, complete, registered), taken)| {
            let initial: Vec<NodeId> = (1..=nodes).map(NodeId).collect();
            let entries: Vec<String> = (0..4).map(|n| format!("file:{n}:1")).collect();
            let node = record(own.min(nodes));
            let mut catalogue = Catalogue::default();
            if is_formed {
                form(&mut catalogue, &initial, place(6, &initial, ReplicaId(1)));
                if registered {
                    take(&mut catalogue, "node", CatalogueChange::Node(node.clone()));
                }
                for (id, _) in entries.iter().zip(taken).filter(|(_, taken)| *taken) {
                    take(&mut catalogue, id, nothing());
                }
            }
            let observed = Observation {
                node,
                group_0_members: members.into_iter().filter(|n| *n <= nodes).map(NodeId).collect(),
                leads_group_0: leads,
                initial,
                partitions: 6,
                running: running.into_iter().map(PartitionId).collect(),
                catalogue_complete: complete,
                entries,
                done: Vec::new(),
                postponed: Vec::new(),
            };
            (catalogue, observed)
        },
    )
}

/// More than there are steps in any state of these tests.
const STEPS_MAX: usize = 40;

proptest! {
    #[test]
    fn every_step_makes_progress_until_nothing_is_left((mut catalogue, mut observed) in any_state()) {
        let mut steps: Vec<Step> = Vec::new();
        while let Some(step) = next_step(&catalogue, &observed) {
            prop_assert!(!steps.contains(&step), "{step:?} again after {steps:?}");
            execute(&step, &mut catalogue, &mut observed);
            steps.push(step);
            prop_assert!(steps.len() <= STEPS_MAX);
        }
    }

    #[test]
    fn a_step_that_is_done_is_not_planned_before_it_shows((catalogue, mut observed) in any_state()) {
        while let Some(step) = next_step(&catalogue, &observed) {
            if let Step::StartPartitions(partitions) = step {
                // What runs is always seen at once.
                observed.running.extend(partitions);
                continue;
            }
            prop_assert!(!observed.done.contains(&step));
            observed.done.push(step);
            prop_assert!(observed.done.len() <= STEPS_MAX);
        }
    }

    #[test]
    fn steps_that_fail_are_postponed_and_end_too(
        (mut catalogue, mut observed) in any_state(),
        fails in vec(any::<bool>(), STEPS_MAX),
    ) {
        let mut fails = fails.into_iter();
        while let Some(step) = next_step(&catalogue, &observed) {
            prop_assert!(!observed.postponed.contains(&step));
            if fails.next().expect("it ends before") {
                postpone(step, &mut observed);
            } else {
                execute(&step, &mut catalogue, &mut observed);
            }
        }
        // Once nothing fails any more, all of it is made up for.
        observed.postponed.clear();
        while let Some(step) = next_step(&catalogue, &observed) {
            execute(&step, &mut catalogue, &mut observed);
        }
        if catalogue.is_formed() {
            prop_assert!(observed.entries.iter().all(|id| catalogue.has_applied(id)));
            prop_assert_eq!(catalogue.nodes.get(&observed.node.id), Some(&observed.node));
        }
    }

    #[test]
    fn entries_are_brought_in_order_after_the_node((mut catalogue, mut observed) in any_state()) {
        let mut brought = Vec::new();
        while let Some(step) = next_step(&catalogue, &observed) {
            if let Step::BringInEntry { id } = &step {
                let own = catalogue.nodes.get(&observed.node.id);
                prop_assert_eq!(own, Some(&observed.node));
                brought.push(id.clone());
            }
            execute(&step, &mut catalogue, &mut observed);
        }
        prop_assert!(brought.is_sorted());
    }
}
