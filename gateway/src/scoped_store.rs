//! Scoped store: the data of the cluster as one principal may see and change it.
//!
//! ```text
//!   request ── extractor ──┐                        ┌── check(principal, call, target)
//!                          ├── Principal ── ScopedStore
//!   socket ── handshake ───┘                        └── actors::Store
//! ```
//!
//! Promises:
//! - nobody in this crate reaches data but through a [`ScopedStore`], which cannot be had without a
//!   [`Principal`]: [`StoreHandle`] has no other method that shows or changes any;
//! - this file alone decides what a principal may do, and it decides before the call is made. Which
//!   rows and fields a principal sees will be decided here too, by its [`PolicyClass`];
//! - what needs no principal is listed in [`NodeView`], and is of the node, not of its branches.
//!
//! Refused: naming a method of the store anywhere else. `tests/it/tidy` finds it.

mod texts;

use std::sync::Arc;

use actors::status::{ClusterStatus, LocalReplicas};
use actors::{
    ChangeError, Cursor, Follow, NotReady, Post, Requester, RouteError, Store, TopicSubscription,
    WriteHead,
};
use model::{
    Acceptance, Answer, BranchId, BranchKey, Catalogue, CatalogueChange, Command, ModuleSnapshot,
    Mutation, Outcome, Read, ReadLevel, Reject, Request,
};
use tokio::sync::watch;

use crate::auth::Principal;
use crate::error::{ApiError, Problem};

/// What can be asked of the store. Each route and each frame of a socket says which of these it
/// makes; a test compares that with what the store saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StoreCall {
    /// `ScopedStore::catalogue`: a read of what modules, branches and definitions there are.
    Catalogue,
    /// `ScopedStore::read`, `ScopedStore::snapshot`: a read of a branch:module.
    Read,
    /// `ScopedStore::status`, `ScopedStore::replicas`: a read of the cluster's own state.
    Status,
    /// `ScopedStore::submit`, `ScopedStore::commit`: a change of a branch:module.
    Submit,
    /// `ScopedStore::publish`: a change of a topic.
    Publish,
    /// `ScopedStore::follow`: every later change of a branch:module.
    Follow,
    /// `ScopedStore::subscribe`: every later change of a topic.
    Subscribe,
    /// `ScopedStore::administer`: a change of the catalogue.
    Administer,
}

/// What a call is about.
#[derive(Debug, Clone, Copy)]
#[expect(dead_code, reason = "everybody may do everything yet: nothing asks which module it is")]
pub(crate) enum Target<'a> {
    /// One module of a branch.
    Module(&'a BranchKey),
    /// A branch as a whole.
    Branch(&'a BranchId),
    /// What belongs to no branch, such as the list of modules.
    Cluster,
    /// A topic, by its name.
    Topic(&'a str),
}

/// Principals that see the same rows and the same fields of everything. Frames are rendered once
/// for each dialect and class, so two principals of one class get the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PolicyClass(u16);

impl PolicyClass {
    /// Everybody: nothing is hidden from anybody yet.
    pub(crate) const EVERYONE: Self = Self(0);
    /// Another class, for tests.
    #[cfg(test)]
    pub(crate) const OTHER: Self = Self(1);

    /// The number that frames are shared under.
    pub(crate) fn id(self) -> u16 {
        self.0
    }
}

/// Why a principal may not make a call. There is no reason yet, and so no such value: whoever adds
/// the first must say, where it is converted, what clients are answered.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Denied {}

impl From<Denied> for RouteError {
    fn from(denied: Denied) -> Self {
        match denied {}
    }
}

impl From<Denied> for ChangeError {
    fn from(denied: Denied) -> Self {
        match denied {}
    }
}

impl From<Denied> for ApiError {
    fn from(denied: Denied) -> Self {
        match denied {}
    }
}

/// Where the data is. It gives what it holds to nobody; it makes views that check.
pub(crate) struct StoreHandle(Arc<dyn Store>);

impl StoreHandle {
    /// Takes the store from the assembler of the node.
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self(store)
    }

    /// The data as this principal may see and change it.
    pub(crate) fn scoped(&self, principal: &Principal, requester: Requester) -> ScopedStore {
        ScopedStore { store: Arc::clone(&self.0), principal: principal.clone(), requester }
    }

    /// What needs no principal.
    pub(crate) fn node(&self) -> NodeView<'_> {
        NodeView(&*self.0)
    }
}

/// What a node knows of itself. These calls are made without a principal, and there are no others:
/// health checks must be answered to anybody, and a request cannot be understood without knowing
/// which modules are strict and which branches there are. What of the catalogue is *shown* goes
/// through [`ScopedStore::catalogue`].
#[derive(Clone, Copy)]
pub(crate) struct NodeView<'a>(&'a dyn Store);

