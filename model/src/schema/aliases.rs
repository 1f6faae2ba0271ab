//! Aliases: the other names by which clients call a table (docs/original/schemas.md#aliases);
//! which there are, the schema's conventions say.
//!
//! Promise: an exact name always wins over an alias, so a module that registers a table of that
//! name itself is never led astray. The caller echoes the name as sent; everything else uses the
//! canonical one.

use std::sync::Arc;

use crate::schema::{Alias, Schema, Table};

impl Schema {
    /// The table somebody who purges means: as [`Schema::resolve`], with a few short names more.
    pub fn purge_table(&self, sent: &str) -> Option<&Arc<Table>> {
        self.table(sent)
            .or_else(|| self.aliased(&self.conventions.purge_aliases, sent))
            .or_else(|| self.resolve(sent))
    }

    /// The table a client means: the exact name, else an alias, else the name without or with a
    /// final `s`.
    pub fn resolve(&self, sent: &str) -> Option<&Arc<Table>> {
        self.table(sent)
            .or_else(|| self.aliased(&self.conventions.aliases, sent))
            .or_else(|| self.singular_or_plural(sent))
    }

    /// The table of an alias in a list, if it is registered.
    pub(super) fn aliased(&self, list: &[Alias], sent: &str) -> Option<&Arc<Table>> {
        let named = list.iter().filter(|alias| alias.name == sent);
        named.into_iter().find_map(|alias| self.table(&alias.table))
    }

    fn singular_or_plural(&self, sent: &str) -> Option<&Arc<Table>> {
        sent.strip_suffix('s')
            .and_then(|singular| self.table(singular))
            .or_else(|| self.table(&format!("{sent}s")))
    }
}

/// `tableLocks` and `TableLocks` as `table_locks`. Runs of capitals stay together: `userID` is
/// `user_id`.
pub(super) fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    let mut after_lower = false;
    for letter in name.chars() {
        if letter.is_uppercase() && after_lower {
            snake.push('_');
        }
        after_lower = letter.is_lowercase() || letter.is_ascii_digit();
        snake.extend(letter.to_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Value;

    fn schema(names: &[&str]) -> Schema {
        let tables: Vec<String> = names
            .iter()
            .map(|name| format!(r#"{{"name":"{name}","fields":[{{"name":"id","type":"text"}}]}}"#))
            .collect();
        let doc = Value::from_json(format!("[{}]", tables.join(",")).as_bytes()).unwrap();
        crate::testing::conventional(&doc)
    }

    #[test]
    fn an_alias_a_singular_and_a_plural_find_their_table() {
        let schema = schema(&["order_header", "order_line", "employees", "pos_shift"]);
        let name = |sent| schema.resolve(sent).map(|table| table.name.to_string());
        assert_eq!(name("order_header").as_deref(), Some("order_header"));
        assert_eq!(name("orders").as_deref(), Some("order_header"));
        assert_eq!(name("order_lines").as_deref(), Some("order_line"));
        assert_eq!(name("pos_shifts").as_deref(), Some("pos_shift"));
        assert_eq!(name("employee").as_deref(), Some("employees"));
        assert_eq!(name("payments"), None, "its table is not registered here");
        assert_eq!(name("Orders"), None, "names keep their case");
    }

    #[test]
    fn a_purge_knows_short_names_too() {
        let schema = schema(&["order_header", "order_line", "order_payment", "pos_shift"]);
        let name = |sent| schema.purge_table(sent).map(|table| table.name.to_string());
        for (sent, table) in [
            ("orders", "order_header"),
            ("order", "order_header"),
            ("order_header", "order_header"),
            ("order_lines", "order_line"),
            ("payments", "order_payment"),
            ("shifts", "pos_shift"),
        ] {
            assert_eq!(name(sent).as_deref(), Some(table), "{sent}");
        }
        assert_eq!(name("zzz"), None);
    }

    #[test]
    fn an_exact_name_wins_over_an_alias() {
        let schema = schema(&["order_header", "orders", "line", "order_line"]);
        assert_eq!(schema.resolve("orders").unwrap().name.as_str(), "orders");
        assert_eq!(schema.purge_table("line").unwrap().name.as_str(), "line");
    }

    #[test]
    fn snake_case_reads_camel_and_pascal() {
        for (name, snake) in [
            ("tableLocks", "table_locks"),
            ("AuditEvents", "audit_events"),
            ("userID", "user_id"),
            ("order_header", "order_header"),
            ("line2Total", "line2_total"),
        ] {
            assert_eq!(snake_case(name), snake);
        }
    }
}
