//! Fake: a store of branches in memory: the real model, without agreement or disk. What a
//! cluster does to a client (delays, refusals, lagging, moving away) can be ordered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use actors::status::{BranchStatus, BrokenLog, ClusterStatus, LocalReplica, LocalReplicas};
use actors::{
    ChangeError, Cursor, DeltaStream, Follow, FollowItem, Post, Requester, RouteError, SharedDelta,
    Store, TopicSubscription, WriteHead,
};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use model::{
    Action, Answer, Batch, Branch, BranchConfig, BranchId, BranchKey, BranchPattern, BulkOperation,
    Catalogue, CatalogueChange, CatalogueEntry, Command, CommandId, Delta, Event, EventChange,
    ModuleChange, ModuleConfig, ModuleId, ModuleSnapshot, Object, Offset, Origin, Outcome,
    Partition, Read, ReadLevel, RecordMutation, Request, Schema, Seed, Timestamp, Validation,
    Value, VersionRule,
};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, broadcast, watch};

pub(crate) const POS: &str = r#"{"tables":[
  {"name":"order_header","fields":[
    {"name":"id","type":"string","primaryKey":true},
    {"name":"shiftId","columnName":"shift_id","type":"string"},
    {"name":"statusId","type":"string"},
    {"name":"paymentState","type":"string"},
    {"name":"total","type":"number"},
    {"name":"updatedAt","type":"timestamp"}]},
  {"name":"tickets","fields":[
    {"name":"id","type":"string","primaryKey":true},
    {"name":"title","type":"string","nullable":true},
    {"name":"data","type":"json","nullable":true},
    {"name":"createdAt","type":"timestamp"}]},
  {"name":"thing","fields":[
    {"name":"a","type":"string","primaryKey":true},
    {"name":"b","type":"integer","primaryKey":true},
    {"name":"n","type":"integer","nullable":true}]}]}"#;
/// What a till works on: `pos` with all that belongs to an order.
const TILL: &str = r#"{"tables":[
  {"name":"order_header","fields":[
    {"name":"id","columnName":"order_id","type":"string","primaryKey":true},
    {"name":"shiftId","columnName":"shift_id","type":"string"},
    {"name":"orderTypeId","columnName":"order_type_id","type":"string"},
    {"name":"statusId","columnName":"status_id","type":"string"},
    {"name":"stageId","columnName":"stage_id","type":"string"},
    {"name":"totalDue","type":"decimal","defaultValue":0},
    {"name":"metadata","type":"json"}]},
  {"name":"order_line","fields":[
    {"name":"id","columnName":"line_id","type":"string","primaryKey":true},
    {"name":"itemId","columnName":"item_id","type":"string"},
    {"name":"orderId","columnName":"order_id","type":"string"},
    {"name":"quantity","type":"decimal","defaultValue":1},
    {"name":"unitPrice","type":"decimal"},
    {"name":"total","type":"decimal"},
    {"name":"statusId","type":"string"}]},
  {"name":"order_payment","fields":[
    {"name":"id","type":"string","primaryKey":true},
    {"name":"orderId","columnName":"order_id","type":"string"},
    {"name":"paymentMethodId","type":"string"},
    {"name":"shiftId","type":"string"},
    {"name":"amount","type":"decimal"}]},
  {"name":"order_status_log","fields":[
    {"name":"id","type":"string","primaryKey":true},
    {"name":"orderId","type":"string"},
    {"name":"statusId","type":"string"},
    {"name":"changedAt","type":"timestamp"}]},
  {"name":"order_line_status_log","fields":[
    {"name":"id","type":"string","primaryKey":true},
    {"name":"orderId","type":"string"},
    {"name":"orderLineId","type":"string"},
    {"name":"statusId","type":"string"}]},
  {"name":"tickets","fields":[
    {"name":"id","type":"string","primaryKey":true},
    {"name":"title","type":"string","nullable":true},
    {"name":"n","type":"decimal","nullable":true}]},
  {"name":"thing","fields":[
    {"name":"a","type":"string","primaryKey":true},
    {"name":"b","type":"integer","primaryKey":true}]}]}"#;
