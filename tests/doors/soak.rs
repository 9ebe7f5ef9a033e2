//! Callers and platforms that behave and misbehave, over every door at once; afterwards nothing of
//! it is left.
//!
//! `AIPROXY_SOAK=1` (`make soak`) does so for twelve minutes, each run of the tests for seconds.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use aiproxy_testkit::h2::{self, H2, Outcome, flag, kind};
use aiproxy_testkit::{App, Authority, PROXY_KEY, Raw, Tls, Wire, until, within};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{bearer, fields, get, secure};

const CALLERS: u32 = 16;
/// Memory that may be kept beyond what the first round took, in bytes.
const KEPT: u64 = 48 << 20;

/// One platform connection: answers by path, well or badly.
async fn platform(mut stream: TcpStream) -> Option<()> {
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = memchr::memmem::find(&buffer, b"\r\n\r\n") {
                break at + 4;
            }
            stream.read_buf(&mut buffer).await.ok().filter(|bytes| *bytes > 0)?;
        };
        let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let whole = end + length.unwrap_or(0_usize);
        while buffer.len() < whole {
            stream.read_buf(&mut buffer).await.ok().filter(|bytes| *bytes > 0)?;
        }
        buffer.drain(..whole);
        let piece = [&b"4000\r\n"[..], &[b'x'; 0x4000], b"\r\n"].concat();
        let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        match head.split(' ').nth(1)? {
            "/v1/reset" => {
                stream.write_all(chunked).await.ok()?;
                stream.write_all(&piece).await.ok()?;
                stream.set_zero_linger().ok()?;
                return None;
            }
            "/v1/gone" => return None,
            "/v1/large" => {
                stream.write_all(chunked).await.ok()?;
                for _ in 0..64 {
                    stream.write_all(&piece).await.ok()?;
                }
                stream.write_all(b"0\r\n\r\n").await.ok()?;
            }
            "/v1/slow" => {
                stream.write_all(chunked).await.ok()?;
                for _ in 0..5 {
                    stream.write_all(b"1\r\nx\r\n").await.ok()?;
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                stream.write_all(b"0\r\n\r\n").await.ok()?;
            }
            _ => stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.ok()?,
        }
    }
}

/// What all callers share.
struct Shared {
    plain: SocketAddr,
    https: SocketAddr,
    authority: Authority,
    enough: AtomicBool,
    served: AtomicUsize,
    spoiled: AtomicUsize,
}

impl Shared {
    async fn wire(&self, secure: bool, alpn: &str) -> Wire {
        if !secure {
            return Wire::Plain(Wire::tcp(self.plain).await);
        }
        let tls = Tls::new(&self.authority, &[alpn]);
        tls.connect(self.https, "relay.test").await.expect("a handshake")
    }

    /// Whoever behaves is served, whatever the others do.
    async fn behave(&self, secure: bool, http2: bool, path: &str, bytes: usize) {
        if http2 {
            let bearer = bearer();
            let mut h2 = H2::over(self.wire(secure, "h2").await);
            h2.begin(&[]).await;
            for stream in [1, 3, 5] {
                h2.send(h2::headers(stream, true, &fields("GET", path, &bearer))).await;
                match h2.outcome(stream).await {
                    Outcome::Answer(200, body) => assert_eq!(body.len(), bytes, "{path}"),
                    other => panic!("{path}: {other:?}"),
                }
            }
        } else {
            let mut raw = Raw::over(self.wire(secure, "http/1.1").await);
            for _ in 0..3 {
                raw.send(get(path, "")).await;
                let answer = raw.answer().await;
                assert_eq!((answer.status, answer.body.len()), (200, bytes), "{path}");
            }
        }
        self.served.fetch_add(3, Ordering::Relaxed);
    }

