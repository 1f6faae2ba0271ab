//! Seed: fill tables that have no records, as a seed file says.
//!
//! Seeds are the state at offset 0: a second seed, or one that comes after the first event, is
//! accepted and changes nothing, for no event would tell of it. Of rows with one key the last
//! one wins, in the first one's place. Promise: no row gets a number that another row brings.

use std::sync::Arc;

use crate::command::Seed;
use crate::module::plan::Plan;
use crate::module::version;
use crate::reject::Reject;
use crate::schema::Table;
use crate::value::Object;

impl Plan<'_> {
    pub(crate) fn seed(&mut self, seed: &Seed) -> Result<(), Reject> {
        let schema = Arc::clone(&self.definition().schema);
        let mut tables = schema.seed_rows(seed);
        tables.retain(|(table, _)| {
            self.module().rows(&table.name).is_none_or(|rows| rows.len() == 0)
        });
        for (table, rows) in &mut tables {
            *rows = table.last_of_each(rows);
        }
        for (table, rows) in &tables {
            self.learn_all(table, rows);
        }
        for (table, rows) in tables {
            for row in rows {
                self.seed_row(table, row)?;
            }
        }
        let definition = self.definition();
        let at = self.at();
        let (module, numbers) = self.module_and_numbers();
        numbers.pass_records(definition, module, at);
        Ok(())
    }

    fn seed_row(&mut self, table: &Table, row: &Object) -> Result<(), Reject> {
        let mut sent = row.clone();
        let numbers = self.numbers().clone();
        self.number(table, &mut sent, None)?;
        let mut record = table.project_seed(&sent, &mut self.insert_context())?;
        self.lock(table).set(&mut record, version::stored(row));
        // A row that names nothing is left out, with its numbers; the rest is what was meant, and
        // who reads the file is told of it.
        let Ok(key) = table.key_of(&record) else {
            *self.numbers_mut() = numbers;
            return Ok(());
        };
        let relations = self.relations();
        self.module_mut().put(&table.name, key, Arc::new(record), relations);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Shop, rule};

    #[test]
    fn a_seed_fills_empty_tables_and_makes_no_event() {
        let mut shop = Shop::lenient();
        let seeds = r#"{"dishes":[{"id":"d1","code":"tea","pricing":{"base":5}},{"id":"d2"}],
            "orderHeader":{"note":"one row"},"settings":{}}"#;
        let accepted = shop.seed(seeds).unwrap();
        assert!(accepted.delta.events.is_empty());
        let head = shop.branch().head();
        assert_eq!((head.offset.0, head.revision.0, head.rows), (0, 1, 3));
        assert_eq!(head.last_updated_at, shop.now);
        assert!(shop.rows("dishes")[0].contains(r#""pricing":{"base":5}"#));
        assert!(shop.rows("order_header")[0].ends_with(r#""version":1}"#));
        assert!(shop.branch().seeded());
    }

    #[test]
    fn seeds_come_once_and_never_after_an_event() {
        let mut shop = Shop::lenient();
        shop.seed(r#"{"dishes":[{"id":"d1"}]}"#).unwrap();
        shop.seed(r#"{"tickets":[{"id":"t1"}]}"#).unwrap();
        assert_eq!(shop.branch().head().rows, 1, "a second seed changes nothing");
        let mut shop = Shop::lenient();
        shop.insert("tickets", r#"{"id":"t1"}"#).unwrap();
        shop.seed(r#"{"dishes":[{"id":"d1"}]}"#).unwrap();
        assert_eq!(shop.rows("dishes").len(), 0);
        assert!(shop.branch().seeded());
    }

    #[test]
    fn the_last_row_of_a_key_wins_and_numbers_follow_the_highest() {
        let mut shop = Shop::lenient();
        shop.redefine(|definition| {
            let table = crate::TableName::parse("tickets").unwrap();
            definition.sequences.insert(table, [("id".to_owned(), rule("T-", 1))].into());
        })
        .unwrap();
        shop.seed(r#"{"tickets":[{"id":"T-7"},{"id":"x","number":"1"},{"id":"x","number":"2"}]}"#)
            .unwrap();
        assert_eq!(shop.rows("tickets").len(), 2);
        assert!(shop.rows("tickets")[1].contains(r#""number":"2""#));
        assert_eq!(shop.insert("tickets", "{}").unwrap().record().unwrap().key.as_str(), "T-8");
    }

    /// A shop whose bills have a whole number `no` for people.
    fn bills(rows: &str) -> Shop {
        let mut shop = Shop::lenient();
        let doc = r#"{"tables":{"bill":{"fields":{"id":{"type":"text","primaryKey":true},
            "no":{"type":"integer","sequence":true},"a":{"type":"text"}}}}}"#;
        let doc = crate::Value::from_json(doc.as_bytes()).unwrap();
        let schema = crate::testing::conventional(&doc);
        shop.redefine(|definition| {
            let table = crate::TableName::parse("bill").unwrap();
            definition.sequences.insert(table, [("no".to_owned(), rule("", 1))].into());
            definition.schema = std::sync::Arc::new(schema);
        })
        .unwrap();
        shop.seed(&format!(r#"{{"bill":[{rows}]}}"#)).unwrap();
        shop
    }

    fn numbers(shop: &Shop) -> Vec<String> {
        let field = |row: &str, name: &str| {
            let row = crate::testing::object(row);
            row.get(name).map_or_else(String::new, crate::Value::to_json)
        };
        let shown = |row: &String| format!("{} {}", field(row, "id"), field(row, "no"));
        shop.rows("bill").iter().map(shown).map(|text| text.replace('"', "")).collect()
    }

    #[test]
    fn no_row_is_given_a_number_that_another_row_brings() {
        let rows = r#"{"id":"a"},{"id":"b","no":2},{"id":"c"},{"id":"d","a":"first"},
            {"id":"d","a":"second"},{"id":"e"}"#;
        let mut shop = bills(rows);
        assert_eq!(numbers(&shop), ["a 3", "b 2", "c 4", "d 5", "e 6"]);
        assert!(shop.rows("bill")[3].contains("second"), "the last one wins");
        shop.insert("bill", r#"{"id":"f"}"#).unwrap();
        assert_eq!(numbers(&shop)[5], "f 7");
        for brought in [r#""2""#, "2.0", "2e0"] {
            let shop = bills(&format!(r#"{{"id":"a"}},{{"id":"b","no":{brought}}},{{"id":"c"}}"#));
            let shown = brought.trim_matches('"');
            assert_eq!(numbers(&shop), ["a 3".to_owned(), format!("b {shown}"), "c 4".to_owned()]);
        }
    }

    #[test]
    fn a_row_that_is_left_out_takes_no_number() {
        let shop = bills(r#"{"id":"a"},{"id":""},{"id":"b"}"#);
        assert_eq!(numbers(&shop), ["a 1", "b 2"]);
    }

    #[test]
    fn a_reader_sees_a_module_before_it_exists() {
        let shop = Shop::lenient();
        let definition = std::sync::Arc::clone(shop.branch().definition().unwrap());
        let seed = crate::Seed { tables: crate::testing::object(r#"{"dishes":[{"code":"a"}]}"#) };
        let imagine = || {
            crate::Branch::preview(
                shop.key.clone(),
                definition.clone(),
                Some(&seed),
                shop.now,
                Default::default(),
            )
        };
        let branch = imagine();
        assert_eq!((branch.head().rows, branch.head().offset.0), (1, 0));
        assert_eq!(branch.state_hash(), imagine().state_hash(), "the same each time");
    }
}
