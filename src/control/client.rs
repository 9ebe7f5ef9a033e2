//! Requests to the admin API.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use aiproxy_core::Secret;
use anyhow::{Context as _, anyhow, bail};
use http::header::{AUTHORIZATION, CONTENT_TYPE, ETAG, HOST, IF_MATCH};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Target;
use crate::cli::{Failure, say};

const CONNECT: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(120);
/// Longest answer: a page of five hundred documents is far below.
const LONGEST: usize = 64 << 20;
/// Documents that are asked for at once.
const PAGE: usize = 500;

/// One relay, and the right to administer it.
pub(super) struct Client {
    url: Uri,
    token: Option<Secret>,
    json: bool,
}

/// An answer that is no refusal.
pub(super) struct Answered {
    pub(super) tag: Option<String>,
    pub(super) cookie: Option<String>,
    pub(super) body: Value,
}

impl Client {
    pub(super) fn new(target: &Target) -> Result<Self, Failure> {
        let url: Uri = target.url.parse().map_err(|_| {
            Failure::Usage(format!(
                "--url: {:?} is no URL; write one such as http://127.0.0.1:8081",
                target.url
            ))
        })?;
        if url.scheme_str() != Some("http") {
            return Err(Failure::Usage(
                "--url: the admin listener speaks plain HTTP; from another machine, go through a tunnel such as `ssh -L 8081:127.0.0.1:8081 HOST`".to_owned(),
            ));
        }
        let host = url.host().unwrap_or_default();
        let bare = host.trim_matches(['[', ']']);
        let here = bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        if !here && !target.insecure {
            return Err(Failure::Usage(format!(
                "--url: the token would travel to {host} in the clear; go through a tunnel (`ssh -L 8081:127.0.0.1:8081 {host}`), or say --insecure"
            )));
        }
        Ok(Self { url, token: token(target)?, json: target.json })
    }

    /// The relay's address, as it was given.
    pub(super) fn url(&self) -> String {
        self.url.to_string()
    }

    /// The same relay with another token.
    pub(super) fn with(&self, token: Option<Secret>) -> Self {
        Self { url: self.url.clone(), token, json: self.json }
    }

    pub(super) async fn get(&self, path: &str) -> Result<Value, Failure> {
        Ok(self.ask(Method::GET, path, None, &[]).await?.body)
    }

    pub(super) async fn post(&self, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        Ok(self.ask(Method::POST, path, body, &[]).await?.body)
    }

    /// Changes what stands at a path by what `change` makes of it, and only if nobody else has in between.
    pub(super) async fn change(
        &self,
        method: Method,
        path: &str,
        to: &str,
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        let read = self.ask(Method::GET, path, None, &[]).await?;
        let tag = read.tag.unwrap_or_else(|| "*".to_owned());
        Ok(self.ask(method, to, body, &[(IF_MATCH.as_str(), &tag)]).await?.body)
    }

    /// All of a list, page by page, or as much of it as is wanted. `query` begins with `?` or is empty.
    pub(super) async fn list(&self, path: &str, query: &str, most: Option<usize>) -> Result<Value, Failure> {
        let mut items: Vec<Value> = Vec::new();
        loop {
            let page = most.map_or(PAGE, |most| (most - items.len()).min(PAGE));
            let separator = if query.is_empty() { '?' } else { '&' };
            let asked = format!("{path}{query}{separator}limit={page}&offset={}", items.len());
            let mut answer = self.get(&asked).await?;
            let total = answer["total"].as_u64().unwrap_or_default();
            let Some(more) = answer["items"].as_array_mut().filter(|more| !more.is_empty()) else {
                answer["items"] = items.into();
                return Ok(answer);
            };
            items.append(more);
            if items.len() as u64 >= total || most.is_some_and(|most| items.len() >= most) {
                return Ok(serde_json::json!({ "items": items, "total": total }));
            }
        }
    }

    /// Shows an answer: as JSON where that is wanted, else as the text.
    pub(super) fn show(&self, answer: &Value, text: impl FnOnce() -> String) -> Result<(), Failure> {
        if !self.json {
            return say(&text());
        }
        say(&serde_json::to_string_pretty(answer).unwrap_or_default())
    }

    /// Whether JSON is wanted.
    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> Result<Answered, Failure> {
        let body = body.map(|body| (body.to_string().into(), "application/json"));
        self.send(method, path, body, headers).await
    }

