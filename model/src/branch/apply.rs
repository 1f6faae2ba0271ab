//! Apply: one command on one branch, from the remembered answer to the new one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::branch::Branch;
use crate::command::{Command, Origin, Request};
use crate::dedup::{DedupOutcome, PayloadHash, call_hash, payload_hash};
use crate::definition::Definition;
use crate::delta::{
    BulkOperation, Delta, Effect, Event, EventChange, Part, PriorRecords, RecordChange,
};
use crate::entropy::Entropy;
use crate::hash::Hash;
use crate::ids::{Offset, RecordKey, Timestamp};
use crate::module::{
    Draft, Module, Plan, PlanContext, PlannedOperation, Relations, State, define, fit,
};
use crate::outcome::{Acceptance, Outcome, ReservedNumber};
use crate::partition::AppliedCommand;
use crate::procedure::ProcedureContext;
use crate::read::{DefinitionCheck, Violation};
use crate::reject::Reject;
use crate::value::Value;

/// How far ahead a commit time must be for a command to bring it back, in milliseconds: a leader's
/// clock is never trusted further, and a nearer time is the present before anybody has asked.
const CLOCK_AHEAD_MIN_MS: i64 = 60_000;

/// What a batch says about each of its commands.
#[derive(Debug)]
pub(crate) struct ApplyContext {
    pub(crate) at: Timestamp,
    /// The log's uptime.
    pub(crate) uptime_ms: u64,
    pub(crate) entropy: Entropy,
    /// The level of the partition.
    #[cfg(feature = "next-level")]
    pub(crate) level: u16,
}

/// A planned command: what only has to be taken over.
#[derive(Debug)]
pub(crate) struct PlannedChanges {
    at: Timestamp,
    state: State,
    drafts: Vec<Draft>,
    operation: Option<PlannedOperation>,
    definition: Option<(Arc<Definition>, Arc<Relations>)>,
    seeded: bool,
    reserved: Option<ReservedNumber>,
}

impl PlannedChanges {
    /// What the records of each event were before it.
    fn prior_records(&self) -> Vec<PriorRecords> {
        let drafts = self.drafts.iter().map(|draft| PriorRecords::Record(draft.before.clone()));
        let operation = self.operation.iter().map(|operation| {
            PriorRecords::Module(operation.diffs.iter().map(|diff| diff.before.clone()).collect())
        });
        drafts.chain(operation).collect()
    }
}

impl Branch {
    /// Decides a command, or tells what was decided about it before.
    pub(crate) fn apply(&mut self, command: &Command, stamp: ApplyContext) -> AppliedCommand {
        #[cfg(feature = "next-level")]
        {
            self.level = stamp.level;
        }
        let payload = match self.payload_hash(command) {
            Ok(payload) => payload,
            // Not remembered: what it would do is not known here.
            Err(reject) => return self.refused(reject),
        };
        if let Some(found) = self.dedup.get(&command.id) {
            return if found.is_about(payload) {
                self.repeat(found.decided())
            } else {
                self.refused(Reject::KeyReused)
            };
        }
        let displaced = match self.evict(command, stamp.uptime_ms) {
            Ok(displaced) => displaced,
            Err(reject) => return self.refused(reject),
        };
        let at = self.commit_time(command, stamp.at);
        let (mut leaps, mut prior) = (Vec::new(), Vec::new());
        let (outcome, decided) = match guarded(|| self.plan(command, at, stamp.entropy)) {
            Ok(changes) => {
                let first = self.offset.next();
                leaps = changes.state.numbers.new_leaps(&self.numbers);
                // Taken before the commit consumes the drafts: afterwards nobody knows any more.
                prior = changes.prior_records();
                let accepted = self.commit(changes, command);
                let decided = match &accepted.reserved {
                    Some(reserved) => DedupOutcome::Reserved(reserved.clone()),
                    None => DedupOutcome::Events { first, count: count(&accepted.delta) },
                };
                (Outcome::Accepted(accepted), decided)
            }
            Err(Reject::Undefined) => return self.refused(Reject::Undefined),
            Err(reject) => (Outcome::Rejected(reject.clone()), DedupOutcome::Rejected(reject)),
        };
        self.dedup.remember(&command.id, payload, stamp.uptime_ms, &decided);
        AppliedCommand {
            key: self.key.clone(),
            outcome,
            repeated_at: None,
            prior,
            displaced,
            leaps,
        }
    }

