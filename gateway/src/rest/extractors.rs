//! Extractors: how handlers get the parts of a request: who asks, what the path names, bodies and
//! headers.
//!
//! Promise: whatever is sent, the answer is a value or a 4xx that says what would be right.

use std::convert::Infallible;
use std::sync::Arc;

use actors::RouteError;
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use model::{
    BranchId, BranchKey, CommandId, ModuleConfig, ModuleId, Object, Offset, ReadLevel, Schema,
    Validation, Value,
};

use crate::app::App;
use crate::auth::Principal;
use crate::error::{ApiError, Problem};
use crate::known_members;
use crate::limits::ID_BYTES_MAX;
use crate::params::Params;
use crate::rest::body;
use crate::scoped_store::ScopedStore;

/// Says no where no branch of this name is configured and nothing says that there may be one. It
/// may have been made at another node a moment ago, so the cluster is asked first.
///
/// # Errors
/// `branch-not-found`, or that the cluster could not be asked.
pub(crate) async fn branch_exists(app: &App, branch: &BranchId) -> Result<(), ApiError> {
    if app.node().catalogue().allows_branch(branch) {
        return Ok(());
    }
    // Only after this may it be denied: a client that made it at another node asks here next.
    app.node().catch_up().await?;
    if app.node().catalogue().allows_branch(branch) {
        return Ok(());
    }
    Err(RouteError::UnknownBranch(branch.to_string()).into())
}

impl FromRequestParts<App> for ScopedStore {
    type Rejection = Infallible;

    /// The data as whoever sent a request may see and change it.
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Infallible> {
        let principal = Principal::from_request_parts(parts, app).await?;
        // Without one the request came over no connection: it is this node's own.
        let requester = parts.extensions.get().copied().unwrap_or_default();
        Ok(app.store(&principal, requester))
    }
}

/// A branch named in the path, and its data as whoever asks may see and change it.
pub(crate) struct BranchScope {
    pub(crate) store: ScopedStore,
    pub(crate) branch: BranchId,
    pub(crate) level: ReadLevel,
}

impl FromRequestParts<App> for BranchScope {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let Ok(store) = ScopedStore::from_request_parts(parts, app).await;
        let branch = BranchId::parse(&path_part(parts, app, "branch").await?)?;
        branch_exists(app, &branch).await?;
        Ok(Self { store, branch, level: read_level(&parts.headers)? })
    }
}

/// A module of a branch's list, named in the path, and its data as whoever asks may see and change
/// it.
pub(crate) struct ModuleScope {
    pub(crate) store: ScopedStore,
    pub(crate) key: BranchKey,
    pub(crate) config: Arc<ModuleConfig>,
    pub(crate) level: ReadLevel,
}

impl ModuleScope {
    /// A module of a branch's list, named in whatever way.
    pub(crate) fn find(
        app: &App,
        store: ScopedStore,
        key: BranchKey,
        level: ReadLevel,
    ) -> Result<Self, ApiError> {
        let catalogue = app.node().catalogue();
        if !catalogue.allows_branch(&key.branch) {
            return Err(RouteError::UnknownBranch(key.branch.to_string()).into());
        }
        let listed = catalogue.modules_of(&key.branch).contains(&key.module);
        let config =
            catalogue.module(&key.module).filter(|_| listed).cloned().ok_or_else(|| {
                let message = format!("branch {:?} has no module {:?}", key.branch, key.module);
                ApiError::new(Problem::ModuleNotFound, message)
            })?;
        Ok(Self { store, key, config, level })
    }

    /// Its tables.
    pub(crate) fn schema(&self) -> &Schema {
        &self.config.schema
    }
}

impl FromRequestParts<App> for ModuleScope {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let BranchScope { store, branch, level } =
            BranchScope::from_request_parts(parts, app).await?;
        let module = ModuleId::parse(&path_part(parts, app, "module").await?)?;
        let key = BranchKey::new(branch, module);
        // The usual case costs no question to the cluster.
        if let Ok(found) = Self::find(app, store.clone(), key.clone(), level) {
            return Ok(found);
        }
        // It may have been made at another node a moment ago.
        app.node().catch_up().await?;
        Self::find(app, store, key, level)
    }
}

/// No parameters, and no `if-match` on a change: a strict module's request that sends some means
/// what it would not get.
pub(crate) struct NoParams;

