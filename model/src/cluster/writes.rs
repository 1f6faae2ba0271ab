//! Writes: what clients may change in the catalogue: modules, branches, stored definitions and seed
//! files, full-sync flags. Everything is bounded, and what exists is never replaced unasked.

use std::sync::Arc;

use crate::cluster::{
    BranchConfig, Catalogue, CatalogueError, FullSyncFlag, ModuleConfig, ModuleSettings,
    replace_or_add,
};
use crate::ids::{BranchId, ModuleId};
use crate::value::Value;

/// Most modules of a cluster.
pub(crate) const MODULES_MAX: usize = 1_000;
/// Most configured branches of a cluster.
pub(crate) const BRANCHES_MAX: usize = 100_000;
/// Most definitions stored by name.
pub(crate) const SCHEMAS_MAX: usize = 1_000;
/// Seed files kept, the newest by name.
pub(crate) const SEED_FILES_KEPT: usize = 20;
/// Most full-sync flags.
pub(crate) const FLAGS_MAX: usize = 100_000;

impl Catalogue {
    pub(super) fn add_module(&mut self, module: &Arc<ModuleConfig>) -> Result<(), CatalogueError> {
        if self.module(&module.id).is_some() {
            return Err(CatalogueError::ModuleExists(module.id.clone()));
        }
        check_limit("modules", self.modules.len(), MODULES_MAX)?;
        self.modules.push(Arc::clone(module));
        Ok(())
    }

    pub(super) fn set_module(
        &mut self,
        module: &ModuleId,
        settings: &ModuleSettings,
    ) -> Result<(), CatalogueError> {
        // Decided here and not by who asked: another request may have been applied in between.
        let Some(config) = self.module(module) else {
            return Err(CatalogueError::NoModule(module.clone()));
        };
        let config = Arc::new(settings.of(config));
        replace_or_add(&mut self.modules, &config, |module| &module.id);
        // Other settings do not ask for records to be brought up to anything.
        if settings.validation.is_some() {
            self.set_filled(module, settings.fill);
        }
        Ok(())
    }

    /// Says how branches take a module's definition from now on.
    pub(super) fn set_filled(&mut self, module: &ModuleId, fill: bool) {
        if fill {
            self.filled.insert(module.clone());
        } else {
            self.filled.remove(module);
        }
    }

    pub(super) fn add_branch(&mut self, branch: &Arc<BranchConfig>) -> Result<(), CatalogueError> {
        if self.branch(&branch.id).is_some() {
            return Err(CatalogueError::BranchExists(branch.id.clone()));
        }
        check_limit("branches", self.branches.len(), BRANCHES_MAX)?;
        self.all_exist(&branch.modules)?;
        self.branches.push(Arc::clone(branch));
        Ok(())
    }

    pub(super) fn give_module(
        &mut self,
        branch: &BranchId,
        module: &ModuleId,
    ) -> Result<(), CatalogueError> {
        self.all_exist(std::slice::from_ref(module))?;
        let mut config = match self.branch(branch) {
            Some(config) => (**config).clone(),
            None => {
                check_limit("branches", self.branches.len(), BRANCHES_MAX)?;
                BranchConfig {
                    id: branch.clone(),
                    label: branch.to_string(),
                    modules: self.modules_of(branch),
                    seeds: std::collections::BTreeMap::new(),
                }
            }
        };
        if !config.modules.contains(module) {
            config.modules.push(module.clone());
        }
        replace_or_add(&mut self.branches, &Arc::new(config), |branch| &branch.id);
        Ok(())
    }

    pub(super) fn put_schema(
        &mut self,
        name: &str,
        source: &Arc<Value>,
        module: Option<&Arc<ModuleConfig>>,
    ) -> Result<(), CatalogueError> {
        if !self.schemas.contains_key(name) {
            check_limit("schemas", self.schemas.len(), SCHEMAS_MAX)?;
        }
        self.schemas.insert(name.to_owned(), Arc::clone(source));
        if let Some(module) = module {
            // Whoever stored it may not have known yet what was set since: only the definition
            // comes from there.
            let module = match self.module(&module.id) {
                Some(now) => Arc::new(ModuleConfig {
                    tables: module.tables.clone(),
                    source: Arc::clone(&module.source),
                    schema: Arc::clone(&module.schema),
                    ..(**now).clone()
                }),
                None => Arc::clone(module),
            };
            replace_or_add(&mut self.modules, &module, |module| &module.id);
        }
        Ok(())
    }

    pub(super) fn put_seed_file(&mut self, name: &str, seed: &Arc<Value>) {
        self.seed_files.insert(name.to_owned(), Arc::clone(seed));
        while self.seed_files.len() > SEED_FILES_KEPT {
            self.seed_files.pop_first();
        }
    }

    pub(super) fn put_flags(&mut self, flags: &[FullSyncFlag]) -> Result<(), CatalogueError> {
        check_limit("full-sync flags", self.full_sync.len() + flags.len(), FLAGS_MAX + 1)?;
        for flag in flags {
            self.full_sync.insert((flag.branch.clone(), flag.module.clone()), flag.clone());
        }
        Ok(())
    }

    /// The flags of a branch, those of one module and of all (`*`) where a module is named.
    pub fn flags_of<'a>(
        &'a self,
        branch: &'a BranchId,
        module: Option<&'a str>,
    ) -> impl Iterator<Item = &'a FullSyncFlag> {
        let concerns = move |flag: &&FullSyncFlag| {
            module.is_none_or(|module| flag.module == "*" || flag.module == module)
        };
        // The empty module sorts before all: the range begins with the branch's first flag.
        let first = (branch.clone(), String::new());
        self.full_sync
            .range(first..)
            .take_while(move |((of, _), _)| of == branch)
            .map(|(_, flag)| flag)
            .filter(concerns)
    }

    fn all_exist(&self, modules: &[ModuleId]) -> Result<(), CatalogueError> {
        match modules.iter().find(|id| self.module(id).is_none()) {
            Some(missing) => Err(CatalogueError::NoModule(missing.clone())),
            None => Ok(()),
        }
    }
}

