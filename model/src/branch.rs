//! Branch: one branch:module as a value. `plan` checks everything and changes nothing; `commit`
//! changes everything and cannot fail.
//!
//! Cloning a `Branch` is cheap (its maps share their nodes), so a reader takes a clone and reads
//! at leisure while writes go on.

mod apply;

use std::sync::Arc;

use crate::archive::Archive;
use crate::command::{Command, Origin, Request, Seed};
use crate::dedup::{Dedup, DedupUse};
use crate::definition::Definition;
use crate::delta::Event;
use crate::entropy::Entropy;
use crate::event_log::EventLog;
use crate::event_log::summary::LogSummary;
use crate::hash::Hash;
use crate::ids::{BranchKey, CommandId, Incarnation, Offset, Revision, TableName, Timestamp};
use crate::limits::BRANCH_BYTES;
use crate::module::{Module, Numbers, Relations};
use crate::procedure::{ProcedureView, Procedures};
use crate::query::{page, query, sync};
use crate::read::{
    Answer, BranchReadError, Events, Head, ModuleSnapshot, PageQuery, Read, SequenceState,
    StillWanted, SyncDelta,
};
use crate::reject::Reject;

pub use crate::module::{IgnoredLeap, Reservation, RuleSource};
pub(crate) use apply::{ApplyContext, event_hash};

/// One branch:module.
#[derive(Debug, Clone)]
pub struct Branch {
    pub(crate) key: BranchKey,
    pub(crate) definition: Option<Arc<Definition>>,
    /// Derived from the definition.
    pub(crate) relations: Arc<Relations>,
    /// What this build can run. Not part of what replicas agree on.
    pub(crate) procedures: Procedures,
    pub(crate) incarnation: Incarnation,
    pub(crate) offset: Offset,
    pub(crate) chain_head: Hash,
    pub(crate) revision: Revision,
    pub(crate) last_updated_at: Timestamp,
    /// Commit time never goes below it.
    pub(crate) last_commit_at: Timestamp,
    pub(crate) seeded: bool,
    pub(crate) module: Module,
    /// Records in the registered tables.
    pub(crate) rows: u64,
    pub(crate) numbers: Numbers,
    pub(crate) dedup: Dedup,
    pub(crate) events: EventLog,
    /// What the log remembers about itself.
    pub(crate) summary: LogSummary,
    /// What purges and resets took out.
    pub(crate) archive: Archive,
    /// Of the entry that is being applied; events say it.
    #[cfg(feature = "next-level")]
    pub(crate) level: u16,
}

impl Branch {
    /// A module without a definition: it refuses everything but one.
    pub(crate) fn new(key: BranchKey, procedures: Procedures) -> Self {
        Self {
            key,
            definition: None,
            relations: Arc::default(),
            procedures,
            incarnation: Incarnation(1),
            offset: Offset(0),
            chain_head: Hash::default(),
            revision: Revision(1),
            last_updated_at: Timestamp(0),
            last_commit_at: Timestamp(0),
            seeded: false,
            module: Module::default(),
            rows: 0,
            numbers: Numbers::default(),
            dedup: Dedup::default(),
            events: EventLog::default(),
            summary: LogSummary::default(),
            archive: Archive::default(),
            #[cfg(feature = "next-level")]
            level: 0,
        }
    }

    /// A module that does not exist yet, as a reader sees it: defined, seeded, at offset 0. A
    /// definition that would be refused leaves it undefined.
    pub fn preview(
        key: BranchKey,
        definition: Arc<Definition>,
        seed: Option<&Seed>,
        at: Timestamp,
        procedures: Procedures,
    ) -> Self {
        let mut branch = Self::new(key.clone(), procedures);
        let seed = seed.map(|seed| Request::Seed(Arc::new(seed.clone())));
        let requests = std::iter::once(Request::Define(definition)).chain(seed);
        for (place, request) in (0..).zip(requests) {
            let id = CommandId { session: String::new(), request: "preview".to_owned() };
            let origin = Arc::new(Origin::default());
            let command = Command { id, key: key.clone(), origin, request };
            // Refused: the reader sees what there is without it.
            if let Ok(changes) = branch.plan(&command, at, Entropy::new([0; 16], place)) {
                branch.commit(changes, &command);
            }
        }
        branch
    }