    /// When a command commits. Times never go back, so that one wrong clock stamps all that
    /// follows; only the command that mends it may go back.
    fn commit_time(&self, command: &Command, stamped: Timestamp) -> Timestamp {
        let is_mend = matches!(command.request, Request::MendClock(_));
        let is_ahead = self.last_commit_at.0 > stamped.0.saturating_add(CLOCK_AHEAD_MIN_MS);
        if is_mend && is_ahead { stamped } else { stamped.max(self.last_commit_at) }
    }

    fn refused(&self, reject: Reject) -> AppliedCommand {
        let outcome = Outcome::Rejected(reject);
        AppliedCommand {
            key: self.key.clone(),
            outcome,
            repeated_at: None,
            prior: Vec::new(),
            displaced: 0,
            leaps: Vec::new(),
        }
    }

    /// The answer given before, its events read back while memory holds them.
    fn repeat(&self, decided: DedupOutcome) -> AppliedCommand {
        let accepted = |events, reserved| {
            Outcome::Accepted(Acceptance { delta: self.delta(events), reserved, repeated: true })
        };
        let (outcome, repeated_at) = match decided {
            DedupOutcome::Rejected(reject) => (Outcome::Rejected(reject), None),
            DedupOutcome::Reserved(reserved) => (accepted(Vec::new(), Some(reserved)), None),
            DedupOutcome::Events { count: 0, .. } => (accepted(Vec::new(), None), None),
            DedupOutcome::Events { first, count } => {
                let before = Offset(first.0 - 1);
                let limit = usize::try_from(count).unwrap_or(usize::MAX);
                match self.events.after(before, self.offset, limit) {
                    Some(events) => (accepted(events, None), None),
                    None => (accepted(Vec::new(), None), Some((first, count))),
                }
            }
        };
        AppliedCommand {
            key: self.key.clone(),
            outcome,
            repeated_at,
            prior: Vec::new(),
            displaced: 0,
            leaps: Vec::new(),
        }
    }

    /// Forgets what was kept long enough, and at the bound what may give way; gives how many gave
    /// way. Refuses when there is still no room. The leader's own commands always pass: one of
    /// them may raise the bound.
    fn evict(&mut self, command: &Command, uptime_ms: u64) -> Result<u64, Reject> {
        let Some(definition) = &self.definition else { return Ok(0) };
        let limits = definition.dedup;
        let leaders =
            matches!(command.request, Request::Define(_) | Request::Fill(_) | Request::Seed(_));
        match self.dedup.evict(&limits, uptime_ms) {
            Ok(displaced) => Ok(displaced),
            Err(_) if leaders => Ok(0),
            Err(retry_after_ms) => {
                Err(Reject::DedupFull { max_bytes: limits.bytes_max, retry_after_ms })
            }
        }
    }

    /// Checks a command and works out what it changes. Changes nothing itself.
    pub(crate) fn plan(
        &self,
        command: &Command,
        at: Timestamp,
        entropy: Entropy,
    ) -> Result<PlannedChanges, Reject> {
        if let Request::Define(definition) = &command.request {
            return self.plan_define(definition, None, at);
        }
        if let Request::Fill(definition) = &command.request {
            return self.plan_define(definition, Some(entropy), at);
        }
        let definition = self.definition.as_ref().ok_or(Reject::Undefined)?;
        let context = PlanContext {
            key: &self.key,
            definition,
            relations: &self.relations,
            origin: &command.origin,
            at,
            entropy,
            revision: self.revision,
            last_event: self.summary.last_event(),
        };
        let mut plan = Plan::new(context, self.state());
        let (mut seeded, mut reserved) = (self.seeded, None);
        match &command.request {
            Request::Transaction(transaction) => plan.transaction(transaction)?,
            Request::Call(call) => {
                let procedure = self.procedures.get(&call.procedure)?;
                procedure.run(&mut ProcedureContext::new(&mut plan), &call.arguments)?;
                plan.check_changes()?;
            }
            Request::Reserve(reserve) => {
                let user = command.origin.user.as_deref();
                reserved = Some(plan.reserve(reserve, &command.id, user)?);
            }
            #[cfg(feature = "next-level")]
            Request::ReserveAtNextLevel(reserve) => {
                let user = command.origin.user.as_deref();
                reserved = Some(plan.reserve(reserve, &command.id, user)?);
            }
            Request::Seed(seed) => {
                if !seeded && self.offset == Offset(0) {
                    plan.seed(seed)?;
                }
                seeded = true;
            }
            Request::Purge(purge) => plan.purge(purge)?,
            Request::Restore(restore) => plan.restore(restore)?,
            Request::Reset(reset) => plan.reset(reset)?,
            Request::Replace(replace) => plan.replace_tables(replace)?,
            Request::SetSequence(set) => plan.set_sequence(set)?,
            Request::MendClock(mend) => plan.mend_clock(mend, self.last_commit_at),
            Request::Define(_) | Request::Fill(_) => unreachable!("planned above"),
        }
        let (state, drafts, operation) = plan.finish();
        Ok(PlannedChanges { at, state, drafts, operation, definition: None, seeded, reserved })
    }

