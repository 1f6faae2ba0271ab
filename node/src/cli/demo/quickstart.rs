//! Quickstart: what to look at and what to try, once the cluster stands. The lines work as printed.

use std::collections::BTreeMap;
use std::path::Path;

use actors::status::ClusterStatus;
use comfy_table::{Table, presets};

use super::{DemoPlan, out};

/// Prints the nodes, who leads what, and lines to try.
pub(super) fn show(plan: &DemoPlan, status: &ClusterStatus, pids: &BTreeMap<u16, u32>) {
    out::line(format!("\nThe cluster stands: {}\n", status.cluster_id));
    out::line(nodes(plan, status, pids));
    for warning in &status.warnings {
        out::line(format!("! {warning}"));
    }
    out::line(branches(status));
    out::line(lines(plan, pids));
}

fn nodes(plan: &DemoPlan, status: &ClusterStatus, pids: &BTreeMap<u16, u32>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header([
        "node",
        "clients",
        "process",
        "leads partitions",
        "log",
    ]);
    for node in plan.all() {
        let led = status.partitions.iter().filter(|p| p.leader == Some(u64::from(node)));
        let led: Vec<String> = led.map(|partition| partition.id.to_string()).collect();
        table.add_row([
            node.to_string(),
            plan.url(node),
            pids.get(&node).map_or_else(String::new, ToString::to_string),
            if led.is_empty() { "none".to_owned() } else { led.join(", ") },
            plan.log(node).display().to_string(),
        ]);
    }
    table
}

fn branches(status: &ClusterStatus) -> String {
    let line = |branch: &actors::status::BranchStatus| {
        let leader = branch.leader.map_or_else(|| "nobody".to_owned(), |id| format!("node {id}"));
        format!("{}:{} is led by {leader}", branch.branch, branch.module)
    };
    status.branches.iter().map(line).collect::<Vec<_>>().join("; ")
}

fn lines(plan: &DemoPlan, pids: &BTreeMap<u16, u32>) -> String {
    let any = |place: u16| plan.url((place - 1) % plan.nodes + 1);
    let program = shell_word(&plan.program);
    let pos = "api/branches/dar/modules/pos/tables";
    let last = plan.nodes;
    let pid = pids.get(&last).copied().unwrap_or_default();
    format!(
        "\nTry it; any line works with any node:\n\
         \n  # the menu\
         \n  curl '{}/{pos}/menu_items?limit=3'\
         \n  # a new order, through another node\
         \n  curl -X POST {}/{pos}/order_header -H 'content-type: application/json' \
         -d '{{\"shiftId\":\"any text\",\"statusId\":\"open\"}}'\
         \n  # the latest orders, read from yet another\
         \n  curl '{}/{pos}/order_header?order=desc&limit=2'\
         \n  # changes as they happen, in a second terminal\
         \n  {program} watch --branch dar --node {}\
         \n  # the same with another client: paste the second line once it is connected\
         \n  npx wscat -c {}/ws\
         \n  {{\"type\":\"client:hello\",\"branchId\":\"dar\"}}\
         \n  # kill a node and look: the others take over, and it is started again after 5 s\
         \n  kill -9 {pid}; sleep 2; {program} status --node {}\n\
         \nCtrl-C stops all nodes; their data stays in {}",
        any(1),
        any(2),
        any(3),
        any(2),
        any(2).replacen("http", "ws", 1),
        any(1),
        plan.data.display(),
    )
}

/// A path as a shell takes it.
fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_name_nodes_that_exist() {
        let plan = |nodes| DemoPlan {
            program: "/opt/my programs/mishkah".into(),
            nodes,
            data: "/tmp/demo".into(),
            port: 4000,
            static_files: None,
        };
        let text = lines(&plan(1), &BTreeMap::from([(1, 77)]));
        assert!(!text.contains("4001"), "{text}");
        assert!(text.contains("kill -9 77"));
        assert!(text.contains("'/opt/my programs/mishkah' watch --branch dar"));
        let text = lines(&plan(3), &BTreeMap::new());
        for port in ["4000", "4001", "4002"] {
            assert!(text.contains(port), "{text}");
        }
        assert!(text.contains("ws://127.0.0.1:4001/ws"));
    }
}
