//! Browser: a real Chromium, where there is one, and a web server of an attacker for it to visit.
//!
//! The attacker's host name resolves to this machine inside that browser only. Its server gives one
//! page, takes what the page reports, and hands every other request on to a node byte for byte:
//! that is what a name does that resolves to 127.0.0.1 once its page is loaded (DNS rebinding).

use std::env;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// The attacker's host name.
pub const FOREIGN_HOST: &str = "evil.example";
/// Under which names the program is found.
const PROGRAMS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];
/// How long a page may take to report: a first start of the browser is slow on a busy machine.
const REPORT_TIMEOUT: Duration = Duration::from_secs(120);
/// Most bytes of a request the server reads.
const REQUEST_BYTES_MAX: usize = 256 * 1024;
/// Reports that wait to be read; a page sends one.
const REPORTS: usize = 4;

/// The browser's program, if this machine has one.
pub fn chromium() -> Option<PathBuf> {
    let folders = env::var_os("PATH")?;
    let all = env::split_paths(&folders).flat_map(|dir| PROGRAMS.map(|name| dir.join(name)));
    all.into_iter().find(|path| path.is_file())
}

/// The attacker's web server, on this machine.
pub struct ForeignServer {
    port: u16,
    reported: mpsc::Receiver<Value>,
    server: JoinHandle<()>,
}

impl ForeignServer {
    /// Starts it: `/page` is this page, `/report` takes what a page reports, and requests for
    /// anything else are handed on to `node`.
    ///
    /// # Errors
    /// There is no free port.
    pub async fn start(page: String, node: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let (reports, reported) = mpsc::channel(REPORTS);
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A browser opens connections it never uses: each fails by itself.
                tokio::spawn(serve(stream, page.clone(), node, reports.clone()));
            }
        });
        Ok(Self { port, reported, server })
    }

    /// Where pages send what they report, as seen by a page of this machine.
    pub fn report_url(&self) -> String {
        format!("http://127.0.0.1:{}/report", self.port)
    }

    /// Shows a page in the browser and returns what is reported first.
    ///
    /// # Errors
    /// The browser cannot be started, or no page reports in time.
    pub async fn first_report(&mut self, program: &Path, url: &str) -> Result<Value> {
        let profile = tempfile::tempdir()?;
        let mut browser = Command::new(program)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"])
            .args(["--disable-background-networking", "--disable-component-update"])
            .args(["--no-first-run", "--disable-sync", "--no-proxy-server"])
            .args(["--disable-dev-shm-usage", "--remote-debugging-port=0"])
            .arg(format!("--host-resolver-rules=MAP {FOREIGN_HOST} 127.0.0.1"))
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("starting the browser")?;
        let report = timeout(REPORT_TIMEOUT, self.reported.recv()).await;
        // Its helper processes end with it; the profile's folder can only then be removed.
        let _ = browser.kill().await;
        report.context("the page did not report in time")?.context("the server ended")
    }
}

impl Drop for ForeignServer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Shows a page of a foreign origin in the browser and returns what it reports to `/report`.
/// Requests for anything but the page and the report are handed on to `node`.
///
/// # Errors
/// The browser cannot be started, or its page does not report in time.
pub async fn visit(program: &Path, page: String, node: SocketAddr) -> Result<Value> {
    let mut server = ForeignServer::start(page, node).await?;
    let url = format!("http://{FOREIGN_HOST}:{}/page", server.port);
    server.first_report(program, &url).await
}

/// Answers one request, then closes.
async fn serve(
    mut stream: TcpStream,
    page: String,
    node: SocketAddr,
    reports: mpsc::Sender<Value>,
) -> Result<()> {
    let (head, body) = read(&mut stream).await?;
    let path = head.split(' ').nth(1).unwrap_or_default();
    let answer = |status: &str, body: &str| {
        let length = body.len();
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: text/html; charset=utf-8\r\n\
             content-length: {length}\r\nconnection: close\r\n\r\n{body}"
        )
    };
    match path {
        "/page" => stream.write_all(answer("200 OK", &page).as_bytes()).await?,
        "/favicon.ico" => stream.write_all(answer("404 Not Found", "").as_bytes()).await?,
        "/report" => {
            stream.write_all(answer("200 OK", "").as_bytes()).await?;
            reports.send(serde_json::from_slice(&body)?).await?;
        }
        _ => {
            let mut onwards = TcpStream::connect(node).await?;
            let head = head.replace("Connection: keep-alive", "Connection: close");
            onwards.write_all(head.as_bytes()).await?;
            onwards.write_all(&body).await?;
            tokio::io::copy(&mut onwards, &mut stream).await?;
        }
    }
    Ok(stream.shutdown().await?)
}

/// The head of a request, with the empty line that ends it, and its body.
async fn read(stream: &mut TcpStream) -> Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        ensure!(bytes.len() <= REQUEST_BYTES_MAX, "a page of ours sends little");
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
        if let Some(end) = end {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
            });
            let length: usize = length.unwrap_or_default();
            if bytes.len() >= end + length {
                return Ok((head, bytes[end..end + length].to_vec()));
            }
        }
        ensure!(stream.read_buf(&mut bytes).await? > 0, "the browser closed the connection");
    }
}
