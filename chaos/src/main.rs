//! The program `mishkah-chaos`: runs real nodes under faults and reports which properties held.
//!
//! Promise: results go to standard output, everything else to standard error. The exit code is 0 if
//! every property held, 1 if one was broken, 3 if the run proves less than it should.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use chaos::cluster::ClusterConfig;
use chaos::environment::{self, Environment};
use chaos::mutants::{MUTANTS, MutantTest};
use chaos::nemesis::{FAULT_KINDS, FaultKind, Requirement};
use chaos::report::{self, Report};
use chaos::run::{self, Progress, RunConfig};
use chaos::scenario;
use clap::{Args, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

/// The time between two lines of progress where no bar can be drawn, in seconds.
const LINE_EVERY_S: u64 = 30;

/// Chaos runs over a cluster of real nodes: seeded faults, a recorded history, a verdict on each
/// property of the store.
#[derive(Debug, Parser)]
#[command(
    name = "mishkah-chaos",
    version,
    after_help = "Examples:
  mishkah-chaos run                                 five minutes of every fault this machine allows
  mishkah-chaos run --seed 7 --minutes 30           the same faults again, and longer
  mishkah-chaos run --scenario power                only power cuts
  mishkah-chaos run --scenario kill-leader,delay    only these faults
  mishkah-chaos kinds                               all faults and scenarios"
)]
struct Cli {
    #[command(subcommand)]
    command: ChaosCommand,
}

#[derive(Debug, Subcommand)]
enum ChaosCommand {
    /// Run a cluster under faults; exits with 1 if a property broke, 3 if the run proves little
    Run(Box<RunOptions>),
    /// Run builds with a deliberate bug under faults; exits with 1 if a bug is not caught
    Mutants(Box<MutantsOptions>),
    /// List the faults and scenarios, and whether this machine allows them
    Kinds {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
struct RunOptions {
    /// The seed of all random choices [default: a random one, which is printed]
    #[arg(long)]
    seed: Option<u64>,
    /// How long faults are injected
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// A scenario, or faults separated by commas
    #[arg(long, default_value = "all")]
    scenario: String,
    /// The node's program [default: `mishkah` beside this one]
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(3..=5))]
    nodes: u64,
    /// How many clients write, one operation at a time each
    #[arg(long, default_value_t = 16)]
    writers: u32,
    /// How many clients subscribe
    #[arg(long, default_value_t = 8)]
    subscribers: u32,
    /// How long a writer pauses after each operation, in milliseconds
    #[arg(long, default_value_t = 10)]
    rest_ms: u64,
    /// Run on loopback even if namespaces can be made
    #[arg(long)]
    loopback: bool,
    /// Count the run as valid only if each fault happened at least this often
    #[arg(long, default_value_t = 0)]
    each_at_least: usize,
    /// The mutant to activate in a build with the feature `mutants`, by name
    #[arg(long)]
    mutant: Option<String>,
    /// The directory for report, chart and logs
    #[arg(long, value_name = "DIR", default_value = "chaos-report")]
    out: PathBuf,
    /// Also keep every operation with its attempts, one JSON object a line, in `history.jsonl`
    #[arg(long)]
    keep_history: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct MutantsOptions {
    /// The node's program, built with `--features mutants`
    #[arg(long, value_name = "FILE")]
    binary: PathBuf,
    /// Only these, separated by commas [default: all that show in this environment]
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Run on loopback even if namespaces can be made
    #[arg(long)]
    loopback: bool,
    /// Most rounds of each mutant; every round has its own seed
    #[arg(long, default_value_t = 4)]
    rounds: u32,
    /// The seed of the first round
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The directory for the reports
    #[arg(long, value_name = "DIR", default_value = "mutants-report")]
    out: PathBuf,
    /// Print the results as JSON
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    match Cli::parse().command {
        ChaosCommand::Run(options) => run_command(*options).await,
        ChaosCommand::Mutants(options) => run_mutants(&options),
        ChaosCommand::Kinds { json } => list_kinds(json),
    }
}

async fn run_command(mut options: RunOptions) -> Result<ExitCode> {
    // Set means that this process is the one inside; the process outside has made the directory.
    if let Some(work_dir) = environment::work_dir_in_namespaces() {
        return run_chaos(&options, Environment::Namespaces, &work_dir).await;
    }
    let work_dir = tempfile::Builder::new().prefix("mishkah-chaos-").tempdir()?;
    let missing = if options.loopback {
        Some("--loopback was given".to_owned())
    } else {
        environment::missing_for_namespaces()
    };
    let Some(missing) = missing else {
        // The seed is chosen here and passed on: the process inside requires one.
        let seed = random_seed().to_string();
        let extra_arguments =
            if options.seed.is_some() { vec![] } else { vec!["--seed".to_owned(), seed] };
        let child_status =
            environment::run_in_namespaces(work_dir.path(), &extra_arguments).await?;
        return Ok(ExitCode::from(u8::try_from(child_status.code().unwrap_or(1)).unwrap_or(1)));
    };
    let skipped: Vec<&str> = FAULT_KINDS
        .iter()
        .filter(|k| k.requires == Requirement::Namespaces)
        .map(|k| k.name)
        .collect();
    print_note(&format!("on loopback, because {missing}; skipped: {}", skipped.join(", ")));
    options.seed = Some(options.seed.unwrap_or_else(random_seed));
    run_chaos(&options, Environment::Loopback, work_dir.path()).await
}

/// The configuration of a run; the options name everything but the environment and its directory.
fn run_config(
    options: &RunOptions,
    environment: Environment,
    work_dir: &Path,
) -> Result<RunConfig> {
    let seed = options.seed.context("a run has a seed")?;
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => std::env::current_exe()?.with_file_name("mishkah"),
    };
    if !binary.is_file() {
        bail!("{} does not exist: cargo build --release -p node, or --binary", binary.display());
    }
    Ok(RunConfig {
        cluster: ClusterConfig {
            environment,
            nodes: options.nodes,
            binary: binary.canonicalize()?,
            work_dir: work_dir.to_owned(),
            seed,
            mutant: options.mutant.clone(),
        },
        fault_phase: Duration::from_secs_f64(options.minutes * 60.0),
        kinds: scenario::kinds(&options.scenario, environment)?,
        writers: options.writers,
        subscribers: options.subscribers,
        pause: Duration::from_millis(options.rest_ms),
        history_file: options.keep_history.then(|| options.out.join("history.jsonl")),
    })
}