impl FromRequestParts<App> for NoParams {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let params = Params::from_request_parts(parts, app).await?;
        // `*` asks for no version, so nothing is lost where it is not read.
        let version = parts.headers.get(header::IF_MATCH).filter(|tag| *tag != "*");
        let has_version = version.is_some() && !parts.method.is_safe();
        if params.is_empty() && !has_version {
            return Ok(Self);
        }
        let module = ModuleId::parse(&path_part(parts, app, "module").await?)?;
        let validation = app.node().catalogue().validation_of(&module);
        known_members::NONE.params(&params, validation)?;
        if has_version && validation == Validation::Strict {
            let right = "if-match is read by changes of one record, under …/tables/{table}; here, \
                         send the version that was read as \"expectedVersion\"";
            return Err(ApiError::new(Problem::InvalidHeader, right));
        }
        Ok(Self)
    }
}

/// No parameters, of a request to the cluster or to a whole branch. Where a module is lenient, the
/// original's clients are about, who may send some everywhere: they are passed over then.
pub(crate) struct NoClusterParams;

impl FromRequestParts<App> for NoClusterParams {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let params = Params::from_request_parts(parts, app).await?;
        let catalogue = app.node().catalogue();
        let is_lenient = catalogue.modules.iter().any(|it| it.validation == Validation::Lenient);
        let validation = if is_lenient { Validation::Lenient } else { Validation::Strict };
        known_members::NONE.params(&params, validation)?;
        Ok(Self)
    }
}

/// One variable part of the path, decoded.
pub(crate) async fn path_part(
    parts: &mut Parts,
    app: &App,
    name: &str,
) -> Result<String, ApiError> {
    let unreadable = |_| ApiError::new(Problem::InvalidEncoding, "the path cannot be read");
    let params = RawPathParams::from_request_parts(parts, app).await.map_err(unreadable)?;
    let part = params.iter().find(|(part, _)| *part == name).map(|(_, text)| text.to_owned());
    Ok(part.unwrap_or_default())
}

/// A body, read as JSON whatever it says it is; an empty one is `null`.
pub(crate) struct Body(pub(crate) Value);

impl Body {
    /// The members, none for an empty body.
    pub(crate) fn object(self) -> Result<Object, ApiError> {
        match self.0 {
            Value::Object(object) => Ok(object),
            Value::Null => Ok(Object::new()),
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                Err(ApiError::new(Problem::InvalidBody, "the body must be a JSON object"))
            }
        }
    }
}

impl FromRequest<App> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        body::read(request, app).await.map(Self)
    }
}

/// The id of the command that a request makes: the client's `Idempotency-Key`, else a new one.
pub(crate) struct IdempotencyKey(pub(crate) CommandId);

impl FromRequestParts<App> for IdempotencyKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, ApiError> {
        let id = match parts.headers.get("idempotency-key") {
            // A new id is remembered like a client's: the retry inside the cluster needs one.
            None => CommandId::server_named(uuid::Uuid::now_v7()),
            Some(key) => match key.to_str() {
                Ok(key) if (1..=ID_BYTES_MAX).contains(&key.len()) => CommandId::of_client("", key),
                Ok(_) | Err(_) => {
                    let message = format!(
                        "Idempotency-Key must be 1 to {ID_BYTES_MAX} printable ASCII characters"
                    );
                    return Err(ApiError::new(Problem::InvalidHeader, message));
                }
            },
        };
        Ok(Self(id))
    }
}

/// How fresh the answer must be, where no branch is named in the path.
pub(crate) struct ReadLevelHeader(pub(crate) ReadLevel);

impl FromRequestParts<App> for ReadLevelHeader {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, ApiError> {
        read_level(&parts.headers).map(Self)
    }
}

/// How fresh the answer must be: header `x-mishkah-read`.
fn read_level(headers: &HeaderMap) -> Result<ReadLevel, ApiError> {
    let Some(header) = headers.get("x-mishkah-read") else { return Ok(ReadLevel::default()) };
    let level = header.to_str().ok().and_then(|text| match text {
        "linearizable" => Some(ReadLevel::Linearizable),
        "stale" => Some(ReadLevel::Stale),
        _ => {
            // The cursor of an answer names the incarnation first; only the offset is waited for.
            let cursor = text.strip_prefix("session=")?;
            let sequence = cursor.rsplit_once('.').map_or(cursor, |(_, sequence)| sequence);
            sequence.parse().ok().map(Offset).map(ReadLevel::Session)
        }
    });
    level.ok_or_else(|| {
        let right = "x-mishkah-read must be linearizable, stale, or session=<cursor>";
        ApiError::new(Problem::InvalidHeader, right)
    })
}
