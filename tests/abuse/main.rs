//! Abuse: what hostile clients may cost others.
//!
//! Each attack runs on three nodes of its own with a polite client beside it, on the attacked node
//! and another branch, or in the same one where that is the point. First the polite client alone,
//! then both. The rule it is judged by: the polite client's p50 and p99 stay within three times of
//! their quiet values and none of its requests fails; no node's memory grows beyond the attack's
//! allowance, and a minute later it is back within 1.3 times of what it was; no partition changes
//! its leader.
//!
//! `cargo run --release -p tests --example abuse [NAME …]`
//!
//! `--list` names the attacks; `--smoke` makes them short; `--json` prints a line of JSON for each.
//!
//! `--ci` is for machines that are shared and slow: the attacks of [`CI`] where none is named,
//! short, judged by what can be counted. Nothing may fail, nobody may be elected, no
//! answer may be a defect, and memory must stay within its bound and come back. Times are printed
//! and not judged, and leaders may be heard as late as such a machine makes them.
#![allow(clippy::print_stdout, reason = "a drill prints what it measured")]

mod attacks;
mod polite;
mod report;

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use tests::process_cluster::{Contents, ProcessCluster};
use tokio::runtime::{Builder, Runtime};

use attacks::{ATTACKS, Attack, BRANCH, Target};
use polite::PoliteClient;
use report::{Report, Watch};

/// How long each phase lasts.
const PHASE: Duration = Duration::from_secs(20);
/// The same with `--smoke`.
const SMOKE_PHASE: Duration = Duration::from_secs(5);
/// The same with `--ci`.
const CI_PHASE: Duration = Duration::from_secs(3);
/// The attacks of `--ci`: those that are over soon.
const CI: [&str; 5] = ["query-values", "long-keys", "half-bodies", "half-heads", "silent"];
/// How soon a silent leader is replaced with `--ci`, in milliseconds: heartbeats, and the shortest
/// and the longest wait.
const CI_TIMING: [(&str, u64); 3] =
    [("--heartbeat-ms", 300), ("--election-min-ms", 1500), ("--election-max-ms", 2500)];

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |option: &str| arguments.iter().any(|given| given == option);
    if has("--list") {
        ATTACKS.iter().for_each(|attack| println!("{:<16} {}", attack.name, attack.about));
        return Ok(());
    }
    let is_ci = has("--ci");
    let phase = match (is_ci, has("--smoke")) {
        (true, _) => CI_PHASE,
        (false, true) => SMOKE_PHASE,
        (false, false) => PHASE,
    };
    let mut judged = Vec::new();
    println!("{}", Report::HEADER);
    for attack in chosen(&arguments)? {
        let report = run(attack, phase, is_ci).await?;
        if has("--json") {
            println!("{}", report.json())
        } else {
            println!("{report}")
        }
        judged.push(report);
    }
    let broken: Vec<&str> =
        judged.iter().filter(|report| !report.holds()).map(|report| report.attack).collect();
    ensure!(broken.is_empty(), "the rule is broken by {broken:?}");
    Ok(())
}

/// The attacks that were named; all of them where none was.
fn chosen(arguments: &[String]) -> Result<Vec<&'static Attack>> {
    let mut chosen = Vec::new();
    for name in arguments {
        match (name.as_str(), ATTACKS.iter().find(|attack| attack.name == name)) {
            (_, Some(attack)) => chosen.push(attack),
            ("--smoke" | "--json" | "--ci", None) => {}
            _ => bail!("there is no attack or option {name:?}; --list names the attacks"),
        }
    }
    let is_ci = arguments.iter().any(|argument| argument == "--ci");
    Ok(match chosen.is_empty() {
        false => chosen,
        true => ATTACKS.iter().filter(|attack| !is_ci || CI.contains(&attack.name)).collect(),
    })
}

/// Threads for hostile clients. They have machines of their own; here they share the nodes', so
/// their priority is low: what is judged is what the nodes spend on them.
fn attackers() -> std::io::Result<Runtime> {
    let lower_priority = || {
        // Without it the figures are worse than the nodes deserve.
        let _ = rustix::process::setpriority_process(None, 10);
    };
    Builder::new_multi_thread().on_thread_start(lower_priority).enable_all().build()
}

async fn run(attack: &'static Attack, phase: Duration, is_ci: bool) -> Result<Report> {
    let mut cluster = ProcessCluster::plan(3, Contents::Sample).await?;
    if is_ci {
        CI_TIMING.iter().for_each(|(setting, ms)| cluster.tell(setting, ms));
    }
    cluster.start_all().await?;
    cluster.keep_quiet();
    // The node that leads the attacked branch has the work of it.
    let attacked = cluster.leader(1, BRANCH, "pos").await?;
    let target = Target { node: cluster.http(attacked), client: cluster.client(attacked) };
    (attack.prepare)(target.clone()).await?;
    cluster.leaders_return().await?;
    let polite = PoliteClient::new(cluster.client(attacked), attack.polite_branch());
    // Once unmeasured: connections, caches and the branch come to be.
    polite.run(Duration::from_secs(1)).await?;
    let quiet = polite.run(phase).await?;
    let watch = Watch::start(&cluster).await?;
    let attackers = attackers()?;
    let attacker = attackers.spawn((attack.run)(target, phase));
    let attacked = polite.run(phase).await?;
    let answers = attacker.await??;
    attackers.shutdown_background();
    let mut report = watch.end(&cluster, attack, quiet, attacked, answers).await?;
    report.judges_times = !is_ci;
    for node in cluster.ids() {
        cluster.stop(node).await?;
    }
    Ok(report)
}
