//! Rules: a whole file of numbering rules, and which of them hold for one branch:module.
//!
//! Read in three nestings: `{defaults: {module: {table: {field: RULE}}}, branches: {branch:
//! {module: …}}}`; the same without `defaults`, by module; and flat, `{table: RULE}`, which holds
//! in every module that has such a table and numbers the field `id` unless the rule names another
//! `field`. A branch's entry for a table replaces the default's entry for that table wholly.
//!
//! The prefix of a branch, for `{branchPrefix}`: `branchPrefixes.<branch>` of the file, else
//! `branches.<branch>.branchPrefix`, else the branch's id in capitals.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{BranchId, ModuleId, TableName};
use crate::schema::Schema;
use crate::sequence::{BadRule, SequenceRule, prefix_of};
use crate::value::{Object, Value};

/// The rules of one module's tables, by field.
pub type TableRules = BTreeMap<TableName, BTreeMap<String, SequenceRule>>;

/// The numbering rules of all branches and modules.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SequenceRules {
    /// For every branch, by module.
    pub defaults: BTreeMap<ModuleId, TableRules>,
    /// For one branch, by module.
    pub branches: BTreeMap<BranchId, BTreeMap<ModuleId, TableRules>>,
    /// For every branch and module: the flat nesting.
    pub everywhere: TableRules,
    /// Prefixes of branches that have one of their own.
    pub prefixes: BTreeMap<BranchId, String>,
}

impl SequenceRules {
    /// Reads a whole file.
    ///
    /// # Errors
    /// [`BadRule`] naming the place in the file.
    pub fn from_doc(doc: &Value) -> Result<Self, BadRule> {
        let mut rules = Self::default();
        let top = object(doc, "the file")?;
        // The flat nesting has tables at the top, where these two names are no tables.
        let nested = top.get("defaults").is_some() || top.get("branches").is_some();
        if !nested {
            rules.read_flat(top)?;
            return Ok(rules);
        }
        if let Some(defaults) = top.get("defaults") {
            rules.defaults = modules(object(defaults, "defaults")?, "defaults")?;
        }
        if let Some(branches) = top.get("branches") {
            for (name, doc) in object(branches, "branches")?.iter() {
                rules.read_branch(name, doc)?;
            }
        }
        if let Some(prefixes) = top.get("branchPrefixes") {
            for (name, prefix) in object(prefixes, "branchPrefixes")?.iter() {
                rules.read_prefix(name, prefix)?;
            }
        }
        Ok(rules)
    }

    /// The rules of one branch:module, with the branch's prefix in its place.
    pub fn rules_for(&self, branch: &BranchId, module: &ModuleId) -> TableRules {
        let own = self.branches.get(branch).and_then(|modules| modules.get(module));
        // The more particular rule replaces the more general one's whole table, as files were
        // written with that in mind.
        let mut found = self.everywhere.clone();
        for rules in self.defaults.get(module).into_iter().chain(own) {
            found.extend(rules.iter().map(|(table, fields)| (table.clone(), fields.clone())));
        }
        let prefix = self.prefix(branch);
        for rule in found.values_mut().flat_map(BTreeMap::values_mut) {
            *rule = rule.for_branch(&prefix);
        }
        found
    }

    /// The rules of one branch:module whose definition has some of its own: what is configured for
    /// a field holds instead of what its definition says.
    pub fn rules_with(&self, branch: &BranchId, module: &ModuleId, schema: &Schema) -> TableRules {
        let prefix = self.prefix(branch);
        let mut found = TableRules::new();
        for table in &schema.tables {
            for field in &table.fields {
                let Some(rule) = &field.sequence else { continue };
                let fields = found.entry(table.name.clone()).or_default();
                fields.insert(field.name.to_string(), rule.for_branch(&prefix));
            }
        }
        for (table, fields) in self.rules_for(branch, module) {
            found.entry(table).or_default().extend(fields);
        }
        found
    }

