//! Schemas: the definitions that lie in the directory, each under the name by which clients read
//! it, whether a module uses it or not.

use std::collections::BTreeMap;

use model::{Object, Value};

use crate::original::MODULES;
use crate::original::branches::Directory;
use crate::original::files::{BadOriginal, OriginalFiles, text};

/// Where a branch's own definition of a module is, unless `modules.json` says otherwise.
const OWN: &str = "schema/definition.json";

/// Reads them: `global/<file>` and `branch/<branch>/<module>`.
pub(super) fn read(
    files: &OriginalFiles<'_>,
    directories: &[Directory],
    notes: &mut Vec<String>,
) -> Result<BTreeMap<String, Value>, BadOriginal> {
    let mut found = BTreeMap::new();
    let mut take = |name: String, path: &str| match files.json(path) {
        Ok(None) => {}
        Ok(Some(doc)) => {
            found.insert(name, doc);
        }
        // A definition that a module uses was read before, and refused.
        Err(bad) => notes.push(format!("{bad}: it is left out")),
    };
    for path in files.paths() {
        let name = path.strip_prefix("schemas/").and_then(|name| name.strip_suffix(".json"));
        if let Some(name) = name.filter(|name| !name.contains('/')) {
            take(format!("global/{name}"), path);
        }
    }
    let configured = files.json(MODULES)?.unwrap_or_default();
    let none = Object::new();
    let configured = configured.get("modules").and_then(Value::as_object).unwrap_or(&none);
    for directory in directories {
        let config = configured.get(directory.module.as_str()).and_then(Value::as_object);
        let file = config.and_then(|config| text(config, "schemaPath")).unwrap_or(OWN);
        let name = format!("branch/{}/{}", directory.branch, directory.module);
        take(name, &directory.path(file));
    }
    Ok(found)
}