const KDS: &str = r#"{"tables":[{"name":"screens","fields":[
    {"name":"id","type":"string","primaryKey":true},
    {"name":"name","type":"string","nullable":false,"maxLength":5}]}]}"#;
const SEQUENCES: &str = r#"{"version":1,"defaults":{},"branches":{"dar":{"pos":{"order_header":
    {"id":{"prefix":"DAR","start":1001,"padding":6}}}}}}"#;

/// Everything a test may order.
#[derive(Default)]
pub(crate) struct Orders {
    /// What submits are answered with instead.
    pub(crate) refuse_submit: Mutex<Option<RouteError>>,
    /// What writes are refused with from their heads.
    pub(crate) refuse_head: Mutex<Option<RouteError>>,
    /// What reads are answered with instead.
    pub(crate) refuse_read: Mutex<Option<RouteError>>,
    /// What follows are answered with instead, once each.
    pub(crate) refuse_follow: Mutex<Vec<RouteError>>,
    /// Why the node is not ready.
    pub(crate) not_ready: Mutex<Option<actors::NotReady>>,
    /// The node has no catalogue yet.
    pub(crate) has_no_catalogue: AtomicBool,
    /// The catalogue as it is at other nodes.
    pub(crate) late_catalogue: Mutex<Option<Arc<Catalogue>>>,
    /// Reads run into a defect.
    pub(crate) panic: AtomicBool,
    /// Outcomes wait for permits.
    pub(crate) hold_outcomes: AtomicBool,
    /// Commands that came.
    pub(crate) submitted: AtomicU64,
    /// Follows begun and not dropped.
    pub(crate) following: Arc<AtomicU64>,
}

struct Log {
    deltas: Vec<Arc<SharedDelta>>,
    /// Streams that began before this round are told to begin again.
    resync: u64,
    /// Streams that began before this round end.
    end: u64,
}

struct State {
    partition: Partition,
    logs: BTreeMap<BranchKey, Log>,
    commands: u64,
    at: i64,
}

#[derive(Clone)]
pub(crate) struct Fake(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
    catalogue: watch::Sender<Arc<Catalogue>>,
    topics: Mutex<BTreeMap<String, Topic>>,
    /// What the next change is published as instead.
    next_change: Mutex<Option<EventChange>>,
    orders: Orders,
    outcomes: Semaphore,
}

struct Topic {
    last: Option<Arc<Post>>,
    tap: broadcast::Sender<Arc<Post>>,
}

impl Default for Topic {
    fn default() -> Self {
        Self { last: None, tap: broadcast::channel(64).0 }
    }
}

pub(crate) fn module(
    id: &str,
    doc: &str,
    validation: Validation,
    seed: Option<&str>,
) -> Arc<ModuleConfig> {
    let source = Value::from_json(doc.as_bytes()).unwrap();
    let schema = Schema::read_under(id, &source, &compat::conventions()).unwrap().schema;
    let seed = seed.map(|json| {
        let tables = Value::from_json(json.as_bytes()).unwrap().as_object().unwrap().clone();
        Arc::new(Seed { tables })
    });
    Arc::new(ModuleConfig {
        id: ModuleId::parse(id).unwrap(),
        label: id.to_uppercase(),
        description: format!("the {id} module"),
        tables: schema.tables.iter().map(|table| table.name.clone()).collect(),
        source: Arc::new(source),
        schema: Arc::new(schema),
        validation,
        version_rule: VersionRule::Next,
        seed,
        dedup: model::DedupLimits::default(),
    })
}