    /// The prefix of a branch.
    pub fn prefix(&self, branch: &BranchId) -> String {
        self.prefixes.get(branch).cloned().unwrap_or_else(|| prefix_of(branch))
    }

    fn read_branch(&mut self, name: &str, doc: &Value) -> Result<(), BadRule> {
        let place = format!("branches.{name}");
        let branch = BranchId::parse(name).map_err(|error| bad(&place, error.to_string()))?;
        let mut doc = object(doc, &place)?.clone();
        if let Some(prefix) = doc.remove("branchPrefix") {
            self.read_prefix(name, &prefix)?;
        }
        self.branches.insert(branch, modules(&doc, &place)?);
        Ok(())
    }

    fn read_prefix(&mut self, name: &str, prefix: &Value) -> Result<(), BadRule> {
        let place = format!("branchPrefixes.{name}");
        let branch = BranchId::parse(name).map_err(|error| bad(&place, error.to_string()))?;
        let prefix = prefix.as_str().ok_or_else(|| bad(&place, "a prefix is text"))?;
        self.prefixes.insert(branch, prefix.to_owned());
        Ok(())
    }

    /// Tables at the top, or modules: told apart by how deep the rules are.
    fn read_flat(&mut self, top: &Object) -> Result<(), BadRule> {
        for (name, member) in top.iter() {
            let Some(doc) = member.as_object() else { continue }; // `version`, `description`
            let holds_rules = |doc: &Object| {
                doc.iter().any(|(_, inner)| inner.as_object().is_some_and(SequenceRule::is_rule))
            };
            if SequenceRule::is_rule(doc) || holds_rules(doc) {
                let (table, fields) = table(name, doc, name)?;
                self.everywhere.insert(table, fields);
            } else {
                let module = ModuleId::parse(name).map_err(|error| bad(name, error.to_string()))?;
                self.defaults.insert(module, tables(doc, name)?);
            }
        }
        Ok(())
    }
}

fn modules(doc: &Object, place: &str) -> Result<BTreeMap<ModuleId, TableRules>, BadRule> {
    let mut modules = BTreeMap::new();
    for (name, member) in doc.iter() {
        let place = format!("{place}.{name}");
        let module = ModuleId::parse(name).map_err(|error| bad(&place, error.to_string()))?;
        modules.insert(module, tables(object(member, &place)?, &place)?);
    }
    Ok(modules)
}

fn tables(doc: &Object, place: &str) -> Result<TableRules, BadRule> {
    let mut rules = TableRules::new();
    for (name, member) in doc.iter() {
        let place = format!("{place}.{name}");
        let (table, fields) = table(name, object(member, &place)?, &place)?;
        rules.insert(table, fields);
    }
    Ok(rules)
}

/// One table's entry: rules by field, or one rule for the field it names.
fn table(
    name: &str,
    doc: &Object,
    place: &str,
) -> Result<(TableName, BTreeMap<String, SequenceRule>), BadRule> {
    let table = TableName::parse(name).map_err(|error| bad(place, error.to_string()))?;
    let mut fields = BTreeMap::new();
    if SequenceRule::is_rule(doc) {
        let field = doc.get("field").and_then(Value::as_str).unwrap_or("id");
        fields.insert(field.to_owned(), rule(&Value::Object(doc.clone()), place)?);
        return Ok((table, fields));
    }
    for (field, member) in doc.iter() {
        fields.insert(field.to_string(), rule(member, &format!("{place}.{field}"))?);
    }
    Ok((table, fields))
}

fn rule(doc: &Value, place: &str) -> Result<SequenceRule, BadRule> {
    SequenceRule::from_doc(doc).map_err(|error| bad(place, error.problem))
}

fn object<'a>(doc: &'a Value, place: &str) -> Result<&'a Object, BadRule> {
    doc.as_object().ok_or_else(|| bad(place, format!("it is {}, not an object", doc.to_json())))
}