impl NodeView<'_> {
    /// Whether this node can serve: for `GET /readyz`.
    ///
    /// # Errors
    /// What is missing.
    pub(crate) fn ready(self) -> Result<(), NotReady> {
        self.0.ready()
    }

    /// Why this node should lead nothing now, by stable name and in words: for `GET /readyz`.
    pub(crate) fn unfit(self) -> Vec<(&'static str, String)> {
        self.0.unfit()
    }

    /// Whether this node's copy of the catalogue can say what there is: until then requests are
    /// refused, because they would be told that nothing exists.
    pub(crate) fn is_initialized(self) -> bool {
        self.0.is_initialized()
    }

    /// This node's copy of the catalogue, to understand requests by.
    pub(crate) fn catalogue(self) -> Arc<Catalogue> {
        self.0.catalogue()
    }

    /// This node's copy of the catalogue and each later one, for sockets.
    pub(crate) fn catalogues(self) -> watch::Receiver<Arc<Catalogue>> {
        self.0.catalogues()
    }

    /// Whether a write from there would find a place now: a refusal tells how busy the node is, and
    /// nothing of what it holds.
    ///
    /// # Errors
    /// As the write itself would be refused.
    pub(crate) fn check_write(
        self,
        requester: Requester,
        head: &WriteHead,
    ) -> Result<(), RouteError> {
        self.0.check_write(requester, head)
    }

    /// Brings this node's copy of the catalogue up to now, for those about to say that there is no
    /// such thing.
    ///
    /// # Errors
    /// Group 0 could not be asked.
    pub(crate) async fn catch_up(self) -> Result<(), RouteError> {
        self.0.catch_up().await
    }
}

/// The data of the cluster as one principal may see and change it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ScopedStore {
    store: Arc<dyn Store>,
    principal: Principal,
    /// Where the principal asks from: whose share of the node its calls take.
    requester: Requester,
}

impl ScopedStore {
    /// Which principals see the same as this one.
    pub(crate) fn policy_class(&self) -> PolicyClass {
        match self.principal {
            Principal::Anyone => PolicyClass::EVERYONE,
        }
    }

    /// Where the principal asks from.
    pub(crate) fn requester(&self) -> Requester {
        self.requester
    }

    /// Whether the principal may make this call.
    fn check(&self, call: StoreCall, target: Target<'_>) -> Result<(), Denied> {
        let _ = (call, target);
        match self.principal {
            // A node without authentication listens on loopback only, unless told otherwise.
            Principal::Anyone => Ok(()),
        }
    }

    /// This node's copy of the catalogue, to show of it what concerns `target`.
    ///
    /// # Errors
    /// The principal may not see it.
    pub(crate) fn catalogue(&self, target: Target<'_>) -> Result<Arc<Catalogue>, Denied> {
        self.check(StoreCall::Catalogue, target)?;
        Ok(self.store.catalogue())
    }

    /// Looks something up in a branch:module.
    ///
    /// # Errors
    /// The principal may not see it, or the store has no answer.
    pub(crate) async fn read(
        &self,
        key: BranchKey,
        read: Read,
        level: ReadLevel,
    ) -> Result<Answer, RouteError> {
        self.check(StoreCall::Read, Target::Module(&key))?;
        self.store.read_for(self.requester, key, read, level).await
    }

