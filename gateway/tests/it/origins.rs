//! Stories of pages of other origins: what a browser lets them do here, and read.

use gateway::AllowedOrigins;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::client::{Rest, Served, gateway};
use crate::fake::Fake;

const M: &str = "/api/branches/dar/modules/pos";
const METHODS: &str = "GET,POST,PUT,PATCH,DELETE,OPTIONS";

fn allowing(origins: &[&str]) -> Rest {
    let fake = Fake::new();
    let allowed = AllowedOrigins::parse(origins).unwrap();
    let gateway = gateway(&fake, |config| config.allowed_origins = allowed);
    Rest { fake, gateway }
}

#[tokio::test]
async fn every_path_that_changes_something_refuses_foreign_pages() {
    let rest = Rest::new();
    let document = rest.get("/openapi.json").await.raw;
    let document: serde_json::Value = serde_json::from_str(&document).unwrap();
    let mut tried = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys().filter(|method| *method != "get") {
            for header in [
                ("origin", "http://evil.example"),
                ("origin", "null"),
                ("sec-fetch-site", "cross-site"),
            ] {
                let method = method.to_uppercase();
                let answer = rest.send(&method, path, "{}", &[header]).await;
                let which = format!("{method} {path} {header:?}");
                assert_eq!(answer.code(), (403, "origin-not-allowed"), "{which}");
                assert!(answer.headers.get("access-control-allow-origin").is_none(), "{which}");
                tried += 1;
            }
        }
    }
    assert!(tried > 100, "{tried}");
}

#[tokio::test]
async fn what_is_no_browser_is_taken_whatever_its_content_type() {
    let rest = Rest::new();
    for (n, kind) in ["text/plain", "application/x-www-form-urlencoded", "application/json", ""]
        .iter()
        .enumerate()
    {
        let body = format!(r#"{{"record":{{"id":"t-{n}"}}}}"#);
        let headers = [("content-type", *kind), ("host", "127.0.0.1:3200")];
        let answer = rest.send("POST", &format!("{M}/tables/tickets"), &body, &headers).await;
        assert_eq!(answer.status, 201, "{kind}: {}", answer.raw);
    }
}

#[tokio::test]
async fn only_allowed_origins_may_read_answers() {
    let rest = allowing(&["https://shop.example"]);
    for path in ["/healthz", "/api/branches", "/nothing", "/docs"] {
        let plain = rest.get(path).await;
        assert!(plain.headers.get("access-control-allow-origin").is_none(), "{path}");
        assert_eq!(plain.header("vary"), "origin");
        for foreign in ["http://evil.example", "null", "http://localhost:5173"] {
            let answer = rest.send("GET", path, "", &[("origin", foreign)]).await;
            assert_eq!(answer.status, plain.status);
            assert!(answer.headers.get("access-control-allow-origin").is_none(), "{foreign}");
            assert!(answer.headers.get("access-control-expose-headers").is_none(), "{foreign}");
            assert_eq!(answer.header("vary"), "origin");
        }
        let shop = rest.send("GET", path, "", &[("origin", "https://shop.example")]).await;
        assert_eq!(shop.header("access-control-allow-origin"), "https://shop.example");
        assert_eq!(shop.header("access-control-allow-methods"), METHODS);
        assert_eq!(shop.header("vary"), "origin");
    }
}

#[tokio::test]
async fn a_preflight_grants_nothing_to_foreign_origins() {
    let rest = Rest::new();
    let preflight = async |origin: &str| {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "content-type,x-foo"),
            ("access-control-request-private-network", "true"),
        ];
        rest.send("OPTIONS", M, "", &headers).await
    };
    let own = preflight("http://localhost:5173").await;
    assert_eq!((own.status, own.raw.as_str()), (204, ""));
    assert_eq!(own.header("access-control-allow-origin"), "http://localhost:5173");
    assert_eq!(own.header("access-control-allow-headers"), "content-type,x-foo");
    assert_eq!(own.header("access-control-max-age"), "600");
    assert_eq!(own.header("access-control-allow-private-network"), "true");
    let foreign = preflight("http://evil.example").await;
    assert_eq!(foreign.status, 204);
    let granted = foreign.headers.keys().filter(|name| name.as_str().starts_with("access-control"));
    assert_eq!(granted.count(), 0, "{:?}", foreign.headers);
}

#[tokio::test]
async fn a_star_opens_every_answer_as_in_the_original() {
    let rest = allowing(&["*"]);
    for path in ["/healthz", "/metrics", "/api/branches", "/nothing"] {
        let answer = rest.get(path).await;
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        assert_eq!(answer.header("access-control-allow-headers"), "*");
        assert_eq!(answer.header("access-control-allow-methods"), METHODS);
    }
    let asked = [("access-control-request-headers", "content-type,x-foo")];
    let preflight = rest.send("OPTIONS", "/any/path", "", &asked).await;
    assert_eq!((preflight.status, preflight.raw.as_str()), (204, ""));
    assert_eq!(preflight.header("access-control-allow-headers"), "content-type,x-foo");
    assert_eq!(preflight.header("access-control-max-age"), "600");
    let foreign = [("origin", "null"), ("host", "evil.example")];
    assert_eq!(rest.send("POST", &format!("{M}/reset"), "", &foreign).await.status, 200);
}

#[tokio::test]
async fn a_foreign_host_is_answered_nothing() {
    let rest = Rest::new();
    for (method, path) in [("GET", "/api/branches"), ("GET", "/metrics"), ("POST", "/api/branches")]
    {
        let answer = rest.send(method, path, "", &[("host", "evil.example:3200")]).await;
        assert_eq!(answer.code(), (403, "host-not-allowed"), "{method} {path}");
        assert_eq!(answer.detail("host"), "evil.example:3200");
    }
    let absolute = rest.get("http://evil.example/api/branches").await;
    assert_eq!(absolute.code(), (403, "host-not-allowed"));
    let gateway = gateway(&rest.fake, |config| config.advertised = Some("Till:80".to_owned()));
    let rest = Rest { fake: rest.fake, gateway };
    assert_eq!(rest.send("GET", "/api/branches", "", &[("host", "till:99")]).await.status, 200);
}

#[tokio::test]
async fn a_socket_is_opened_for_own_and_allowed_origins_only() {
    let served = Served::new(|_| {}).await;
    let open = async |headers: &[(&'static str, &str)]| {
        let url = format!("ws://{}/ws", served.address);
        let mut request = url.into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        match tokio_tungstenite::connect_async(request).await {
            Ok(_) => 101,
            Err(Error::Http(answer)) => answer.status().as_u16(),
            Err(other) => panic!("{other}"),
        }
    };
    let own = format!("http://{}", served.address);
    assert_eq!(open(&[]).await, 101);
    assert_eq!(open(&[("origin", &own)]).await, 101);
    assert_eq!(open(&[("origin", "http://localhost:5173")]).await, 101);
    assert_eq!(open(&[("origin", "http://evil.example")]).await, 403);
    assert_eq!(open(&[("origin", "null")]).await, 403);
    assert_eq!(open(&[("sec-fetch-site", "cross-site")]).await, 403);
    assert_eq!(open(&[("host", "evil.example")]).await, 403);
}
