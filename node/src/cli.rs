//! Command line: the subcommands of `mishkah`, and nothing they do.
//!
//! Exit codes, as `mishkah help` tells them: 0 done; 1 failed, with the reason and what to do on
//! standard error; 2 not understood; 3 `status` found something an operator should look at; 4
//! `status` got no answer; 74 the disk can no longer be trusted.

mod check;
mod demo;
mod mend_clock;
mod node_client;
mod out;
mod start;
mod status;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser};

use crate::config::Settings;

/// What `status` ends with when there are warnings.
pub const EXIT_WARNINGS: u8 = 3;
/// What `status` ends with when no node answers.
pub const EXIT_NO_ANSWER: u8 = 4;
/// What `start` ends with when the disk can no longer be trusted.
pub const EXIT_DISK: u8 = 74;

/// Why a subcommand failed, for the person who said it.
pub type CliError = Box<dyn std::error::Error + Send + Sync>;

/// Mishkah Store: a real-time data store for shops with many branches, as a cluster
#[derive(Debug, Parser)]
#[command(name = "mishkah", version, propagate_version = true, after_help = EXAMPLES)]
pub struct CommandLine {
    #[command(subcommand)]
    subcommand: Subcommand,
}

const EXAMPLES: &str = "\
Examples:
  mishkah demo                                  three nodes on this machine, with sample data
  mishkah start --sample                        one node on http://127.0.0.1:3200
  mishkah status                                who leads what, and what needs attention
  mishkah watch --branch dar                    a branch's changes as they happen

Exit codes: 0 done; 1 failed, and the reason is on standard error; 2 not understood; of `status`: 3
something needs attention, 4 no node answered; of `start`: 74 the disk can no longer be trusted. A
reader that leaves early, as in `mishkah status | head -1`, changes none of them.";

#[derive(Debug, clap::Subcommand)]
enum Subcommand {
    /// Run one node, in the foreground
    #[command(after_help = start::EXAMPLES)]
    Start(Box<StartArgs>),
    /// Run a whole cluster of real processes on this machine
    #[command(after_help = demo::EXAMPLES)]
    Demo(DemoArgs),
    /// Show nodes, partitions, leaders and branches; exits with 3 if something needs attention
    #[command(after_help = status::EXAMPLES)]
    Status(StatusArgs),
    /// Follow a branch over WebSocket and print what comes
    #[command(after_help = watch::EXAMPLES)]
    Watch(WatchArgs),
    /// Read a directory of the original and say what would be taken, changing nothing
    #[command(after_help = check::EXAMPLES)]
    CheckOriginal(CheckArgs),
    /// Bring a module's commit time back to the present, where a wrong clock once set it ahead
    #[command(after_help = mend_clock::EXAMPLES)]
    MendClock(MendClockArgs),
}

#[derive(Debug, Args)]
struct StartArgs {
    /// A TOML file with any of the settings below, their dashes written as underscores
    #[arg(long, env = "MISHKAH_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
    /// Stop when standard input is closed: whoever started this node is gone
    #[arg(long, hide = true)]
    stop_with_input: bool,
}

#[derive(Debug, Args)]
struct DemoArgs {
    /// How many nodes; an odd number survives most
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    nodes: u16,
    /// Where the nodes keep their data and logs, each in its own directory
    #[arg(long, value_name = "DIR", default_value = "mishkah-demo")]
    data: PathBuf,
    /// The first node's HTTP port; the others follow, then the ports between nodes
    #[arg(long, default_value_t = crate::config::HTTP_PORT)]
    port: u16,
    /// Serve the files of this directory to browsers, besides the API
    #[arg(long = "static", value_name = "DIR")]
    static_files: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct NodeArg {
    /// Which node to ask; any will do
    #[arg(
        long = "node",
        env = "MISHKAH_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:3200"
    )]
    url: String,
}

#[derive(Debug, Args)]
struct StatusArgs {
    #[command(flatten)]
    node: NodeArg,
    /// Print the answer as it came
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct WatchArgs {
    /// The branch to follow
    #[arg(long, default_value = "dar")]
    branch: String,
    #[command(flatten)]
    node: NodeArg,
    /// Print snapshots whole; they are summed up otherwise
    #[arg(long)]
    full: bool,
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// The directory, with modules.json in it
    dir: PathBuf,
}

#[derive(Debug, Args)]
struct MendClockArgs {
    /// The branch, as `mishkah status` names it
    branch: String,
    /// The module
    module: String,
    /// Why; it is kept in the log
    #[arg(long)]
    reason: String,
    /// Who asks; it is kept in the log
    #[arg(long, value_name = "NAME")]
    requested_by: Option<String>,
    #[command(flatten)]
    node: NodeArg,
}

impl CommandLine {
    /// Reads the command line; prints help, version or what is wrong and ends the process where
    /// that is all there is to do.
    pub fn read() -> Self {
        Self::parse()
    }

    /// Says why nothing came of it.
    pub fn report(error: &dyn std::fmt::Display) {
        out::note(format!("mishkah: {error}"));
    }

    /// Does what was said.
    ///
    /// # Errors
    /// [`CliError`] with what to do.
    pub async fn run(self) -> Result<ExitCode, CliError> {
        let code = match self.subcommand {
            Subcommand::Start(args) => Box::pin(start::run(*args)).await,
            Subcommand::Demo(args) => Box::pin(demo::run(args)).await,
            Subcommand::Status(args) => status::run(&args).await,
            Subcommand::Watch(args) => Box::pin(watch::run(&args)).await,
            Subcommand::CheckOriginal(args) => check::run(&args),
            Subcommand::MendClock(args) => mend_clock::run(&args).await,
        }?;
        out::failure().map_or(Ok(code), |reason| Err(reason.into()))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_subcommand_has_an_example() {
        let mut command = CommandLine::command();
        command.build();
        command.clone().debug_assert();
        for subcommand in
            command.get_subcommands().filter(|subcommand| subcommand.get_name() != "help")
        {
            let example = subcommand.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(
                example.contains(&format!("mishkah {}", subcommand.get_name())),
                "{subcommand}"
            );
        }
    }

    #[test]
    fn switches_take_a_value_only_with_an_equals_sign() {
        let read = |line: &str| CommandLine::try_parse_from(line.split(' '));
        let Subcommand::Start(start) =
            read("mishkah start --sample --open=false").unwrap().subcommand
        else {
            panic!("not start");
        };
        assert_eq!((start.settings.sample, start.settings.open), (Some(true), Some(false)));
        assert!(read("mishkah start --sample no").is_err());
    }
}