fn check_limit(what: &str, count: usize, max: usize) -> Result<(), CatalogueError> {
    if count < max {
        return Ok(());
    }
    let max = u32::try_from(max).unwrap_or(u32::MAX);
    Err(CatalogueError::Full { what: what.to_owned(), max })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{CatalogueChange, CatalogueEntry, ModuleSettings};
    use crate::definition::{Validation, VersionRule};
    use crate::ids::Timestamp;

    fn flag(branch: &str, module: &str) -> FullSyncFlag {
        FullSyncFlag {
            id: format!("fsync-{branch}-{module}"),
            branch: BranchId::parse(branch).unwrap(),
            module: module.to_owned(),
            enabled: true,
            reason: None,
            requested_by: None,
            updated_at: Timestamp(0),
            meta: None,
            cleared_by: None,
        }
    }

    #[test]
    fn flags_are_found_by_branch_and_module() {
        let mut catalogue = Catalogue::default();
        let flags = [flag("dar", "*"), flag("dar", "pos"), flag("dar", "crm"), flag("darb", "*")];
        catalogue.put_flags(&flags).unwrap();
        let dar = BranchId::parse("dar").unwrap();
        let of = |module| catalogue.flags_of(&dar, module).map(|f| f.module.clone()).collect();
        let (all, pos): (Vec<String>, Vec<String>) = (of(None), of(Some("pos")));
        assert_eq!(
            (all, pos),
            (vec!["*".into(), "crm".into(), "pos".into()], vec!["*".into(), "pos".into()])
        );
    }

    #[test]
    fn only_the_newest_seed_files_are_kept() {
        let mut catalogue = Catalogue::default();
        for n in 0..25 {
            catalogue.put_seed_file(&format!("seeds-{n:02}"), &Arc::new(Value::Null));
        }
        assert_eq!(catalogue.seed_files.len(), SEED_FILES_KEPT);
        assert_eq!(catalogue.seed_files.keys().next().unwrap(), "seeds-05");
    }

    fn module(label: &str) -> ModuleConfig {
        let definition = crate::testing::definition(Validation::Strict, VersionRule::Read);
        ModuleConfig {
            id: ModuleId::parse("pos").unwrap(),
            label: label.to_owned(),
            description: String::new(),
            tables: Vec::new(),
            source: Arc::new(Value::default()),
            schema: definition.schema,
            validation: Validation::Strict,
            version_rule: VersionRule::Read,
            seed: None,
            dedup: crate::DedupLimits::default(),
        }
    }

    /// Settings that change the label and the validation.
    fn settings(label: &str, validation: Validation) -> CatalogueChange {
        let settings = ModuleSettings {
            label: Some(label.to_owned()),
            description: None,
            validation: Some(validation),
            version_rule: None,
            dedup: None,
            fill: true,
        };
        CatalogueChange::SetModule { module: ModuleId::parse("pos").unwrap(), settings }
    }

    fn take(catalogue: &mut Catalogue, id: &str, change: CatalogueChange) {
        let entry = CatalogueEntry { id: id.to_owned(), at: Timestamp(0), change };
        catalogue.apply(&entry).unwrap();
    }

    #[test]
    fn what_files_bring_in_is_taken_once() {
        let mut catalogue = Catalogue::default();
        let brought = || CatalogueChange::Module(Arc::new(module("as in the file")));
        take(&mut catalogue, "original:module:pos:a1", brought());
        for n in 0..=10_000 {
            let change = settings("as set", Validation::Strict);
            take(&mut catalogue, &format!("rest:{n}:settings"), change);
        }
        assert!(!catalogue.has_applied("rest:0:settings"), "the first of the others is forgotten");
        assert!(catalogue.has_applied("original:module:pos:a1"));
        take(&mut catalogue, "original:module:pos:a1", brought());
        assert_eq!(catalogue.modules[0].label, "as set", "a node that starts again undoes nothing");
        take(&mut catalogue, "original:module:pos:b2", brought());
        assert_eq!(catalogue.modules[0].label, "as in the file", "another file is another change");
        assert!(catalogue.has_applied("original:module:pos:a1"), "other nodes may still bring it");
    }

    #[test]
    fn a_definition_without_settings_leaves_those_there_are() {
        let mut catalogue = Catalogue::default();
        take(
            &mut catalogue,
            "original:module:pos:a1",
            CatalogueChange::Module(Arc::new(module("old"))),
        );
        take(&mut catalogue, "rest:1:settings", settings("new", Validation::Lenient));
        let (name, source) = ("global/pos".to_owned(), Arc::new(Value::from("a definition")));
        let follower = ModuleConfig { source: Arc::clone(&source), ..module("old") };
        let follower = Some(Arc::new(follower));
        let change = CatalogueChange::PutSchema { name, source, module: follower, fill: true };
        take(&mut catalogue, "rest:2:schema", change);
        let now = &catalogue.modules[0];
        assert_eq!((now.label.as_str(), now.validation), ("new", Validation::Lenient));
        assert_eq!(*now.source, Value::from("a definition"));
        assert_eq!(catalogue.filled.len(), 1);
        take(
            &mut catalogue,
            "original:module:pos:b2",
            CatalogueChange::Module(Arc::new(module("file"))),
        );
        assert!(catalogue.filled.is_empty(), "nobody asked to bring records up to that one");
    }
}
