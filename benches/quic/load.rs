//! Load by each door: closed loops, each of which asks again when it has its answer.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use aiproxy_testkit::{Bytes, Caller3, H3, Tls, Wire};
use h2::client::SendRequest;
use http::{Request, StatusCode};
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinSet;

use crate::common::{PROXY_KEY, single_threaded};
use crate::upstream::{BODY, read_message};

/// The name in the certificate.
const NAME: &str = "localhost";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    Http1,
    Http2,
    Http3,
}

/// How many requests are under way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) connections: usize,
    /// Of each connection.
    pub(crate) streams: usize,
}

/// One loop's connection.
enum Way {
    Http1(Box<Wire>),
    Http2(SendRequest<Bytes>),
    Http3(H3),
}

impl Door {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
            Self::Http3 => "HTTP/3",
        }
    }
}

/// Asks until it is told to stop.
pub(crate) fn run(
    door: Door,
    shape: Shape,
    address: SocketAddr,
    ca: &str,
    done: &Arc<AtomicU64>,
    stop: &Arc<AtomicBool>,
) -> io::Result<()> {
    single_threaded()?.block_on(async {
        let alpn = match door {
            Door::Http1 => "http/1.1",
            Door::Http2 => "h2",
            Door::Http3 => "h3",
        };
        let tls = Tls::trusting(ca, &[alpn]);
        let caller =
            if door == Door::Http3 { Some(Caller3::new(&tls).map_err(io::Error::other)?) } else { None };
        let mut loops = JoinSet::new();
        for _ in 0..shape.connections {
            for way in connect(&tls, caller.as_ref(), door, address, shape.streams).await? {
                loops.spawn(ask_on(way, Arc::clone(done), Arc::clone(stop)));
            }
        }
        while let Some(outcome) = loops.join_next().await {
            outcome.map_err(io::Error::other)??;
        }
        Ok(())
    })
}

async fn connect(
    tls: &Tls,
    caller: Option<&Caller3>,
    door: Door,
    address: SocketAddr,
    streams: usize,
) -> io::Result<Vec<Way>> {
    if let Some(caller) = caller {
        let connection = caller.connect(address, NAME).await.map_err(io::Error::other)?;
        return Ok((0..streams).map(|_| Way::Http3(connection.clone())).collect());
    }
    let wire = tls.connect(address, NAME).await?;
    if door == Door::Http1 {
        return Ok(vec![Way::Http1(Box::new(wire))]);
    }
    let (requests, connection) = h2::client::handshake(wire).await.map_err(io::Error::other)?;
    tokio::spawn(connection);
    Ok((0..streams).map(|_| Way::Http2(requests.clone())).collect())
}

async fn ask_on(mut way: Way, done: Arc<AtomicU64>, stop: Arc<AtomicBool>) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    while !stop.load(Ordering::Relaxed) {
        way.ask(&mut buffer).await?;
        done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

impl Way {
    async fn ask(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Http1(wire) => {
                let head = format!(
                    "POST /v1/chat/completions HTTP/1.1\r\nhost: {NAME}\r\nauthorization: Bearer {PROXY_KEY}\r\n\
                     accept: application/json\r\nuser-agent: bench/1\r\ncontent-type: application/json\r\n\
                     content-length: {}\r\n\r\n{BODY}",
                    BODY.len()
                );
                wire.write_all(head.as_bytes()).await?;
                let head = read_message(wire, buffer).await?;
                if head.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(io::Error::other(head)) }
            }
            Self::Http2(requests) => {
                let mut ready = requests.clone().ready().await.map_err(io::Error::other)?;
                let (answer, mut sending) =
                    ready.send_request(request()?, false).map_err(io::Error::other)?;
                sending.send_data(Bytes::from_static(BODY.as_bytes()), true).map_err(io::Error::other)?;
                let answer = answer.await.map_err(io::Error::other)?;
                let status = answer.status();
                let mut body = answer.into_body();
                while let Some(bytes) = body.data().await {
                    let length = bytes.map_err(io::Error::other)?.len();
                    body.flow_control().release_capacity(length).map_err(io::Error::other)?;
                }
                expect_ok(status)
            }
            Self::Http3(connection) => {
                let body = Bytes::from_static(BODY.as_bytes());
                let mut answer = connection.ask(request()?, body).await.map_err(io::Error::other)?;
                while answer.chunk().await.map_err(io::Error::other)?.is_some() {}
                expect_ok(answer.head.status())
            }
        }
    }
}

fn request() -> io::Result<Request<()>> {
    Request::post(format!("https://{NAME}/v1/chat/completions"))
        .header("authorization", format!("Bearer {PROXY_KEY}"))
        .header("accept", "application/json")
        .header("user-agent", "bench/1")
        .header("content-type", "application/json")
        .header("content-length", BODY.len())
        .body(())
        .map_err(io::Error::other)
}

fn expect_ok(status: StatusCode) -> io::Result<()> {
    if status == StatusCode::OK {
        Ok(())
    } else {
        Err(io::Error::other(format!("unexpected answer: {status}")))
    }
}
