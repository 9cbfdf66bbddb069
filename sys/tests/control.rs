//! The control plane, on both backends: every fact below must hold for each.

use std::future::Future;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, raise};
use sys::backend::{Backend, probe};
use sys::control::{Listener, Runtime, Stream, spawn};
use tokio::time::{sleep, timeout};

const ANYWHERE: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// Longer than anything here takes, shorter than a test runner's patience.
const PATIENCE: Duration = Duration::from_secs(20);

/// Long enough for an operation to reach the kernel.
const MOMENT: Duration = Duration::from_millis(30);

/// Runs a fact on every backend that works here.
fn on_both<F: Future<Output = ()>>(fact: impl Fn() -> F) {
    for backend in backends() {
        let runtime = Runtime::new(backend).expect("make a runtime");
        let ended = runtime.block_on(async { timeout(PATIENCE, fact()).await });
        ended.unwrap_or_else(|_| panic!("hangs on {backend}"));
    }
}

fn backends() -> Vec<Backend> {
    match probe() {
        Ok(()) => vec![Backend::Uring, Backend::Threads],
        Err(why) => {
            eprintln!("NOT CHECKED on uring: {why}");
            vec![Backend::Threads]
        }
    }
}

async fn connected() -> (Stream, Stream) {
    let listener = Listener::bind(ANYWHERE).expect("bind");
    let client = Stream::connect(listener.local_addr()).await.expect("connect");
    let (server, _) = listener.accept().await.expect("accept");
    (client, server)
}

async fn read(stream: &Stream) -> Vec<u8> {
    let (result, bytes) = stream.read(Vec::with_capacity(4096)).await;
    assert_eq!(result.expect("read"), bytes.len());
    bytes
}

#[test]
fn what_is_written_is_read() {
    on_both(async || {
        let (client, server) = connected().await;
        client.write_all(b"question".to_vec()).await.expect("write");
        assert_eq!(read(&server).await, b"question");
        server.write_all(b"answer".to_vec()).await.expect("write");
        assert_eq!(read(&client).await, b"answer");
        client.shutdown_write().expect("shutdown");
        assert_eq!(read(&server).await, b"");
        server.write_all(b"last word".to_vec()).await.expect("write after the peer's end");
        assert_eq!(read(&client).await, b"last word");
    });
}

