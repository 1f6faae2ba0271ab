//! Original: a configuration directory of the original server, read as a value.
//!
//! In go the relevant files by relative path, out come modules, branches, numbering rules and
//! notes on what was left out and why. Nothing is opened here: whoever reads the disk passes what
//! it found. Live data is not configuration: [`live_data`] names it, so that it can be refused.
//!
//! Refused, naming file and place: what is no JSON, a name against decision 25, a definition or a
//! rule that cannot be read. Left out with a note, as the original leaves it out: a module without
//! a central schema, a listed table its schema lacks, a seed file that is not there.
//! One thing more than the original: a definition in a branch's own directory is used where its
//! module has no central schema.

mod branches;
mod files;
mod live;
mod modules;
mod schemas;

use std::collections::BTreeMap;

use model::{BranchId, ModuleId, Schema, Seed, SequenceRules, TableName, Value};

pub use files::BadOriginal;
pub use live::live_data;

use files::OriginalFiles;

/// The branches and which modules they have.
const BRANCHES: &str = "branches.config.json";
/// The modules and where their schemas and seeds are.
const MODULES: &str = "modules.json";
/// The numbering rules.
const SEQUENCES: &str = "sequence-rules.json";
/// Which fields clients must not see.
const SECRETS: &str = "security/secret_fields.json";

/// What a directory of the original configures.
#[derive(Debug, Clone, PartialEq)]
pub struct Original {
    /// The modules that can be loaded, in the order of `modules.json`.
    pub modules: Vec<OriginalModule>,
    /// The branches, in the order of `branches.config.json`, then those that only have a directory.
    pub branches: Vec<OriginalBranch>,
    /// Which modules other branches have, by a regular expression over their id; first match wins.
    pub patterns: Vec<(String, Vec<ModuleId>)>,
    /// Which modules a branch has that no pattern matches.
    pub defaults: Vec<ModuleId>,
    /// The numbering rules.
    pub sequences: SequenceRules,
    /// What was left out or added, and why, for people to read.
    pub notes: Vec<String>,
    /// Every definition in the directory: `global/<file>`, `branch/<branch>/<module>`.
    pub schemas: BTreeMap<String, Value>,
}

/// One module that can be loaded.
#[derive(Debug, Clone, PartialEq)]
pub struct OriginalModule {
    /// Its id.
    pub id: ModuleId,
    /// What people call it.
    pub label: String,
    /// What it is for.
    pub description: String,
    /// The configured tables, then the schema's others: the order clients see.
    pub tables: Vec<TableName>,
    /// The definition as its file has it.
    pub schema_source: Value,
    /// The definition normalised, its tables in the order of `tables`.
    pub schema: Schema,
    /// The central seed file as it stands, for branches that have none of their own.
    pub fallback_seed: Option<Value>,
}

impl OriginalModule {
    /// The rows of the central seed file.
    pub fn seed(&self) -> Option<Seed> {
        self.fallback_seed.as_ref().and_then(seed_of)
    }
}

/// One branch.
#[derive(Debug, Clone, PartialEq)]
pub struct OriginalBranch {
    /// Its id.
    pub id: BranchId,
    /// What people call it.
    pub label: String,
    /// Its modules as configured, those that cannot be loaded too.
    pub modules: Vec<ModuleId>,
    /// Rows for its empty tables, by module.
    pub seeds: BTreeMap<ModuleId, Seed>,
}

impl Original {
    /// Reads a directory's files, given by their paths relative to it, with `/` between names.
    ///
    /// # Errors
    /// [`BadOriginal`] naming the first file that cannot be read, and where in it.
    pub fn read(files: &BTreeMap<String, Vec<u8>>) -> Result<Self, BadOriginal> {
        let files = OriginalFiles::new(files);
        let mut notes = Vec::new();
        if files.has(SECRETS) {
            notes.push(format!("{SECRETS} is not applied: no field is hidden because of it"));
        }
        // Directories before modules, which may take their definition out of one; modules before
        // branches, whose seeds are judged by their schemas.
        let mut directories = branches::directories(&files, &mut notes);
        let modules = modules::read(&files, &mut directories, &mut notes)?;
        let schemas = schemas::read(&files, &directories, &mut notes)?;
        let mut original = Self {
            modules,
            branches: Vec::new(),
            patterns: Vec::new(),
            defaults: Vec::new(),
            sequences: SequenceRules::default(),
            notes,
            schemas,
        };
        branches::read(&files, &directories, &mut original)?;
        if let Some(doc) = files.json(SEQUENCES)? {
            original.sequences = SequenceRules::from_doc(&doc)
                .map_err(|error| BadOriginal::new(SEQUENCES, error.to_string()))?;
        }
        Ok(original)
    }

    /// A module by its id.
    pub fn module(&self, id: &ModuleId) -> Option<&OriginalModule> {
        self.modules.iter().find(|module| module.id == *id)
    }
}

/// The rows of a seed file.
fn seed_of(doc: &Value) -> Option<Seed> {
    Some(Seed { tables: doc.get("tables")?.as_object()?.clone() })
}

#[cfg(test)]
mod tests;