fn catalogue() -> Catalogue {
    let id = |id: &str| ModuleId::parse(id).unwrap();
    let branch = |name: &str, modules: &[&str]| {
        Arc::new(BranchConfig {
            id: BranchId::parse(name).unwrap(),
            label: format!("Branch {name}"),
            modules: modules.iter().map(|module| id(module)).collect(),
            seeds: BTreeMap::new(),
        })
    };
    let mut catalogue = Catalogue::default();
    let seed = r#"{"thing":[{"a":"x","b":1,"n":5}]}"#;
    catalogue.modules = [
        module("pos", POS, Validation::Lenient, Some(seed)),
        module("kds", KDS, Validation::Strict, None),
        module("spare", POS, Validation::Lenient, None),
    ]
    .into_iter()
    .collect();
    catalogue.branches =
        [branch("dar", &["pos"]), branch("two", &["pos", "kds"])].into_iter().collect();
    catalogue.patterns = vec![BranchPattern { matches: "^lab:".into(), modules: Vec::new() }];
    catalogue.default_modules = vec![id("pos")];
    let rules = Value::from_json(SEQUENCES.as_bytes()).unwrap();
    catalogue.sequences = Arc::new(model::SequenceRules::from_doc(&rules).unwrap());
    catalogue
}

impl Fake {
    pub(crate) fn new() -> Self {
        let state = State {
            partition: Partition::new(compat::procedures()),
            logs: BTreeMap::new(),
            commands: 0,
            at: 1_795_220_377_740,
        };
        Self(Arc::new(Inner {
            state: Mutex::new(state),
            changed: watch::channel(0).0,
            catalogue: watch::channel(Arc::new(catalogue())).0,
            topics: Mutex::default(),
            next_change: Mutex::default(),
            orders: Orders::default(),
            outcomes: Semaphore::new(0),
        }))
    }

    /// The same with a module `pos` that a till can work on.
    pub(crate) fn with_till() -> Self {
        let fake = Self::new();
        let till = module("pos", TILL, Validation::Lenient, None);
        fake.change("till".to_owned(), CatalogueChange::Module(till))
            .now_or_never()
            .unwrap()
            .unwrap();
        fake
    }

    /// Branches of a cluster that was configured in another way.
    pub(crate) fn reconfigure(&self, change: impl FnOnce(&mut Catalogue)) {
        self.0.catalogue.send_modify(|catalogue| change(Arc::make_mut(catalogue)));
    }

    pub(crate) fn orders(&self) -> &Orders {
        &self.0.orders
    }

    /// Lets one held outcome go.
    pub(crate) fn release_outcome(&self) {
        self.0.outcomes.add_permits(1);
    }

    /// Tells all followers of a module that they fell behind.
    pub(crate) fn lag(&self, branch: &str, module: &str) {
        self.log(branch, module, |log| log.resync += 1);
    }

    /// Ends all follows of a module.
    pub(crate) fn end_follows(&self, branch: &str, module: &str) {
        self.log(branch, module, |log| log.end += 1);
    }

    fn log(&self, branch: &str, module: &str, change: impl FnOnce(&mut Log)) {
        let mut state = self.0.state.lock();
        change(state.logs.entry(key(branch, module)).or_insert_with(Log::new));
        drop(state);
        self.0.changed.send_modify(|turn| *turn += 1);
    }

    /// Writes as another gateway's client would.
    pub(crate) fn write(&self, branch: &str, module: &str, mutation: RecordMutation) -> Outcome {
        let request = Request::Transaction(model::Transaction::of(vec![mutation]));
        let request_id = format!("w{}", self.0.state.lock().commands);
        self.apply(Command {
            id: CommandId { session: "elsewhere".into(), request: request_id },
            key: key(branch, module),
            origin: Arc::new(Origin { include_record: true, ..Origin::default() }),
            request,
        })
    }

    /// Changes a module as a whole, as far as its followers are told: the state is that after an
    /// insert of a ticket.
    pub(crate) fn operation(
        &self,
        branch: &str,
        module: &str,
        operation: BulkOperation,
        details: &str,
    ) {
        let details = Value::from_json(details.as_bytes()).unwrap().as_object().unwrap().clone();
        let change = EventChange::Module(ModuleChange { operation, details, records: Vec::new() });
        *self.0.next_change.lock() = Some(change);
        self.write(branch, module, RecordMutation::new(Action::Insert, "tickets", Object::new()));
    }

