//! The caller: streams side by side on one connection, and when each chunk came.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use aiproxy_testkit::{Bytes, Caller3, H3, Tls};
use h2::client::SendRequest;
use http::Request;
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// The name that the relay's certificate is for.
const NAME: &str = "localhost";
/// What the caller over HTTP/2 lets come unasked, of a stream and of all: never the bottleneck.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http2,
    Http3,
}

/// What a caller asks for.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) streams: usize,
    /// Of each stream.
    pub(crate) chunks: usize,
    /// Between two chunks.
    pub(crate) pace_ms: u64,
}

/// What a caller has read.
pub(crate) struct Read {
    /// By stream: when each chunk came, ms since the first one asked.
    streams: Vec<Vec<f64>>,
    /// Streams that came to their end.
    pub(crate) whole: usize,
}

/// One stream as it is read.
#[derive(Default)]
struct Stream {
    came: Vec<f64>,
    /// The last bytes that were read: the end of an event may come in two pieces.
    tail: Vec<u8>,
    whole: bool,
}

#[derive(Clone)]
enum Connection {
    Http2(SendRequest<Bytes>),
    Http3(H3),
}

impl Protocol {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http2 => "http2",
            Self::Http3 => "http3",
        }
    }
}

impl Wanted {
    pub(crate) fn json(self) -> Value {
        json!({"streams": self.streams, "chunks": self.chunks, "pace_ms": self.pace_ms})
    }

    fn from_json(text: &str) -> io::Result<Self> {
        let value: Value = serde_json::from_str(text)?;
        let number = |name: &str| value[name].as_u64().unwrap_or_default();
        let count = |name: &str| usize::try_from(number(name)).unwrap_or_default();
        Ok(Self { streams: count("streams"), chunks: count("chunks"), pace_ms: number("pace_ms") })
    }
}

impl Read {
    /// Between two chunks of the same stream, ms.
    pub(crate) fn gaps(&self) -> impl Iterator<Item = f64> {
        self.streams.iter().flat_map(|came| came.windows(2).map(|pair| pair[1] - pair[0]))
    }

    fn json(&self) -> Value {
        json!({"streams": self.streams, "whole": self.whole})
    }

    pub(crate) fn from_json(value: &Value) -> Self {
        let numbers = |stream: &Value| -> Vec<f64> {
            stream.as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
        };
        let streams = value["streams"].as_array().into_iter().flatten().map(numbers).collect();
        let whole = value["whole"].as_u64().and_then(|whole| usize::try_from(whole).ok());
        Self { streams, whole: whole.unwrap_or_default() }
    }
}

impl Stream {
    fn take(&mut self, bytes: &[u8], began: Instant) {
        let now = began.elapsed().as_secs_f64() * 1000.0;
        let known = self.tail.len();
        self.tail.extend_from_slice(bytes);
        // An end that was there before is counted already.
        let from = known.saturating_sub(1);
        let ends = memchr::memmem::find_iter(&self.tail[from..], b"\n\n").count();
        self.came.extend(std::iter::repeat_n(now, ends));
        self.whole |= memchr::memmem::find(&self.tail, b"data: [DONE]\n\n").is_some();
        let keep = self.tail.len().saturating_sub(16);
        self.tail.drain(..keep);
    }
}

/// Reads all streams and prints what came of them.
pub(crate) async fn call(protocol: &str, address: &str, ca: &str, wanted: &str) -> io::Result<()> {
    let wanted = Wanted::from_json(wanted)?;
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    let ca = std::fs::read_to_string(ca)?;
    let connection = match protocol {
        "http3" => {
            let caller = Caller3::new(&Tls::trusting(&ca, &["h3"])).map_err(io::Error::other)?;
            Connection::Http3(caller.connect(address, NAME).await.map_err(io::Error::other)?)
        }
        _ => Connection::Http2(http2(&Tls::trusting(&ca, &["h2"]), address).await?),
    };
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for number in 0..wanted.streams {
        let connection = connection.clone();
        // Platforms do not speak in chorus.
        let pace = Duration::from_millis(wanted.pace_ms);
        let offset = pace.mul_f64(number as f64 / wanted.streams as f64);
        tasks.spawn(async move {
            tokio::time::sleep(offset).await;
            connection.read(wanted, began).await
        });
    }
    let mut read = Read { streams: Vec::new(), whole: 0 };
    while let Some(stream) = tasks.join_next().await {
        let stream = stream.map_err(io::Error::other)??;
        read.whole += usize::from(stream.whole);
        read.streams.push(stream.came);
    }
    println!("{}", read.json());
    Ok(())
}

async fn http2(tls: &Tls, address: SocketAddr) -> io::Result<SendRequest<Bytes>> {
    let wire = tls.connect(address, NAME).await?;
    let (requests, connection) = h2::client::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .handshake(wire)
        .await
        .map_err(io::Error::other)?;
    tokio::spawn(connection);
    Ok(requests)
}

impl Connection {
    async fn read(self, wanted: Wanted, began: Instant) -> io::Result<Stream> {
        let body = json!({
            "model": "gpt-4o-mini",
            "stream": true,
            "messages": [{"role": "user", "content": "How long is a piece of string?"}],
        });
        let body = Bytes::from(body.to_string());
        let request = Request::post(format!("https://{NAME}/v1/chat/completions"))
            .header("authorization", format!("Bearer {}", super::PROXY_KEY))
            .header("content-type", "application/json")
            .header("content-length", body.len())
            .header("x-sandbox", format!("chunks={};delay={}", wanted.chunks, wanted.pace_ms))
            .body(())
            .map_err(io::Error::other)?;
        let mut stream = Stream::default();
        match self {
            Self::Http2(requests) => {
                let mut requests = requests.ready().await.map_err(io::Error::other)?;
                let (answer, mut sending) =
                    requests.send_request(request, false).map_err(io::Error::other)?;
                sending.send_data(body, true).map_err(io::Error::other)?;
                let mut body = answer.await.map_err(io::Error::other)?.into_body();
                while let Some(bytes) = body.data().await {
                    let bytes = bytes.map_err(io::Error::other)?;
                    stream.take(&bytes, began);
                    body.flow_control().release_capacity(bytes.len()).map_err(io::Error::other)?;
                }
            }
            Self::Http3(mut connection) => {
                let mut answer = connection.ask(request, body).await.map_err(io::Error::other)?;
                while let Some(bytes) = answer.chunk().await.map_err(io::Error::other)? {
                    stream.take(&bytes, began);
                }
            }
        }
        Ok(stream)
    }
}
