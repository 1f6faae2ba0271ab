//! Scripts: stories of one module as text, one file each in `scripts/`. The module is the shop of
//! `testing.rs`: orders with lines, dishes with a unique code, tickets. A line is one thing asked
//! or one thing that came of it:
//!
//! ```text
//! # The rule this part shows.
//! > what is asked; after it, lines with `+` belong to the same transaction
//! < what was changed, an event a line, by its offset
//! ! the code and the words of a refusal
//! ? a table, or another thing that can be looked at
//! = what is in it
//! * what happens besides
//! ```
//!
//! Of records the fields without a value and the time of the last change are left out. A script
//! must read as it is played (`testing/scripts.rs`).

use std::sync::Arc;

use crate::command::{
    CounterAt, Mutation, Purge, Replace, Request, Reserve, Reset, Restore, RestoreMode, RuleChange,
    Seed, SetSequence, Transaction,
};
use crate::definition::{Definition, Validation, VersionRule};
use crate::delta::{Event, EventChange};
use crate::ids::TableName;
use crate::outcome::Outcome;
use crate::partition::AppliedCommand;
use crate::reject::Reject;
use crate::sequence::SequenceRule;
use crate::testing::{self, Shop, conventional, object};
use crate::value::{Object, Value};

#[cfg(test)]
mod mutations;

#[test]
fn every_script_reads_as_it_is_played() {
    testing::scripts::check("src/scripts", play);
}

fn json(text: &str) -> Value {
    Value::from_json(text.as_bytes()).unwrap_or_else(|bad| panic!("{text}: {bad}"))
}

/// The script with what came of it as the module has it.
fn play(script: &str) -> String {
    let mut player = Player { shop: Shop::undefined(), last: None };
    let mut played = String::new();
    let is_output = |line: &&str| ["< ", "! ", "= "].iter().any(|mark| line.starts_with(mark));
    let mut lines = script.lines().filter(|line| !is_output(line)).peekable();
    while let Some(line) = lines.next() {
        played.push_str(line);
        played.push('\n');
        let out = match line.split_once(' ') {
            Some((">", asked)) => {
                let mut more = Vec::new();
                while let Some(line) = lines.next_if(|line| line.starts_with("+ ")) {
                    played.push_str(line);
                    played.push('\n');
                    more.push(&line[2..]);
                }
                player.ask(asked, &more)
            }
            Some(("?", what)) => player.look(what),
            Some(("*", what)) => player.happens(what),
            _ if line.is_empty() || line.starts_with('#') => continue,
            _ => panic!("{line:?} is nothing that is asked, looked at or happens"),
        };
        for line in out {
            played.push_str(&line);
            played.push('\n');
        }
    }
    played
}

struct Player {
    shop: Shop,
    /// The last command, for who asks again.
    last: Option<crate::Command>,
}

impl Player {
    fn ask(&mut self, asked: &str, more: &[&str]) -> Vec<String> {
        let command = match asked.strip_prefix("again") {
            None => {
                let request = self.request(asked, more);
                self.shop.command(request)
            }
            Some(other) => {
                let mut command = self.last.clone().expect("something was asked before");
                if let Some(other) = other.strip_prefix(' ') {
                    command.request = self.request(other, more);
                }
                command
            }
        };
        self.last = Some(command.clone());
        shown(&self.shop.apply_one(command))
    }

    fn request(&self, asked: &str, more: &[&str]) -> Request {
        let (word, rest) = asked.split_once(' ').unwrap_or((asked, ""));
        match word {
            "define" => Request::Define(Arc::new(self.definition(rest))),
            "fill" => Request::Fill(Arc::new(self.definition(rest))),
            "number" => {
                let (field, rule) = rest.split_once(' ').unwrap();
                let (table, field) = field.split_once('.').unwrap();
                let rule = SequenceRule::from_doc(&json(rule)).unwrap();
                let mut definition = self.current();
                let table = TableName::parse(table).unwrap();
                definition.sequences.entry(table).or_default().insert(field.to_owned(), rule);
                Request::Define(Arc::new(definition))
            }
            "seed" => Request::Seed(Arc::new(Seed { tables: object(rest) })),
            "reserve" => {
                let (table, field) = rest.split_once('.').unwrap();
                Request::Reserve(Reserve { table: table.to_owned(), field: field.to_owned() })
            }
            "set" => Request::SetSequence(Box::new(set_sequence(rest))),
            "purge" => Request::Purge(Purge {
                tables: rest.split(' ').map(str::to_owned).collect(),
                reason: "the day is over".to_owned(),
                requested_by: None,
                reset_events: false,
            }),
            "reset" => Request::Reset(Reset {
                seed: rest.strip_prefix("to ").map(|seed| Arc::new(Seed { tables: object(seed) })),
                reason: "a new day".to_owned(),
                requested_by: None,
                numbers: rest == "numbers too",
            }),
            "restore" => self.restore(rest),
            "tables" => Request::Replace(Replace { tables: object(rest).into(), revision: None }),
            _ => Request::Transaction(transaction(asked, more)),
        }
    }

    fn current(&self) -> Definition {
        (**self.shop.branch().definition().unwrap()).clone()
    }