    /// Asks with a body of any type.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<(Bytes, &str)>,
        headers: &[(&str, &str)],
    ) -> Result<Answered, Failure> {
        let base = self.url.path().trim_end_matches('/');
        let authority = self.url.authority().map(ToString::to_string).unwrap_or_default();
        let mut request =
            Request::builder().method(method).uri(format!("{base}/api/v1{path}")).header(HOST, &authority);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.expose()));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (bytes, kind) = body.unwrap_or_default();
        if !kind.is_empty() {
            request = request.header(CONTENT_TYPE, kind);
        }
        let request = request.body(Full::new(bytes)).context("the request cannot be written")?;
        let answer = timeout(ANSWER, self.exchange(request)).await;
        let (status, tag, cookie, text) =
            answer.map_err(|_| anyhow!("{} did not answer in time", self.url))??;
        let body: Value = match text.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&text)
                .map_err(|_| anyhow!("{} answered {status}, and not as an admin listener does", self.url))?,
        };
        if status.is_success() {
            return Ok(Answered { tag, cookie, body });
        }
        Err(Failure::Runtime(refusal(status, &body)))
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
    ) -> anyhow::Result<(StatusCode, Option<String>, Option<String>, Bytes)> {
        let host = self.url.host().unwrap_or_default().trim_matches(['[', ']']);
        let port = self.url.port_u16().unwrap_or(80);
        let cannot = || {
            format!(
                "{} cannot be reached: does the relay run, and is this its admin listener (--url)?",
                self.url
            )
        };
        let Ok(stream) = timeout(CONNECT, TcpStream::connect((host, port))).await else { bail!(cannot()) };
        let stream = stream.with_context(cannot)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let driving = tokio::spawn(connection);
        let answer = sender.send_request(request).await.with_context(cannot)?;
        let (head, body) = answer.into_parts();
        let header = |name| {
            head.headers
                .get(name)
                .and_then(|value: &http::HeaderValue| value.to_str().ok())
                .map(str::to_owned)
        };
        let (tag, cookie) = (header(ETAG), header(http::header::SET_COOKIE));
        let body = Limited::new(body, LONGEST).collect().await;
        let body = body.map_err(|error| anyhow!("the answer broke off: {error}"))?.to_bytes();
        driving.abort();
        Ok((head.status, tag, cookie, body))
    }
}

/// What the relay said, by field where fields are at fault.
fn refusal(status: StatusCode, body: &Value) -> anyhow::Error {
    let error = &body["error"];
    let text = |value: &Value| super::output::plain(value.as_str().unwrap_or_default());
    let mut said = format!("{} ({status} {})", text(&error["message"]), text(&error["code"]));
    for problem in error["problems"].as_array().into_iter().flatten() {
        said.push_str(&format!("\n  {}: {}", text(&problem["path"]), text(&problem["message"])));
        if problem["suggestion"].is_string() {
            said.push_str(&format!("; {}", text(&problem["suggestion"])));
        }
    }
    let advice = match (status, error["code"].as_str()) {
        (StatusCode::UNAUTHORIZED, Some("not_signed_in" | "invalid_token")) => {
            "\nSign in with `aiproxy admin login`, or give a token in AIPROXY_TOKEN or --token-file."
        }
        (StatusCode::PRECONDITION_FAILED, _) => "\nSomebody else was faster: look at it again, then repeat.",
        _ => "",
    };
    anyhow!("{said}{advice}")
}

fn token(target: &Target) -> Result<Option<Secret>, Failure> {
    if let Some(path) = &target.token_file {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        return Ok(Some(Secret::new(text.trim().to_owned())));
    }
    if let Ok(token) = std::env::var("AIPROXY_TOKEN") {
        return Ok(Some(Secret::new(token)));
    }
    let Some(kept) = credentials().and_then(|path| fs::read_to_string(path).ok()) else { return Ok(None) };
    let kept: Value = serde_json::from_str(&kept).unwrap_or_default();
    let same = kept["url"].as_str().and_then(|url| url.parse::<Uri>().ok()) == target.url.parse().ok();
    Ok(kept["token"].as_str().filter(|_| same).map(|token| Secret::new(token.to_owned())))
}

/// Where `aiproxy admin login` leaves a token.
pub(super) fn credentials() -> Option<PathBuf> {
    let folder = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")))?;
    Some(folder.join("aiproxy").join("credentials.json"))
}
