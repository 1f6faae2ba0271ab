//! Openapi: the document of every route, in OpenAPI 3.1, made from what each resource says of its
//! routes beside registering them, and the page that shows it.
//!
//! What follows from a route itself is not said again: the names in its path, the headers, and
//! what every request of its kind may be refused with.

mod examples;
mod notation;
mod shapes;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use utoipa::openapi::path::{
    HttpMethod, Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn, Paths,
};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::Schema;
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, Deprecated, InfoBuilder, OpenApi, OpenApiBuilder, RefOr,
    Required, ResponseBuilder,
};

use crate::app::App;
use crate::error::Problem;
use crate::rest::decimals;
use crate::rest::home;
use crate::rest::reply::json_bytes;
use crate::rest::route_doc::{JSON, Op, RouteDoc, op};
use crate::rest::routes::Routes;

/// The shape of every refusal, in `shapes`.
const REFUSAL: &str = "Refusal";

pub(crate) fn routes() -> Routes {
    Routes::of("Node")
        .path("/openapi.json")
        .get(document, op("This document").answers(200, "object"))
        .path("/docs")
        .get(page, op("This document, for people").answers_in("text/html", "text"))
}

/// What the document says of one method of one path.
fn operation(doc: &RouteDoc) -> Operation {
    let op = &doc.op;
    let id: String = format!("{} {}", doc.method, doc.path)
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    let mut operation = OperationBuilder::new()
        .tag(doc.tag)
        .summary(Some(op.summary))
        .operation_id(Some(id))
        .deprecated(doc.is_alias.then_some(Deprecated::True));
    if !op.about.is_empty() {
        operation = operation.description(Some(op.about));
    }
    for name in doc.names() {
        operation = operation.parameter(in_path(name));
    }
    for (name, shape, text) in &op.query {
        let parameter = parameter(name, ParameterIn::Query, text).schema(Some(read(shape)));
        // Without it the route asks for it: the example is to work as it stands.
        let is_needed = matches!(*name, "branch" | "module");
        let parameter = parameter.example(is_needed.then(|| examples::word(name)));
        operation = operation.parameter(parameter);
    }
    for (header, text) in headers(op) {
        let parameter = parameter(header, ParameterIn::Header, text).schema(Some(read("text")));
        operation = operation.parameter(parameter);
    }
    if let Some(shape) = op.body {
        let example = examples::body(doc.method, &doc.path, shape);
        let content =
            ContentBuilder::new().schema(Some(read(shape))).example(Some(example)).build();
        let body = RequestBodyBuilder::new().content(JSON, content).build();
        operation = operation.request_body(Some(body));
    }
    for (status, media, shape) in &op.answers {
        let example = match *media {
            JSON => examples::answer(doc.method, &doc.path, shape),
            media => examples::text(media),
        };
        let content =
            ContentBuilder::new().schema(Some(read(shape))).example(Some(example)).build();
        let answer = ResponseBuilder::new().description(op.summary).content(*media, content);
        operation = operation.response(status.to_string(), answer.build());
    }
    with_refusals(operation, &op.refusals(&doc.path)).build()
}

/// One answer for each status, naming the codes it may come with.
fn with_refusals(mut operation: OperationBuilder, problems: &[Problem]) -> OperationBuilder {
    let mut statuses: Vec<StatusCode> = problems.iter().map(|problem| problem.status()).collect();
    statuses.sort();
    statuses.dedup();
    for status in statuses {
        let codes: Vec<String> = problems
            .iter()
            .filter(|problem| problem.status() == status)
            .map(|problem| format!("`{}`: {}", problem.code(), problem.title()))
            .collect();
        let content = ContentBuilder::new().schema(Some(read(REFUSAL))).build();
        let answer = ResponseBuilder::new().description(codes.join("; ")).content(JSON, content);
        operation = operation.response(status.as_u16().to_string(), answer.build());
    }
    operation
}

fn parameter(name: &str, location: ParameterIn, text: &str) -> ParameterBuilder {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(location)
        .required(Required::False)
        .description(Some(text))
}