    /// Names what a command asks; only a procedure knows what a call of it means.
    fn payload_hash(&self, command: &Command) -> Result<PayloadHash, Reject> {
        match &command.request {
            Request::Call(call) => {
                let meaning = self.procedures.meaning(call)?;
                Ok(call_hash(command, &call.procedure, &meaning))
            }
            Request::Transaction(_)
            | Request::Define(_)
            | Request::Fill(_)
            | Request::Seed(_)
            | Request::Reserve(_)
            | Request::Purge(_)
            | Request::Restore(_)
            | Request::Reset(_)
            | Request::Replace(_)
            | Request::MendClock(_)
            | Request::SetSequence(_) => Ok(payload_hash(command)),
            #[cfg(feature = "next-level")]
            Request::ReserveAtNextLevel(_) => Ok(payload_hash(command)),
        }
    }

    /// What a plan works on, for nothing.
    fn state(&self) -> State {
        State {
            module: self.module.clone(),
            numbers: self.numbers.clone(),
            archive: self.archive.clone(),
        }
    }

    /// What taking a definition changes; with entropy, records are brought up to it first. A branch
    /// whose records do not satisfy it keeps the one it has.
    fn plan_define(
        &self,
        definition: &Arc<Definition>,
        fill: Option<Entropy>,
        at: Timestamp,
    ) -> Result<PlannedChanges, Reject> {
        let (found, changes) = self.adopted(definition, fill, at)?;
        if found.is_empty() { Ok(changes) } else { Err(fit::refusal(&found)) }
    }

    /// The same, and the records that do not satisfy it.
    fn adopted(
        &self,
        definition: &Arc<Definition>,
        fill: Option<Entropy>,
        at: Timestamp,
    ) -> Result<(Vec<Violation>, PlannedChanges), Reject> {
        let relations = Arc::new(Relations::of(definition));
        let mut state = self.state();
        // Under the new keys and indexes first: a record is filled where it will stand.
        (state.module, state.numbers) =
            define(definition, &relations, state.module, state.numbers, at)?;
        let (mut found, mut operation) = (Vec::new(), None);
        if let Some(old) = &self.definition {
            if let Some(mut entropy) = fill {
                operation =
                    self.fill((old, definition), &relations, &mut state.module, at, &mut entropy);
                let numbers = std::mem::take(&mut state.numbers);
                (state.module, state.numbers) =
                    define(definition, &relations, state.module, numbers, at)?;
            }
            let relations = (&*self.relations, &*relations);
            let filled =
                operation.as_ref().map_or(&[][..], |operation: &PlannedOperation| &operation.diffs);
            found = fit::violations((old, definition), relations, &state.module, filled);
        }
        let changes = PlannedChanges {
            at,
            state,
            drafts: Vec::new(),
            operation,
            definition: Some((Arc::clone(definition), relations)),
            seeded: self.seeded,
            reserved: None,
        };
        Ok((found, changes))
    }

