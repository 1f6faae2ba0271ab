//! Saturation: how many writes a second three nodes acknowledge to ever more clients. Past the
//! best number they must not fall: whoever cannot be served is refused for little, or waits.
//!
//! What a write costs changes in the course of a run: so the clients become more and then fewer
//! again, and what each number of them gets is taken from both halves.
//!
//! `--seconds N` (4) for each step, `--clients N,N,…` for other steps, `--json`, `--svg PATH`. It
//! ends with an error where the last number of clients gets less than 90 % of what the best one
//! gets, or where a refusal costs more than a tenth of a write.
#![allow(clippy::print_stdout, reason = "a drill prints what it measured")]

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tests::chart::{ChartSeries, LineChart};
use tests::client::TablePath;
use tests::drill::DrillOptions;
use tests::load::{LoadFigures, LoadPeriod, LoadTarget, LoadThreads};
use tests::process::cpu;
use tests::process_cluster::ProcessCluster;
use tokio::time::{Instant, sleep, sleep_until};

const CLIENTS: &str = "16,64,256,1024,2048,4096,4096,2048,1024,256,64,16";
const BRANCHES: usize = 12;
/// Before the first step: the branches are made, and the nodes' buffers have grown.
const WARM_UP_CLIENTS: usize = 64;
/// Before a step is counted: its clients have connected, and each has been answered.
const BEFORE: Duration = Duration::from_secs(3);
/// Between two steps: what the clients before left is done.
const BETWEEN: Duration = Duration::from_millis(500);
/// What the most clients must get of what the best number of them gets.
const LEAST_SHARE: f64 = 0.9;
/// What a refusal may cost of what an acknowledged write costs.
const REFUSAL_COST_MAX: f64 = 0.1;
/// Clients with large writes that fill what may wait, and their size.
const HOLDERS: usize = 24;
const HELD_BYTES: usize = 900 * 1024;
/// More clients than find a place beside them.
const REFUSED_CLIENTS: usize = 1_024;

#[tokio::main]
async fn main() -> Result<()> {
    let options = DrillOptions::of_this_program(&["--seconds", "--clients", "--json", "--svg"])?;
    let seconds = Duration::from_secs(options.value("--seconds", 4)?);
    let clients = options.value("--clients", CLIENTS.to_owned())?;
    let clients: Vec<usize> =
        clients.split(',').map(str::parse).collect::<Result<_, _>>().context("--clients")?;
    let most = clients.iter().copied().max().unwrap_or(0).max(REFUSED_CLIENTS + HOLDERS);
    let threads = LoadThreads::start(most as u64)?;
    let mut drill = SaturationDrill { cluster: ProcessCluster::start(3).await?, threads, seconds };
    drill.cluster.keep_quiet();
    drill.cluster.leaders_return().await?;
    drill.step(WARM_UP_CLIENTS).await?;
    let mut steps: Vec<SaturationStep> = Vec::new();
    for clients in clients {
        let step = drill.step(clients).await?;
        match steps.iter_mut().find(|before| before.clients == clients) {
            Some(before) => before.add(step),
            None => steps.push(step),
        }
    }
    let best = steps.iter().map(SaturationStep::a_second).fold(0.0, f64::max);
    // Compared with the cheapest writes: those that many clients share.
    let served_ms = steps.iter().map(SaturationStep::cpu_ms).fold(f64::INFINITY, f64::min);
    let cost = drill.refusal_cost(served_ms).await?;
    if options.has("--json") {
        let steps: Vec<_> = steps.iter().map(|step| step.json(best)).collect();
        println!("{:#}", json!({ "steps": steps, "refusal": cost.json() }));
    } else {
        println!("clients  acknowledged/s  of best  refused/s  failed    p50 ms    p99 ms  CPU ms");
        steps.iter().for_each(|step| println!("{}", step.line(best)));
        println!("{}", cost.line());
    }
    let svg = options.value("--svg", String::new())?;
    if !svg.is_empty() {
        std::fs::write(&svg, chart(&steps).svg()).with_context(|| format!("writing {svg}"))?;
    }
    drill.threads.stop();
    let last = steps.last().context("there is a step")?;
    ensure!(
        last.a_second() >= LEAST_SHARE * best,
        "{} clients get {:.0} % of the best",
        last.clients,
        last.a_second() / best * 100.0
    );
    ensure!(cost.share() <= REFUSAL_COST_MAX, "{}", cost.line());
    Ok(())
}

