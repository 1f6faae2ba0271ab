//! Conventions: what the original's clients take for granted about tables, in every module
//! (docs/original/schemas.md#aliases, schemas.md#seeds, rest.md#management, rules.md#changes).

use model::{Alias, ChildLink, Conventions};

/// What clients say, and the table they mean.
const ALIASES: [(&str, &str); 9] = [
    ("orders", "order_header"),
    ("job_orders", "job_order_header"),
    ("job_order_headers", "job_order_header"),
    ("order_lines", "order_line"),
    ("order_payments", "order_payment"),
    ("payments", "order_payment"),
    ("job_order_details", "job_order_detail"),
    ("deliveries", "order_delivery"),
    ("order_deliveries", "order_delivery"),
];

/// What people who purge say besides, and the table they mean.
const PURGE_ALIASES: [(&str, &str); 6] = [
    ("order", "order_header"),
    ("line", "order_line"),
    ("lines", "order_line"),
    ("payment", "order_payment"),
    ("shift", "pos_shift"),
    ("shifts", "pos_shift"),
];

/// What seed files say, besides the aliases clients use, and the table they mean.
const SEED_ALIASES: [(&str, &str); 4] = [
    ("items", "menu_items"),
    ("categories", "menu_categories"),
    ("drivers", "delivery_drivers"),
    ("stores", "pos_database"),
];

/// Tables whose rows are parts of an order or of its lines, the field that names it, and its table.
const PARTS: [(&str, &str, &str); 5] = [
    ("order_line", "orderId", "order_header"),
    ("order_payment", "orderId", "order_header"),
    ("order_status_log", "orderId", "order_header"),
    ("order_line_status_log", "orderId", "order_header"),
    ("order_line_status_log", "orderLineId", "order_line"),
];

/// Tables whose records need an order.
const REQUIRED: [(&str, &str); 2] = [("order_line", "orderId"), ("order_payment", "orderId")];

/// Tables whose records the original checks the version of.
const VERSIONED: [&str; 2] = ["order_header", "order_line"];

/// What the original's messages call a record of a table.
const NOUNS: [(&str, &str); 2] = [("order_header", "order"), ("order_line", "order item")];

/// What the original's clients take for granted, for
/// [`Schema::read_under`](model::Schema::read_under).
pub fn conventions() -> Conventions {
    Conventions {
        aliases: aliases(&ALIASES),
        purge_aliases: aliases(&PURGE_ALIASES),
        seed_aliases: aliases(&SEED_ALIASES),
        children: PARTS.map(child_link).to_vec(),
        required: pairs(&REQUIRED),
        versioned: VERSIONED.map(str::to_owned).to_vec(),
        nouns: pairs(&NOUNS),
    }
}

fn aliases(list: &[(&str, &str)]) -> Vec<Alias> {
    let alias = |(name, table): &(&str, &str)| Alias {
        name: (*name).to_owned(),
        table: (*table).to_owned(),
    };
    list.iter().map(alias).collect()
}

fn child_link((table, field, parent): (&str, &str, &str)) -> ChildLink {
    ChildLink { table: table.to_owned(), field: field.to_owned(), parent: parent.to_owned() }
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(one, other)| ((*one).to_owned(), (*other).to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use crate::testing::{Shop, schema_of};

    fn schema(names: &[&str]) -> std::sync::Arc<model::Schema> {
        let table = |name: &&str| {
            format!(r#"{{"name":"{name}","fields":[{{"name":"id","type":"text"}}]}}"#)
        };
        let tables: Vec<String> = names.iter().map(table).collect();
        schema_of(&format!("[{}]", tables.join(",")))
    }

    #[test]
    fn the_originals_names_find_their_tables() {
        let schema = schema(&["order_header", "order_line", "order_payment", "pos_shift"]);
        let purged = |sent| schema.purge_table(sent).map(|table| table.name.to_string());
        for (sent, table) in [
            ("orders", "order_header"),
            ("order", "order_header"),
            ("order_lines", "order_line"),
            ("payments", "order_payment"),
            ("shifts", "pos_shift"),
        ] {
            assert_eq!(purged(sent).as_deref(), Some(table), "{sent}");
        }
        assert!(schema.resolve("payments").is_some() && schema.resolve("payment").is_none());
    }

    #[test]
    fn a_line_needs_its_order_and_its_version_is_checked() {
        let mut shop = Shop::lenient();
        let reject = shop.insert("order_line", r#"{"id":"l","orderId":""}"#).unwrap_err();
        assert_eq!(reject.code(), "missing-field");
        shop.insert("order_line", r#"{"id":"l","orderId":"o"}"#).unwrap();
        let stale = shop.merge("order_line", r#"{"id":"l","version":9}"#).unwrap_err();
        assert!(stale.to_string().starts_with("Update failed: This order item has been modified"));
    }
}