#[test]
fn a_message_larger_than_the_socket_buffers_arrives_whole() {
    on_both(async || {
        let (client, server) = Stream::pair().expect("pair");
        let sent: Vec<u8> = (0..4_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
        let expected = sent.clone();
        let writer = spawn(async move { client.write_all(sent).await });
        let mut got = Vec::new();
        loop {
            let bytes = read(&server).await;
            if bytes.is_empty() {
                break;
            }
            got.extend(bytes);
        }
        writer.await.expect("join").expect("write");
        assert!(got == expected);
    });
}

#[test]
fn a_listener_accepts_one_after_another_and_says_who_came() {
    on_both(async || {
        let listener = Listener::bind(ANYWHERE).expect("bind");
        let mut clients = Vec::new();
        for _ in 0..2 {
            let client = TcpStream::connect(listener.local_addr()).expect("connect");
            let (_, peer) = listener.accept().await.expect("accept");
            assert_eq!(peer, client.local_addr().expect("address"));
            clients.push(client);
        }
    });
}

#[test]
fn an_accept_that_was_given_up_loses_no_connection() {
    on_both(async || {
        let listener = Listener::bind(ANYWHERE).expect("bind");
        timeout(MOMENT, listener.accept()).await.expect_err("nobody came yet");
        let mut client = TcpStream::connect(listener.local_addr()).expect("connect");
        sleep(MOMENT).await;
        let (stream, peer) = listener.accept().await.expect("accept");
        assert_eq!(peer, client.local_addr().expect("address"));
        client.write_all(b"hello").expect("write");
        assert_eq!(read(&stream).await, b"hello");
    });
}

#[test]
fn a_read_that_was_given_up_loses_no_byte() {
    on_both(async || {
        let (client, server) = connected().await;
        timeout(MOMENT, server.read(Vec::with_capacity(8))).await.expect_err("nothing came yet");
        client.write_all(b"one".to_vec()).await.expect("write");
        sleep(MOMENT).await;
        client.write_all(b"two".to_vec()).await.expect("write");
        let mut got = read(&server).await;
        if got.len() < 6 {
            got.extend(read(&server).await);
        }
        assert_eq!(got, b"onetwo");
    });
}

#[test]
fn a_write_that_was_given_up_goes_out_whole_before_the_next() {
    on_both(async || {
        let (client, server) = Stream::pair().expect("pair");
        let long = vec![b'a'; 3_000_000];
        timeout(MOMENT, client.write_all(long)).await.expect_err("the buffers are smaller");
        let writer = spawn(async move { client.write_all(b"b".to_vec()).await });
        let mut got = Vec::new();
        while got.len() < 3_000_001 {
            got.extend(read(&server).await);
        }
        writer.await.expect("join").expect("write");
        assert!(got.ends_with(b"ab") && got[..3_000_000].iter().all(|&byte| byte == b'a'));
    });
}

#[test]
fn two_tasks_cannot_read_one_stream() {
    on_both(async || {
        let (client, server) = connected().await;
        let server = Rc::new(server);
        let first = Rc::clone(&server);
        let first = spawn(async move { read(&first).await });
        sleep(MOMENT).await;
        let (second, _) = server.read(Vec::with_capacity(8)).await;
        let refused = second.expect_err("two readers");
        assert_eq!(refused.kind(), std::io::ErrorKind::ResourceBusy);
        client.write_all(b"for the first".to_vec()).await.expect("write");
        assert_eq!(first.await.expect("join"), b"for the first");
    });
}

#[test]
fn a_buffer_without_room_is_refused_for_its_answer_would_look_like_the_end() {
    on_both(async || {
        let (_client, server) = connected().await;
        assert!(server.read(Vec::new()).await.0.is_err());
    });
}

#[test]
fn shutdown_ends_a_pending_read() {
    on_both(async || {
        let (_client, server) = connected().await;
        let server = Rc::new(server);
        let reader = Rc::clone(&server);
        let reader = spawn(async move { reader.read(Vec::with_capacity(8)).await.0 });
        sleep(MOMENT).await;
        server.shutdown().expect("shutdown");
        assert_eq!(reader.await.expect("join").expect("read"), 0);
        server.shutdown().expect("shutdown of what is shut down");
    });
}

#[test]
fn a_stream_that_is_dropped_after_a_given_up_read_still_says_goodbye() {
    on_both(async || {
        let (client, server) = connected().await;
        timeout(MOMENT, server.read(Vec::with_capacity(8))).await.expect_err("nothing came");
        drop(server);
        assert_eq!(read(&client).await, b"");
    });
}

#[test]
fn a_listener_that_is_dropped_after_a_given_up_accept_frees_its_port() {
    on_both(async || {
        let listener = Listener::bind(ANYWHERE).expect("bind");
        let addr = listener.local_addr();
        timeout(MOMENT, listener.accept()).await.expect_err("nobody came");
        drop(listener);
        sleep(MOMENT).await;
        Listener::bind(addr).expect("bind again");
    });
}

#[test]
fn the_data_plane_gets_a_blocking_descriptor_that_works() {
    on_both(async || {
        let (client, server) = connected().await;
        client.write_all(b"join".to_vec()).await.expect("write");
        assert_eq!(read(&server).await, b"join");
        let (client, server) = (client.into_fd().expect("fd"), server.into_fd().expect("fd"));
        assert_blocking_and_usable(TcpStream::from(client), TcpStream::from(server));
        let (left, right) = Stream::pair().expect("pair");
        let (left, right) = (left.into_fd().expect("fd"), right.into_fd().expect("fd"));
        assert_blocking_and_usable(UnixStream::from(left), UnixStream::from(right));
    });
}

/// The reader comes first and must wait: a non-blocking descriptor fails with `EAGAIN`.
fn assert_blocking_and_usable<S>(mut client: S, mut server: S)
where
    S: Read + Write + std::os::fd::AsFd + Send + 'static + Into<OwnedFd>,
{
    let flags = OFlag::from_bits_retain(fcntl(&server, FcntlArg::F_GETFL).expect("flags"));
    assert!(!flags.contains(OFlag::O_NONBLOCK));
    let reader = std::thread::spawn(move || {
        let mut bytes = String::new();
        server.read_to_string(&mut bytes).map(|_| bytes)
    });
    std::thread::sleep(MOMENT);
    client.write_all(b"data").expect("write");
    drop(client);
    assert_eq!(reader.join().expect("join").expect("read"), "data");
}

#[test]
fn a_connection_with_a_read_still_in_flight_is_not_given_away() {
    on_both(async || {
        let (client, server) = connected().await;
        timeout(MOMENT, server.read(Vec::with_capacity(8))).await.expect_err("nothing came");
        let refused = server.into_fd().expect_err("the read would steal bytes");
        assert_eq!(refused.kind(), std::io::ErrorKind::ResourceBusy);
        assert_eq!(read(&client).await, b"");
    });
}

#[test]
fn a_port_where_nobody_listens_refuses() {
    on_both(async || {
        let listener = Listener::bind(ANYWHERE).expect("bind");
        let addr = listener.local_addr();
        drop(listener);
        let refused = Stream::connect(addr).await.expect_err("nobody listens");
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_port_in_use_is_an_error_and_never_shared() {
    on_both(async || {
        let listener = Listener::bind(ANYWHERE).expect("bind");
        let refused = Listener::bind(listener.local_addr()).expect_err("in use");
        assert_eq!(refused.kind(), std::io::ErrorKind::AddrInUse);
    });
}

#[test]
fn outside_a_runtime_there_is_an_error_and_no_panic() {
    assert!(Listener::bind(ANYWHERE).is_err());
    assert!(Stream::pair().is_err());
}

#[test]
fn a_runtime_that_is_dropped_amid_operations_ends_them() {
    for backend in backends() {
        let began = Instant::now();
        let runtime = Runtime::new(backend).expect("make a runtime");
        let (listener, stream, _peer) = runtime.block_on(async {
            let listener = Listener::bind(ANYWHERE).expect("bind");
            let (stream, peer) = Stream::pair().expect("pair");
            timeout(MOMENT, listener.accept()).await.expect_err("nobody came");
            timeout(MOMENT, stream.read(Vec::with_capacity(8))).await.expect_err("nothing came");
            let (forgotten, _peer) = Stream::pair().expect("pair");
            spawn(async move { forgotten.read(Vec::with_capacity(8)).await.0 });
            (listener, stream, peer)
        });
        drop(runtime);
        drop((listener, stream));
        assert!(began.elapsed() < PATIENCE);
    }
}

#[test]
fn sleep_and_signals_work_inside() {
    on_both(async || {
        use tokio::signal::unix::{SignalKind, signal};
        let began = Instant::now();
        sleep(MOMENT).await;
        assert!(began.elapsed() >= MOMENT);
        let mut hangups = signal(SignalKind::user_defined1()).expect("handler");
        raise(Signal::SIGUSR1).expect("raise");
        hangups.recv().await.expect("a signal");
    });
}