struct SaturationDrill {
    cluster: ProcessCluster,
    threads: LoadThreads,
    seconds: Duration,
}

/// What so many clients got.
struct SaturationStep {
    clients: usize,
    figures: LoadFigures,
    seconds: f64,
    cpu: Duration,
}

impl SaturationStep {
    /// Takes in another step of as many clients.
    fn add(&mut self, other: Self) {
        self.figures.add(other.figures);
        self.seconds += other.seconds;
        self.cpu += other.cpu;
    }

    fn a_second(&self) -> f64 {
        self.figures.acknowledged as f64 / self.seconds
    }

    fn refused_a_second(&self) -> f64 {
        self.figures.refused as f64 / self.seconds
    }

    /// Of all nodes, for each acknowledged write, in milliseconds.
    fn cpu_ms(&self) -> f64 {
        self.cpu.as_secs_f64() * 1000.0 / (self.figures.acknowledged as f64).max(1.0)
    }

    fn quantile_ms(&self, share: f64) -> f64 {
        self.figures.quantile(share).as_secs_f64() * 1000.0
    }

    fn line(&self, best: f64) -> String {
        format!(
            "{:>7}  {:>14.0}  {:>5.0} %  {:>9.0}  {:>6}  {:>8.1}  {:>8.1}  {:>6.3}",
            self.clients,
            self.a_second(),
            self.a_second() / best * 100.0,
            self.refused_a_second(),
            self.figures.failed,
            self.quantile_ms(0.5),
            self.quantile_ms(0.99),
            self.cpu_ms(),
        )
    }

    fn json(&self, best: f64) -> serde_json::Value {
        json!({
            "clients": self.clients,
            "acknowledgedPerSecond": self.a_second(),
            "shareOfBest": self.a_second() / best,
            "refusedPerSecond": self.refused_a_second(),
            "failed": self.figures.failed,
            "p50Ms": self.quantile_ms(0.5),
            "p99Ms": self.quantile_ms(0.99),
            "cpuMsPerAcknowledged": self.cpu_ms(),
        })
    }
}

/// What a write and a refusal cost the nodes, in milliseconds of a processor.
struct RefusalCost {
    served_ms: f64,
    refused_ms: f64,
    refused: u64,
}

impl RefusalCost {
    fn share(&self) -> f64 {
        self.refused_ms / self.served_ms
    }

    fn line(&self) -> String {
        let Self { served_ms, refused_ms, refused } = self;
        format!(
            "a write costs {served_ms:.3} ms, a refusal {refused_ms:.3} ms: {:.1} % ({refused} \
             refusals)",
            self.share() * 100.0
        )
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "servedCpuMs": self.served_ms,
            "refusedCpuMs": self.refused_ms,
            "refused": self.refused,
        })
    }
}

fn table(branch: &str) -> TablePath<'_> {
    TablePath { branch, module: "scratchpad", table: "scratchpad_entry" }
}

fn small_write(node: std::net::SocketAddr, branch: &str) -> LoadTarget {
    let body = r#"{"record":{"content":"a cup of mint tea"}}"#;
    LoadTarget::new(node, "POST", &table(branch).path(), body)
}