    fn apply(&self, command: Command) -> Outcome {
        let mut state = self.0.state.lock();
        let branch = state.partition.branch(&command.key);
        let wanted = self.catalogue().definition(&command.key).unwrap();
        let defined = branch.and_then(Branch::definition).is_some_and(|now| **now == wanted);
        let mut commands = Vec::new();
        if !defined {
            let definition = wanted;
            let system = |request, id: &str| Command {
                id: CommandId {
                    session: "system".into(),
                    request: format!("{id}-{}-{}", command.key, self.catalogue().revision),
                },
                key: command.key.clone(),
                origin: Arc::default(),
                request,
            };
            commands.push(system(Request::Define(Arc::new(definition)), "define"));
            if let Some(seed) = self.catalogue().seed(&command.key) {
                commands.push(system(Request::Seed(seed), "seed"));
            }
        }
        let key = command.key.clone();
        commands.push(command);
        state.commands += 1;
        state.at += 10;
        let mut entropy = [0; 16];
        entropy[..8].copy_from_slice(&state.commands.to_le_bytes());
        let batch =
            Batch { level: 1, stamped: Timestamp(state.at), elapsed_ms: 10, entropy, commands };
        let applied = state.partition.apply(&batch);
        let outcome = applied.last().unwrap().outcome.clone();
        if let Outcome::Accepted(accepted) = &outcome
            && !accepted.repeated
            && !accepted.delta.events.is_empty()
        {
            let log = state.logs.entry(key).or_insert_with(Log::new);
            let mut delta = Arc::clone(&accepted.delta);
            if let Some(change) = self.0.next_change.lock().take() {
                let event = Event { change, ..(*delta.events[0]).clone() };
                delta = Arc::new(Delta { events: vec![Arc::new(event)], ..(*delta).clone() });
            }
            log.deltas.push(Arc::new(SharedDelta::new(delta)));
        }
        drop(state);
        self.0.changed.send_modify(|turn| *turn += 1);
        outcome
    }

    /// Has every branch there is take its definition, as its leader does.
    fn follow_catalogue(&self) {
        let catalogue = self.catalogue();
        let mut state = self.0.state.lock();
        let keys: Vec<BranchKey> =
            state.partition.branches().map(|branch| branch.key().clone()).collect();
        for key in keys {
            let Some(wanted) = catalogue.definition(&key) else { continue };
            let now = state.partition.branch(&key).and_then(Branch::definition);
            if now.is_some_and(|now| **now == wanted) {
                continue;
            }
            let fills = catalogue.filled.contains(&key.module);
            let wanted = Arc::new(wanted);
            let request = if fills { Request::Fill(wanted) } else { Request::Define(wanted) };
            let name = format!("define-{key}-{}", catalogue.revision);
            let id = CommandId { session: "system".into(), request: name };
            let command = Command { id, key, origin: Arc::default(), request };
            let (stamped, entropy) = (Timestamp(state.at), [9; 16]);
            let commands = vec![command];
            let batch = Batch { level: 1, stamped, elapsed_ms: 0, entropy, commands };
            state.partition.apply(&batch);
        }
    }

    fn branch(&self, key: &BranchKey) -> Result<Branch, RouteError> {
        let state = self.0.state.lock();
        if let Some(branch) = state.partition.branch(key) {
            return Ok(branch.clone());
        }
        if !self.catalogue().allows_branch(&key.branch) {
            return Err(RouteError::UnknownBranch(key.branch.to_string()));
        }
        let definition = self.catalogue().definition(key);
        let definition =
            definition.ok_or_else(|| RouteError::UnknownModule(key.module.to_string()))?;
        let seed = self.catalogue().seed(key);
        let at = Timestamp(state.at);
        let procedures = compat::procedures();
        Ok(Branch::preview(key.clone(), Arc::new(definition), seed.as_deref(), at, procedures))
    }

    fn snapshot(&self, key: &BranchKey) -> Result<Arc<ModuleSnapshot>, RouteError> {
        match self.branch(key)?.read(&Read::Snapshot).map_err(RouteError::Rejected)? {
            Answer::Snapshot(snapshot) => Ok(snapshot),
            other => panic!("{other:?}"),
        }
    }
}

impl Fake {
    /// The node has an empty copy of the catalogue; what there is, is known elsewhere.
    pub(crate) fn fall_behind(&self) {
        let all = self.0.catalogue.send_replace(Arc::default());
        *self.orders().late_catalogue.lock() = Some(all);
    }
}

