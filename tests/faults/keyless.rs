//! Why this program: three million writes that name no id, through the API of a real node, must
//! end without a refusal and with the node's memory flat.
//!
//! `cargo run --release -p tests --example keyless [writes]`

#![allow(clippy::print_stdout, reason = "it prints what it measured")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use tests::process_cluster::{Contents, ProcessCluster};

/// Connections, and requests sent over one before its answers are read.
const CONNECTIONS: usize = 32;
const PIPELINED: usize = 32;
/// Records that are written to, over and over.
const RECORDS: usize = 1_000;
/// How often the node's memory is printed.
const REPORTS: usize = 10;

#[tokio::main]
async fn main() -> Result<()> {
    let writes = std::env::args().nth(1).map_or(Ok(3_000_000), |text| text.parse())?;
    let mut cluster = ProcessCluster::plan(1, Contents::Sample).await?;
    cluster.keep_quiet();
    cluster.start_all().await?;
    let (address, pid) = (cluster.http(1), cluster.pid(1)?);
    let (began, refused) = (Instant::now(), Arc::new(AtomicUsize::new(0)));
    println!("writes, resident memory, refusals");
    println!("{:>9} {:>6} MB {:>4}", 0, resident(pid)?, 0);
    for round in 1..=REPORTS {
        let share = writes / REPORTS / CONNECTIONS / PIPELINED * PIPELINED;
        let writers: Vec<_> = (0..CONNECTIONS)
            .map(|n| {
                let refused = Arc::clone(&refused);
                std::thread::spawn(move || write(address, n, share, &refused))
            })
            .collect();
        for writer in writers {
            writer.join().map_err(|_| anyhow::anyhow!("a writer panicked"))??;
        }
        let done = round * share * CONNECTIONS;
        let refusals = refused.load(Ordering::Relaxed);
        println!("{done:>9} {:>6} MB {refusals:>4}", resident(pid)?);
    }
    println!("{:.0} writes a second", writes as f64 / began.elapsed().as_secs_f64());
    cluster.stop(1).await
}

/// Writes so many times over a connection of its own.
fn write(address: SocketAddr, writer: usize, writes: usize, refused: &AtomicUsize) -> Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut answers = Vec::new();
    for first in (0..writes).step_by(PIPELINED) {
        let mut requests = String::new();
        for n in first..first + PIPELINED {
            let id = (writer * 31 + n) % RECORDS;
            let body = format!(
                "{{\"action\":\"module:save\",\"table\":\"dining_tables\",\"record\":\
                 {{\"id\":\"k-{id}\",\"name\":\"T{n}\"}}}}"
            );
            requests.push_str(&format!(
                "POST /api/branches/dar/modules/pos/save HTTP/1.1\r\nhost: 127.0.0.1\r\n\
                 content-length: {}\r\n\r\n{body}",
                body.len()
            ));
        }
        stream.write_all(requests.as_bytes())?;
        for _ in 0..PIPELINED {
            let status = answer(&mut stream, &mut answers)?;
            refused.fetch_add(usize::from(!(200..300).contains(&status)), Ordering::Relaxed);
        }
    }
    Ok(())
}

/// Reads one answer; gives its status.
fn answer(stream: &mut TcpStream, held: &mut Vec<u8>) -> Result<u16> {
    let mut piece = [0; 16 * 1024];
    loop {
        if let Some(head) = held.windows(4).position(|four| four == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&held[..head]).to_lowercase();
            let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
            let end =
                head + 4 + length.context("an answer has a length")?.trim().parse::<usize>()?;
            if held.len() >= end {
                held.drain(..end);
                return Ok(text.split(' ').nth(1).context("an answer has a status")?.parse()?);
            }
        }
        let count = stream.read(&mut piece)?;
        anyhow::ensure!(count > 0, "the node closed the connection");
        held.extend_from_slice(&piece[..count]);
    }
}

/// Megabytes of a process in memory.
fn resident(pid: u32) -> Result<u64> {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages: u64 = statm.split(' ').nth(1).context("statm has two numbers")?.parse()?;
    Ok(pages * 4096 / 1_000_000)
}
