//! Load: clients that keep their connections and send one prepared request after another, cheaply:
//! they share the processors with the nodes they ask.
//!
//! Each waits for its answer before it sends again, and for as long as a refusal says. Their
//! threads have a low priority, and bytes are written as they were prepared.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, getrlimit, setpriority_process, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

/// How much less processor the clients get than nodes while there is not enough for all.
const NICENESS: i32 = 5;
/// Threads of the clients.
const THREADS: usize = 2;
/// The pause after a connection broke.
const RECONNECT_DELAY: Duration = Duration::from_millis(50);
/// More than the head and body of any answer to a small write.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// Open files besides the connections.
const OTHER_FILES: u64 = 64;

/// What a client sends, and to whom.
#[derive(Debug, Clone)]
pub struct LoadTarget {
    /// The node.
    pub node: SocketAddr,
    /// A whole request of HTTP/1.1 that keeps the connection.
    pub request: Arc<[u8]>,
}

impl LoadTarget {
    /// A request with a JSON body.
    pub fn new(node: SocketAddr, method: &str, path: &str, body: &str) -> Self {
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {node}\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n{body}"
        );
        Self { node, request: request.into_bytes().into() }
    }
}

/// When clients begin, and what of their time is counted.
#[derive(Debug, Clone, Copy)]
pub struct LoadPeriod {
    /// What is answered from here on counts.
    pub from: Instant,
    /// Here it ends.
    pub until: Instant,
    /// Whether a client that was refused waits as it was told to.
    pub honours_retry_after: bool,
}

/// What clients saw in their period.
#[derive(Debug, Clone, Default)]
pub struct LoadFigures {
    /// Answers of success.
    pub acknowledged: u64,
    /// Answers 429 and 503.
    pub refused: u64,
    /// Other answers, and connections that broke.
    pub failed: u64,
    /// How long each success took.
    pub took: Vec<Duration>,
}

impl LoadFigures {
    /// The time that this share of the successes did not exceed.
    pub fn quantile(&self, share: f64) -> Duration {
        let mut took = self.took.clone();
        took.sort_unstable();
        let last = took.len().saturating_sub(1);
        took.get((last as f64 * share).round() as usize).copied().unwrap_or_default()
    }

    /// Takes in what others saw.
    pub fn add(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.failed += other.failed;
        self.took.extend(other.took);
    }
}

/// The clients' threads.
#[derive(Debug)]
pub struct LoadThreads(Runtime);

impl LoadThreads {
    /// Starts them, and lets this process have so many connections.
    ///
    /// # Errors
    /// The system gives no threads, or too few open files.
    pub fn start(connections: u64) -> Result<Self> {
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit)?;
        let (most, needed) = (limit.current.unwrap_or(u64::MAX), connections + OTHER_FILES);
        ensure!(most >= needed, "{most} open files are too few for {needed}: see ulimit -n");
        // Without it they only cost the nodes more.
        let lower = || {
            let _ = setpriority_process(None, NICENESS);
        };
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .on_thread_start(lower)
            .enable_all()
            .build()?;
        Ok(Self(runtime))
    }

    /// Has so many clients send, each to one of the targets in turn.
    ///
    /// # Errors
    /// A client failed by a defect.
    pub async fn run(
        &self,
        targets: &[LoadTarget],
        clients: usize,
        period: LoadPeriod,
    ) -> Result<LoadFigures> {
        let targets = targets.iter().cycle().take(clients).cloned();
        let tasks: Vec<_> = targets
            .map(|target| self.0.spawn(async move { client(&target, period).await }))
            .collect();
        let mut all = LoadFigures::default();
        for task in tasks {
            all.add(task.await?);
        }
        Ok(all)
    }

    /// Ends them.
    pub fn stop(self) {
        self.0.shutdown_background();
    }
}

