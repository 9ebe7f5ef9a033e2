//! The relay in front of the sandbox platform.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use aiproxy_config::Source;
use aiproxy_core::ids::random_key;
use aiproxy_sandbox::Sandbox;
use anyhow::Context as _;
use tokio::runtime::Builder;
use tokio::task::LocalSet;

use crate::cli::{Failure, new_key, say};
use crate::signals::Ending;
use crate::wiring;

/// Arguments of `aiproxy demo`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Port of the relay on 127.0.0.1
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Port of the relay's HTTPS on 127.0.0.1, with a self-signed certificate
    #[arg(long, default_value_t = 8443)]
    https_port: u16,
    /// Port of the sandbox platform on 127.0.0.1
    #[arg(long, default_value_t = 8090)]
    sandbox_port: u16,
    /// UDP port of WebRTC calls on 127.0.0.1
    #[arg(long, default_value_t = 3478)]
    media_port: u16,
    /// Port of the admin listener on 127.0.0.1
    #[arg(long, default_value_t = 8081)]
    admin_port: u16,
    /// Folder for the demo's Proxy-Key and logs
    #[arg(long, value_name = "DIR", default_value = "data/demo")]
    data: PathBuf,
    /// Take free ports and a temporary folder
    #[arg(long, conflicts_with_all = ["port", "https_port", "sandbox_port", "admin_port", "data"])]
    ephemeral: bool,
    /// Print one line of JSON once everything listens, and nothing else
    #[arg(long)]
    json: bool,
    /// Add real channels from OPENAI_API_KEY, DASHSCOPE_API_KEY and ANTHROPIC_API_KEY, where set
    #[arg(long)]
    use_env_keys: bool,
}

/// A platform whose key may be in the environment.
struct EnvChannel {
    id: &'static str,
    variable: &'static str,
    base_url: &'static str,
}

const ENV_CHANNELS: &[EnvChannel] = &[
    EnvChannel { id: "openai", variable: "OPENAI_API_KEY", base_url: "https://api.openai.com" },
    EnvChannel { id: "dashscope", variable: "DASHSCOPE_API_KEY", base_url: "https://dashscope.aliyuncs.com" },
    EnvChannel { id: "anthropic", variable: "ANTHROPIC_API_KEY", base_url: "https://api.anthropic.com" },
];

/// Where `python3 -m http.server` serves the example page by itself: pages of other origins may not call.
const PAGE_PORT: u16 = 8000;

/// Runs until a signal ends it.
///
/// # Errors
/// [`Failure::Usage`] when `--use-env-keys` finds no key, [`Failure::Runtime`] for everything else.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let temporary = if arguments.ephemeral { Some(tempfile::tempdir()?) } else { None };
    let data = temporary.as_ref().map_or(arguments.data.as_path(), tempfile::TempDir::path);
    let real = real_channels(arguments.use_env_keys)?;
    let proxy_key = proxy_key(data)?;
    let chosen = |port| if arguments.ephemeral { 0 } else { port };
    let sandbox_port = chosen(arguments.sandbox_port);
    let ports =
        [arguments.port, arguments.https_port, arguments.admin_port, arguments.media_port].map(chosen);
    let runtime = Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let mut ending = Ending::watch()?;
        let channel_key = random_key("sk-sandbox-", 32);
        let options = aiproxy_sandbox::Options {
            bind: SocketAddr::from(([127, 0, 0, 1], sandbox_port)),
            api_key: channel_key.clone(),
            ..aiproxy_sandbox::Options::default()
        };
        let sandbox = Sandbox::start(options)
            .await
            .with_context(|| format!("cannot start the sandbox platform on port {sandbox_port}"))?;
        let text = config(ports, &sandbox.base_url(), &real);
        let lookup = |name: &str| match name {
            "DEMO_PROXY_KEY" => Some(proxy_key.clone()),
            "DEMO_CHANNEL_KEY" => Some(channel_key.clone()),
            name => std::env::var(name).ok(),
        };
        let loaded =
            aiproxy_config::load_str(&text, &Source { name: "demo".into(), base: data.to_owned() }, &lookup)
                .map_err(|problems| Failure::Usage(problems.to_string()))?;
        wiring::start_log(&loaded.snapshot)?;
        let relay = wiring::start(loaded).await?;
        let http = relay.server.http().first().map(|address| format!("http://{address}")).unwrap_or_default();
        let https = relay.server.https().first().map(|address| format!("https://{address}")).unwrap_or_default();
        let admin = relay.admin.addresses().first().map(|address| format!("http://{address}")).unwrap_or_default();
        if arguments.json {
            say(&serde_json::json!({ "http": http, "https": https, "admin": admin, "sandbox": sandbox.base_url(), "proxy_key": proxy_key })
                .to_string())?;
        } else {
            let certificates = relay.registry.status.tls().certificates;
            let fingerprint = certificates.first().map_or("", |certificate| &*certificate.fingerprint);
            let addresses = Addresses { http: &http, https: &https, fingerprint, admin: &admin };
            say(&welcome(&addresses, &sandbox.base_url(), &proxy_key, &real, data))?;
        }
        let chores = relay.chores();
        ending.next().await;
        relay.shutdown(&mut ending).await?;
        drop(chores);
        sandbox.shutdown().await;
        Ok(())
    })
}