    /// `strict` and `lenient` are the shop's; a document has its tables instead.
    fn definition(&self, text: &str) -> Definition {
        match text {
            "strict" => testing::definition(Validation::Strict, VersionRule::Read),
            "lenient" => testing::definition(Validation::Lenient, VersionRule::Next),
            doc => Definition { schema: Arc::new(conventional(&json(doc))), ..self.current() },
        }
    }

    /// `beside` or `instead`: the newest entry of the archive.
    fn restore(&self, how: &str) -> Request {
        let mode = match how {
            "beside" => RestoreMode::Append,
            "instead" => RestoreMode::Replace,
            _ => panic!("records come back beside or instead, not {how:?}"),
        };
        let newest = self.shop.archive().first().map(|entry| entry.id.clone());
        let entry = newest.unwrap_or_else(|| "none".to_owned());
        let (reason, requested_by) = (None, None);
        Request::Restore(Restore { entry, mode, fill: false, reason, requested_by })
    }

    fn look(&self, what: &str) -> Vec<String> {
        let head = self.shop.branch().head();
        match what {
            "offset" => vec![format!("= {}", head.offset.0)],
            "revision" => vec![format!("= {}", head.revision.0)],
            "archive" => {
                let tables = |entry: &crate::ArchiveEntry| -> Vec<String> {
                    let tables = entry.tables.iter();
                    tables.map(|of| format!("{} of {}", of.records.len(), of.table)).collect()
                };
                let entries = self.shop.archive();
                entries.iter().map(|entry| format!("= {}", tables(entry).join(", "))).collect()
            }
            table => {
                let rows = self.shop.rows(table);
                rows.iter().map(|row| format!("= {}", said(&object(row)))).collect()
            }
        }
    }

    fn happens(&mut self, what: &str) -> Vec<String> {
        match what.split_once(' ') {
            Some((ms, "ms pass")) => self.shop.elapsed_ms = ms.parse().unwrap(),
            _ if what == "restored from a checkpoint" => self.shop.restore(),
            _ => panic!("{what:?} does not happen"),
        }
        Vec::new()
    }
}

fn transaction(asked: &str, more: &[&str]) -> Transaction {
    let mut transaction = Transaction::of([] as [Mutation; 0]);
    for line in std::iter::once(&asked).chain(more) {
        match line.strip_prefix("if ") {
            Some(condition) => transaction.preconditions.push(mutations::of_the_log(condition)),
            None => transaction.mutations.push(mutations::read(line)),
        }
    }
    transaction
}

/// `tickets.id last 20`, `tickets.id next 7 although given`.
fn set_sequence(text: &str) -> SetSequence {
    let words: Vec<&str> = text.split(' ').collect();
    let [name, which, number, ref rest @ ..] = words[..] else { panic!("{text:?} sets nothing") };
    let (table, field) = name.split_once('.').unwrap();
    let number = number.parse().unwrap();
    SetSequence {
        table: table.to_owned(),
        field: field.to_owned(),
        rule: RuleChange::Keep,
        counter: Some(if which == "next" {
            CounterAt::Next(number)
        } else {
            CounterAt::Last(number)
        }),
        allow_reuse: *rest == ["although", "given"],
        reason: None,
        requested_by: None,
    }
}

/// What came of a command.
fn shown(applied: &AppliedCommand) -> Vec<String> {
    let accepted = match &applied.outcome {
        Outcome::Accepted(accepted) => accepted,
        Outcome::Rejected(Reject::Precondition { code, details }) => {
            return vec![format!("! {code} {}", Value::Object(details.clone()).to_json())];
        }
        Outcome::Rejected(reject) => return vec![format!("! {}: {reject}", reject.code())],
    };
    let before = accepted.repeated.then(|| "< as it was decided before".to_owned());
    let mut lines: Vec<String> = before.into_iter().collect();
    lines.extend(accepted.delta.events.iter().flat_map(|event| event_lines(event)));
    lines.extend(accepted.reserved.iter().map(|reserved| format!("< number {}", reserved.text)));
    if lines.is_empty() {
        lines.push("< no event".to_owned());
    }
    lines
}

fn event_lines(event: &Event) -> Vec<String> {
    let offset = event.offset.0;
    match &event.change {
        EventChange::Record(change) => {
            let (effect, table) = (change.effect.wire_name(), &change.table);
            let effect = effect.strip_prefix("module:").unwrap_or(effect);
            vec![format!("< {offset} {effect} {table} {}", said(&change.record))]
        }
        EventChange::Module(change) => {
            let name = change.operation.wire_name();
            let mut lines = vec![format!("< {offset} {name}")];
            for (table, key, record) in &change.records {
                let now =
                    record.as_ref().map_or_else(|| "is gone".to_owned(), |record| said(record));
                lines.push(format!("<   {table} {key} {now}"));
            }
            lines
        }
    }
}

/// A record without what says nothing.
fn said(record: &Object) -> String {
    let says = |(name, value): &(&Arc<str>, &Value)| !value.is_null() && &***name != "updatedAt";
    let members = record.iter().filter(says);
    let members = members.map(|(name, value)| (Arc::clone(name), value.clone()));
    Value::Object(members.collect()).to_json()
}
