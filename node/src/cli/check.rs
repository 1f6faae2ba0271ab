//! Check: what a directory of the original would bring.

use std::process::ExitCode;

use model::Change;

use super::{CheckArgs, Failure, out};
use crate::catalogue;
use crate::config::CatalogueSource;

pub(super) const EXAMPLES: &str = "\
Example:
  mishkah check-original ./data";

pub(super) fn run(args: &CheckArgs) -> Result<ExitCode, Failure> {
    let source = |seeds_only| CatalogueSource::Original { dir: args.dir.clone(), seeds_only };
    let loaded = match catalogue::load(&source(false)) {
        Err(catalogue::CatalogueError::Live { dir, files }) => {
            out::note(format!(
                "! {} holds live data, which is not imported: {files}\n  start needs --seeds-only \
                 with it",
                dir.display()
            ));
            catalogue::load(&source(true))?
        }
        other => other?,
    };
    for note in &loaded.notes {
        out::note(format!("- {note}"));
    }
    for entry in &loaded.entries {
        match &entry.change {
            Change::Module(module) => out::line(format!(
                "module {}: {} tables, {}",
                module.id,
                module.schema.tables.len(),
                if module.seed.is_some() { "a seed for every branch" } else { "no central seed" }
            )),
            Change::Branch(branch) => {
                let modules: Vec<&str> = branch.modules.iter().map(|id| id.as_str()).collect();
                let seeded: Vec<&str> = branch.seeds.keys().map(|id| id.as_str()).collect();
                out::line(format!(
                    "branch {} ({}): modules {}; seeds of its own: {}",
                    branch.id,
                    branch.label,
                    listed(&modules),
                    listed(&seeded)
                ));
            }
            Change::Patterns { patterns, defaults } => {
                for pattern in patterns {
                    let modules: Vec<&str> = pattern.modules.iter().map(|id| id.as_str()).collect();
                    let matches = &pattern.matches;
                    out::line(format!("branches like {matches}: modules {}", listed(&modules)));
                }
                let modules: Vec<&str> = defaults.iter().map(|id| id.as_str()).collect();
                out::line(format!("other branches: modules {}", listed(&modules)));
            }
            Change::PutSchema { name, .. } => out::line(format!("definition {name}")),
            Change::Sequences(_) => {}
            // What else may change is not read from files.
            Change::Form { .. }
            | Change::Node(_)
            | Change::AddModule(_)
            | Change::AddBranch(_)
            | Change::GiveModule { .. }
            | Change::PutSeedFile { .. }
            | Change::FullSync(_)
            | Change::SetModule { .. }
            | Change::RaiseLevel(_) => {}
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn listed(names: &[&str]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