/// Runs a cluster under faults in this environment, and writes and prints the report.
async fn run_chaos(
    options: &RunOptions,
    environment: Environment,
    work_dir: &Path,
) -> Result<ExitCode> {
    let config = run_config(options, environment, work_dir)?;
    let (seed, kinds) = (config.cluster.seed, &config.kinds);
    print_note(&format!(
        "seed {seed}, {} kinds of faults, {} minutes",
        kinds.len(),
        options.minutes
    ));
    let bar = ProgressBar::new(config.fault_phase.as_secs());
    bar.set_style(ProgressStyle::with_template("{bar:20} {elapsed_precise} of {len} s · {msg}")?);
    let last_line_at = Cell::new(0);
    let on_progress = |progress: &Progress<'_>| {
        let seconds = progress.elapsed.as_secs();
        bar.set_position(seconds);
        bar.set_message(report::progress_line(progress));
        // Where no bar can be drawn, a line now and then shows that the run continues.
        if bar.is_hidden() && seconds >= last_line_at.get() + LINE_EVERY_S {
            last_line_at.set(seconds);
            print_note(&format!(
                "{seconds} of {} s · {}",
                config.fault_phase.as_secs(),
                report::progress_line(progress)
            ));
        }
    };
    let result = tokio::select! {
        result = run::run(&config, &on_progress) => result,
        _ = environment::termination_signal() => {
            bail!("the run was interrupted: it says nothing about the store")
        }
    };
    bar.finish_and_clear();
    let result = match result {
        Ok(result) => result,
        // The work directory is removed at the end: without a copy the reason would be lost.
        Err(error) => {
            copy_logs(work_dir, &options.out)?;
            return Err(error);
        }
    };
    let report = Report::new(result, kinds, options.each_at_least, repeat_command(options, seed));
    copy_logs(work_dir, &options.out)?;
    report.write(&options.out)?;
    if options.json {
        print_result(&report.json()?)
    } else {
        print_result(&report.text())
    }
    print_note(&format!("report, chart and logs: {}", options.out.display()));
    Ok(ExitCode::from(report.exit_code()))
}

