//! Records: rows of a query, and the names of tables and lists.

use std::collections::BTreeMap;

use serde_json::Value;

/// The table of accounts.
pub(super) const ACCOUNTS_TABLE: &str = "accounts";
/// The names of the lists of a generation.
const LISTS_PER_GENERATION: [&str; 4] = ["a", "b", "c", "d"];

/// The rows of a query.
#[derive(Debug, Clone, Default)]
pub(super) struct QueryRows {
    /// The generation that was queried; 0 if no lists were.
    pub(super) generation: u64,
    /// The rows, in the order of insertion.
    pub(super) rows: Vec<Value>,
}

impl QueryRows {
    /// The row with this key.
    pub(super) fn find(&self, key: &str) -> Option<&Value> {
        self.rows.iter().find(|row| row["id"] == key)
    }

    /// A number of the row with this key, and the row's version; 0 where there is none.
    pub(super) fn number(&self, key: &str, field: &str) -> (i64, u64) {
        let row = self.find(key).unwrap_or(&Value::Null);
        (row[field].as_i64().unwrap_or(0), row["version"].as_u64().unwrap_or(0))
    }

    /// The elements of each list of the generation. Lists without elements are in it.
    pub(super) fn lists(&self) -> BTreeMap<String, Vec<u64>> {
        let mut lists: BTreeMap<String, Vec<u64>> =
            list_names(self.generation).into_iter().map(|name| (name, Vec::new())).collect();
        for row in &self.rows {
            let (Some(list), Some(element)) = (row["list"].as_str(), row["element"].as_u64())
            else {
                continue;
            };
            lists.entry(list.to_owned()).or_default().push(element);
        }
        lists
    }
}

/// The full names of the lists of a generation.
pub(super) fn list_names(generation: u64) -> Vec<String> {
    LISTS_PER_GENERATION.iter().map(|list| format!("g{generation}-{list}")).collect()
}

/// The generation of a list, and its name within the generation.
pub(super) fn list_parts(list: &str) -> (u64, &str) {
    let (generation, name) = list.split_once('-').unwrap_or((list, ""));
    (generation.trim_start_matches('g').parse().unwrap_or(0), name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_its_generation() {
        for name in list_names(12) {
            assert_eq!(list_parts(&name).0, 12, "{name}");
        }
    }
}