impl Log {
    fn new() -> Self {
        Self { deltas: Vec::new(), resync: 0, end: 0 }
    }
}

pub(crate) fn key(branch: &str, module: &str) -> BranchKey {
    BranchKey::new(BranchId::parse(branch).unwrap(), ModuleId::parse(module).unwrap())
}

impl Store for Fake {
    fn submit_for(
        &self,
        _: Requester,
        command: Command,
    ) -> BoxFuture<'static, Result<Outcome, RouteError>> {
        let this = self.clone();
        async move {
            if let Some(refused) = this.orders().refuse_submit.lock().clone() {
                return Err(refused);
            }
            if !this.catalogue().allows_branch(&command.key.branch) {
                return Err(RouteError::UnknownBranch(command.key.branch.to_string()));
            }
            if this.catalogue().module(&command.key.module).is_none() {
                return Err(RouteError::UnknownModule(command.key.module.to_string()));
            }
            let outcome = this.apply(command);
            this.orders().submitted.fetch_add(1, Ordering::SeqCst);
            if this.orders().hold_outcomes.load(Ordering::SeqCst) {
                this.0.outcomes.acquire().await.unwrap().forget();
            }
            Ok(outcome)
        }
        .boxed()
    }

    fn check_write(&self, _: Requester, _: &WriteHead) -> Result<(), RouteError> {
        self.orders().refuse_head.lock().clone().map_or(Ok(()), Err)
    }

    fn read_for(
        &self,
        _: Requester,
        key: BranchKey,
        read: Read,
        _: ReadLevel,
    ) -> BoxFuture<'static, Result<Answer, RouteError>> {
        let this = self.clone();
        async move {
            assert!(!this.orders().panic.load(Ordering::SeqCst), "as ordered");
            if let Some(refused) = this.orders().refuse_read.lock().clone() {
                return Err(refused);
            }
            if this.branch(&key).is_err() {
                this.catch_up().await?; // As the router does before it denies anything.
            }
            this.branch(&key)?.read(&read).map_err(RouteError::Rejected)
        }
        .boxed()
    }

    fn follow(
        &self,
        key: BranchKey,
        after: Option<Cursor>,
    ) -> BoxFuture<'static, Result<Follow, RouteError>> {
        let this = self.clone();
        async move {
            if let Some(refused) = this.orders().refuse_follow.lock().pop() {
                return Err(refused);
            }
            let now = this.snapshot(&key)?;
            let (next, snapshot) = match after {
                Some(cursor) => (cursor.offset.0, None),
                None => (now.head.offset.0, Some(now)),
            };
            let (resync, end) = {
                let mut state = this.0.state.lock();
                let log = state.logs.entry(key.clone()).or_insert_with(Log::new);
                (log.resync, log.end)
            };
            this.orders().following.fetch_add(1, Ordering::SeqCst);
            let changed = this.0.changed.subscribe();
            let stream = FakeDeltas { fake: this, key, next, changed, resync, end };
            Ok(Follow { snapshot, stream: Box::new(stream) })
        }
        .boxed()
    }

    fn is_initialized(&self) -> bool {
        !self.orders().has_no_catalogue.load(Ordering::SeqCst)
    }

    fn catch_up(&self) -> BoxFuture<'static, Result<(), RouteError>> {
        let this = self.clone();
        async move {
            if let Some(late) = this.orders().late_catalogue.lock().take() {
                this.0.catalogue.send_replace(late);
            }
            Ok(())
        }
        .boxed()
    }

    fn catalogue(&self) -> Arc<Catalogue> {
        Arc::clone(&self.0.catalogue.borrow())
    }

    fn catalogues(&self) -> watch::Receiver<Arc<Catalogue>> {
        self.0.catalogue.subscribe()
    }

    fn change(
        &self,
        id: String,
        change: CatalogueChange,
    ) -> BoxFuture<'static, Result<(), ChangeError>> {
        let entry = CatalogueEntry { id, at: Timestamp(self.0.state.lock().at), change };
        let mut catalogue = (**self.0.catalogue.borrow()).clone();
        let result = catalogue.apply(&entry).map_err(ChangeError::from);
        self.0.catalogue.send_replace(Arc::new(catalogue));
        self.follow_catalogue();
        async move { result }.boxed()
    }

    fn publish(&self, post: Post) -> BoxFuture<'static, Result<(), RouteError>> {
        let post = Arc::new(post);
        let mut topics = self.0.topics.lock();
        let topic = topics.entry(post.topic.clone()).or_default();
        topic.last = Some(Arc::clone(&post));
        let _ = topic.tap.send(post);
        async move { Ok(()) }.boxed()
    }

    fn subscribe_for(
        &self,
        _: Requester,
        topic: String,
    ) -> BoxFuture<'static, Result<TopicSubscription, RouteError>> {
        let mut topics = self.0.topics.lock();
        let topic = topics.entry(topic).or_default();
        let listening =
            TopicSubscription { last: topic.last.clone(), posts: topic.tap.subscribe().into() };
        async move { Ok(listening) }.boxed()
    }

    fn status(&self) -> BoxFuture<'static, ClusterStatus> {
        let state = self.0.state.lock();
        let branches = state.partition.branches().map(|branch| BranchStatus {
            branch: branch.key().branch.to_string(),
            module: branch.key().module.to_string(),
            partition: 1,
            leader: Some(1),
            revision: Some(branch.head().revision.0),
        });
        let status = ClusterStatus {
            cluster_id: "c-1".into(),
            answered_by: 1,
            placement_epoch: 1,
            level: 1,
            warnings: Vec::new(),
            files: None,
            memory: None,
            catalogue: actors::status::CatalogueStatus::of(&self.catalogue()),
            nodes: Vec::new(),
            partitions: Vec::new(),
            branches: branches.collect(),
        };
        async move { status }.boxed()
    }

    fn replicas(&self, verify: bool) -> BoxFuture<'static, LocalReplicas> {
        let state = self.0.state.lock();
        let broken = BrokenLog {
            branch: "dar".into(),
            module: "pos".into(),
            sequence: 7,
            reason: "it stands where 6 is due".into(),
        };
        let replica = LocalReplica {
            partition: 1,
            applied: state.commands,
            state_hash: state.partition.state_hash().to_string(),
            broken_chain: verify.then_some(broken),
        };
        async move { LocalReplicas { node: 1, replicas: vec![replica] } }.boxed()
    }

    fn ready(&self) -> Result<(), actors::NotReady> {
        self.orders().not_ready.lock().clone().map_or(Ok(()), Err)
    }
}

