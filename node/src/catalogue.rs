//! Catalogue: from files on a disk to the changes of the catalogue a node brings.
//!
//! Promise: the same files give changes with the same ids, so that reading them again, on this
//! node or another, changes nothing; changed files give new changes.
//! Refused: live data of the original, naming the files, unless it is to be left behind; files and
//! directories past their bounds.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use compat::{BadOriginal, Original, live_data};
use model::{
    BranchConfig, BranchPattern, CatalogueChange, CatalogueEntry, ModuleConfig, Timestamp,
    Validation, VersionRule,
};

use crate::config::CatalogueSource;
use crate::limits::{ORIGINAL_DEPTH_MAX, ORIGINAL_FILE_BYTES_MAX, ORIGINAL_FILES_MAX};
use crate::sample;

/// Live files named in a refusal; the rest is counted.
const LIVE_NAMED: usize = 5;

/// Why files are not taken.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueSourceError {
    /// A file or directory cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Too much of something.
    #[error("{path}: {problem}")]
    TooMuch {
        /// Its path.
        path: PathBuf,
        /// Of what, and what the bound is.
        problem: String,
    },
    /// There is live data.
    #[error(
        "{dir} holds live data of the original, which is not imported: {files}; \
         to begin with its seeds and leave the live data behind, say --seeds-only"
    )]
    Live {
        /// The directory.
        dir: PathBuf,
        /// Some of the files.
        files: String,
    },
    /// A file is not what it should be.
    #[error("{dir}: {source}")]
    Bad {
        /// The directory.
        dir: PathBuf,
        /// Which and why.
        source: BadOriginal,
    },
}

/// What files configure: the changes, and what was left out and why, for people to read.
#[derive(Debug, Default)]
pub struct LoadedCatalogue {
    /// The changes.
    pub entries: Vec<CatalogueEntry>,
    /// The notes.
    pub notes: Vec<String>,
}

/// Reads what a node brings.
///
/// # Errors
/// [`CatalogueSourceError`] names the file and what would be right.
pub fn load(source: &CatalogueSource) -> Result<LoadedCatalogue, CatalogueSourceError> {
    match source {
        CatalogueSource::Nothing => Ok(LoadedCatalogue::default()),
        CatalogueSource::Sample => {
            let sample = Path::new("the sample data");
            read(sample, &sample::files()).map(|original| changes("sample", original))
        }
        CatalogueSource::Original { dir, seeds_only } => {
            let original = read(dir, &collect(dir, *seeds_only)?)?;
            // What it says and nobody checks: a line a module, for it has a hundred tables.
            let short =
                original.modules.iter().map(|m| m.schema.unenforced_in_short(m.id.as_str()));
            let short = short.flatten().map(|said| format!("as the directory has it, {said}"));
            let unenforced: Vec<String> = short.collect();
            let mut loaded = changes("original", original);
            loaded.notes.extend(unenforced);
            Ok(loaded)
        }
    }
}

fn read(dir: &Path, files: &BTreeMap<String, Vec<u8>>) -> Result<Original, CatalogueSourceError> {
    Original::read(files)
        .map_err(|source| CatalogueSourceError::Bad { dir: dir.to_owned(), source })
}