async fn client(target: &LoadTarget, period: LoadPeriod) -> LoadFigures {
    let mut figures = LoadFigures::default();
    let counts = || (period.from..period.until).contains(&Instant::now());
    while Instant::now() < period.until {
        // Ends with the period, where the node does not answer before.
        let conversation = converse(target, period, &mut figures);
        if let Ok(Err(_)) = timeout_at(period.until, conversation).await {
            figures.failed += u64::from(counts());
            sleep(RECONNECT_DELAY).await;
        }
    }
    figures
}

/// Sends over one connection until it breaks.
async fn converse(
    target: &LoadTarget,
    period: LoadPeriod,
    figures: &mut LoadFigures,
) -> Result<()> {
    let mut stream = TcpStream::connect(target.node).await?;
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(2 * 1024);
    loop {
        let began = Instant::now();
        stream.write_all(&target.request).await?;
        let answer = answer(&mut stream, &mut buffer).await?;
        let now = Instant::now();
        let counts = now >= period.from;
        match answer.status {
            200..=299 if counts => {
                figures.acknowledged += 1;
                figures.took.push(now - began);
            }
            200..=299 => {}
            429 | 503 => {
                figures.refused += u64::from(counts);
                if period.honours_retry_after {
                    sleep_until(now + answer.retry_after).await;
                }
            }
            _ => figures.failed += u64::from(counts),
        }
    }
}

/// As much of an answer as a client acts on.
#[derive(Debug, PartialEq, Eq)]
struct LoadAnswer {
    status: u16,
    retry_after: Duration,
    /// Of the head, and of the body.
    bytes: usize,
}

async fn answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<LoadAnswer> {
    buffer.clear();
    loop {
        ensure!(buffer.len() < ANSWER_BYTES_MAX, "the answer is larger than any that is expected");
        ensure!(stream.read_buf(buffer).await? > 0, "the node closed the connection");
        if let Some(answer) = head(buffer)?
            && buffer.len() >= answer.bytes
        {
            return Ok(answer);
        }
    }
}

/// The head of an answer, if it is there as a whole.
fn head(bytes: &[u8]) -> Result<Option<LoadAnswer>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(&bytes[..end])?;
    let (line, headers) = text.split_once("\r\n").unwrap_or((text, ""));
    let status = line.split(' ').nth(1).context("an answer has a status")?.parse()?;
    let number = |name: &str| -> Result<u64> {
        let mut headers = headers.split("\r\n").filter_map(|header| header.split_once(':'));
        let found = headers.find(|(header, _)| header.eq_ignore_ascii_case(name));
        Ok(found.map_or(Ok(0), |(_, value)| value.trim().parse())?)
    };
    let bytes = end + 4 + usize::try_from(number("content-length")?)?;
    Ok(Some(LoadAnswer { status, retry_after: Duration::from_secs(number("retry-after")?), bytes }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_as_far_as_a_client_acts_on_it() {
        let text = "HTTP/1.1 429 Too Many\r\nRetry-After: 3\r\ncontent-length: 5\r\n\r\n";
        let read = head(text.as_bytes()).unwrap().unwrap();
        let retry_after = Duration::from_secs(3);
        assert_eq!(read, LoadAnswer { status: 429, retry_after, bytes: text.len() + 5 });
        assert_eq!(head(&text.as_bytes()[..text.len() - 1]).unwrap(), None);
        assert!(head(b"HTTP/1.1\r\n\r\n").is_err());
    }

    #[test]
    fn quantiles_are_of_the_successes() {
        let took: Vec<_> = (1..=101).map(Duration::from_millis).collect();
        let figures = LoadFigures { took, ..LoadFigures::default() };
        let millis = |share| figures.quantile(share).as_millis();
        assert_eq!([millis(0.0), millis(0.5), millis(0.99), millis(1.0)], [1, 51, 100, 101]);
        assert_eq!(LoadFigures::default().quantile(0.5), Duration::ZERO);
    }
}