struct FakeDeltas {
    fake: Fake,
    key: BranchKey,
    next: u64,
    changed: watch::Receiver<u64>,
    resync: u64,
    end: u64,
}

impl FakeDeltas {
    fn ready(&mut self) -> Option<Option<FollowItem>> {
        let state = self.fake.0.state.lock();
        let log = state.logs.get(&self.key)?;
        if log.end > self.end {
            return Some(None);
        }
        if log.resync > self.resync {
            self.resync = log.resync;
            drop(state);
            let snapshot = self.fake.snapshot(&self.key).unwrap();
            self.next = snapshot.head.offset.0;
            return Some(Some(FollowItem::Resync(snapshot)));
        }
        let after = Offset(self.next);
        let delta = log.deltas.iter().find(|d| d.delta.last().is_some_and(|last| last > after))?;
        self.next = delta.delta.last()?.0;
        Some(Some(FollowItem::Delta(Arc::clone(delta))))
    }
}

impl DeltaStream for FakeDeltas {
    fn next(&mut self) -> BoxFuture<'_, Option<FollowItem>> {
        async move {
            loop {
                self.changed.borrow_and_update();
                if let Some(item) = self.ready() {
                    return item;
                }
                if self.changed.changed().await.is_err() {
                    return None;
                }
            }
        }
        .boxed()
    }
}

impl Drop for FakeDeltas {
    fn drop(&mut self) {
        self.fake.orders().following.fetch_sub(1, Ordering::SeqCst);
    }
}
