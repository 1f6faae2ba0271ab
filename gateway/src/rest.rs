//! Rest: the REST API. One file for each resource; `middleware` is what every request passes, and
//! `router` puts the routes together.

mod admission;
mod adoption;
mod batch;
pub(crate) mod body;
mod branches;
mod changes;
mod clock;
mod cluster;
mod configure;
mod decimals;
mod definitions;
mod events;
mod extractors;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz;
mod health;
mod home;
mod middleware;

mod manage;
mod module;
mod openapi;
mod orders;
mod query;
mod reply;
mod reset;
mod route_doc;
pub(crate) mod router;
mod routes;
mod save;
mod schema;
mod sequences;
mod settings;
pub(crate) mod sync;
mod tables;

pub(crate) use branches::DEFAULT_BRANCH;
