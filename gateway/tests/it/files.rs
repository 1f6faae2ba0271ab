//! Stories of the files that a node gives to browsers.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, stream};
use gateway::{File, Files};

use crate::client::{Rest, gateway};
use crate::fake::Fake;

/// A directory of files that say their own names.
#[derive(Debug)]
struct Named(&'static [&'static str]);

impl Files for Named {
    fn open(&self, name: String) -> BoxFuture<'static, Option<File>> {
        let known = self.0.contains(&name.as_str());
        async move {
            known.then(|| File {
                bytes: name.len() as u64,
                modified: Some(UNIX_EPOCH + Duration::from_secs(1)),
                content: stream::iter([Ok(name.into_bytes().into())]).boxed(),
            })
        }
        .boxed()
    }
}

fn with_files(names: &'static [&'static str]) -> Rest {
    let fake = Fake::new();
    let gateway = gateway(&fake, |config| config.files = Some(Arc::new(Named(names))));
    Rest { fake, gateway }
}

#[tokio::test]
async fn files_are_given_with_their_kind_and_how_long_they_keep() {
    let rest = with_files(&["index.html", "pos/app.js", "a b.PNG", "x.unknown"]);
    for (path, kind, text) in [
        ("/", "text/html; charset=utf-8", "index.html"),
        ("/pos/app.js?v=1", "application/javascript; charset=utf-8", "pos/app.js"),
        ("/a%20b.PNG", "image/png", "a b.PNG"),
        ("/x.unknown", "application/octet-stream", "x.unknown"),
    ] {
        let file = rest.get(path).await;
        assert_eq!((file.status, file.raw.as_str()), (200, text), "{path}");
        assert_eq!(file.header("content-type"), kind);
        let keep = if path == "/" { "no-cache" } else { "public, max-age=86400" };
        assert_eq!(file.header("cache-control"), keep, "{path}");
        assert_eq!(file.header("vary"), "origin");
        assert_eq!(file.header("content-length"), text.len().to_string());
        let head = rest.send("HEAD", path, "", &[]).await;
        assert_eq!((head.status, head.raw.as_str()), (200, ""));
        assert_eq!(head.header("content-length"), text.len().to_string());
        let tag = file.header("etag");
        let known = rest.send("GET", path, "", &[("if-none-match", tag)]).await;
        assert_eq!((known.status, known.raw.as_str()), (304, ""));
    }
    assert_eq!(rest.get("/none.html").await.code(), (404, "not-found"));
    assert_eq!(rest.post("/pos/app.js", "").await.code(), (404, "not-found"));
}

#[tokio::test]
async fn a_file_is_served_before_our_pages_but_not_before_the_api() {
    let rest = with_files(&["docs", "healthz", "metrics", "api/branches", "data/modules.json"]);
    assert_eq!(rest.get("/docs").await.raw, "docs");
    assert!(rest.get("/api/branches").await.raw.starts_with(r#"{"branches""#));
    assert_eq!(rest.get("/healthz").await.text("status"), "ok");
    assert_ne!(rest.get("/metrics").await.raw, "metrics");
    assert_eq!(rest.get("/data/modules.json").await.code(), (404, "not-found"));
}