/// The directory's configuration files by relative path.
fn collect(
    dir: &Path,
    seeds_only: bool,
) -> Result<BTreeMap<String, Vec<u8>>, CatalogueSourceError> {
    let mut paths = Vec::new();
    walk(dir, "", 0, &mut paths)?;
    let live = live_data(&paths);
    if !live.is_empty() && !seeds_only {
        let mut files = live.iter().take(LIVE_NAMED).cloned().collect::<Vec<_>>().join(", ");
        if live.len() > LIVE_NAMED {
            files.push_str(&format!(" and {} more", live.len() - LIVE_NAMED));
        }
        return Err(CatalogueSourceError::Live { dir: dir.to_owned(), files });
    }
    let mut files = BTreeMap::new();
    for path in paths.into_iter().filter(|path| is_configuration(path)) {
        let full = dir.join(&path);
        let unreadable = |source| CatalogueSourceError::Unreadable { path: full.clone(), source };
        if fs::metadata(&full).map_err(unreadable)?.len() > ORIGINAL_FILE_BYTES_MAX {
            let problem = format!("larger than {} MiB", ORIGINAL_FILE_BYTES_MAX >> 20);
            return Err(CatalogueSourceError::TooMuch { path: full, problem });
        }
        let bytes = fs::read(&full).map_err(unreadable)?;
        files.insert(path, bytes);
    }
    Ok(files)
}

/// Configuration is JSON outside of the directories that hold states and history.
fn is_configuration(path: &str) -> bool {
    let mut names: Vec<&str> = path.split('/').collect();
    let file = names.pop().unwrap_or(path);
    file.ends_with(".json") && !names.iter().any(|name| matches!(*name, "live" | "history"))
}

fn walk(
    dir: &Path,
    relative: &str,
    depth: usize,
    paths: &mut Vec<String>,
) -> Result<(), CatalogueSourceError> {
    let unreadable = |source| CatalogueSourceError::Unreadable { path: dir.to_owned(), source };
    let mut entries = fs::read_dir(dir)
        .map_err(unreadable)?
        .collect::<Result<Vec<_>, _>>()
        .map_err(unreadable)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let too_much =
            |problem: String| CatalogueSourceError::TooMuch { path: entry.path(), problem };
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
            continue; // The original never wrote a name that is no text.
        };
        let path = if relative.is_empty() { name } else { format!("{relative}/{name}") };
        let is_dir = fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_dir());
        if is_dir && depth == ORIGINAL_DEPTH_MAX {
            return Err(too_much(format!("deeper than {ORIGINAL_DEPTH_MAX} directories")));
        }
        if is_dir {
            walk(&entry.path(), &path, depth + 1, paths)?;
        } else {
            paths.push(path);
        }
        if paths.len() > ORIGINAL_FILES_MAX {
            return Err(too_much(format!("more than {ORIGINAL_FILES_MAX} files")));
        }
    }
    Ok(())
}

