//! Stories of connections: more of them than a node takes, and more of one address than leave some
//! to others.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::WebSocketStream;

use crate::client::Served;

const ASK: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// A connection from one of the addresses of this machine.
async fn connect(served: &Served, from: u8) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, from], 0))).unwrap();
    socket.connect(served.address).await.unwrap()
}

/// The answer, or what came of it before the connection ended.
async fn answer(stream: &mut TcpStream) -> String {
    let mut bytes = vec![0; 16 * 1024];
    let read = timeout(Duration::from_secs(20), stream.read(&mut bytes)).await;
    let count = read.expect("nothing came").unwrap();
    String::from_utf8_lossy(&bytes[..count]).into_owned()
}

async fn ask(stream: &mut TcpStream) -> String {
    stream.write_all(ASK).await.unwrap();
    answer(stream).await
}

/// A connection that was answered with 200; tried again while places are given back.
async fn served_from(served: &Served, from: u8) -> TcpStream {
    for _ in 0..1000 {
        let mut stream = connect(served, from).await;
        if ask(&mut stream).await.starts_with("HTTP/1.1 200 ") {
            return stream;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("no place is given back");
}

async fn socket(served: &Served, from: u8) -> Result<WebSocketStream<TcpStream>, String> {
    let stream = connect(served, from).await;
    let url = format!("ws://{}/ws", served.address);
    match tokio_tungstenite::client_async(url, stream).await {
        Ok((socket, _)) => Ok(socket),
        Err(tokio_tungstenite::tungstenite::Error::Http(answer)) => {
            let body = answer.into_body().unwrap_or_default();
            Err(String::from_utf8_lossy(&body).into_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}

#[tokio::test]
async fn connections_beyond_the_bound_are_served_as_others_leave() {
    let served = Served::new(|config| {
        config.limits.connections_max = 4;
        config.limits.address_percent = 100;
    })
    .await;
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut stream = connect(&served, 1).await;
        assert!(ask(&mut stream).await.starts_with("HTTP/1.1 200 "));
        held.push(stream);
    }
    let mut waiting = Vec::new();
    for _ in 0..8 {
        let mut stream = connect(&served, 1).await;
        stream.write_all(ASK).await.unwrap();
        waiting.push(stream);
    }
    sleep(Duration::from_millis(50)).await;
    let came = waiting.iter().filter(|stream| stream.try_read(&mut [0]).is_ok()).count();
    assert_eq!(came, 0, "the system holds them");
    for mut stream in waiting {
        // One leaves, and the one that has waited longest has its place.
        drop(held.remove(0));
        assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200 "));
        held.push(stream);
    }
}

#[tokio::test]
async fn an_address_leaves_connections_to_others() {
    let served = Served::new(|config| config.limits.connections_max = 8).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(served_from(&served, 1).await);
    }
    let mut refused = connect(&served, 1).await;
    let answered = ask(&mut refused).await;
    assert!(answered.starts_with("HTTP/1.1 503 "), "{answered}");
    for part in ["too-many-connections", "this address has", "retry-after: ", "connection: close"] {
        assert!(answered.contains(part), "{part}: {answered}");
    }
    assert_eq!(answer(&mut refused).await, "", "it ends");
    assert!(ask(&mut held[0]).await.starts_with("HTTP/1.1 200 "), "the others go on");
    let other = served_from(&served, 2).await;
    held.pop();
    drop((served_from(&served, 1).await, other));
}

#[tokio::test]
async fn a_socket_keeps_the_place_of_its_connection() {
    let served = Served::new(|config| config.limits.connections_max = 4).await;
    let first = socket(&served, 1).await.unwrap();
    let _second = socket(&served, 1).await.unwrap();
    let refused = ask(&mut connect(&served, 1).await).await;
    assert!(refused.contains("too-many-connections"), "{refused}");
    drop(first);
    served_from(&served, 1).await;
}

#[tokio::test]
async fn an_address_leaves_sockets_to_others() {
    let served = Served::new(|config| config.limits.sockets_max = 4).await;
    let first = socket(&served, 1).await.unwrap();
    let _second = socket(&served, 1).await.unwrap();
    let refused = socket(&served, 1).await.err().unwrap();
    assert!(refused.contains("too-many-sockets"), "{refused}");
    assert!(refused.contains("this address holds"), "{refused}");
    let _other = socket(&served, 2).await.unwrap();
    drop(first);
    let mut again = socket(&served, 1).await;
    while again.is_err() {
        sleep(Duration::from_millis(10)).await;
        again = socket(&served, 1).await;
    }
}