    /// The act that brings records up to a definition; none where they are.
    fn fill(
        &self,
        definitions: (&Definition, &Definition),
        relations: &Relations,
        module: &mut Module,
        at: Timestamp,
        entropy: &mut Entropy,
    ) -> Option<PlannedOperation> {
        let id = format!("evt-{}", entropy.uuid4());
        let context = || {
            let branch = self.key.branch.clone();
            fit::Context { branch, at, entropy: Entropy::new(entropy.bytes(), 0) }
        };
        let diffs = fit::fill(definitions, relations, module, context);
        let mut tables: Vec<&str> = diffs.iter().map(|diff| diff.table.as_str()).collect();
        tables.dedup();
        let tables = Value::Array(tables.into_iter().map(Value::from).collect());
        let details = [("tables", tables)].into_iter().collect();
        let revision = self.revision.next();
        let operation =
            PlannedOperation { id, operation: BulkOperation::Replace, details, diffs, revision };
        (!operation.diffs.is_empty()).then_some(operation)
    }

    /// Whether the records satisfy a definition, which nothing takes yet.
    pub(crate) fn fit(&self, definition: &Arc<Definition>, fill: bool) -> DefinitionCheck {
        if self.definition.as_ref().is_some_and(|now| now == definition) {
            return DefinitionCheck { adopted: true, violations: Vec::new() };
        }
        let entropy = fill.then(|| Entropy::new([0; 16], 0));
        let violations = match self.adopted(definition, entropy, self.last_commit_at) {
            Ok((found, _)) => found,
            // The key cannot change: that is about a table as a whole.
            Err(reject) => vec![Violation {
                table: String::new(),
                key: RecordKey("".into()),
                problem: reject.to_string(),
            }],
        };
        DefinitionCheck { adopted: false, violations }
    }

    /// Takes a plan over. Cannot fail.
    pub(crate) fn commit(&mut self, changes: PlannedChanges, command: &Command) -> Acceptance {
        let first_definition = self.definition.is_none();
        if let Some((definition, relations)) = changes.definition {
            self.definition = Some(definition);
            self.relations = relations;
        }
        let seeded_now = changes.seeded && !self.seeded;
        self.seeded = changes.seeded;
        State { module: self.module, numbers: self.numbers, archive: self.archive } = changes.state;
        self.last_commit_at = changes.at;
        let acted = changes.operation.as_ref().is_some_and(PlannedOperation::changes);
        if first_definition || seeded_now || acted || !changes.drafts.is_empty() {
            self.last_updated_at = changes.at;
        }
        // Otherwise it would say until then that it was changed in the future.
        self.last_updated_at = self.last_updated_at.min(changes.at);
        if changes.drafts.is_empty() {
            let schema = self.definition.as_ref().map(|definition| &definition.schema);
            self.rows = schema.map_or(0, |schema| self.module.count(schema));
        }
        let count =
            u32::try_from(changes.drafts.len()).expect("a write has a bounded number of verbs");
        let part = |index| (count > 1).then_some(Part { index, count });
        let events = (0..).zip(changes.drafts);
        let mut events: Vec<_> =
            events.map(|(n, draft)| self.record(draft, part(n), command)).collect();
        events.extend(changes.operation.map(|operation| self.record_operation(operation, command)));
        Acceptance { delta: self.delta(events), reserved: changes.reserved, repeated: false }
    }

    /// Gives the change of a record its place in the log.
    fn record(&mut self, draft: Draft, part: Option<Part>, command: &Command) -> Arc<Event> {
        match draft.effect {
            Effect::Insert => self.rows += 1,
            Effect::Merge => {}
            Effect::Delete => self.rows -= 1,
        }
        self.revision = self.revision.next();
        let change = EventChange::Record(RecordChange {
            table: draft.table,
            table_sent: draft.table_sent,
            effect: draft.effect,
            key: draft.key,
            key_fields: draft.key_fields,
            record: draft.after.or(draft.before).expect("a change has a record on one side"),
        });
        let origin = draft.origin.unwrap_or_else(|| Arc::clone(&command.origin));
        self.append(draft.id, change, part, command, origin)
    }

    /// Gives an act on the whole module its place in the log.
    fn record_operation(
        &mut self,
        mut operation: PlannedOperation,
        command: &Command,
    ) -> Arc<Event> {
        self.revision = operation.revision;
        let id = std::mem::take(&mut operation.id);
        let change = EventChange::Module(operation.into_change());
        self.append(id, change, None, command, Arc::clone(&command.origin))
    }

