//! Branches: `branches.config.json`, and the directories of branches with their seeds.

use std::collections::BTreeMap;

use model::limits::VERSION_MAX;
use model::{BranchId, ModuleId, Object, Schema, Seed, Validation, Value};

use crate::original::files::{BadOriginal, OriginalFiles, decoded, module_ids, text};
use crate::original::{BRANCHES, MODULES, Original, OriginalBranch, seed_of};

/// One module's directory of one branch.
pub(super) struct Directory {
    /// Whose, decoded.
    pub(super) branch: BranchId,
    /// The module.
    pub(super) module: ModuleId,
    /// As the file system has it, `branches/lab%3Atest-pad/modules/pos`.
    root: String,
    /// Whether its own definition of the module counts, there being no central one.
    pub(super) defines: bool,
}

impl Directory {
    /// A file in it.
    pub(super) fn path(&self, file: &str) -> String {
        format!("{}/{}", self.root, file.trim_start_matches("./"))
    }
}

/// The directories that hold files, in order of their paths.
pub(super) fn directories(files: &OriginalFiles<'_>, notes: &mut Vec<String>) -> Vec<Directory> {
    let mut found: Vec<Directory> = Vec::new();
    let mut last = String::new();
    for path in files.paths() {
        let mut names = path.splitn(5, '/');
        let (Some("branches"), Some(branch), Some("modules"), Some(module), Some(_)) =
            (names.next(), names.next(), names.next(), names.next(), names.next())
        else {
            continue;
        };
        let root = format!("branches/{branch}/modules/{module}");
        // Paths are in order: the files of one directory follow each other.
        if root == last {
            continue;
        }
        last.clone_from(&root);
        let id = decoded(branch).and_then(|name| BranchId::parse(&name).ok());
        match (id, ModuleId::parse(module)) {
            (Some(branch), Ok(module)) => {
                found.push(Directory { branch, module, root, defines: false });
            }
            (None, _) => notes.push(format!("{root} is left out: {branch:?} is no branch id")),
            (Some(_), Err(error)) => notes.push(format!("{root} is left out: {error}")),
        }
    }
    found
}

/// Reads the branches, their seeds, patterns and defaults.
pub(super) fn read(
    files: &OriginalFiles<'_>,
    directories: &[Directory],
    original: &mut Original,
) -> Result<(), BadOriginal> {
    match files.json(BRANCHES)? {
        Some(doc) => read_config(&doc, original)?,
        None => original.notes.push(format!("{BRANCHES} is missing: no branch is configured")),
    }
    let seed_paths = seed_paths(files)?;
    for directory in directories {
        let seed_path = directory.path(
            seed_paths
                .iter()
                .find(|(module, _)| *module == directory.module.as_str())
                .map_or("seeds/initial.json", |(_, path)| path),
        );
        let seed = files.seed(&seed_path)?.as_ref().and_then(seed_of);
        adopt(original, directory, seed);
    }
    Ok(())
}

fn read_config(doc: &Value, original: &mut Original) -> Result<(), BadOriginal> {
    let bad = |problem: String| BadOriginal::new(BRANCHES, problem);
    let none = Object::new();
    for (name, doc) in doc.get("branches").and_then(Value::as_object).unwrap_or(&none).iter() {
        let place = format!("branches.{name}");
        let id = BranchId::parse(name).map_err(|error| bad(format!("{place}: {error}")))?;
        let doc = doc.as_object().ok_or_else(|| bad(format!("{place} is not an object")))?;
        let modules = module_ids(BRANCHES, &format!("{place}.modules"), doc.get("modules"))?;
        for module in &modules {
            if original.module(module).is_none() {
                original.notes.push(format!(
                    "branch \"{id}\" has module \"{module}\", which is not loaded: \
                     it is absent there"
                ));
            }
        }
        let label = text(doc, "label").unwrap_or(name).to_owned();
        original.branches.push(OriginalBranch { id, label, modules, seeds: BTreeMap::new() });
    }
    for (place, pattern) in
        doc.get("patterns").and_then(Value::as_array).unwrap_or_default().iter().enumerate()
    {
        let place = format!("patterns[{place}]");
        let matches = pattern.get("match").and_then(Value::as_str);
        let matches = matches.ok_or_else(|| bad(format!("{place} has no \"match\"")))?;
        // Here, where it can be refused by its place: later it would only match nothing.
        if let Err(error) = regex_lite::Regex::new(matches) {
            return Err(bad(format!("{place}.match {matches:?} cannot be read: {error}")));
        }
        let modules = module_ids(BRANCHES, &place, pattern.get("modules"))?;
        original.patterns.push((matches.to_owned(), modules));
    }
    original.defaults = module_ids(BRANCHES, "defaults", doc.get("defaults"))?;
    Ok(())
}