    /// Leaves in one of many bad ways.
    async fn misbehave(&self, secure: bool, http2: bool, way: u32) {
        let bearer = bearer();
        self.spoiled.fetch_add(1, Ordering::Relaxed);
        if http2 {
            let mut h2 = H2::over(self.wire(secure, "h2").await);
            h2.begin(&[(4, if way == 0 { 0 } else { 65_535 })]).await;
            match way {
                // A window of nothing, and gone.
                0 => h2.send(h2::headers(1, true, &fields("GET", "/v1/large", &bearer))).await,
                1 => {
                    for stream in [1, 3, 5, 7] {
                        h2.send(h2::headers(stream, true, &fields("GET", "/v1/large", &bearer))).await;
                        h2.send(h2::frame(kind::RST_STREAM, 0, stream, &[0, 0, 0, 8])).await;
                    }
                }
                2 => {
                    h2.send(h2::headers(1, false, &fields("POST", "/v1/ok", &bearer))).await;
                    h2.send(h2::frame(kind::DATA, 0, 1, &[b'x'; 9000])).await;
                }
                3 => {
                    h2.send(h2::headers(1, true, &fields("GET", "/v1/reset", &bearer))).await;
                    let _ = h2.outcome(1).await;
                }
                4 => {
                    h2.send(h2::frame(kind::HEADERS, 0, 1, b"\x82")).await;
                    h2.send(h2::frame(kind::PING, 0, 0, b"too soon")).await;
                    h2.end().await;
                }
                _ => {
                    h2.send(h2::headers(1, true, &fields("GET", "/v1/large", &bearer))).await;
                    let _ = h2.piece(1).await;
                    h2.send(h2::frame(kind::DATA, flag::END_STREAM, 1, b"x")).await;
                }
            }
            let _ = h2.wire().socket().set_zero_linger();
            return;
        }
        let mut raw = Raw::over(self.wire(secure, "http/1.1").await);
        match way {
            0 => raw.send("GET /v1/ok HT").await,
            1 => raw.send(get("/v1/large", "")).await,
            2 => {
                raw.send(format!(
                    "POST /v1/ok HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {PROXY_KEY}\r\ncontent-length: 9999\r\n\r\nxxx"
                ))
                .await;
            }
            3 => {
                raw.send(get("/v1/reset", "")).await;
                raw.rest().await;
            }
            4 => {
                raw.send("\0\x01 nonsense\r\n\r\n").await;
                raw.rest().await;
            }
            _ => {
                raw.send(get("/v1/gone", "")).await;
                assert_eq!(raw.answer().await.status, 502);
                raw.send(get("/v1/slow", "")).await;
            }
        }
        // With a reset, or with bytes unread.
        if way.is_multiple_of(2) {
            raw.reset();
        }
    }

    async fn caller(self: Arc<Self>, number: u32) {
        // A sequence of its own, the same each time.
        let mut state = number.wrapping_mul(2_654_435_761).wrapping_add(1);
        while !self.enough.load(Ordering::Relaxed) {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let dice = state >> 16;
            let (secure, http2) = (dice & 1 == 0, dice & 2 == 0);
            match number % 2 {
                0 => {
                    let paths = [("/v1/ok", 2), ("/v1/large", 64 * 0x4000), ("/v1/slow", 5)];
                    let (path, bytes) = paths[(dice >> 2) as usize % paths.len()];
                    self.behave(secure, http2, path, bytes).await;
                }
                _ => self.misbehave(secure, http2, (dice >> 2) % 6).await,
            }
        }
    }
}

/// Everybody at work for a while.
async fn round(app: &App, authority: Authority, length: Duration) -> (usize, usize, Authority) {
    let shared = Arc::new(Shared {
        plain: app.addr(),
        https: app.https_addr(),
        authority,
        enough: AtomicBool::new(false),
        served: AtomicUsize::new(0),
        spoiled: AtomicUsize::new(0),
    });
    let callers: Vec<_> =
        (0..CALLERS).map(|number| tokio::spawn(Arc::clone(&shared).caller(number))).collect();
    tokio::time::sleep(length).await;
    shared.enough.store(true, Ordering::Relaxed);
    for caller in callers {
        within("a caller", caller).await.expect("nobody who behaves fails");
    }
    // What goes on without a caller comes to its end, and takes its connections with it.
    app.metric_is("aiproxy_live_requests", 0.0).await;
    app.metric_is("aiproxy_connections", 0.0).await;
    let shared = Arc::into_inner(shared).expect("nobody else");
    (shared.served.into_inner(), shared.spoiled.into_inner(), shared.authority)
}

fn descriptors(app: &App) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", app.process().pid())).unwrap().count()
}

#[tokio::test]
async fn nothing_is_left_of_a_mixed_load() {
    let (first, second) = match std::env::var_os("AIPROXY_SOAK") {
        Some(_) => (Duration::from_secs(60), Duration::from_secs(12 * 60)),
        None => (Duration::from_secs(2), Duration::from_secs(3)),
    };
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(platform(stream));
        }
    });
    let authority = Authority::default();
    let app = secure(&authority, &["relay.test"])
        .also("faulty", address)
        .config(|c| {
            c["channels"]["main"]["base_url"] = "@faulty".into();
            // Failures are what this is about.
            c["channels"]["main"]["breaker"] =
                serde_json::json!({"failures": 1_000_000, "error_rate": 1.0, "min_requests": 1_000_000});
            c["system"]["log"]["access"] = "off".into();
            c["system"]["log_level"] = "info".into();
        })
        .start()
        .await;
    let (_, _, authority) = round(&app, authority, first).await;
    let (files, memory) = (descriptors(&app), app.process().resident_bytes());
    let (served, spoiled, _) = round(&app, authority, second).await;
    assert!(served > 0 && spoiled > 0, "{served} served, {spoiled} spoiled");
    // Platform connections that are kept may be as many as there are callers.
    let most = files + CALLERS as usize;
    until("descriptors as before", || (descriptors(&app) <= most).then_some(())).await;
    let now = app.process().resident_bytes();
    assert!(now < memory + KEPT, "{memory} bytes before, {now} after");
    println!(
        "{served} requests served beside {spoiled} that were spoiled; descriptors {files} before, {} after; \
         memory {} KiB before, {} KiB after",
        descriptors(&app),
        memory >> 10,
        now >> 10
    );
    app.finish().await;
}