    fn append(
        &mut self,
        id: String,
        change: EventChange,
        part: Option<Part>,
        command: &Command,
        origin: Arc<Origin>,
    ) -> Arc<Event> {
        self.offset = self.offset.next();
        let event = Arc::new(Event {
            offset: self.offset,
            revision: self.revision,
            at: self.last_commit_at,
            id,
            change,
            part,
            command: command.id.clone(),
            origin,
            previous: self.chain_head,
            #[cfg(feature = "next-level")]
            note: (self.level >= crate::codec::NEXT_LEVEL).then(|| format!("level {}", self.level)),
        });
        let (hash, encoded) = event.hash_and_length();
        self.chain_head = hash;
        self.summary.follow(&event);
        self.events.push(Arc::clone(&event), encoded);
        event
    }

    fn delta(&self, events: Vec<Arc<Event>>) -> Arc<Delta> {
        Arc::new(Delta { key: self.key.clone(), incarnation: self.incarnation, events })
    }
}

/// The hash the next event carries as `previous`.
pub(crate) fn event_hash(event: &Event) -> Hash {
    event.hash()
}

fn count(delta: &Delta) -> u32 {
    u32::try_from(delta.events.len()).expect("a write has a bounded number of verbs")
}

/// Runs a plan; a panic in it would recur on every replica and every replay, so it becomes the
/// answer. Nothing is left half done: a plan only borrows.
fn guarded<T>(plan: impl FnOnce() -> Result<T, Reject>) -> Result<T, Reject> {
    catch_unwind(AssertUnwindSafe(plan)).unwrap_or(Err(Reject::Defect))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Action, MendClock, Transaction};
    use crate::testing::{Shop, mutation};

    fn insert(shop: &mut Shop, id: &str) -> Command {
        let mutations = vec![mutation(Action::Insert, "tickets", &format!(r#"{{"id":"{id}"}}"#))];
        shop.command(Request::Transaction(Transaction::of(mutations)))
    }

    fn accepted(applied: &AppliedCommand) -> &Acceptance {
        match &applied.outcome {
            Outcome::Accepted(accepted) => accepted,
            Outcome::Rejected(reject) => panic!("{reject}"),
        }
    }

    #[test]
    fn a_repeated_command_changes_nothing_and_gets_its_first_answer() {
        let mut shop = Shop::lenient();
        let command = insert(&mut shop, "a");
        let first = shop.apply_one(command.clone());
        let other = insert(&mut shop, "b");
        shop.apply_one(other);
        let state = shop.branch().state_hash();
        let mut again = command;
        again.origin = Arc::new(crate::Origin { user: Some("x".to_owned()), ..Default::default() });
        let repeated = shop.apply_one(again);
        assert_eq!(accepted(&repeated).delta, accepted(&first).delta);
        assert!(accepted(&repeated).repeated && !accepted(&first).repeated);
        assert_eq!(shop.branch().state_hash(), state);
    }

    #[test]
    fn each_event_comes_with_its_record_before_it() {
        let mut shop = Shop::lenient();
        let write = |json| mutation(Action::Save, "tickets", json);
        let mutations = vec![write(r#"{"id":"a","n":1}"#), write(r#"{"id":"a","n":2}"#)];
        let command = shop.command(Request::Transaction(Transaction::of(mutations)));
        let applied = shop.apply_one(command.clone());
        let [first, second] = &applied.prior[..] else { panic!("one for each event") };
        assert_eq!(*first, PriorRecords::Record(None));
        let made = accepted(&applied).delta.events[0].record().unwrap().record.clone();
        assert_eq!(*second, PriorRecords::Record(Some(made)));
        assert!(shop.apply_one(command).prior.is_empty(), "a repeat changes nothing");
    }

    #[test]
    fn a_repeat_whose_events_left_memory_is_told_where_they_are() {
        let mut shop = Shop::lenient();
        let first = insert(&mut shop, "first");
        shop.apply_one(first.clone());
        for n in 0..512 {
            let command = insert(&mut shop, &n.to_string());
            shop.apply_one(command);
        }
        shop.partition.forget_events(|_| Offset(513));
        let repeated = shop.apply_one(first);
        assert_eq!(repeated.repeated_at, Some((Offset(1), 1)));
        assert!(accepted(&repeated).delta.events.is_empty());
    }

    #[test]
    fn at_the_bound_new_commands_wait_until_outcomes_may_go() {
        let mut shop = Shop::lenient();
        let limits =
            |entries: u64, keep_ms| crate::DedupLimits { bytes_max: entries * 48, keep_ms };
        shop.redefine(|definition| definition.dedup = limits(4, 1_000)).unwrap();
        shop.insert("tickets", "{}").unwrap();
        let last = insert(&mut shop, "last");
        shop.apply_one(last.clone());
        let full = |retry_after_ms| Reject::DedupFull { max_bytes: 4 * 48, retry_after_ms };
        let refused = insert(&mut shop, "refused");
        let refusal = Outcome::Rejected(full(1_000));
        assert_eq!(shop.apply_one(refused.clone()).outcome, refusal);
        assert!(accepted(&shop.apply_one(last)).repeated, "a repeat always has its answer");
        shop.redefine(|definition| definition.dedup = limits(4, 500)).expect("it may raise limits");
        shop.elapsed_ms = 499;
        assert_eq!(shop.insert("tickets", "{}").unwrap_err(), full(100), "never early");
        shop.elapsed_ms = 1;
        accepted(&shop.apply_one(refused));
    }

    #[test]
    fn a_retry_written_anew_is_the_same_retry() {
        let mut shop = Shop::lenient();
        let write = |json: &str| {
            Request::Transaction(Transaction::of(vec![mutation(Action::Save, "tickets", json)]))
        };
        let first =
            shop.command(write(r#"{"id":"a","n":1.50,"more":{"x":1,"y":[{"p":1,"q":2}]}}"#));
        shop.apply_one(first.clone());
        let anew = write(r#"{"more":{"y":[{"q":2,"p":1}],"x":1},"n":1.5,"id":"a"}"#);
        let again = Command { request: anew, ..first.clone() };
        assert!(accepted(&shop.apply_one(again)).repeated);
        let other = Command { request: write(r#"{"id":"a","n":2}"#), ..first };
        assert_eq!(shop.apply_one(other).outcome, Outcome::Rejected(Reject::KeyReused));
    }

    #[test]
    fn commit_time_never_goes_back() {
        let mut shop = Shop::lenient();
        let first = shop.insert("tickets", "{}").unwrap().at;
        shop.now = Timestamp(0);
        assert_eq!(shop.insert("tickets", "{}").unwrap().at, first);
        assert_eq!(shop.branch().head().last_updated_at, first);
    }

    #[test]
    fn a_commit_time_that_a_wrong_clock_set_can_be_mended() {
        let mut shop = Shop::lenient();
        let right = shop.insert("tickets", "{}").unwrap().at;
        let mend = || {
            let (reason, requested_by) = ("the clock".to_owned(), Some("ada".to_owned()));
            Request::MendClock(MendClock { reason, requested_by })
        };
        assert_eq!(shop.operation(mend()).unwrap(), None, "there is nothing to mend");
        shop.now = Timestamp(right.0 + 317 * 365 * 86_400_000);
        let poisoned = shop.insert("tickets", "{}").unwrap().at;
        shop.now = right;
        assert_eq!(shop.insert("tickets", "{}").unwrap().at, poisoned);
        let mended = shop.operation(mend()).unwrap().unwrap();
        assert!(mended.at > right && mended.at < poisoned);
        let EventChange::Module(change) = &mended.change else { panic!("{mended:?}") };
        assert_eq!(change.operation, BulkOperation::Clock);
        let text = |name| change.details.get(name).and_then(Value::as_str).unwrap().to_owned();
        assert_eq!([text("reason"), text("requestedBy")], ["the clock", "ada"]);
        assert_eq!(text("before"), poisoned.to_iso());
        assert_eq!(shop.branch().head().last_updated_at, mended.at);
        let after = shop.insert("tickets", "{}").unwrap();
        assert!(after.at >= mended.at && after.at < poisoned);
        assert_eq!(after.previous, event_hash(&mended));
    }

    #[test]
    fn events_chain_by_their_hashes() {
        let mut shop = Shop::lenient();
        let one = shop.insert("tickets", "{}").unwrap();
        let two = shop.insert("tickets", "{}").unwrap();
        assert_eq!(two.previous, event_hash(&one));
        assert_eq!(shop.branch().chain_head(), event_hash(&two));
    }

    #[test]
    fn a_panic_in_a_plan_is_an_answer() {
        assert_eq!(guarded::<()>(|| panic!("on purpose")), Err(Reject::Defect));
    }
}