impl SaturationDrill {
    /// Writes of so many clients, spread over all branches through all nodes.
    async fn step(&self, clients: usize) -> Result<SaturationStep> {
        let nodes: Vec<_> = self.cluster.ids().iter().map(|id| self.cluster.http(*id)).collect();
        let branches = (0..BRANCHES).map(|n| format!("lab:{n}"));
        let targets: Vec<_> = branches
            .flat_map(|branch| nodes.iter().map(move |node| small_write(*node, &branch)))
            .collect();
        self.measure(&targets, clients, true).await
    }

    async fn measure(
        &self,
        targets: &[LoadTarget],
        clients: usize,
        honours_retry_after: bool,
    ) -> Result<SaturationStep> {
        sleep(BETWEEN).await;
        let from = Instant::now() + BEFORE;
        let period = LoadPeriod { from, until: from + self.seconds, honours_retry_after };
        let cpu_used = async {
            sleep_until(period.from).await;
            let (before, began) = (self.cpu()?, Instant::now());
            sleep_until(period.until).await;
            anyhow::Ok((self.cpu()? - before, began.elapsed()))
        };
        let (figures, used) = tokio::join!(self.threads.run(targets, clients, period), cpu_used);
        let (cpu, elapsed) = used?;
        Ok(SaturationStep { clients, figures: figures?, seconds: elapsed.as_secs_f64(), cpu })
    }

    /// What all nodes have used.
    fn cpu(&self) -> Result<Duration> {
        self.cluster.ids().iter().map(|id| cpu(self.cluster.pid(*id)?)).sum()
    }

    /// Stops the followers of a branch, so that all it may have waiting waits, and has more
    /// clients write to it than find a place.
    async fn refusal_cost(&self, served_ms: f64) -> Result<RefusalCost> {
        const BRANCH: &str = "lab:0";
        let leader = self.cluster.leader(1, BRANCH, "scratchpad").await?;
        let node = self.cluster.http(leader);
        let small = [small_write(node, BRANCH)];
        let others = self.cluster.others(leader);
        self.signal(&others, Signal::STOP)?;
        let body = json!({ "record": { "content": "x".repeat(HELD_BYTES) } }).to_string();
        let large = [LoadTarget::new(node, "POST", &table(BRANCH).path(), &body)];
        let refused = async {
            // The large ones come first, and take most of what may wait.
            sleep(BETWEEN).await;
            self.measure(&small, REFUSED_CLIENTS, false).await
        };
        let until = Instant::now() + 2 * BETWEEN + BEFORE + self.seconds;
        let period = LoadPeriod { from: until, until, honours_retry_after: true };
        let (held, refused) = tokio::join!(self.threads.run(&large, HOLDERS, period), refused);
        self.signal(&others, Signal::CONT)?;
        held?;
        let (figures, cpu) = refused.map(|step| (step.figures, step.cpu))?;
        ensure!(figures.refused > 0, "nobody was refused: {figures:?}");
        let refused_ms = cpu.as_secs_f64() * 1000.0 / figures.refused as f64;
        Ok(RefusalCost { served_ms, refused_ms, refused: figures.refused })
    }

    fn signal(&self, nodes: &[u64], signal: Signal) -> Result<()> {
        for node in nodes {
            let pid = i32::try_from(self.cluster.pid(*node)?)?;
            kill_process(Pid::from_raw(pid).context("a process has a number")?, signal)?;
        }
        Ok(())
    }
}

fn chart(steps: &[SaturationStep]) -> LineChart {
    let series = |title: &str, of: &dyn Fn(&SaturationStep) -> f64| ChartSeries {
        title: title.to_owned(),
        values: steps.iter().map(of).collect(),
    };
    LineChart {
        title: "Writes that three nodes acknowledge".to_owned(),
        axis: "clients that wait for each answer".to_owned(),
        places: steps.iter().map(|step| step.clients as f64).collect(),
        left: series("acknowledged a second", &SaturationStep::a_second),
        right: series("p99 in milliseconds", &|step| step.quantile_ms(0.99)),
    }
}
