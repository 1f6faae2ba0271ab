//! Routes: a resource's paths and methods, each registered together with what the document of
//! `/openapi.json` says of it.
//!
//! ```text
//!   Routes::of("Records")                                      the heading in the document
//!       .in_branches("/{branch}/modules/{module}/save")        a path, under both its names
//!       .post(save, op("Save a record")                        a handler, and what it does
//!           .body("{table: text, record: Record}")             shapes: see `openapi/notation`
//!           .answers(200, "Changed")                           named ones: `openapi/shapes`
//!           .writes()                                          adds idempotency-key, 422, 503 …
//!           .refuses(&[Problem::MissingRecord]))
//! ```
//!
//! Promise: there is no route that is not described. The router of a resource is made here and
//! nowhere else, and none of its mutations takes a handler without a description.

use axum::handler::Handler;
use axum::http::Uri;
use axum::routing::{MethodFilter, MethodRouter, any, on};
use axum::{Extension, Router};

use crate::app::App;
use crate::error::{ApiError, Problem};
use crate::limits::{BODY_BYTES_MAX, LARGE_BODY_BYTES_MAX, SMALL_BODY_BYTES_MAX};
use crate::rest::body::BodyBound;
use crate::rest::route_doc::{Op, RouteDoc};

/// The two names the original has for branches.
const BRANCHES: [&str; 2] = ["/api/branches", "/api/branch"];

/// The routes of one resource.
pub(crate) struct Routes {
    router: Router<App>,
    docs: Vec<RouteDoc>,
    tag: &'static str,
    /// Where the next handlers are registered: a path, and its other names.
    paths: Vec<String>,
    /// The largest body of what follows, in bytes.
    body_max: usize,
}

impl Routes {
    /// No routes yet; the document shows them under this heading.
    pub(crate) fn of(tag: &'static str) -> Self {
        let (router, docs, paths) = (Router::new(), Vec::new(), Vec::new());
        Self { router, docs, tag, paths, body_max: BODY_BYTES_MAX }
    }

    /// What follows is about this path.
    pub(crate) fn path(mut self, path: &str) -> Self {
        self.paths = vec![path.to_owned()];
        self.body_max = BODY_BYTES_MAX;
        self
    }

    /// What follows is about this path below the branches, under both names the original has.
    pub(crate) fn in_branches(mut self, rest: &str) -> Self {
        self.paths = BRANCHES.map(|root| format!("{root}{rest}")).to_vec();
        self.body_max = BODY_BYTES_MAX;
        self
    }

    /// Bodies of what follows, up to the next path, may be as large as definitions are.
    pub(crate) fn large(mut self) -> Self {
        self.body_max = LARGE_BODY_BYTES_MAX;
        self
    }

    /// Bodies of what follows, up to the next path, carry no records: they ask or command.
    pub(crate) fn small(mut self) -> Self {
        self.body_max = SMALL_BODY_BYTES_MAX;
        self
    }

    /// `GET` of this path, and `HEAD` where the middleware lets it through.
    pub(crate) fn get<T: 'static>(self, handler: impl Handler<T, App>, op: Op) -> Self {
        self.on("get", MethodFilter::GET, handler, op)
    }

    /// `POST` of this path.
    pub(crate) fn post<T: 'static>(self, handler: impl Handler<T, App>, op: Op) -> Self {
        self.on("post", MethodFilter::POST, handler, op)
    }

    /// `PUT` of this path.
    pub(crate) fn put<T: 'static>(self, handler: impl Handler<T, App>, op: Op) -> Self {
        self.on("put", MethodFilter::PUT, handler, op)
    }

    /// `PATCH` of this path.
    pub(crate) fn patch<T: 'static>(self, handler: impl Handler<T, App>, op: Op) -> Self {
        self.on("patch", MethodFilter::PATCH, handler, op)
    }

    /// `DELETE` of this path.
    pub(crate) fn delete<T: 'static>(self, handler: impl Handler<T, App>, op: Op) -> Self {
        self.on("delete", MethodFilter::DELETE, handler, op)
    }

    fn on<T: 'static>(
        mut self,
        method: &'static str,
        filter: MethodFilter,
        handler: impl Handler<T, App>,
        op: Op,
    ) -> Self {
        for (index, path) in self.paths.iter().enumerate() {
            let mut one = on(filter, handler.clone());
            if self.body_max != BODY_BYTES_MAX {
                one = one.route_layer(Extension(BodyBound(self.body_max)));
            }
            self.router = self.router.route(path, one);
            let (path, op) = (path.clone(), op.clone());
            self.docs.push(RouteDoc { path, method, tag: self.tag, is_alias: index > 0, op });
        }
        self
    }

    /// There is nothing under this path for any other method: 404 instead of 405.
    pub(crate) fn nothing_else(mut self) -> Self {
        for path in &self.paths {
            self.router = self.router.route(path, MethodRouter::new().fallback(nothing_here));
        }
        self
    }

    /// There is nothing under this path at all, although a more general one would match it.
    pub(crate) fn nothing(mut self) -> Self {
        for path in &self.paths {
            self.router = self.router.route(path, any(nothing_here));
        }
        self
    }

    /// The same, refused in other words.
    pub(crate) fn nothing_but<T: 'static>(mut self, refusal: impl Handler<T, App>) -> Self {
        for path in &self.paths {
            self.router = self.router.route(path, any(refusal.clone()));
        }
        self
    }

    /// These routes and those of another resource.
    pub(crate) fn merge(mut self, other: Self) -> Self {
        self.router = self.router.merge(other.router);
        self.docs.extend(other.docs);
        self
    }

    /// The router, and what is told of it.
    pub(crate) fn finish(self) -> (Router<App>, Vec<RouteDoc>) {
        (self.router, self.docs)
    }
}

/// Nothing under this path.
pub(crate) async fn nothing_here(uri: Uri) -> ApiError {
    let path = uri.path();
    ApiError::new(Problem::NotFound, format!("there is nothing under {path}")).with("path", path)
}
