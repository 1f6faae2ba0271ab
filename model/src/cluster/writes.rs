//! Writes: what clients may change in the catalogue: modules, branches, stored definitions and seed
//! files, full-sync flags. Everything is bounded, and what exists is never replaced unasked.

use std::sync::Arc;

use crate::cluster::{
    ALL_MODULES, BranchConfig, Catalogue, CatalogueError, FullSyncFlag, ModuleConfig,
    ModuleSettings,
};
use crate::ids::{BranchId, ModuleId};
use crate::limits::{CATALOGUE_SEED_FILE_BYTES_MAX, CATALOGUE_SEED_FILES_KEPT};
use crate::value::Value;

impl Catalogue {
    pub(super) fn add_module(&mut self, module: &Arc<ModuleConfig>) -> Result<(), CatalogueError> {
        if self.module(&module.id).is_some() {
            return Err(CatalogueError::ModuleExists(module.id.clone()));
        }
        self.modules.put(Arc::clone(module));
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
        self.modules.put(config);
        // Other settings do not ask for records to be brought up to anything.
        if settings.validation.is_some() {
            self.set_filled(module, settings.fill);
        }
        Ok(())
    }

    /// Says how branches take a module's definition from now on.
    pub(super) fn set_filled(&mut self, module: &ModuleId, fill: bool) {
        if fill == self.filled.contains(module) {
            return;
        }
        let filled = Arc::make_mut(&mut self.filled);
        if fill {
            filled.insert(module.clone());
        } else {
            filled.remove(module);
        }
    }

    pub(super) fn add_branch(&mut self, branch: &Arc<BranchConfig>) -> Result<(), CatalogueError> {
        if self.branch(&branch.id).is_some() {
            return Err(CatalogueError::BranchExists(branch.id.clone()));
        }
        self.all_exist(&branch.modules)?;
        self.branches.put(Arc::clone(branch));
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
            None => BranchConfig {
                id: branch.clone(),
                label: branch.to_string(),
                modules: self.modules_of(branch),
                seeds: std::collections::BTreeMap::new(),
            },
        };
        if !config.modules.contains(module) {
            config.modules.push(module.clone());
        }
        self.branches.put(Arc::new(config));
        Ok(())
    }

    pub(super) fn put_schema(
        &mut self,
        name: &str,
        source: &Arc<Value>,
        module: Option<&Arc<ModuleConfig>>,
    ) {
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
            self.modules.put(module);
        }
    }

    pub(super) fn put_seed_file(&mut self, name: &str, seed: &Arc<Value>) {
        self.seed_files.insert(name.to_owned(), Arc::clone(seed));
        // One alone may still be too large, and is refused then.
        while self.seed_files.len() > CATALOGUE_SEED_FILES_KEPT
            || (self.seed_files.len() > 1
                && self.seed_files.bytes() > CATALOGUE_SEED_FILE_BYTES_MAX)
        {
            self.seed_files.pop_first();
        }
    }

    pub(super) fn put_flags(&mut self, flags: &[FullSyncFlag]) -> Result<(), CatalogueError> {
        for flag in flags {
            let place = (flag.branch.clone(), flag.module.clone());
            // One that was set while anything could be flagged may still be cleared. Decided here
            // and not by who asked, as bounds are (`bounds.rs`, where it says what follows of it).
            if flag.module != ALL_MODULES && self.full_sync.get(&place).is_none() {
                let module = ModuleId::parse(&flag.module).ok();
                if module.and_then(|id| self.module(&id)).is_none() {
                    return Err(CatalogueError::UnknownModule(flag.module.clone()));
                }
            }
            self.full_sync.put(flag.clone());
        }
        Ok(())
    }

    /// The flags of a branch, those of one module and of all (`*`) where a module is named.
    pub fn flags_of<'a>(
        &'a self,
        branch: &'a BranchId,
        module: Option<&'a str>,
    ) -> impl Iterator<Item = &'a Arc<FullSyncFlag>> {
        let concerns = move |flag: &&Arc<FullSyncFlag>| {
            module.is_none_or(|module| flag.module == ALL_MODULES || flag.module == module)
        };
        self.full_sync.of_branch(branch).filter(concerns)
    }

    fn all_exist(&self, modules: &[ModuleId]) -> Result<(), CatalogueError> {
        match modules.iter().find(|id| self.module(id).is_none()) {
            Some(missing) => Err(CatalogueError::NoModule(missing.clone())),
            None => Ok(()),
        }
    }
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
        let mut catalogue = with_modules(&["pos", "crm"]);
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
    fn branches_are_found_by_each_module_they_have() {
        let mut catalogue = with_modules(&["pos", "crm"]);
        let put = |catalogue: &mut Catalogue, name: &str, modules: &[&str]| {
            let id = BranchId::parse(name).unwrap();
            let modules = modules.iter().map(|id| ModuleId::parse(id).unwrap()).collect();
            let (label, seeds) = (name.to_owned(), std::collections::BTreeMap::new());
            catalogue.branches.put(Arc::new(BranchConfig { id, label, modules, seeds }));
        };
        put(&mut catalogue, "dar", &["pos", "gym"]);
        put(&mut catalogue, "remal", &["crm", "pos"]);
        put(&mut catalogue, "lab", &["crm"]);
        put(&mut catalogue, "lab", &["pos"]);
        put(&mut catalogue, "dar", &["gym"]);
        let read: Catalogue = crate::codec::decode(&crate::codec::encode(&catalogue)).unwrap();
        for catalogue in [catalogue, read] {
            let of = |module: &str| {
                let module = ModuleId::parse(module).unwrap();
                catalogue
                    .configured_of(&module)
                    .map(|key| key.branch.to_string())
                    .collect::<Vec<_>>()
            };
            assert_eq!([of("pos"), of("crm")], [vec!["lab", "remal"], vec!["remal"]]);
            assert!(of("gym").is_empty(), "there is no such module");
        }
    }

    #[test]
    fn only_the_newest_seed_files_are_kept() {
        let mut catalogue = Catalogue::default();
        for n in 0..25 {
            catalogue.put_seed_file(&format!("seeds-{n:02}"), &Arc::new(Value::Null));
        }
        assert_eq!(catalogue.seed_files.len(), CATALOGUE_SEED_FILES_KEPT);
        assert_eq!(catalogue.seed_files.keys().next().unwrap(), "seeds-05");
    }

    fn with_modules(ids: &[&str]) -> Catalogue {
        let config = |id: &&str| ModuleConfig { id: ModuleId::parse(id).unwrap(), ..module(id) };
        let modules = ids.iter().map(|id| Arc::new(config(id))).collect();
        Catalogue { modules, ..Catalogue::default() }
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
        assert_eq!(
            catalogue.modules.first().unwrap().label,
            "as set",
            "a node that starts again undoes nothing"
        );
        take(&mut catalogue, "original:module:pos:b2", brought());
        assert_eq!(
            catalogue.modules.first().unwrap().label,
            "as in the file",
            "another file is another change"
        );
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
        let now = catalogue.modules.first().unwrap();
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