fn in_path(name: &str) -> Parameter {
    let text = shapes::PATH_PARTS.iter().find(|(part, _)| *part == name).map_or("", |part| part.1);
    let parameter = parameter(name, ParameterIn::Path, text).required(Required::True);
    parameter.schema(Some(read("text"))).example(Some(examples::word(name))).build()
}

fn headers(op: &Op) -> impl Iterator<Item = (&'static str, &'static str)> {
    let read = op.reads.then_some((
        "x-mishkah-read",
        "How fresh: linearizable (default), stale, or session=<cursor of an earlier answer>",
    ));
    let key = op.writes.then_some((
        "idempotency-key",
        "1 to 256 printable ASCII characters; the same key is the same request, done once",
    ));
    let decimals =
        op.decimals.then_some((decimals::HEADER, "How exact decimals are written: number or text"));
    read.into_iter().chain(key).chain(decimals)
}

/// A shape of ours.
fn read(shape: &str) -> RefOr<Schema> {
    notation::read(shape).expect("shapes keep the notation: a test makes the whole document")
}

/// The document of these routes.
pub(crate) fn describe(docs: &[RouteDoc]) -> OpenApi {
    let mut paths = Paths::new();
    for one in docs {
        let method = match one.method {
            "post" => HttpMethod::Post,
            "put" => HttpMethod::Put,
            "patch" => HttpMethod::Patch,
            "delete" => HttpMethod::Delete,
            _ => HttpMethod::Get,
        };
        paths.add_path_operation(one.shown_path(), vec![method], operation(one));
    }
    let mut components = ComponentsBuilder::new();
    for (name, shape) in shapes::NAMED {
        components = components.schema(*name, read(shape));
    }
    let info = InfoBuilder::new()
        .title("Mishkah Store")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(shapes::ABOUT))
        .build();
    OpenApiBuilder::new().info(info).paths(paths).components(Some(components.build())).build()
}

async fn document(State(app): State<App>) -> Response {
    json_bytes(StatusCode::OK, app.document.get().cloned().unwrap_or_default())
}

/// Everything the page needs is in it; it asks nobody but this node.
async fn page() -> Response {
    home::page(include_str!("openapi/page.html"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    fn docs() -> Vec<RouteDoc> {
        crate::rest::router::resources().finish().1
    }

    fn json() -> Value {
        serde_json::from_str(&describe(&docs()).to_json().unwrap()).unwrap()
    }

    #[test]
    fn the_document_has_each_registered_route_and_no_other() {
        let document = json();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
        let shown: BTreeSet<(String, String)> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, item)| {
                let methods = item.as_object().unwrap().keys();
                methods.map(|method| (path.clone(), method.clone()))
            })
            .collect();
        let registered: BTreeSet<(String, String)> =
            docs().iter().map(|doc| (doc.shown_path(), doc.method.to_owned())).collect();
        assert_eq!(shown, registered);
        assert_eq!(registered.len(), docs().len(), "no route is registered twice");
    }

    #[test]
    fn every_route_says_what_it_does_takes_answers_and_refuses() {
        for doc in docs() {
            let which = format!("{} {}", doc.method, doc.path);
            assert!(!doc.op.summary.is_empty(), "{which}");
            assert!(doc.op.is_gone || !doc.op.answers.is_empty(), "{which} answers nothing");
            for name in doc.names() {
                let known = shapes::PATH_PARTS.iter().any(|(part, _)| *part == name);
                assert!(known, "{which}: say in shapes what {{{name}}} is");
            }
            assert!(!(doc.method == "get" && doc.op.writes), "{which}: a GET changes nothing");
            if matches!(doc.method, "post" | "put" | "patch") {
                let takes = doc.op.is_gone || doc.op.body.is_some();
                assert!(takes, "{which} takes no body");
            }
        }
    }

    #[test]
    fn every_named_shape_is_there_and_used() {
        let document = json();
        let text = document.to_string();
        let used: BTreeSet<&str> = text
            .split("#/components/schemas/")
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
            .collect();
        let named: BTreeSet<&str> = shapes::NAMED.iter().map(|(name, _)| *name).collect();
        assert_eq!(used, named);
    }

    #[test]
    fn the_page_loads_nothing_from_elsewhere() {
        let page = include_str!("openapi/page.html");
        for outside in ["http://", "https://", "src=", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
    }
}