fn real_channels(wanted: bool) -> Result<Vec<&'static EnvChannel>, Failure> {
    if !wanted {
        return Ok(Vec::new());
    }
    let set = |channel: &&EnvChannel| std::env::var(channel.variable).is_ok_and(|key| !key.trim().is_empty());
    let found: Vec<_> = ENV_CHANNELS.iter().filter(set).collect();
    if found.is_empty() {
        let names: Vec<_> = ENV_CHANNELS.iter().map(|channel| channel.variable).collect();
        return Err(Failure::Usage(format!("--use-env-keys: none of {} is set", names.join(", "))));
    }
    Ok(found)
}

/// The demo's configuration. Keys are referred to, not written down.
fn config(
    [port, https_port, admin_port, media_port]: [u16; 4],
    sandbox: &str,
    real: &[&EnvChannel],
) -> String {
    let mut channels = String::new();
    for EnvChannel { id, variable, base_url } in real {
        let _ = writeln!(channels, "  {id}: {{base_url: \"{base_url}\", api_key: \"${{{variable}}}\"}}");
    }
    let order: Vec<_> = real.iter().map(|channel| channel.id).chain(["sandbox"]).collect();
    format!(
        "users:
  demo: {{name: 演示 Demo, proxy_key: \"${{DEMO_PROXY_KEY}}\", channels: [{order}]}}
channels:
  sandbox: {{name: 沙盒 Sandbox, platform: custom, base_url: \"{sandbox}\", api_key: \"${{DEMO_CHANNEL_KEY}}\"}}
{channels}system:
  listen: {{http: \"127.0.0.1:{port}\", https: \"127.0.0.1:{https_port}\", admin: \"127.0.0.1:{admin_port}\", media: \"127.0.0.1:{media_port}\"}}
  tls: self-signed
  log: {{access: access.log}}
  log_level: warn
  max_connections: 1000
  cors: {{origins: [\"http://127.0.0.1:{PAGE_PORT}\", \"http://localhost:{PAGE_PORT}\"]}}
",
        order = order.join(", ")
    )
}

/// The demo's Proxy-Key: kept in a file, so that a line pasted yesterday works today.
fn proxy_key(data: &Path) -> anyhow::Result<String> {
    fs::create_dir_all(data).with_context(|| format!("cannot make the folder {}", data.display()))?;
    let path = data.join("proxy-key");
    if let Ok(key) = fs::read_to_string(&path)
        && key.trim().len() >= 8
    {
        return Ok(key.trim().to_owned());
    }
    let key = new_key();
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    std::io::Write::write_all(&mut file, format!("{key}\n").as_bytes())?;
    Ok(key)
}

/// Where the demo can be reached.
struct Addresses<'a> {
    http: &'a str,
    https: &'a str,
    fingerprint: &'a str,
    admin: &'a str,
}

fn welcome(
    Addresses { http, https, fingerprint, admin }: &Addresses<'_>,
    sandbox: &str,
    key: &str,
    real: &[&EnvChannel],
    data: &Path,
) -> String {
    let mut out = format!(
        "AIProxy is running in front of a sandbox platform. Ctrl-C ends it.

  relay       {http}
              {https}   (self-signed, SHA-256 {fingerprint})
  admin       {admin}   (/healthz, /readyz, /metrics)
  sandbox     {sandbox}   (refuses every key but its own, which only the relay knows)
  Proxy-Key   {key}
  access log  {log}
",
        log = data.join("access.log").display()
    );
    let certificate = data.join("data/tls/self-signed.pem");
    let certificate = certificate.display();
    for EnvChannel { id, variable, base_url } in real {
        let _ = writeln!(
            out,
            "  channel     {id}: {base_url} with the key from {variable} (requests there cost money)"
        );
    }
    let ws = http.replacen("http", "ws", 1);
    let journal = data.join("data/journal");
    let journal = journal.display();
    let _ = write!(
        out,
        "
Try it:

  curl {http}/v1/chat/completions -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \\
    -d '{{\"model\":\"gpt-4o-mini\",\"messages\":[{{\"role\":\"user\",\"content\":\"你好 hello\"}}]}}'

Over HTTPS and HTTP/2 (or with -k in place of --cacert):

  curl --http2 --cacert {certificate} {https}/v1/models -H 'Authorization: Bearer {key}'

The platform itself does not know the Proxy-Key:

  curl {sandbox}/v1/models -H 'Authorization: Bearer {key}'

A realtime WebSocket (text and sound are echoed; `pip install websockets`):

  python -c 'import asyncio, json, websockets
  async def main():
      async with websockets.connect(\"{ws}/v1/realtime?model=gpt-realtime\", subprotocols=[\"realtime\", \"openai-insecure-api-key.{key}\"]) as socket:
          print(json.loads(await socket.recv())[\"type\"])
  asyncio.run(main())'

The same with text and a second of sound, from the source folder (examples/README.md):

  AIPROXY_URL={http} AIPROXY_KEY={key} python examples/realtime.py

And in a browser, with your microphone; the page asks for {ws} and the Proxy-Key:

  python3 -m http.server {PAGE_PORT} --bind 127.0.0.1 --directory examples
  xdg-open http://127.0.0.1:{PAGE_PORT}/realtime.html

A call over WebRTC, with your microphone, from the same folder (headphones on: what is said comes back):

  xdg-open http://127.0.0.1:{PAGE_PORT}/call.html

Who used what:

  aiproxy usage sum --by user,model --dir {journal}

In Python (pip install openai):

  from openai import OpenAI
  client = OpenAI(base_url=\"{http}/v1\", api_key=\"{key}\")
  for chunk in client.chat.completions.create(model=\"gpt-4o-mini\", stream=True, messages=[{{\"role\": \"user\", \"content\": \"hello\"}}]):
      print(chunk.choices[0].delta.content or \"\", end=\"\", flush=True)
"
    );
    out
}