/// The changes that make a catalogue of it.
fn changes(source: &str, original: Original) -> LoadedCatalogue {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let at = Timestamp(i64::try_from(now.as_millis()).unwrap_or(i64::MAX));
    let entry = |kind: &str, name: &str, change: CatalogueChange| {
        let hash = blake3::hash(&model::codec::bare(&change)).to_hex();
        CatalogueEntry { id: format!("{source}:{kind}:{name}:{hash}"), at, change }
    };
    // First: a module that can be written to before its rules are known would number by others.
    let rules = entry("sequences", "all", CatalogueChange::Sequences(original.sequences));
    let mut entries = vec![rules];
    for module in original.modules {
        let seed = module.seed().map(Arc::new);
        let config = ModuleConfig {
            id: module.id.clone(),
            label: module.label,
            description: module.description,
            tables: module.tables,
            source: Arc::new(module.schema_source),
            schema: Arc::new(module.schema),
            validation: Validation::Lenient,
            version_rule: VersionRule::Next,
            seed,
            dedup: model::DedupLimits::default(),
        };
        entries.push(entry(
            "module",
            module.id.as_str(),
            CatalogueChange::Module(Arc::new(config)),
        ));
    }
    for branch in original.branches {
        let seeds = branch.seeds.into_iter().map(|(module, seed)| (module, Arc::new(seed)));
        let config = BranchConfig {
            id: branch.id.clone(),
            label: branch.label,
            modules: branch.modules,
            seeds: seeds.collect(),
        };
        entries.push(entry(
            "branch",
            branch.id.as_str(),
            CatalogueChange::Branch(Arc::new(config)),
        ));
    }
    let patterns = original.patterns.into_iter();
    let patterns = patterns.map(|(matches, modules)| BranchPattern { matches, modules }).collect();
    let change = CatalogueChange::Patterns { patterns, defaults: original.defaults };
    entries.push(entry("patterns", "all", change));
    for (name, source) in original.schemas {
        let source = Arc::new(source);
        let change =
            CatalogueChange::PutSchema { name: name.clone(), source, module: None, fill: false };
        entries.push(entry("schema", &name, change));
    }
    LoadedCatalogue { entries, notes: original.notes }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(loaded: &LoadedCatalogue) -> Vec<String> {
        loaded.entries.iter().map(|entry| entry.id.clone()).collect()
    }

    #[test]
    fn the_sample_is_whole_and_read_alike_each_time() {
        let loaded = load(&CatalogueSource::Sample).unwrap();
        assert_eq!(loaded.notes, Vec::<String>::new(), "nothing of it is left out");
        assert_eq!(ids(&loaded), ids(&load(&CatalogueSource::Sample).unwrap()));
        let kinds: Vec<String> =
            ids(&loaded).iter().map(|id| id.rsplit_once(':').unwrap().0.to_owned()).collect();
        assert_eq!(
            kinds,
            [
                "sample:sequences:all",
                "sample:module:pos",
                "sample:module:scratchpad",
                "sample:branch:dar",
                "sample:branch:remal",
                "sample:patterns:all",
                "sample:schema:global/pos_schema",
                "sample:schema:global/scratchpad_schema"
            ]
        );
    }

    #[test]
    fn every_row_of_the_sample_has_only_fields_of_its_table() {
        let original = Original::read(&sample::files()).unwrap();
        let pos = &original.modules[0];
        let seeds = original.branches.iter().flat_map(|branch| branch.seeds.values());
        let central = pos.seed().unwrap();
        let mut rows = 0;
        for (name, list) in seeds.chain([&central]).flat_map(|seed| seed.tables.iter()) {
            let table = pos.schema.table(name).unwrap_or_else(|| panic!("no table {name}"));
            let model::Value::Array(list) = list else { panic!("{name} is no list") };
            for row in list.iter() {
                rows += 1;
                for (field, _) in row.as_object().unwrap().iter() {
                    let known = table.field(field).is_some() || &**field == "version";
                    assert!(known, "{name}.{field}");
                }
            }
        }
        assert!(rows > 200, "{rows} rows");
    }

    fn write(dir: &Path, path: &str, text: &str) {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn live_data_is_refused_by_name_unless_it_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        for (path, bytes) in sample::files() {
            write(dir.path(), &path, std::str::from_utf8(&bytes).unwrap());
        }
        let source =
            |seeds_only| CatalogueSource::Original { dir: dir.path().to_owned(), seeds_only };
        let quiet = load(&source(false)).unwrap();
        assert_eq!(quiet.entries.len(), 8);
        assert!(quiet.entries[1].id.starts_with("original:module:pos:"));

        write(dir.path(), "branches/dar/modules/pos/live/data.json", "not even JSON");
        write(dir.path(), "hybrid.sqlite", "");
        let error = load(&source(false)).unwrap_err().to_string();
        assert!(
            error.contains("branches/dar/modules/pos/live/data.json, hybrid.sqlite"),
            "{error}"
        );
        assert!(error.contains("--seeds-only"), "{error}");
        assert_eq!(ids(&load(&source(true)).unwrap()), ids(&quiet));
    }

    #[test]
    fn a_directory_of_something_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let source = CatalogueSource::Original { dir: dir.path().join("no"), seeds_only: false };
        assert!(load(&source).unwrap_err().to_string().starts_with("cannot read"));
        let source = CatalogueSource::Original { dir: dir.path().into(), seeds_only: false };
        assert!(load(&source).unwrap_err().to_string().contains("modules.json"));
    }
}
