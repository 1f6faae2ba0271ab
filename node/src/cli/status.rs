//! Status: the cluster as one node sees it, warnings first.

use std::process::ExitCode;

use actors::status::{ClusterStatus, PartitionStatus};
use comfy_table::{Table, presets};

use super::node_client::{NodeClient, NodeClientError};
use super::{CliError, EXIT_NO_ANSWER, EXIT_WARNINGS, StatusArgs, out};

pub(super) const EXAMPLES: &str = "\
Examples:
  mishkah status
  mishkah status --node http://127.0.0.1:3202
  mishkah status --json | jq '.partitions[] | select(.leader == null)'

Exit codes: 0 all is well; 3 something needs attention: a warning, a node that has formed no cluster,
that the others refuse, or that is no member; 4 no node answered.";

pub(super) async fn run(args: &StatusArgs) -> Result<ExitCode, CliError> {
    let (text, status) = match NodeClient::new(&args.node.url).status().await {
        Ok(answer) => answer,
        Err(
            error @ (NodeClientError::Unreachable { .. }
            | NodeClientError::Strange { .. }
            | NodeClientError::Refused { .. }),
        ) => {
            out::note(error);
            return Ok(ExitCode::from(EXIT_NO_ANSWER));
        }
    };
    if args.json {
        out::line(text.trim_end());
    } else {
        out::line(render(&status));
    }
    let is_well = status.warnings.is_empty();
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::from(EXIT_WARNINGS) })
}

/// The whole status for a terminal.
fn render(status: &ClusterStatus) -> String {
    let mut text = String::new();
    for warning in &status.warnings {
        text.push_str(&format!("! {warning}\n"));
    }
    text.push_str(&format!(
        "cluster {}, placement {}, as node {} sees it\n",
        if status.cluster_id.is_empty() { "not formed yet" } else { &status.cluster_id },
        status.placement_epoch,
        status.answered_by
    ));
    if let Some(files) = status.files {
        text.push_str(&format!(
            "open files {}, of which {} are kept for the log and peers; connections at most {}\n",
            files.file_limit, files.reserved, files.connections_max
        ));
    }
    if let Some(memory) = &status.memory {
        let mib = |bytes: u64| bytes / 1024 / 1024;
        let classes = memory.classes.iter();
        let classes =
            classes.map(|it| format!("{} {} of {}", it.class, mib(it.held), mib(it.share)));
        text.push_str(&format!(
            "memory {} of {} MiB: {}\n",
            mib(memory.resident),
            mib(memory.limit),
            classes.collect::<Vec<_>>().join(", ")
        ));
    }
    text.push_str(&catalogue(status));
    text.push_str(&format!("\n{}\n", nodes(status)));
    text.push_str(&format!("\n{}\n", partitions(status)));
    text.push_str(&format!("\n{}", branches(status)));
    text
}

/// How much of the catalogue's bounds is taken, a line for all kinds.
fn catalogue(status: &ClusterStatus) -> String {
    let kilobytes = |bytes: u64| bytes.div_ceil(1024);
    let kinds = status.catalogue.iter().map(|of| {
        format!("{} {} of {} KiB", of.kind, kilobytes(of.bytes), kilobytes(of.bytes_max))
    });
    let kinds: Vec<String> = kinds.collect();
    if kinds.is_empty() { String::new() } else { format!("catalogue: {}\n", kinds.join(", ")) }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header(header.iter().copied());
    table
}

/// Every node and what it carries.
pub(super) fn nodes(status: &ClusterStatus) -> Table {
    let mut table =
        table(&["node", "name", "clients", "peers", "reachable", "leads", "replicas", "version"]);
    for node in &status.nodes {
        table.add_row([
            node.id.to_string(),
            node.name.clone(),
            if node.http.is_empty() { String::new() } else { format!("http://{}", node.http) },
            node.peer.clone(),
            if node.reachable { "yes" } else { "NO" }.to_owned(),
            node.leads.to_string(),
            node.replicas.to_string(),
            node.version.clone(),
        ]);
    }
    table
}

fn partitions(status: &ClusterStatus) -> Table {
    let mut table = table(&["partition", "leader", "preferred", "term", "replicas", "lag"]);
    for partition in &status.partitions {
        table.add_row([
            partition.id.to_string(),
            number(partition.leader),
            partition.preferred.to_string(),
            partition.term.to_string(),
            held_by(partition),
            lag(partition),
        ]);
    }
    table
}

fn held_by(partition: &PartitionStatus) -> String {
    let nodes: Vec<String> =
        partition.replicas.iter().map(|replica| replica.node.to_string()).collect();
    nodes.join(", ")
}

/// How many entries the slowest replica lacks, where a leader was asked.
fn lag(partition: &PartitionStatus) -> String {
    let slowest =
        partition.replicas.iter().filter_map(|replica| replica.lag.map(|lag| (lag, replica.node)));
    match slowest.max() {
        None => "?".to_owned(),
        Some((0, _)) => "0".to_owned(),
        Some((lag, node)) => format!("{lag} (node {node})"),
    }
}

fn branches(status: &ClusterStatus) -> Table {
    let mut table = table(&["branch", "module", "partition", "leader", "revision"]);
    for branch in &status.branches {
        table.add_row([
            branch.branch.clone(),
            branch.module.clone(),
            branch.partition.to_string(),
            number(branch.leader),
            branch.revision.map_or_else(|| "-".to_owned(), |revision| revision.to_string()),
        ]);
    }
    table
}

fn number(leader: Option<u64>) -> String {
    leader.map_or_else(|| "NONE".to_owned(), |leader| leader.to_string())
}

#[cfg(test)]
mod tests {
    use actors::status::{BranchStatus, CatalogueStatus, NodeStatus, ReplicaStatus};

    use super::*;

    #[test]
    fn warnings_come_first_and_what_is_missing_is_said() {
        let replica = |node, lag| ReplicaStatus { node, replica: node, lag };
        let status = ClusterStatus {
            cluster_id: "c".into(),
            answered_by: 2,
            placement_epoch: 1,
            level: 1,
            warnings: vec!["no leader for 1 partition".into()],
            files: None,
            memory: None,
            catalogue: vec![CatalogueStatus {
                kind: "flags".into(),
                bytes: 2048,
                bytes_max: 16_777_216,
            }],
            nodes: vec![NodeStatus {
                id: 1,
                name: "node-1".into(),
                http: "127.0.0.1:3200".into(),
                peer: "127.0.0.1:3203".into(),
                reachable: false,
                leads: 1,
                replicas: 1,
                version: "0.1.0".into(),
                level: 1,
            }],
            partitions: vec![PartitionStatus {
                id: 1,
                leader: None,
                preferred: 1,
                term: 4,
                replicas: vec![replica(1, Some(0)), replica(3, Some(7))],
            }],
            branches: vec![BranchStatus {
                branch: "dar".into(),
                module: "pos".into(),
                partition: 1,
                leader: Some(1),
                revision: None,
            }],
        };
        let text = render(&status);
        assert!(text.starts_with("! no leader for 1 partition\n"), "{text}");
        for part in ["http://127.0.0.1:3200", "NO", "NONE", "7 (node 3)", "dar"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
