//! Modules: `modules.json`, the schema files it names, and definitions that only a branch has.

use model::{ModuleId, Object, Schema, TableName, Value};

use crate::original::branches::{Directory, rows_left_out};
use crate::original::files::{BadOriginal, OriginalFiles, central, module_id, table_names, text};
use crate::original::{MODULES, OriginalModule};

/// Reads the modules that can be loaded.
pub(super) fn read(
    files: &OriginalFiles<'_>,
    directories: &mut [Directory],
    notes: &mut Vec<String>,
) -> Result<Vec<OriginalModule>, BadOriginal> {
    let missing = || BadOriginal::new(MODULES, "it is missing: this is no data of the original");
    let doc = files.json(MODULES)?.ok_or_else(missing)?;
    let wrong = || BadOriginal::new(MODULES, "it has no \"modules\": {id: {…}}");
    let configured = doc.get("modules").and_then(Value::as_object).ok_or_else(wrong)?;
    let mut modules = Vec::new();
    for (name, doc) in configured.iter() {
        let place = format!("modules.{name}");
        let id = module_id(MODULES, &place, name)?;
        let doc = doc
            .as_object()
            .ok_or_else(|| BadOriginal::new(MODULES, format!("{place} is not an object")))?;
        modules.extend(read_one(files, directories, id, doc, notes)?);
    }
    // Behind all that are configured: the order of `modules.json` is the one that clients see.
    for place in 0..directories.len() {
        let id = directories[place].module.clone();
        let known = configured.get(id.as_str()).is_some() || modules.iter().any(|m| m.id == id);
        if !known && let Some(path) = own_definition(files, directories, &id, &Object::new()) {
            notes.push(format!(
                "module \"{id}\" is not in {MODULES}: it is added with the definition {path}"
            ));
            modules.push(build(files, id, &Object::new(), &path, notes)?);
        }
    }
    Ok(modules)
}

fn read_one(
    files: &OriginalFiles<'_>,
    directories: &mut [Directory],
    id: ModuleId,
    doc: &Object,
    notes: &mut Vec<String>,
) -> Result<Option<OriginalModule>, BadOriginal> {
    let named = text(doc, "schemaFallbackPath").map(central);
    if let Some(path) = named.filter(|path| files.has(path)) {
        return build(files, id, doc, path, notes).map(Some);
    }
    let why = match named {
        Some(path) => format!("its schema {path} is not there"),
        None => "it names no schemaFallbackPath".to_owned(),
    };
    let what = format!("module \"{id}\" has no central schema ({why})");
    match own_definition(files, directories, &id, doc) {
        Some(path) => {
            notes.push(format!("{what}: it takes the definition {path}"));
            build(files, id, doc, &path, notes).map(Some)
        }
        None => {
            notes.push(format!("{what}: it is left out"));
            Ok(None)
        }
    }
}

/// The path of the first branch's own definition of a module. All directories that have one are
/// marked: it is the only reason some of them exist.
fn own_definition(
    files: &OriginalFiles<'_>,
    directories: &mut [Directory],
    id: &ModuleId,
    doc: &Object,
) -> Option<String> {
    let file = text(doc, "schemaPath").unwrap_or("schema/definition.json");
    let mut first = None;
    for directory in directories.iter_mut().filter(|directory| directory.module == *id) {
        let path = directory.path(file);
        directory.defines = files.has(&path);
        if directory.defines && first.is_none() {
            first = Some(path);
        }
    }
    first
}

fn build(
    files: &OriginalFiles<'_>,
    id: ModuleId,
    doc: &Object,
    path: &str,
    notes: &mut Vec<String>,
) -> Result<OriginalModule, BadOriginal> {
    let place = format!("modules.{id}.tables");
    let listed = table_names(MODULES, &place, doc.get("tables"), notes)?;
    let source = files.json(path)?.unwrap_or_default();
    let read = Schema::read_under(id.as_str(), &source, &crate::conventions())
        .map_err(|error| BadOriginal::new(path, error.to_string()))?;
    notes.extend(read.warnings().map(|warning| format!("{path}: {warning}")));
    let schema = read.schema.in_order(&listed);
    for absent in listed.iter().filter(|table| schema.table(table.as_str()).is_none()) {
        notes.push(format!(
            "table \"{absent}\" of module \"{id}\" is listed in {MODULES} but not defined in \
             {path}: it is left out"
        ));
    }
    let fallback_seed = match text(doc, "seedFallbackPath").map(central) {
        None => None,
        Some(path) => {
            let seed = files.seed(path)?;
            match seed.as_ref().map(super::seed_of) {
                // The original starts without it, too.
                None => {
                    notes
                        .push(format!("the central seed of module \"{id}\", {path}, is not there"));
                }
                Some(rows) => {
                    notes.extend(rows.into_iter().flat_map(|it| rows_left_out(&schema, path, &it)));
                }
            }
            seed
        }
    };
    let tables: Vec<TableName> = schema.tables.iter().map(|table| table.name.clone()).collect();
    Ok(OriginalModule {
        label: text(doc, "label").unwrap_or(id.as_str()).to_owned(),
        description: text(doc, "description").unwrap_or_default().to_owned(),
        id,
        tables,
        schema_source: source,
        schema,
        fallback_seed,
    })
}