/// Where each module keeps a branch's seed, where it says so.
fn seed_paths(files: &OriginalFiles<'_>) -> Result<Vec<(String, String)>, BadOriginal> {
    let doc = files.json(MODULES)?.unwrap_or_default();
    let modules = doc.get("modules").and_then(Value::as_object);
    let paths = modules.into_iter().flat_map(Object::iter).filter_map(|(name, doc)| {
        let path = text(doc.as_object()?, "seedPath")?;
        Some((name.to_string(), path.to_owned()))
    });
    Ok(paths.collect())
}

/// Gives a directory's seed to its branch. A branch nobody configured, or a module its branch does
/// not list, is added if the directory says anything: a seed, or the definition of a module that
/// has no other.
fn adopt(original: &mut Original, directory: &Directory, seed: Option<Seed>) {
    let Directory { branch: id, module, root, defines } = directory;
    if original.module(module).is_none() || (seed.is_none() && !defines) {
        return;
    }
    let place = original.branches.iter().position(|branch| branch.id == *id).unwrap_or_else(|| {
        let note = format!("branch \"{id}\" is not in {BRANCHES}: it is added for {root}");
        original.notes.push(note);
        let mut modules = resolve(original, id);
        if !modules.contains(module) {
            modules = vec![module.clone()];
        }
        let (label, seeds) = (id.to_string(), BTreeMap::new());
        original.branches.push(OriginalBranch { id: id.clone(), label, modules, seeds });
        original.branches.len() - 1
    });
    let branch = &mut original.branches[place];
    if !branch.modules.contains(module) {
        original.notes.push(format!(
            "branch \"{id}\" does not list module \"{module}\": it is added for {root}"
        ));
        branch.modules.push(module.clone());
    }
    if let Some(seed) = seed {
        branch.seeds.insert(module.clone(), seed.clone());
        let found = original.module(module).map(|it| rows_left_out(&it.schema, root, &seed));
        original.notes.extend(found.unwrap_or_default());
    }
}

/// What is said of a seed's rows that are not taken as they stand when a branch is filled: some are
/// left out, and a version that no record can have counts as not said.
pub(super) fn rows_left_out(schema: &Schema, place: &str, seed: &Seed) -> Vec<String> {
    let left_out = schema.skipped_seed_rows(seed).into_iter();
    let left_out = left_out.map(|left_out| format!("{place}: {left_out}: left out"));
    let beyond = schema.seed_versions_beyond(seed, Validation::Lenient).into_iter();
    let begin = |(table, count)| {
        format!(
            "{place}: {count} rows of {table} have a version over {VERSION_MAX} and begin at \
             version 1"
        )
    };
    left_out.chain(beyond.map(begin)).collect()
}

/// The modules of a branch nobody configured: by the first pattern that matches, else the defaults.
fn resolve(original: &Original, id: &BranchId) -> Vec<ModuleId> {
    let matches = |pattern: &str| {
        regex_lite::Regex::new(pattern).is_ok_and(|regex| regex.is_match(id.as_str()))
    };
    let by_pattern = original.patterns.iter().find(|(pattern, _)| matches(pattern));
    by_pattern.map_or_else(|| original.defaults.clone(), |(_, modules)| modules.clone())
}