/// The command line that repeats a run.
fn repeat_command(options: &RunOptions, seed: u64) -> String {
    let mut command_line = format!(
        "mishkah-chaos run --seed {seed} --minutes {} --scenario {} --nodes {} --writers {} \
         --subscribers {} --rest-ms {}",
        options.minutes,
        options.scenario,
        options.nodes,
        options.writers,
        options.subscribers,
        options.rest_ms
    );
    if options.loopback {
        command_line.push_str(" --loopback");
    }
    if let Some(mutant) = &options.mutant {
        command_line.push_str(&format!(" --mutant {mutant}"));
    }
    command_line
}

/// Copies the nodes' logs to the output directory.
fn copy_logs(work_dir: &Path, out: &Path) -> Result<()> {
    fs::create_dir_all(out)?;
    for entry in fs::read_dir(work_dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log")
            && let Some(name) = path.file_name()
        {
            fs::copy(&path, out.join(name))?;
        }
    }
    Ok(())
}

fn run_mutants(options: &MutantsOptions) -> Result<ExitCode> {
    for name in &options.only {
        if !MUTANTS.iter().any(|mutant| mutant.name == name) {
            let names: Vec<&str> = MUTANTS.iter().map(|mutant| mutant.name).collect();
            bail!("there is no mutant `{name}`; there are {}", names.join(", "));
        }
    }
    let loopback = options.loopback || environment::missing_for_namespaces().is_some();
    let test = MutantTest {
        binary: options.binary.clone(),
        loopback,
        rounds: options.rounds,
        seed: options.seed,
        out: options.out.clone(),
    };
    let mut results = Vec::new();
    for mutant in &MUTANTS {
        let is_selected = options.only.is_empty() || options.only.iter().any(|n| n == mutant.name);
        if !is_selected {
            continue;
        }
        if loopback && !mutant.on_loopback {
            print_note(&format!("skipped {}: only namespaces show it", mutant.name));
            continue;
        }
        let result = test.run(mutant)?;
        if !options.json {
            let by = if result.caught_by.is_empty() {
                "NOT CAUGHT".to_owned()
            } else {
                result.caught_by.join(", ")
            };
            print_result(&format!(
                "{:<38} {:>4} s, {} rounds  {by}",
                result.mutant, result.seconds, result.rounds
            ));
        }
        results.push(result);
    }
    if options.json {
        print_result(&serde_json::to_string_pretty(&results)?);
    }
    let all_caught =
        !results.is_empty() && results.iter().all(|result| !result.caught_by.is_empty());
    Ok(if all_caught { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn list_kinds(json: bool) -> Result<ExitCode> {
    let missing = environment::missing_for_namespaces();
    let is_allowed = |kind: &FaultKind| kind.requires == Requirement::Nothing || missing.is_none();
    if json {
        let list: Vec<_> = FAULT_KINDS
            .iter()
            .map(|kind| {
                serde_json::json!({"name": kind.name, "about": kind.about,
                                   "allowed": is_allowed(kind)})
            })
            .collect();
        print_result(&serde_json::to_string_pretty(&list)?);
        return Ok(ExitCode::SUCCESS);
    }
    for kind in &FAULT_KINDS {
        let mark = if is_allowed(kind) { " " } else { "-" };
        print_result(&format!("{mark} {:<16} {}", kind.name, kind.about));
    }
    for (name, about) in scenario::SCENARIOS {
        print_result(&format!("  {name:<16} scenario: {about}"));
    }
    if let Some(missing) = missing {
        print_result(&format!("\n- is not possible here: {missing}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// A random seed of 52 bits.
fn random_seed() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0 >> 12
}

/// Prints a line that is not part of the result: a program may read the result alone.
#[allow(clippy::print_stderr, reason = "progress goes to standard error")]
fn print_note(text: &str) {
    eprintln!("{text}");
}

#[allow(clippy::print_stdout, reason = "results go to standard output")]
fn print_result(text: &str) {
    println!("{text}");
}
