//! `crates/quic` answering by itself, in a process of its own: what the ways to use threads differ in.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aiproxy_quic::HeadLimits;
use aiproxy_quic::endpoint::{Endpoint, Listener, Secrets, Secure, ServerLimits};
use aiproxy_quic::server::{Asked, Connection, Stream};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::BodyExt as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::task::{LocalSet, spawn_local};

use crate::common::single_threaded;
use crate::upstream::ANSWER;

pub(crate) const THREADS: usize = 2;
const HEADS: HeadLimits = HeadLimits { bytes: 16 * 1024, fields: 100 };

/// What threads have of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// An endpoint and a socket each; a connection stays with one of them by its id.
    Each,
    /// Connections only: endpoint and socket are one for all.
    Shared,
}

impl Mode {
    pub(crate) fn from_argument(argument: &str) -> Option<Self> {
        [Self::Each, Self::Shared].into_iter().find(|mode| mode.argument() == argument)
    }

    pub(crate) fn argument(self) -> &'static str {
        match self {
            Self::Each => "--endpoint-each",
            Self::Shared => "--endpoint-shared",
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Each => "an endpoint for each thread",
            Self::Shared => "one endpoint for all threads",
        }
    }
}

/// Answers until it is killed.
pub(crate) fn serve(mode: Mode, folder: &Path) -> io::Result<()> {
    let secure = secure(folder)?;
    let sockets = if mode == Mode::Each { THREADS } else { 1 };
    let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0)), sockets)?;
    let runtimes = (0..THREADS).map(|_| single_threaded()).collect::<io::Result<Vec<_>>>()?;
    let mut endpoints: Vec<Endpoint> = Vec::with_capacity(THREADS);
    for (thread, runtime) in runtimes.iter().enumerate() {
        let _within = runtime.enter();
        let endpoint = match (mode, endpoints.first()) {
            (Mode::Shared, Some(first)) => first.clone(),
            _ => listener.endpoint(thread, &secure)?,
        };
        endpoints.push(endpoint);
    }
    let threads: Vec<_> = runtimes
        .into_iter()
        .zip(endpoints)
        .map(|(runtime, endpoint)| {
            let secure = secure.clone();
            std::thread::spawn(move || LocalSet::new().block_on(&runtime, accept(endpoint, secure)))
        })
        .collect();
    println!("https://{}", listener.local());
    for thread in threads {
        thread.join().map_err(|_| io::Error::other("a thread panicked"))?;
    }
    Ok(())
}

fn secure(folder: &Path) -> io::Result<Secure> {
    let certificate = CertificateDer::from_pem_file(folder.join("relay.pem")).map_err(io::Error::other)?;
    let key = PrivateKeyDer::from_pem_file(folder.join("relay.key")).map_err(io::Error::other)?;
    let tls =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .map_err(io::Error::other)?;
    let limits = ServerLimits { streams: 100, idle: Duration::from_secs(60) };
    Secure::new(&tls, &Secrets::new()?, limits).map_err(io::Error::other)
}

async fn accept(endpoint: Endpoint, secure: Secure) {
    while let Some(attempt) = endpoint.accept().await {
        let secure = secure.clone();
        spawn_local(async move {
            if let Ok(connection) = attempt.connect(&secure, HEADS).await {
                connected(connection).await;
            }
        });
    }
}

async fn connected(mut connection: Connection) {
    while let Some(stream) = connection.accept().await {
        spawn_local(answer(stream));
    }
}

async fn answer(stream: Stream) {
    let Asked::Request(request, mut sender) = stream.head().await else { return };
    if request.into_body().collect().await.is_err() {
        return;
    }
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    headers.insert("content-length", HeaderValue::from(ANSWER.len()));
    if sender.answer(StatusCode::OK, &headers).await.is_ok()
        && sender.data(Bytes::from_static(ANSWER.as_bytes())).await.is_ok()
    {
        sender.finish();
    }
}
