//! Metrics and pages by HTTP, for whoever may reach the address.
//!
//! A thread and a runtime of its own: whatever comes here, copies and their clock go on. It only
//! tells. What must never happen: that a stranger makes it hold more than so many connections,
//! bytes or seconds.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::http::uri::Authority;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::machine;
use crate::error::{Failure, Side};

/// Others are turned away.
const CONNECTIONS_MAX: usize = 32;

/// How much of a request is read; one that is longer is refused.
const REQUEST_BYTES_MAX: usize = 16 << 10;

/// How long a request may take to come, and the whole of a connection.
const HEADER_LIMIT: Duration = Duration::from_secs(5);
const CONNECTION_LIMIT: Duration = Duration::from_secs(20);

/// Nothing from elsewhere, no scripts, in nobody's frame.
const RULES: &str = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; \
                     frame-ancestors 'none'";

/// What there is to be told.
pub(super) trait Site: Clone + Send + Sync + 'static {
    /// What it has, in words.
    const WHAT: &str;
    /// The paths, in words, for whoever has asked for another.
    const PATHS: &str;

    /// What is told under a path; `None` where there is nothing.
    fn answer(&self, path: &str) -> Option<Answer>;
}

/// A text and what it is called in HTTP, or why there is none.
pub(super) struct Answer {
    kind: &'static str,
    text: Result<String, String>,
}

impl Answer {
    pub fn of(kind: &'static str, text: String) -> Answer {
        Answer { kind, text: Ok(text) }
    }

    /// Of a text that may have failed.
    pub fn tried<E: ToString>(kind: &'static str, text: Result<String, E>) -> Answer {
        Answer { kind, text: text.map_err(|error| error.to_string()) }
    }
}

/// Understands `ADDR:PORT`, or a port of this host alone.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(port) = text.parse::<u16>() {
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    text.parse().map_err(|_| "use ADDR:PORT such as 127.0.0.1:9101, or a port".to_owned())
}

/// Listens from now on, until the process ends.
pub(super) fn listen<S: Site>(side: Side, address: SocketAddr, pages: S) -> Result<(), Failure> {
    let what = S::WHAT;
    let failed = |error: io::Error| {
        machine(side, &format!("listen for --metrics at {address}"), &error)
            .with_remedy("choose another address or port")
    };
    let listener = StdListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(failed)?;
    let told = Told { pages, local: address.ip().is_loopback() };
    let serve = move || runtime.block_on(serve(listener, told));
    thread::Builder::new().name("zferry-http".to_owned()).spawn(serve).map_err(failed)?;
    if address.ip().is_loopback() {
        tracing::info!("{what} at http://{address}/");
    } else {
        tracing::warn!("{what} at http://{address}/, for whoever can reach that, in clear");
    }
    Ok(())
}

/// What is told, and to whom.
#[derive(Clone)]
struct Told<S> {
    pages: S,
    /// To this host alone.
    local: bool,
}

async fn serve(listener: StdListener, told: Told<impl Site>) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "listen for --metrics"),
    };
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accept a connection for metrics");
                // It would fail again at once, where descriptors have run out.
                tokio::time::sleep(HEADER_LIMIT).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let told = told.clone();
        tokio::spawn(async move {
            let _place = place;
            let answered = tokio::time::timeout(CONNECTION_LIMIT, converse(stream, told)).await;
            if let Ok(Err(error)) = answered {
                tracing::debug!(%error, "a connection for metrics");
            }
        });
    }
}

async fn converse(stream: TcpStream, told: Told<impl Site>) -> Result<(), hyper::Error> {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = if told.local && !is_of_this_host(&request) {
            plain(StatusCode::FORBIDDEN, "ask by address, or for localhost\n")
        } else {
            answer(request.method(), request.uri().path(), &told.pages)
        };
        async move { Ok::<_, Infallible>(response) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_LIMIT)
        .max_buf_size(REQUEST_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

/// Whether whoever asks has named an address or `localhost`. A page from elsewhere whose name was
/// made to lead here would have its browser name that.
fn is_of_this_host<T>(request: &Request<T>) -> bool {
    let Some(host) = request.headers().get(header::HOST) else { return true };
    let Ok(authority) = Authority::try_from(host.as_bytes()) else { return false };
    let name = authority.host();
    let is_address = name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    is_address || name.eq_ignore_ascii_case("localhost")
}

fn answer<S: Site>(method: &Method, path: &str, pages: &S) -> Response<Full<Bytes>> {
    if ![Method::GET, Method::HEAD].contains(method) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD are understood\n");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match pages.answer(path) {
        Some(Answer { kind, text: Ok(text) }) => response(StatusCode::OK, kind, text),
        Some(Answer { text: Err(error), .. }) => {
            tracing::error!(error, "tell the state of things");
            plain(StatusCode::INTERNAL_SERVER_ERROR, "this cannot be told\n")
        }
        None => plain(StatusCode::NOT_FOUND, &format!("there are {}\n", S::PATHS)),
    }
}

fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    response(status, "text/plain; charset=utf-8", text.to_owned())
}

fn response(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers: [(HeaderName, &'static str); 5] = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, RULES),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_from_elsewhere_whose_name_leads_here_is_told_nothing() {
        let is_ours = |host: &str| {
            let request = Request::builder().header(header::HOST, host).body(()).unwrap();
            is_of_this_host(&request)
        };
        for host in ["localhost", "LocalHost:9101", "127.0.0.1:9101", "127.0.0.1", "[::1]:9101"] {
            assert!(is_ours(host), "{host}");
        }
        for host in ["evil.example", "evil.example:9101", "localhost.evil.example", "", "a b", "@"]
        {
            assert!(!is_ours(host), "{host}");
        }
        assert!(is_of_this_host(&Request::new(())), "as old as HTTP/1.0");
    }

    #[test]
    fn a_port_alone_is_of_this_host_alone() {
        for (text, expected) in [
            ("9101", "127.0.0.1:9101"),
            ("0.0.0.0:9101", "0.0.0.0:9101"),
            ("[::1]:9101", "[::1]:9101"),
        ] {
            assert_eq!(address(text).unwrap().to_string(), expected);
        }
        for text in ["", "localhost:9101", "127.0.0.1", "99999", "9101x"] {
            assert!(address(text).is_err(), "{text}");
        }
    }
}