    /// A module's whole state.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) async fn snapshot(
        &self,
        key: BranchKey,
        level: ReadLevel,
    ) -> Result<Arc<ModuleSnapshot>, ApiError> {
        let answer = self.read(key, Read::Snapshot, level).await?;
        let Answer::Snapshot(snapshot) = answer else { return Err(unexpected_answer(&answer)) };
        Ok(snapshot)
    }

    /// The cluster as this node sees it.
    ///
    /// # Errors
    /// The principal may not see it.
    pub(crate) async fn status(&self) -> Result<ClusterStatus, Denied> {
        self.check(StoreCall::Status, Target::Cluster)?;
        Ok(self.store.status().await)
    }

    /// The replicas this node holds, each with a hash of its whole state; `verify` walks their logs
    /// too. Takes as long as reading all of that does.
    ///
    /// # Errors
    /// The principal may not see them.
    pub(crate) async fn replicas(&self, verify: bool) -> Result<LocalReplicas, Denied> {
        self.check(StoreCall::Status, Target::Cluster)?;
        Ok(self.store.replicas(verify).await)
    }

    /// Has a command decided once; a refusal by the branch is an `Ok(Outcome::Rejected)`.
    ///
    /// # Errors
    /// The principal may not make this change, or it has no outcome.
    pub(crate) async fn submit(&self, command: Command) -> Result<Outcome, RouteError> {
        self.check(StoreCall::Submit, Target::Module(&command.key))?;
        if let Err(reject) = texts::check(&command).and_then(|()| self.check_keys(&command)) {
            return Ok(Outcome::Rejected(reject));
        }
        self.store.submit_for(self.requester, command).await
    }

    /// Refuses a key that the branch would refuse for its length: before the command, which may be
    /// megabytes, is in the logs of three nodes.
    fn check_keys(&self, command: &Command) -> Result<(), Reject> {
        let Request::Transaction(transaction) = &command.request else { return Ok(()) };
        let catalogue = self.store.catalogue();
        let Some(config) = catalogue.module(&command.key.module) else { return Ok(()) };
        let mutations = &transaction.mutations;
        (0..).zip(mutations).try_for_each(|(index, mutation)| {
            let Mutation::Record(mutation) = mutation else { return Ok(()) };
            let Some(table) = config.schema.resolve(&mutation.table) else { return Ok(()) };
            // Said as the branch says it: which one, where there are several.
            table.check_key_length(&mutation.record).map_err(|reject| match mutations.len() {
                1 => reject,
                _ => Reject::AtMutation { index, reject: Box::new(reject) },
            })
        })
    }

    /// Has a command decided once; a refusal by the branch is an error here.
    ///
    /// # Errors
    /// As [`Self::submit`], and what the branch refuses.
    pub(crate) async fn commit(&self, command: Command) -> Result<Acceptance, ApiError> {
        match self.submit(command).await? {
            Outcome::Accepted(accepted) => Ok(accepted),
            Outcome::Rejected(reject) => Err(reject.into()),
        }
    }

    /// Says something under a topic, to everybody who has subscribed to it.
    ///
    /// # Errors
    /// The principal may not, or the topic's owner cannot be reached.
    pub(crate) async fn publish(&self, post: Post) -> Result<(), RouteError> {
        self.check(StoreCall::Publish, Target::Topic(&post.topic))?;
        self.store.publish(post).await
    }

    /// Follows a branch:module: from a snapshot of now, or from the event after a cursor.
    ///
    /// # Errors
    /// The principal may not see it, or no replica can be followed now.
    pub(crate) async fn follow(
        &self,
        key: BranchKey,
        after: Option<Cursor>,
    ) -> Result<Follow, RouteError> {
        self.check(StoreCall::Follow, Target::Module(&key))?;
        self.store.follow(key, after).await
    }

    /// Subscribes to a topic: its last message, if there is one, and all that follow.
    ///
    /// # Errors
    /// The principal may not, or the topic's owner cannot be reached.
    pub(crate) async fn subscribe(&self, topic: String) -> Result<TopicSubscription, RouteError> {
        self.check(StoreCall::Subscribe, Target::Topic(&topic))?;
        self.store.subscribe_for(self.requester, topic).await
    }

    /// Has group 0 take a change of the catalogue, once under this id. When it returns, this node's
    /// copy has it.
    ///
    /// # Errors
    /// The principal may not make this change, or group 0 did not.
    pub(crate) async fn administer(
        &self,
        id: String,
        change: CatalogueChange,
    ) -> Result<(), ChangeError> {
        // What a change is about is read from the change: a caller could say it wrongly.
        match &change {
            CatalogueChange::AddBranch(branch) | CatalogueChange::Branch(branch) => {
                self.check(StoreCall::Administer, Target::Branch(&branch.id))?;
            }
            CatalogueChange::GiveModule { branch, .. } => {
                self.check(StoreCall::Administer, Target::Branch(branch))?;
            }
            // A definition of one branch is that branch's, though it lies with all others in the
            // catalogue.
            CatalogueChange::PutSchema { name, .. } => match branch_of_definition(name) {
                Some(branch) => self.check(StoreCall::Administer, Target::Branch(&branch))?,
                None => self.check(StoreCall::Administer, Target::Cluster)?,
            },
            CatalogueChange::FullSync(flags) => {
                for flag in flags {
                    self.check(StoreCall::Administer, Target::Branch(&flag.branch))?;
                }
            }
            CatalogueChange::Form { .. }
            | CatalogueChange::Node(_)
            | CatalogueChange::Module(_)
            | CatalogueChange::Patterns { .. }
            | CatalogueChange::Sequences(_)
            | CatalogueChange::AddModule(_)
            | CatalogueChange::PutSeedFile { .. }
            | CatalogueChange::SetModule { .. }
            | CatalogueChange::RaiseLevel(_) => {
                self.check(StoreCall::Administer, Target::Cluster)?;
            }
        }
        self.store.change(id, change).await
    }
}

/// Whose a stored definition is: `branch/<branch>/<module>` names it, `global/<name>` is nobody's.
fn branch_of_definition(name: &str) -> Option<BranchId> {
    let (branch, _) = name.strip_prefix("branch/")?.rsplit_once('/')?;
    BranchId::parse(branch).ok()
}

/// The error for an answer to another question than the one asked: a defect of the store.
pub(crate) fn unexpected_answer(answer: &Answer) -> ApiError {
    let what = match answer {
        Answer::Snapshot(_) => "a snapshot",
        Answer::Page(_) => "a page",
        Answer::Head(_) => "counters",
        Answer::Events(_) => "events",
        Answer::Query(_) => "rows",
        Answer::Call(_) => "a procedure's answer",
        Answer::Sync(_) => "what is missing",
        Answer::Archive(_) => "the history",
        Answer::Log(_) => "the log's head",
        Answer::Sequences(_) => "sequences",
        Answer::DefinitionCheck(_) => "whether records fit",
    };
    tracing::error!(what, "a read was answered with something else");
    ApiError::new(Problem::Defect, "the read was answered with something else")
}
