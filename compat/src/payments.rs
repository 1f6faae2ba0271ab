//! Payments: conditions of `POST …/save` on an order's payment state
//! (docs/original/rest.md#save), as conditions on a field, with the original's codes.

use model::{FieldCondition, Holds, Precondition};

/// Where a record's payment state may stand, in the order looked at.
const STATE: [&str; 4] = ["paymentState", "payment_state", "paymentStateId", "payment_state_id"];

/// The payment state must be one of these (`payment-state-conflict`).
pub fn payment_state_is(states: Vec<String>) -> Precondition {
    condition(states, Holds::Listed, "payment-state-conflict", "expected")
}

/// The payment state must not be one of these (`payment-state-rejected`).
pub fn payment_state_is_not(states: Vec<String>) -> Precondition {
    condition(states, Holds::NotListed, "payment-state-rejected", "rejected")
}

/// The payment state must be one of these, where there is a record (`payment-state-not-allowed`).
pub fn payment_state_allowed(states: Vec<String>) -> Precondition {
    condition(states, Holds::ListedOrAbsent, "payment-state-not-allowed", "allowed")
}

fn condition(values: Vec<String>, holds: Holds, code: &str, member: &str) -> Precondition {
    Precondition::Field(FieldCondition {
        fields: STATE.map(str::to_owned).to_vec(),
        values,
        holds,
        code: code.to_owned(),
        member: member.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use model::{Action, RecordMutation, Reject, Value};

    use super::*;
    use crate::testing::{Shop, object};

    /// The refusal of a save of a paid order, or of a new one, as code and details.
    fn refusal(id: &str, precondition: Precondition) -> Option<(String, String)> {
        let mut shop = Shop::lenient();
        shop.insert("order_header", r#"{"id":"o","paymentState":"paid"}"#).unwrap();
        let record = object(&format!(r#"{{"id":"{id}","version":1}}"#));
        let mutation = RecordMutation::new(Action::Save, "order_header", record);
        match shop.mutation(RecordMutation { preconditions: vec![precondition], ..mutation }) {
            Ok(_) => None,
            Err(Reject::Precondition { code, details }) => {
                Some((code, Value::Object(details).to_json()))
            }
            Err(other) => panic!("{other}"),
        }
    }

    fn states(list: &[&str]) -> Vec<String> {
        list.iter().map(|state| (*state).to_owned()).collect()
    }

    fn code(precondition: Precondition) -> Option<String> {
        refusal("o", precondition).map(|(code, _)| code)
    }

    #[test]
    fn the_payment_state_is_or_is_not_or_is_among() {
        assert_eq!(code(payment_state_is(states(&["paid"]))), None);
        let open = payment_state_is(states(&["open"]));
        assert_eq!(code(open.clone()).as_deref(), Some("payment-state-conflict"));
        assert_eq!(code(payment_state_is_not(states(&["open"]))), None);
        let rejected = payment_state_is_not(states(&["open", "paid"]));
        assert_eq!(code(rejected).as_deref(), Some("payment-state-rejected"));
        assert_eq!(code(payment_state_allowed(states(&["open", "paid"]))), None);
        let allowed = payment_state_allowed(states(&["open", "void"]));
        let (code, details) = refusal("o", allowed).unwrap();
        assert_eq!(code, "payment-state-not-allowed");
        assert_eq!(details, r#"{"allowed":["open","void"],"actual":"paid"}"#);
        let new = refusal("n", payment_state_allowed(states(&["open"])));
        assert_eq!(new, None, "a new order has no state yet");
        assert!(refusal("n", open).is_some());
    }
}