fn bad(place: &str, problem: impl Into<String>) -> BadRule {
    BadRule { place: place.to_owned(), problem: problem.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    fn read(doc: &str) -> Result<SequenceRules, BadRule> {
        SequenceRules::from_doc(&Value::from_json(doc.as_bytes()).unwrap())
    }

    fn first(rules: &SequenceRules, branch: &str, module: &str, table: &str) -> Option<String> {
        let branch = BranchId::parse(branch).unwrap();
        let found = rules.rules_for(&branch, &ModuleId::parse(module).unwrap());
        let fields = found.get(table)?;
        let texts: Vec<_> =
            fields.iter().map(|(f, rule)| format!("{f}={}", rule.render(1))).collect();
        Some(texts.join(" "))
    }

    #[test]
    fn a_branchs_table_replaces_the_defaults_table_wholly() {
        let rules = read(
            r#"{"version":1,
            "defaults":{"pos":{"order_header":{"id":{"prefix":"POS"},"no":{"prefix":"N"}},
                               "order_line":{"id":{"prefix":"L"}}}},
            "branches":{"dar":{"pos":{"order_header":{"id":{"prefix":"DAR","padding":3}}}}}}"#,
        )
        .unwrap();
        assert_eq!(first(&rules, "dar", "pos", "order_header").as_deref(), Some("id=DAR-001"));
        assert_eq!(first(&rules, "dar", "pos", "order_line").as_deref(), Some("id=L-1"));
        assert_eq!(first(&rules, "x", "pos", "order_header").as_deref(), Some("id=POS-1 no=N-1"));
        assert_eq!(first(&rules, "dar", "gym", "order_header"), None);
        assert_eq!(
            codec::decode_as::<SequenceRules>(
                codec::FormatKind::Test,
                &codec::encode_as(codec::FormatKind::Test, &rules)
            )
            .unwrap(),
            rules
        );
    }

    #[test]
    fn the_flat_nesting_holds_for_all_the_middle_one_by_module() {
        let flat = read(
            r#"{"order_header":{"pattern":"{branchPrefix}-{seq:6}","start":1,"increment":1,
                "description":"orders"},
                "invoice":{"pattern":"{seq}","field":"number"},"version":1}"#,
        )
        .unwrap();
        assert_eq!(first(&flat, "dar", "pos", "order_header").as_deref(), Some("id=DAR-000001"));
        assert_eq!(first(&flat, "dar", "erp", "invoice").as_deref(), Some("number=1"));
        let middle = read(r#"{"pos":{"order_header":{"id":{"prefix":"A"}}}}"#).unwrap();
        assert_eq!(first(&middle, "dar", "pos", "order_header").as_deref(), Some("id=A-1"));
        assert_eq!(first(&middle, "dar", "erp", "order_header"), None);
    }

    #[test]
    fn a_branch_may_have_a_prefix_of_its_own() {
        let rules = read(
            r#"{"branchPrefixes":{"remal":"R"},
                "defaults":{"pos":{"order_header":{"id":{"pattern":"{branchPrefix}{seq}"}}}},
                "branches":{"dar":{"branchPrefix":"D"}}}"#,
        )
        .unwrap();
        for (branch, text) in [("dar", "id=D1"), ("remal", "id=R1"), ("gim", "id=GIM1")] {
            assert_eq!(first(&rules, branch, "pos", "order_header").as_deref(), Some(text));
        }
    }

    #[test]
    fn what_is_wrong_is_named_by_its_place() {
        let error = read(r#"{"defaults":{"pos":{"t":{"id":{"start":"x"}}}}}"#).unwrap_err();
        assert_eq!(
            error.to_string(),
            "sequence rule defaults.pos.t.id: start is \"x\"; it is a whole number from 0"
        );
        let error = read(r#"{"branches":{"dar":{"Pos":{}}}}"#).unwrap_err();
        assert!(error.to_string().starts_with("sequence rule branches.dar.Pos: module id"));
        assert!(read("[]").is_err());
    }
}
