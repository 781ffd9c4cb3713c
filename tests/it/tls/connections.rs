//! Bounds on connections and requests, draining and closing.

use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use leasehold::server::accept::ConnectionLimits;
use leasehold::server::config::ClientCertificate;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::{Broker, limits};
use crate::support::wire::{answer, exchange, get, is_closed, send, soon, until};

/// An HTTP/2 client over `stream`.
pub async fn http2(stream: TlsStream<TcpStream>) -> SendRequest<Body> {
    let io = TokioIo::new(stream);
    let (sender, connection) =
        soon(hyper::client::conn::http2::handshake(TokioExecutor::new(), io)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// One `GET` with these headers.
pub async fn ask(
    client: &mut SendRequest<Body>,
    path: &str,
    headers: &[(&str, &str)],
) -> (u16, String) {
    let mut request = Request::get(format!("https://test{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::empty()).unwrap();
    let response = soon(client.send_request(request)).await.unwrap();
    let status = response.status().as_u16();
    let body = soon(response.into_body().collect()).await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

async fn start(limits: ConnectionLimits) -> Broker {
    Broker::start(ClientCertificate::Required, limits).await
}

#[tokio::test]
async fn a_slow_handshake_delays_nobody_and_ends() {
    let limits = ConnectionLimits { handshake_timeout: Duration::from_millis(500), ..limits() };
    let broker = start(limits).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(broker.address).await.unwrap());
    }
    let mut half = TcpStream::connect(broker.address).await.unwrap();
    // The first bytes of a TLS record, and never the rest.
    tokio::io::AsyncWriteExt::write_all(&mut half, &[0x16, 3, 1, 2]).await.unwrap();
    let (status, _) = broker.who_am_i(&broker.friend()).await;
    assert_eq!(status, 200);
    for stream in silent.iter_mut().chain([&mut half]) {
        assert!(is_closed(stream).await);
    }
    until(|| broker.connections.active() == 0).await;
}

#[tokio::test]
async fn who_says_nothing_takes_no_turn_from_those_who_do() {
    let patient = Duration::from_secs(3600);
    let limits = ConnectionLimits {
        handshakes: 1,
        handshake_timeout: patient,
        header_timeout: patient,
        ..limits()
    };
    let broker = start(limits).await;
    let mut silent = Vec::new();
    for _ in 0..5 {
        silent.push(TcpStream::connect(broker.address).await.unwrap());
    }
    until(|| broker.connections.active() == 5).await;
    let (status, _) = soon(broker.who_am_i(&broker.friend())).await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn a_request_that_came_in_time_is_answered_however_late_it_is_noticed() {
    let first = Duration::from_millis(30);
    let broker = start(ConnectionLimits { header_timeout: first, ..limits() }).await;
    for _ in 0..12 {
        let mut stream = broker.friend().connect(broker.address).await.unwrap();
        // So that the server waits for the request, and not for the end of the handshake.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        send(&mut stream, "GET /whoami HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        // The machine stands still, and the server with it: it runs on this very thread.
        std::thread::sleep(first * 2);
        assert_eq!(answer(&mut stream).await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_at_once() {
    let broker = start(ConnectionLimits { connections: 2, ..limits() }).await;
    let client = broker.friend();
    let mut first = client.connect(broker.address).await.unwrap();
    let mut second = client.connect(broker.address).await.unwrap();
    assert_eq!(get(&mut first, "/whoami").await.unwrap().status, 200);
    assert_eq!(broker.connections.active(), 2);
    let mut third = TcpStream::connect(broker.address).await.unwrap();
    assert!(is_closed(&mut third).await);
    drop(first);
    until(|| broker.connections.active() == 1).await;
    let (status, _) = broker.who_am_i(&client).await;
    assert_eq!(status, 200);
    assert_eq!(get(&mut second, "/whoami").await.unwrap().status, 200);
}

#[tokio::test]
async fn connections_are_taken_while_the_runtime_is_busy() {
    let broker = start(limits()).await;
    assert_eq!(broker.who_am_i(&broker.friend()).await.0, 200, "it listens");
    until(|| broker.connections.active() == 0).await;
    // No await from here on: the one thread that runs tasks is kept busy.
    let kept: Vec<_> =
        (0..300).map(|_| std::net::TcpStream::connect(broker.address).unwrap()).collect();
    let begun = std::time::Instant::now();
    while broker.connections.active() < kept.len() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{}", broker.connections.active());
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[tokio::test]
async fn connections_without_requests_are_closed() {
    let first = Duration::from_millis(50);
    let broker = start(ConnectionLimits { header_timeout: first, ..limits() }).await;
    let mut quiet = broker.friend().connect(broker.address).await.unwrap();
    assert!(is_closed(&mut quiet).await);
    // A head that never ends is no request.
    let mut slow = broker.friend().connect(broker.address).await.unwrap();
    send(&mut slow, "GET /whoami HTTP/1.1\r\nHost: te").await.unwrap();
    assert!(is_closed(&mut slow).await);
    let idle = Duration::from_millis(50);
    let broker = start(ConnectionLimits { idle_timeout: idle, ..limits() }).await;
    for protocol in [b"http/1.1".as_slice(), b"h2"] {
        let client = broker.friend().alpn(&[protocol]);
        let mut stream = client.connect(broker.address).await.unwrap();
        if protocol == b"h2" {
            let mut h2 = http2(stream).await;
            assert_eq!(ask(&mut h2, "/whoami", &[]).await.0, 200);
        } else {
            assert_eq!(get(&mut stream, "/whoami").await.unwrap().status, 200);
        }
    }
    until(|| broker.connections.active() == 0).await;
}

#[tokio::test]
async fn heads_are_bounded() {
    let small = ConnectionLimits { header_bytes: 8192, headers: 20, ..limits() };
    let broker = start(small).await;
    let client = broker.friend();
    let head = |filler: usize| {
        format!("GET /whoami HTTP/1.1\r\nHost: x\r\nX-Fill: {}\r\n\r\n", "a".repeat(filler))
    };
    let many = |count: usize| {
        let lines: String = (0..count).map(|n| format!("x-{n}: 1\r\n")).collect();
        format!("GET /whoami HTTP/1.1\r\nHost: x\r\n{lines}\r\n")
    };
    for (text, status) in [(head(7000), 200), (head(9000), 431), (many(15), 200), (many(25), 431)] {
        let mut stream = client.connect(broker.address).await.unwrap();
        assert_eq!(exchange(&mut stream, &text).await.unwrap().status, status);
    }
    let stream = broker.friend().alpn(&[b"h2"]).connect(broker.address).await.unwrap();
    let mut h2 = http2(stream).await;
    let filler = "a".repeat(9000);
    assert_eq!(ask(&mut h2, "/whoami", &[("x-fill", &filler)]).await.0, 431);
    let names: Vec<String> = (0..25).map(|n| format!("x-{n}")).collect();
    let lines: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    assert_eq!(ask(&mut h2, "/whoami", &lines).await.0, 431);
    assert_eq!(ask(&mut h2, "/whoami", &[]).await.0, 200);
}

#[tokio::test]
async fn bodies_are_bounded_whether_declared_or_not() {
    let broker = start(ConnectionLimits { body_bytes: 100, ..limits() }).await;
    let client = broker.friend();
    let post = |framing: &str, body: &str| {
        format!("POST /length HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n{body}")
    };
    let (most, over) = ("a".repeat(100), "a".repeat(101));
    for (text, status) in [
        (post("Content-Length: 100", &most), 200),
        (post("Content-Length: 101", &over), 413),
        (post("Transfer-Encoding: chunked", &format!("64\r\n{most}\r\n0\r\n\r\n")), 200),
        (post("Transfer-Encoding: chunked", &format!("65\r\n{over}\r\n0\r\n\r\n")), 413),
        (post("Content-Length: -1", ""), 400),
        (post("Content-Length: 1\r\nContent-Length: 2", "aa"), 400),
    ] {
        let mut stream = client.connect(broker.address).await.unwrap();
        let answer = exchange(&mut stream, &text).await.unwrap();
        assert_eq!(answer.status, status, "{text}");
    }
}

#[tokio::test]
async fn a_drain_finishes_what_was_begun() {
    let broker = start(limits()).await;
    let client = broker.friend();
    let mut idle = client.connect(broker.address).await.unwrap();
    assert_eq!(get(&mut idle, "/whoami").await.unwrap().status, 200);
    let mut busy = client.connect(broker.address).await.unwrap();
    send(&mut busy, "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut h2 = http2(client_h2(&broker).await).await;
    let held = tokio::spawn(async move { ask(&mut h2, "/hold", &[]).await });
    soon(broker.app.entered.acquire_many(2)).await.unwrap().forget();
    broker.stop.cancel();
    assert!(is_closed(&mut idle).await);
    assert!(!broker.drained.is_finished());
    broker.app.release.add_permits(2);
    let last = answer(&mut busy).await.unwrap();
    assert_eq!((last.status, last.body.as_str()), (200, "done"));
    assert_eq!(soon(held).await.unwrap(), (200, "done".to_owned()));
    soon(broker.drained).await.unwrap();
    assert_eq!(broker.connections.active(), 0);
    // Nobody listens, or by now somebody else, who has another certificate.
    assert!(client.connect(broker.address).await.is_err());
}

async fn client_h2(broker: &Broker) -> TlsStream<TcpStream> {
    broker.friend().alpn(&[b"h2"]).connect(broker.address).await.unwrap()
}

#[tokio::test]
async fn a_drain_has_a_deadline() {
    let deadline = Duration::from_millis(50);
    let broker = Broker::start_draining(ClientCertificate::Required, limits(), deadline).await;
    let mut busy = broker.friend().connect(broker.address).await.unwrap();
    send(&mut busy, "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    soon(broker.app.entered.acquire()).await.unwrap().forget();
    broker.stop.cancel();
    soon(broker.drained).await.unwrap();
    assert!(is_closed(&mut busy).await);
    assert_eq!(broker.connections.active(), 0);
}

#[tokio::test]
async fn closing_all_connections_spares_answers_and_newcomers() {
    let broker = start(limits()).await;
    let client = broker.friend();
    let mut idle = client.connect(broker.address).await.unwrap();
    assert_eq!(get(&mut idle, "/whoami").await.unwrap().status, 200);
    let mut busy = client.connect(broker.address).await.unwrap();
    send(&mut busy, "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    soon(broker.app.entered.acquire()).await.unwrap().forget();
    broker.connections.close_all(Duration::from_secs(20));
    assert!(is_closed(&mut idle).await);
    let mut later = client.connect(broker.address).await.unwrap();
    assert_eq!(get(&mut later, "/whoami").await.unwrap().status, 200);
    broker.app.release.add_permits(1);
    assert_eq!(answer(&mut busy).await.unwrap().body, "done");
    assert!(is_closed(&mut busy).await);
    assert_eq!(get(&mut later, "/whoami").await.unwrap().status, 200);
    // Without grace, nothing is waited for.
    send(&mut later, "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    soon(broker.app.entered.acquire()).await.unwrap().forget();
    broker.connections.close_all(Duration::ZERO);
    assert!(is_closed(&mut later).await);
    until(|| broker.connections.active() == 0).await;
}
