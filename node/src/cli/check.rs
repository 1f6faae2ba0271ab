//! Check: what a directory of the original would bring.

use std::process::ExitCode;

use model::CatalogueChange;

use super::{CheckArgs, CliError, out};
use crate::catalogue;
use crate::config::CatalogueSource;

pub(super) const EXAMPLES: &str = "\
Example:
  mishkah check-original ./data";

pub(super) fn run(args: &CheckArgs) -> Result<ExitCode, CliError> {
    let source = |seeds_only| CatalogueSource::Original { dir: args.dir.clone(), seeds_only };
    let loaded = match catalogue::load(&source(false)) {
        Err(catalogue::CatalogueSourceError::Live { dir, files }) => {
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
            CatalogueChange::Module(module) => out::line(format!(
                "module {}: {} tables, {}",
                module.id,
                module.schema.tables.len(),
                if module.seed.is_some() { "a seed for every branch" } else { "no central seed" }
            )),
            CatalogueChange::Branch(branch) => {
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
            CatalogueChange::Patterns { patterns, defaults } => {
                for pattern in patterns {
                    let modules: Vec<&str> = pattern.modules.iter().map(|id| id.as_str()).collect();
                    let matches = &pattern.matches;
                    out::line(format!("branches like {matches}: modules {}", listed(&modules)));
                }
                let modules: Vec<&str> = defaults.iter().map(|id| id.as_str()).collect();
                out::line(format!("other branches: modules {}", listed(&modules)));
            }
            CatalogueChange::PutSchema { name, .. } => out::line(format!("definition {name}")),
            CatalogueChange::Sequences(_) => {}
            // What else may change is not read from files.
            CatalogueChange::Form { .. }
            | CatalogueChange::Node(_)
            | CatalogueChange::AddModule(_)
            | CatalogueChange::AddBranch(_)
            | CatalogueChange::GiveModule { .. }
            | CatalogueChange::PutSeedFile { .. }
            | CatalogueChange::FullSync(_)
            | CatalogueChange::SetModule { .. }
            | CatalogueChange::RaiseLevel(_) => {}
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn listed(names: &[&str]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
