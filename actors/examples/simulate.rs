//! Simulate: runs seeds of the simulation one after the other and prints what came of each.
//!
//! Promise: a seed that fails is printed with its violations and the one command that repeats it;
//! the exit code is 1 then. With `--twice` each seed runs twice and the first step in which the
//! runs differ is printed. Refused: options it does not know.

#![allow(clippy::print_stdout, reason = "a program that prints")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use actors::simulation::{SimulationConfig, SimulationReport, run};

const HELP: &str = "\
Runs a whole cluster in one thread, under virtual time, with faults out of a seed, and judges it.

  --seed S          the first seed [default: 1]
  --seeds N         how many seeds [default: 1]
  --seconds T       how long faults and clients go on in each, in virtual seconds [default: 60]
  --no-faults       only clients
  --lying-disks     disks also say that they synced what they did not: writes may be lost
  --twice           run each seed twice and tell the first step that differs
  --first-failure   end with the first seed that is violated
  --story           tell everything that happened

Examples:
  simulate --seeds 200            seeds 1 to 200, a virtual minute each
  simulate --seed 137 --story     one seed, and everything that happened in it";

/// The options of the command line.
struct Args {
    seed: u64,
    seeds: u64,
    seconds: u64,
    faults: bool,
    ignored_syncs: bool,
    twice: bool,
    first_failure: bool,
    story: bool,
}

/// The options; `None` if the help is asked for.
fn args() -> Result<Option<Args>, String> {
    let mut args = Args {
        seed: 1,
        seeds: 1,
        seconds: 60,
        faults: true,
        ignored_syncs: false,
        twice: false,
        first_failure: false,
        story: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || -> Result<u64, String> {
            let text = words.next().ok_or_else(|| format!("{word} needs a number"))?;
            text.parse().map_err(|_| format!("{word} {text}: not a number"))
        };
        match word.as_str() {
            "--seed" => args.seed = number()?,
            "--seeds" => args.seeds = number()?,
            "--seconds" => args.seconds = number()?,
            "--no-faults" => args.faults = false,
            "--lying-disks" => args.ignored_syncs = true,
            "--twice" => args.twice = true,
            "--first-failure" => args.first_failure = true,
            "--story" => args.story = true,
            "--help" | "-h" => return Ok(None),
            other => return Err(format!("{other} is not known; --help says what is")),
        }
    }
    Ok(Some(args))
}

/// Sums over all seeds.
#[derive(Default)]
struct Totals {
    seeds: u64,
    failed: Vec<u64>,
    acknowledged: u64,
    unknown: u64,
    reads: u64,
    crashes: u64,
    refusals: u64,
    lost: u64,
    bulk: u64,
    purged: u64,
    virtual_time: Duration,
    slowest_healing: Duration,
    faults: BTreeMap<&'static str, u64>,
}

impl Totals {
    fn add(&mut self, seed: u64, report: &SimulationReport) {
        self.seeds += 1;
        if !report.violations.is_empty() {
            self.failed.push(seed);
        }
        self.acknowledged += report.acknowledged;
        self.unknown += report.unknown;
        self.reads += report.reads;
        self.crashes += report.crashes;
        self.refusals += report.refusals;
        self.lost += report.messages.1;
        self.bulk += report.messages.2;
        self.purged += report.purged;
        self.virtual_time += report.virtual_time;
        self.slowest_healing = self.slowest_healing.max(report.healed_after);
        for (kind, count) in &report.faults {
            *self.faults.entry(kind).or_default() += count;
        }
    }

    fn print(&self, wall: Duration) {
        println!(
            "{} seeds, {:.0} virtual s, {:.1} s: {} writes acknowledged, {} unknown, {} reads",
            self.seeds,
            self.virtual_time.as_secs_f64(),
            wall.as_secs_f64(),
            self.acknowledged,
            self.unknown,
            self.reads
        );
        println!(
            "{} crashes, {} starts refused, {} messages lost, {} with checkpoints, {} logs \
             shortened, slowest healing {:.1} s",
            self.crashes,
            self.refusals,
            self.lost,
            self.bulk,
            self.purged,
            self.slowest_healing.as_secs_f64()
        );
        let faults = self.faults.iter().map(|(kind, count)| format!("{kind} {count}"));
        println!("faults: {}", faults.collect::<Vec<_>>().join(", "));
        println!("violated in {} seeds {:?}", self.failed.len(), self.failed);
    }
}

/// Prints what came of one seed.
fn print_seed(args: &Args, seed: u64, report: &SimulationReport, wall: Duration) {
    if args.story {
        for (at, words) in &report.events {
            println!("  {:9.3} {words}", at.as_secs_f64());
        }
    }
    let holds = report.violations.is_empty();
    println!(
        "seed {seed}: {} after {:.0} virtual s in {:.2} s, {} acknowledged, {} crashes",
        if holds { "holds" } else { "VIOLATED" },
        report.virtual_time.as_secs_f64(),
        wall.as_secs_f64(),
        report.acknowledged,
        report.crashes
    );
    report.violations.iter().for_each(|wrong| println!("  {wrong}"));
    if !holds {
        let no_faults = if args.faults { "" } else { " --no-faults" };
        let lying_disks = if args.ignored_syncs { " --lying-disks" } else { "" };
        println!(
            "  again: cargo run --release -p actors --example simulate -- --seed {seed} \
             --seconds {}{no_faults}{lying_disks} --story",
            args.seconds
        );
    }
}

fn main() -> Result<(), String> {
    let Some(args) = args()? else {
        println!("{HELP}");
        return Ok(());
    };
    let (began, mut totals) = (Instant::now(), Totals::default());
    for seed in args.seed..args.seed + args.seeds {
        let length = Duration::from_secs(args.seconds);
        let config = SimulationConfig {
            faults: args.faults,
            ignored_syncs: args.ignored_syncs,
            ..SimulationConfig::new(seed, length)
        };
        let failed = |error: std::io::Error| format!("seed {seed} could not be run: {error}");
        let one = Instant::now();
        let report = run(config).map_err(failed)?;
        print_seed(&args, seed, &report, one.elapsed());
        totals.add(seed, &report);
        if args.twice {
            match report.first_difference(&run(config).map_err(failed)?) {
                None => println!("  twice the same in {} steps", report.steps.len()),
                Some((one, other)) => println!("  they part: {one} | {other}"),
            }
        }
        if args.first_failure && !report.violations.is_empty() {
            break;
        }
    }
    totals.print(began.elapsed());
    match totals.failed.len() {
        0 => Ok(()),
        failed => Err(format!("{failed} seeds are violated")),
    }
}
