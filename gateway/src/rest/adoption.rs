//! Adoption: whether the records of a module's branches satisfy what it is to become, asked before
//! the catalogue takes the change, and whether every branch took it, asked after.
//!
//! Promise: a definition that records do not satisfy changes nothing, and the first of them are
//! named. A record written between the question and the change keeps its branch on the old
//! definition, which is told; it never makes two replicas differ, for the branch itself decides.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, stream};
use model::limits::VIOLATIONS_SHOWN;
use model::{
    Answer, BranchId, BranchKey, Catalogue, Definition, DefinitionCheck, ModuleConfig, ModuleId,
    Read, ReadLevel, Value,
};

use crate::app::App;
use crate::error::{ApiError, Problem};
use crate::limits::{ADOPTION_WAIT, HEADS_AT_ONCE};
use crate::params::Params;
use crate::scoped_store::ScopedStore;
use crate::scoped_store::unexpected_answer;

/// How soon a branch is asked again whether it took a definition.
const ASK_EVERY: Duration = Duration::from_millis(25);

/// A branch of the module, and the definition it is to have.
type BranchDefinition = (BranchKey, Arc<Definition>);

/// What a module is to become, and the branches that hold it.
pub(crate) struct Adoption {
    branches: Vec<BranchDefinition>,
    fill: bool,
}

/// Whether records may be brought up to a definition: `?fill=defaults`.
pub(crate) fn fill(params: &Params) -> Result<bool, ApiError> {
    match params.first(&["fill"]) {
        None => Ok(false),
        Some("defaults") => Ok(true),
        Some(other) => {
            let message = format!("fill must be defaults, but was {other:?}");
            let refused = ApiError::new(Problem::InvalidParameter, message);
            Err(refused.details([("parameter", "fill".into())]))
        }
    }
}

impl Adoption {
    /// Asks every branch of the module whether its records satisfy what it is to become.
    ///
    /// # Errors
    /// `records-do-not-fit` naming the first records that do not; or that a branch could not be
    /// asked.
    pub(crate) async fn check(
        app: &App,
        store: &ScopedStore,
        module: &Arc<ModuleConfig>,
        fill: bool,
    ) -> Result<Self, ApiError> {
        let mut wanted = (*app.node().catalogue()).clone();
        // Branches are asked about the definition they will have once the change is made.
        if wanted.module(&module.id).is_some() {
            wanted.modules.put(Arc::clone(module));
        }
        let branches = branches_of_module(store, &wanted, &module.id).await?;
        let adoption = Self { branches, fill };
        let mut violations: Vec<Value> = Vec::new();
        for (key, fit) in adoption.ask(store, &adoption.branches).await? {
            for violation in fit.violations {
                let record = [
                    ("branchId", Value::from(key.branch.as_str())),
                    ("table", violation.table.into()),
                    ("key", violation.key.as_str().into()),
                    ("problem", violation.problem.into()),
                ];
                violations.push(Value::Object(record.into_iter().collect()));
            }
        }
        if violations.is_empty() {
            return Ok(adoption);
        }
        violations.truncate(VIOLATIONS_SHOWN);
        let remedy = if fill {
            "defaults do not bring them up to it: give a field that is missing a default, or the \
             name of the field it was as its columnName; or change these records first"
        } else {
            "change these records, or send ?fill=defaults: missing fields get their defaults, or \
             what stands under their columnName; what is no field any more is left out"
        };
        let message = format!(
            "stored records of module {:?} do not satisfy this; {remedy}",
            module.id.as_str()
        );
        Err(ApiError::new(Problem::RecordsDoNotFit, message).details([
            ("code", "records-do-not-fit".into()),
            ("moduleId", module.id.as_str().into()),
            ("records", Value::Array(violations)),
        ]))
    }

