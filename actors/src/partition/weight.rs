//! Weight: what a command costs its partition, near enough to share it between clients: its
//! changes and its bytes. Exact sizes would cost a second encoding.

use model::{Command, Mutation, Object, Request, Value};

use crate::limits::{BYTES_OF_WEIGHT, COMMAND_WEIGHT_MAX};

/// What a command costs. Found once, where it comes in: it takes a walk over all it says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CommandCost {
    /// A change for each record, and one more for each KiB; [`COMMAND_WEIGHT_MAX`] at most.
    pub(crate) weight: u64,
    /// About how many bytes of an entry it takes.
    pub(crate) bytes: usize,
}

impl CommandCost {
    pub(crate) fn of(command: &Command) -> Self {
        let bytes = rough_bytes(command);
        let weight = u64::try_from(changes(command) + bytes / BYTES_OF_WEIGHT);
        Self { weight: weight.unwrap_or(u64::MAX).clamp(1, COMMAND_WEIGHT_MAX), bytes }
    }
}

/// Whether it is an operation on a module as a whole.
pub(crate) fn is_bulk(request: &Request) -> bool {
    match request {
        Request::Purge(_) | Request::Restore(_) | Request::Reset(_) | Request::Replace(_) => true,
        Request::Transaction(_)
        | Request::Define(_)
        | Request::Fill(_)
        | Request::Seed(_)
        | Request::Reserve(_)
        | Request::Call(_)
        | Request::SetSequence(_)
        | Request::MendClock(_) => false,
        #[cfg(feature = "next-level")]
        Request::ReserveAtNextLevel(_) => false,
    }
}

/// What a command of one change weighs about whose body has so many bytes: known before the body is
/// read. Spaces and escapes in it make it more than what is true.
pub(crate) fn weight_of_body(bytes: u64) -> u64 {
    (1 + bytes / BYTES_OF_WEIGHT as u64).min(COMMAND_WEIGHT_MAX)
}

/// How many records it changes.
fn changes(command: &Command) -> usize {
    match &command.request {
        Request::Transaction(transaction) => {
            let records = transaction.mutations.iter().map(|mutation| match mutation {
                Mutation::Record(_) => 1,
                Mutation::ReplaceChildren(children) => 1 + children.rows.len(),
            });
            records.sum()
        }
        Request::Replace(replace) => replace.tables.iter().map(|(_, rows)| rows_in(rows)).sum(),
        // Most of what they change stands in the branch, not in the command.
        Request::Purge(_) | Request::Restore(_) | Request::Reset(_) => BULK_CHANGES,
        Request::Define(_)
        | Request::Fill(_)
        | Request::Seed(_)
        | Request::Reserve(_)
        | Request::SetSequence(_)
        | Request::MendClock(_)
        | Request::Call(_) => 1,
        #[cfg(feature = "next-level")]
        Request::ReserveAtNextLevel(_) => 1,
    }
}

/// What a bulk operation counts as that does not say how much it changes: a large batch.
const BULK_CHANGES: usize = 512;
/// What a definition or a seed takes: nobody waits for them, so that it need not be known.
const DEFINITION_BYTES: usize = 64 * 1024;

/// A command's size, near enough to bound a batch.
fn rough_bytes(command: &Command) -> usize {
    match &command.request {
        Request::Transaction(transaction) => {
            let sizes = transaction.mutations.iter().map(|mutation| match mutation {
                Mutation::Record(mutation) => 64 + object_bytes(&mutation.record),
                Mutation::ReplaceChildren(children) => {
                    64 + children.rows.iter().map(object_bytes).sum::<usize>()
                }
            });
            sizes.sum()
        }
        Request::Define(_) | Request::Fill(_) | Request::Seed(_) => DEFINITION_BYTES,
        Request::Reset(reset) => {
            512 + reset.seed.as_ref().map_or(0, |seed| tables_bytes(&seed.tables))
        }
        Request::Reserve(_) => 128,
        #[cfg(feature = "next-level")]
        Request::ReserveAtNextLevel(_) => 128,
        Request::SetSequence(_) => 1024,
        Request::Call(call) => 128 + call.arguments.len(),
        Request::Replace(replace) => tables_bytes(&replace.tables),
        Request::Purge(_) | Request::Restore(_) | Request::MendClock(_) => 512,
    }
}

/// Of whole tables: looked into where they have few rows, which may be as long as a request; by
/// their number where there may be a hundred thousand of them.
fn tables_bytes(tables: &Object) -> usize {
    const LOOKED_INTO: usize = 1_000;
    let of_table = |rows: &Value| match rows_in(rows) {
        many if many > LOOKED_INTO => 512 * many,
        _ => value_bytes(rows),
    };
    tables.iter().map(|(_, rows)| of_table(rows)).sum()
}

fn rows_in(table: &Value) -> usize {
    table.as_array().map_or(1, <[Value]>::len)
}

fn object_bytes(object: &Object) -> usize {
    object.iter().map(|(name, value)| 16 + name.len() + value_bytes(value)).sum()
}

/// What a value takes, its texts at their length: one may be as long as a request.
fn value_bytes(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 1,
        Value::Number(_) => 16,
        Value::String(text) => 8 + text.len(),
        Value::Array(values) => 8 + values.iter().map(value_bytes).sum::<usize>(),
        Value::Object(object) => 8 + object_bytes(object),
    }
}

#[cfg(test)]
mod tests {
    use model::Transaction;

    use super::*;
    use crate::testing::insert;

    #[test]
    fn a_command_weighs_its_changes_and_its_bytes() {
        let single = insert("dar", "n1", "x");
        let weight_of = |command: &Command| CommandCost::of(command).weight;
        assert_eq!(weight_of(&single), 1);
        let Request::Transaction(Transaction { mutations, .. }) = &single.request else { panic!() };
        let times = |n: usize| {
            let mutations = std::iter::repeat_n(mutations[0].clone(), n);
            Command { request: Request::Transaction(Transaction::of(mutations)), ..single.clone() }
        };
        assert!((500..700).contains(&weight_of(&times(500))));
        assert_eq!(weight_of(&times(100_000)), COMMAND_WEIGHT_MAX);
        let long = insert("dar", "n1", &"x".repeat(900 * 1024));
        assert!((900..910).contains(&weight_of(&long)));
        assert!(weight_of_body(900 * 1024) <= weight_of(&long));
        assert_eq!([weight_of_body(0), weight_of_body(u64::MAX)], [1, COMMAND_WEIGHT_MAX]);
    }
}
