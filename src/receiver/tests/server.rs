use std::io::ErrorKind;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::receiver::config::Grpc;
use crate::receiver::server::{BindError, Connections, Listener, Settings, serve};

/// An axum router, as the admin endpoints are.
async fn pages(settings: Settings) -> (SocketAddr, Arc<Connections>, watch::Sender<()>, JoinHandle<()>) {
    let router = axum::Router::new().route("/", axum::routing::get(|| async { "hello" })).route(
        "/slow",
        axum::routing::get(|| async {
            sleep(Duration::from_millis(300)).await;
            "done"
        }),
    );
    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.address();
    let connections = Arc::new(Connections::default());
    let (stop, stopped) = watch::channel(());
    let task = tokio::spawn(serve(listener, router, settings, connections.clone(), stopped));
    (address, connections, stop, task)
}

#[tokio::test]
async fn any_service_is_served_over_both_protocols() {
    let (address, connections, _stop, _task) = pages(Settings::default()).await;
    let url = format!("http://{address}/");
    assert_eq!(client().get(&url).send().await.unwrap().text().await.unwrap(), "hello");
    let http2 = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    assert_eq!(http2.get(&url).send().await.unwrap().text().await.unwrap(), "hello");
    assert_eq!(connections.accepted(), 2);
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let taken = Listener::bind("127.0.0.1:0").await.unwrap();
    let grpc = Grpc { listen: taken.address().to_string(), ..Grpc::default() };
    let config = Config { grpc: Some(grpc), http: None, ..Config::default() };
    let error = crate::receiver::bind(&config).await.unwrap_err();
    assert!(error.to_string().contains(&taken.address().port().to_string()), "{error}");
    assert!(!error.to_string().contains("os error"), "its cause tells that: {error}");
    let BindError::Listen { source, .. } = error else { panic!("{error}") };
    assert_eq!(source.kind(), ErrorKind::AddrInUse);
    assert!(Listener::bind("nonsense").await.is_err());
}

#[tokio::test]
async fn silent_connections_are_bounded_and_closed() {
    let settings =
        Settings { connections_max: 100, header_timeout: Duration::from_millis(500), ..Settings::default() };
    let (address, connections, _stop, _task) = pages(settings).await;
    let mut silent = Vec::new();
    for n in 0..1_000 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // Some say nothing, some a part of a preface, some a part of a header.
        let said: &[u8] = [b"".as_slice(), b"PRI * HTTP/2", b"GET / HTTP/1.1\r\nhost:"][n % 3];
        stream.write_all(said).await.unwrap();
        silent.push(stream);
    }
    assert!(connections.open() <= 100);
    // Ten times a hundred wait half a second each; a polite sender waits for its turn, no longer.
    let answer = timeout(Duration::from_secs(20), client().get(format!("http://{address}/")).send()).await;
    assert_eq!(answer.unwrap().unwrap().status(), 200);
    assert!(connections.open() <= 100);
    assert!(connections.failed() >= 900, "{}", connections.failed());
}

#[tokio::test]
async fn a_quiet_connection_is_closed() {
    let settings = Settings {
        header_timeout: Duration::from_millis(100),
        idle_timeout: Duration::from_millis(100),
        ..Settings::default()
    };
    let (address, connections, _stop, _task) = pages(settings).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert!(answer.ends_with(b"hello"));
    sleep(Duration::from_millis(50)).await;
    assert_eq!(connections.open(), 0);
}

#[tokio::test]
async fn stopping_lets_requests_end_and_refuses_new_ones() {
    let (address, _, stop, task) = pages(Settings::default()).await;
    let slow = tokio::spawn(client().get(format!("http://{address}/slow")).send());
    sleep(Duration::from_millis(100)).await;
    drop(stop);
    assert_eq!(slow.await.unwrap().unwrap().text().await.unwrap(), "done");
    timeout(Duration::from_secs(2), task).await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn the_grace_ends() {
    let settings = Settings { grace: Duration::from_millis(50), ..Settings::default() };
    let (address, connections, stop, task) = pages(settings).await;
    let slow = tokio::spawn(client().get(format!("http://{address}/slow")).send());
    sleep(Duration::from_millis(100)).await;
    let began = Instant::now();
    drop(stop);
    task.await.unwrap();
    assert!(began.elapsed() < Duration::from_millis(250));
    assert!(slow.await.unwrap().is_err());
    assert_eq!(connections.open(), 0);
}

#[tokio::test]
async fn the_receiver_stops_with_its_sender() {
    let Running { stop, task, .. } = receiver().await;
    drop(stop);
    timeout(Duration::from_secs(1), task).await.unwrap().unwrap();
}