    /// Waits until every branch took the change; what is said of those that did not.
    pub(crate) async fn wait_until_adopted(&self, store: &ScopedStore) -> Vec<String> {
        // The catalogue has the change by now; each branch takes it through its own log, a moment
        // later. The answer waits a while and then names those that have not.
        let until = tokio::time::Instant::now() + ADOPTION_WAIT;
        // Who took it is not asked again.
        let mut waiting = self.branches.clone();
        loop {
            let fits = self.ask(store, &waiting).await;
            let late: Vec<(BranchKey, DefinitionCheck)> = match fits {
                Ok(fits) => fits.into_iter().filter(|(_, fit)| !fit.adopted).collect(),
                Err(error) => {
                    return vec![format!("not all branches could be asked: {}", error.message())];
                }
            };
            if late.is_empty() {
                return Vec::new();
            }
            if tokio::time::Instant::now() >= until {
                let warnings: Vec<String> =
                    late.iter().map(|(key, fit)| keeps_old_definition(key, fit)).collect();
                warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                return warnings;
            }
            let late: BTreeSet<&BranchKey> = late.iter().map(|(key, _)| key).collect();
            waiting.retain(|(key, _)| late.contains(key));
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// What the records of these branches are to the definition, as of now.
    async fn ask(
        &self,
        store: &ScopedStore,
        branches: &[BranchDefinition],
    ) -> Result<Vec<(BranchKey, DefinitionCheck)>, ApiError> {
        let mut fits: Vec<BoxFuture<'static, Result<(BranchKey, DefinitionCheck), ApiError>>> =
            Vec::new();
        for (key, definition) in branches {
            let read =
                Read::DefinitionCheck { definition: Arc::clone(definition), fill: self.fill };
            let (store, key) = (store.clone(), key.clone());
            let ask = async move {
                let level = ReadLevel::Linearizable;
                let answer = store.read(key.clone(), read, level).await?;
                let Answer::DefinitionCheck(fit) = answer else {
                    return Err(unexpected_answer(&answer));
                };
                Ok((key, fit))
            };
            fits.push(ask.boxed());
        }
        let answers: Vec<Result<_, ApiError>> =
            stream::iter(fits).buffered(HEADS_AT_ONCE).collect().await;
        answers.into_iter().collect()
    }
}

/// The branches that hold a module: configured ones, and those that were written to.
async fn branches_of_module(
    store: &ScopedStore,
    wanted: &Catalogue,
    module: &ModuleId,
) -> Result<Vec<BranchDefinition>, ApiError> {
    let mut keys: BTreeSet<BranchKey> =
        wanted.configured().filter(|key| key.module == *module).collect();
    let status = store.status().await?;
    let written = status.branches.iter().filter(|status| status.revision.is_some());
    for status in written.filter(|status| status.module == module.as_str()) {
        let Ok(branch) = BranchId::parse(&status.branch) else { continue };
        keys.insert(BranchKey::new(branch, module.clone()));
    }
    let of = |key: BranchKey| Some((key.clone(), Arc::new(wanted.definition(&key)?)));
    Ok(keys.into_iter().filter_map(of).collect())
}

/// What is said of a branch that keeps an old definition.
fn keeps_old_definition(key: &BranchKey, fit: &DefinitionCheck) -> String {
    let why = match fit.violations.first() {
        Some(misfit) => format!("a record does not satisfy the new one: {misfit}"),
        None => "it has not taken the new one yet".to_owned(),
    };
    format!("branch \"{}\" keeps the definition it had: {why}", key.branch)
}

/// What is said of a branch whose records do not let it take its module's definition; nothing of
/// one that cannot be asked now.
pub(crate) async fn unadopted_warning(
    app: &App,
    store: &ScopedStore,
    key: &BranchKey,
) -> Option<String> {
    let catalogue = app.node().catalogue();
    let definition = Arc::new(catalogue.definition(key)?);
    let fill = catalogue.filled.contains(&key.module);
    let read = Read::DefinitionCheck { definition, fill };
    match store.read(key.clone(), read, ReadLevel::Stale).await {
        Ok(Answer::DefinitionCheck(fit)) if !fit.adopted && !fit.violations.is_empty() => {
            Some(keeps_old_definition(key, &fit))
        }
        Ok(_) | Err(_) => None,
    }
}