    /// Whose state this is.
    pub fn key(&self) -> &BranchKey {
        &self.key
    }

    /// The rules in force; `None` before the first `Define`.
    pub fn definition(&self) -> Option<&Arc<Definition>> {
        self.definition.as_ref()
    }

    /// Whether a `Seed` has been taken.
    pub fn seeded(&self) -> bool {
        self.seeded
    }

    /// How full its dedup table is.
    pub fn dedup(&self) -> DedupUse {
        self.dedup.used()
    }

    /// About how many bytes of memory it takes: records, recent events, remembered outcomes and
    /// history. Each part keeps its own sum, so that asking costs as much as there are tables.
    pub fn memory_bytes(&self) -> u64 {
        BRANCH_BYTES
            + self.module.memory_bytes()
            + self.events.memory_bytes()
            + self.archive.memory_bytes()
            + self.dedup.used().bytes
    }

    /// The newest numbers taken without a record, oldest first.
    pub fn reservations(&self) -> impl Iterator<Item = &Reservation> {
        self.numbers.reservations.iter()
    }

    /// Numbers among the records that their sequences do not follow.
    pub fn ignored_leaps(&self) -> impl Iterator<Item = &Arc<IgnoredLeap>> {
        self.numbers.leaps.values()
    }

    /// The sequences, by table and field; none before the first `Define`.
    pub fn sequences(&self) -> Vec<SequenceState> {
        let Some(definition) = &self.definition else { return Vec::new() };
        let all = self.numbers.all(definition).into_iter();
        all.map(|((table, field), (rule, source))| SequenceState {
            table: table.clone(),
            field: field.to_owned(),
            rule: rule.clone(),
            source,
            last: self.numbers.counters.last(table, field),
            next: self.numbers.counters.next(table, field, rule).ok(),
            ignored: self
                .numbers
                .leaps
                .get(&(table.clone(), Arc::from(field)))
                .map(|leap| (**leap).clone()),
        })
        .collect()
    }

    /// The counters.
    pub fn head(&self) -> Head {
        Head {
            key: self.key.clone(),
            incarnation: self.incarnation,
            offset: self.offset,
            revision: self.revision,
            last_updated_at: self.last_updated_at,
            rows: self.rows,
        }
    }

    /// Records that purges and resets took out and that may come back.
    pub fn archived_rows(&self) -> u64 {
        self.archive.records()
    }

    /// The commit time of the last command: no event is stamped earlier, but the one that mends it.
    pub fn last_commit_at(&self) -> Timestamp {
        self.last_commit_at
    }

    /// Answers a lookup.
    ///
    /// # Errors
    /// [`Reject::UnknownTable`] for a lookup in a table that is not registered,
    /// [`Reject::Undefined`] before the first `Define`, and whatever a procedure refuses.
    pub fn read(&self, read: &Read) -> Result<Answer, Reject> {
        match self.read_while(read, &|| true) {
            Ok(answer) => Ok(answer),
            Err(BranchReadError::Rejected(reject)) => Err(reject),
            Err(BranchReadError::Interrupted) => unreachable!("it is wanted until it ends"),
        }
    }

    /// About how much a read looks at: rows, times the conditions asked of each. Small ones are
    /// answered at once; for the others it pays to look elsewhere.
    pub fn read_work(&self, read: &Read) -> u64 {
        let Some(definition) = &self.definition else { return 0 };
        match read {
            Read::Query(asked) => query::work(&definition.schema, &self.module, asked),
            Read::Page(asked) => self.page_work(asked),
            Read::Snapshot | Read::Sync(_) | Read::Call(_) | Read::DefinitionCheck { .. } => {
                self.rows
            }
            Read::Archive { .. } => self.archive.records(),
            Read::Head | Read::Log | Read::Sequences | Read::Events { .. } => 0,
        }
    }

