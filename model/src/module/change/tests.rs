//! Tests of conditions over a change, and their law: what they refuse changes nothing. What they
//! compare is shown by `scripts/change-conditions.txt`.

use proptest::prelude::*;

use super::*;
use crate::command::{Action, Request, Transaction};
use crate::predicate::Operator;
use crate::testing::{Shop, guarded, mutation};

fn field(side: ChangeSide, field: &str) -> ChangedField {
    ChangedField { side, field: field.to_owned() }
}

fn before(name: &str, operator: Operator, json: &str) -> ChangeComparison {
    compare(field(ChangeSide::Before, name), operator, json)
}

fn compare(left: ChangedField, operator: Operator, json: &str) -> ChangeComparison {
    let value = Value::from_json(json.as_bytes()).unwrap();
    ChangeComparison { left, operator, right: ChangeOperand::Value(value) }
}

fn condition(clauses: Vec<Vec<ChangeComparison>>) -> Precondition {
    Precondition::Change(ChangeCondition { clauses, code: "not-allowed".to_owned() })
}

/// A strict shop with one paid order of 5.
fn shop() -> Shop {
    let mut shop = Shop::strict();
    shop.insert("order_header", r#"{"id":"o","paymentState":"paid","n":5}"#).unwrap();
    shop
}

/// The refusal of a change of the order under a condition.
fn refusal(condition: Precondition) -> Option<Reject> {
    let json = r#"{"id":"o","version":1}"#;
    shop().mutation(guarded(Action::Merge, "order_header", json, vec![condition])).err()
}

#[test]
fn every_clause_must_hold_and_an_empty_one_never_does() {
    let holds = || before("n", Operator::Equal, "5");
    assert_eq!(refusal(condition(Vec::new())), None);
    assert_eq!(refusal(condition(vec![vec![holds()]])), None);
    let other = vec![before("n", Operator::Equal, "6")];
    for clauses in [vec![vec![holds()], other], vec![vec![holds()], Vec::new()]] {
        assert!(refusal(condition(clauses)).is_some());
    }
}

#[test]
fn more_comparisons_than_are_made_are_refused() {
    let most = vec![before("n", Operator::Equal, "5"); CHANGE_COMPARISONS_MAX];
    assert_eq!(refusal(condition(vec![most.clone()])), None);
    for over in [vec![most, Vec::new()], vec![Vec::new(); CHANGE_COMPARISONS_MAX + 1]] {
        let refused = refusal(condition(over)).unwrap();
        assert_eq!(refused.code(), "bad-command");
    }
}

#[test]
fn a_condition_over_a_change_belongs_to_its_mutation() {
    let mut transaction = Transaction::of([mutation(Action::Insert, "tickets", r#"{"id":"t"}"#)]);
    transaction.preconditions = vec![condition(Vec::new())];
    let refused = shop().run(Request::Transaction(transaction)).unwrap_err();
    assert_eq!(refused.code(), "bad-command");
}

fn any_comparison() -> impl Strategy<Value = ChangeComparison> {
    let side = || prop::sample::select(vec![ChangeSide::Before, ChangeSide::After]);
    let name = prop::sample::select(vec!["n", "note", "paymentState", "version", "colour"]);
    let operator = prop::sample::select(vec![
        Operator::Is,
        Operator::Equal,
        Operator::NotEqual,
        Operator::Greater,
        Operator::LessOrEqual,
        Operator::In,
        Operator::Like,
    ]);
    let json = prop::sample::select(vec!["1", "6", "null", r#""paid""#, r#"["open",5]"#]);
    (side(), side(), name, operator, json, any::<bool>()).prop_map(
        |(left, right, name, operator, json, constant)| {
            let mut comparison = compare(field(left, name), operator, json);
            if !constant {
                comparison.right = ChangeOperand::Field(field(right, "n"));
            }
            comparison
        },
    )
}

proptest! {
    #[test]
    fn a_transaction_refused_for_its_change_changes_nothing(
        clauses in prop::collection::vec(prop::collection::vec(any_comparison(), 0..3), 0..3),
        action in prop::sample::select(vec![Action::Merge, Action::Save, Action::Delete]),
        n in 1..9_u64,
    ) {
        let mut shop = shop().numbered();
        let head = shop.branch().head();
        let rows = |shop: &Shop| (shop.rows("order_header"), shop.rows("tickets"));
        let stored = rows(&shop);
        let change = format!(r#"{{"id":"o","version":1,"n":{n}}}"#);
        // The ticket before it takes a number, which must be free again.
        let refused = shop.write(vec![
            mutation(Action::Insert, "tickets", "{}"),
            guarded(action, "order_header", &change, vec![condition(clauses)]),
        ]);
        if let Err(reject) = refused {
            prop_assert!(matches!(reject.code(), "not-allowed" | "bad-command"), "{}", reject);
            prop_assert_eq!(shop.branch().head(), head);
            prop_assert_eq!(rows(&shop), stored);
            prop_assert_eq!(shop.reserve("tickets", "id").unwrap(), "T-5");
        } else {
            prop_assert_eq!(shop.reserve("tickets", "id").unwrap(), "T-6");
        }
    }
}
