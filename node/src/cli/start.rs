//! Start: one node in the foreground, until it is asked to stop.

use std::process::ExitCode;
use std::sync::Arc;

use super::{CliError, EXIT_DISK, StartArgs};
use crate::config::{Config, Settings, unknown_variables};
use crate::node::{Node, Sockets};
use crate::signals::{Signals, input_closed};
use crate::telemetry;

pub(super) const EXAMPLES: &str = "\
Examples:
  mishkah start --sample
  mishkah start --original ./data --seeds-only --data /var/lib/mishkah --allow-origin '*'
  mishkah start --sample --allow-origin https://shop.example --allow-origin loopback
  mishkah start --config /etc/mishkah/node.toml
  mishkah start --node 1 --peers 1=10.0.0.1:3300,2=10.0.0.2:3300,3=10.0.0.3:3300 \\
      --listen 10.0.0.1:3200 --open

A setting may stand in the file, in its MISHKAH_… variable or in its flag; the later wins.";

pub(super) async fn run(args: StartArgs) -> Result<ExitCode, CliError> {
    unknown_variables(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()))?;
    let file = match &args.config {
        Some(path) => Settings::read(path)?,
        None => Settings::default(),
    };
    let config = Config::check(args.settings.over(file))?;
    telemetry::log(config.log, &config.log_level)
        .map_err(|error| format!("log_level: {error}; a level such as info, or info,raft=debug"))?;
    #[cfg(feature = "mutants")]
    choose_mutant()?;
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let mut signals = Signals::new()?;
    let sockets = Sockets::bind(&config)?;
    let on_fatal = Arc::new(|reason: String| {
        // Nothing may be promised after this, not even an orderly end.
        tracing::error!(reason, "the disk can no longer be trusted: this node ends now");
        std::process::exit(i32::from(EXIT_DISK));
    });
    let node = tokio::select! {
        node = Box::pin(Node::start_on(config, sockets, on_fatal)) => node?,
        signal = signals.next() => {
            tracing::info!(signal, "stopped while starting");
            return Ok(ExitCode::SUCCESS);
        }
    };
    tokio::select! {
        signal = signals.next() => tracing::info!(signal, "asked to stop"),
        () = input_closed(), if args.stop_with_input => {}
    }
    tokio::select! {
        () = stop(node, args.stop_with_input) => {}
        signal = signals.next() => {
            tracing::warn!(signal, "asked again: ending at once; nothing acknowledged is lost");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Takes the mutant that the environment names, and says so where nobody can miss it.
#[cfg(feature = "mutants")]
fn choose_mutant() -> Result<(), CliError> {
    let Some(name) = std::env::var_os(crate::config::MUTANT) else { return Ok(()) };
    let name = name.to_string_lossy();
    model::mutant::choose(&name)?;
    tracing::warn!(
        mutant = %name,
        "A MUTANT IS ACTIVE: this node breaks a promise on purpose; it must hold no data that counts"
    );
    Ok(())
}

/// Hands over and stops. Where whoever started this node is gone, so are the other nodes it
/// started: there is nobody to hand over to.
async fn stop(node: Node, stop_with_input: bool) {
    tokio::select! {
        biased;
        () = input_closed(), if stop_with_input => {
            tracing::info!("standard input was closed: stopping without handing over");
        }
        () = node.drain() => {}
    }
    Box::pin(node.close()).await;
}