    fn page_work(&self, asked: &PageQuery) -> u64 {
        let rows = TableName::parse(&asked.table).ok().and_then(|name| self.module.rows(&name));
        let rows = rows.map_or(0, |rows| rows.len() as u64);
        // By time, or by an id that may be none of the keys, every row may be looked at.
        let is_scan = asked.created_after.is_some()
            || asked.updated_after.is_some()
            || asked.after_id.is_some();
        match asked.limit {
            Some(limit) if limit > 0 && !is_scan => rows.min(limit as u64),
            Some(_) | None => rows,
        }
    }

    /// Answers a lookup as long as it is wanted; a long one asks now and then.
    ///
    /// # Errors
    /// As [`Self::read`], and [`BranchReadError::Interrupted`] where it was not wanted to its end.
    pub fn read_while(
        &self,
        read: &Read,
        wanted: StillWanted<'_>,
    ) -> Result<Answer, BranchReadError> {
        let definition = self.definition.as_ref().ok_or(Reject::Undefined)?;
        let (schema, module_id) = (&definition.schema, self.key.module.as_str());
        Ok(match read {
            Read::Snapshot => Answer::Snapshot(Arc::new(self.snapshot(definition))),
            Read::Page(asked) => {
                let place = (module_id, self.incarnation);
                Answer::Page(page::page(schema, &self.module, place, asked)?)
            }
            Read::Head => Answer::Head(self.head()),
            Read::Archive { entry: None } => {
                Answer::Archive(self.archive.iter().rev().cloned().collect())
            }
            Read::Archive { entry: Some(id) } => {
                Answer::Archive(self.archive.get(id).cloned().into_iter().collect())
            }
            Read::DefinitionCheck { definition, fill } => {
                Answer::DefinitionCheck(self.fit(definition, *fill))
            }
            Read::Log => Answer::Log(self.summary.show(self.head())),
            Read::Sequences => Answer::Sequences(self.sequences()),
            Read::Query(asked) => {
                Answer::Query(query::query(schema, &self.module, module_id, asked, wanted)?)
            }
            Read::Call(call) => {
                let view = ProcedureView::new(schema, &self.module, &self.key.module);
                let procedure = self.procedures.get(&call.procedure)?;
                Answer::Call(procedure.read(&view, &call.arguments)?)
            }
            Read::Sync(asked) => Answer::Sync(SyncDelta {
                head: self.head(),
                tables: sync::sync(schema, &self.module, module_id, asked)?,
            }),
            Read::Events { after, limit } => Answer::Events(Events {
                incarnation: self.incarnation,
                last: self.offset,
                events: self.events.after(
                    *after,
                    self.offset,
                    usize::try_from(*limit).unwrap_or(usize::MAX),
                ),
            }),
        })
    }

    fn snapshot(&self, definition: &Definition) -> ModuleSnapshot {
        let tables = definition.schema.tables.iter().map(|table| {
            let rows = self.module.rows(&table.name).map_or_else(Vec::new, |rows| {
                rows.iter().map(|(_, row)| Arc::clone(&row.record)).collect()
            });
            (table.name.clone(), rows)
        });
        ModuleSnapshot { head: self.head(), tables: tables.collect() }
    }

    /// The events after an offset that memory still holds; `None` when the next one is no longer
    /// among them (it is in the store then).
    pub fn events_after(&self, after: Offset) -> Option<Vec<Arc<Event>>> {
        self.events.after(after, self.offset, usize::MAX)
    }

    /// The oldest event that memory holds; `None` where it holds none.
    pub fn first_event(&self) -> Option<Offset> {
        self.events.first()
    }

    /// The hash of the last event: equal logs have equal heads.
    pub fn chain_head(&self) -> Hash {
        self.chain_head
    }
}
