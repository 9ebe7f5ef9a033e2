//! `user`, `group`, `key`, `channel`.

use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

use super::client::Client;
use super::{output, secret};
use crate::cli::{Failure, say};

const USERS: [output::Column; 6] = [
    ("ID", "id"),
    ("NAME", "name"),
    ("DEPARTMENT", "department"),
    ("STATUS", "status"),
    ("GROUPS", "groups"),
    ("CHANNELS", "channels"),
];
const GROUPS: [output::Column; 4] =
    [("ID", "id"), ("NAME", "name"), ("CHANNELS", "channels"), ("MODELS", "models")];
const KEYS: [output::Column; 7] = [
    ("ID", "id"),
    ("USER", "user"),
    ("KEY", "tag"),
    ("STATUS", "status"),
    ("EXPIRES", "expires_at"),
    ("RETIRES", "retires_at"),
    ("LAST USED", "last_used_at"),
];
const CHANNELS: [output::Column; 5] = [
    ("ID", "id"),
    ("NAME", "name"),
    ("PLATFORM", "platform"),
    ("STATUS", "status"),
    ("BASE URL", "base_url"),
];

/// A segment of a path, or a value of a query.
pub(super) fn quoted(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// `?a=b&c=d` of what is given.
pub(super) fn query(pairs: &[(&str, Option<&str>)]) -> String {
    let mut out = String::new();
    for (name, value) in pairs {
        if let Some(value) = value {
            out.push(if out.is_empty() { '?' } else { '&' });
            out.push_str(&format!("{name}={}", quoted(value)));
        }
    }
    out
}

/// What to list.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// Only those with this text in the id, the name or the like
    #[arg(short, long, value_name = "TEXT")]
    q: Option<String>,
    /// Field to sort by; `-` before it turns the order
    #[arg(long, value_name = "FIELD", allow_hyphen_values = true)]
    sort: Option<String>,
    /// At most so many; all unless given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

impl Which {
    async fn show(
        &self,
        client: &Client,
        path: &str,
        more: &[(&str, Option<&str>)],
        columns: &[output::Column],
    ) -> Result<(), Failure> {
        let mut pairs = vec![("q", self.q.as_deref()), ("sort", self.sort.as_deref())];
        pairs.extend_from_slice(more);
        let most = self.limit.and_then(|limit| usize::try_from(limit).ok());
        let list = client.list(path, &query(&pairs), most).await?;
        client.show(&list, || output::table(&list["items"], columns))
    }
}

/// Fields of a document.
#[derive(Debug, Default, Args)]
pub(crate) struct Fields {
    /// A field by its name in the configuration, such as `notes=…` or `timeouts={"idle":"60s"}`: JSON, or else a text
    #[arg(long, value_name = "FIELD=VALUE")]
    set: Vec<String>,
    /// A field to take out
    #[arg(long, value_name = "FIELD")]
    unset: Vec<String>,
    /// Name for people
    #[arg(long)]
    name: Option<String>,
    /// Channel that may be used; may be repeated, in order of preference
    #[arg(long = "channel", value_name = "ID")]
    channels: Vec<String>,
    /// Model that may be asked for (`*` is any run of characters); may be repeated
    #[arg(long = "model", value_name = "PATTERN")]
    models: Vec<String>,
    /// Path that may be asked for, such as `/v1/chat/**`; may be repeated
    #[arg(long = "endpoint", value_name = "PATTERN")]
    endpoints: Vec<String>,
    /// Address or network that may be called from; may be repeated
    #[arg(long = "allow-ip", value_name = "NETWORK")]
    allow_ips: Vec<String>,
    /// Moment from which calls are taken, such as 2026-01-01
    #[arg(long, value_name = "MOMENT")]
    valid_from: Option<String>,
    /// Moment from which calls are refused
    #[arg(long, value_name = "MOMENT")]
    expires_at: Option<String>,
}

impl Fields {
    fn map(&self) -> Result<Map<String, Value>, Failure> {
        let mut map = Map::new();
        for (name, value) in
            [("name", &self.name), ("valid_from", &self.valid_from), ("expires_at", &self.expires_at)]
        {
            if let Some(value) = value {
                map.insert(name.to_owned(), value.as_str().into());
            }
        }
        for (name, list) in [
            ("channels", &self.channels),
            ("models", &self.models),
            ("endpoints", &self.endpoints),
            ("allow_ips", &self.allow_ips),
        ] {
            if !list.is_empty() {
                map.insert(name.to_owned(), json!(list));
            }
        }
        for pair in &self.set {
            let Some((name, value)) = pair.split_once('=') else {
                return Err(Failure::Usage(format!("--set: {pair:?} has no `=`; write FIELD=VALUE")));
            };
            if matches!(name, "api_key" | "proxy_key") {
                return Err(Failure::Usage(format!(
                    "--set: {name} never stands on the command line; use --api-key-file"
                )));
            }
            let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
            map.insert(name.to_owned(), value);
        }
        for name in &self.unset {
            map.insert(name.clone(), Value::Null);
        }
        Ok(map)
    }
}

/// `aiproxy user`.
#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// List users
    List {
        #[command(flatten)]
        which: Which,
        /// active or disabled
        #[arg(long)]
        status: Option<String>,
        /// Only this department
        #[arg(long)]
        department: Option<String>,
        /// Only members of this group
        #[arg(long)]
        group: Option<String>,
    },
    /// Show a user with its keys
    Show { id: String },
    /// Make a user
    Create {
        /// Id; a fresh one unless given
        id: Option<String>,
        #[command(flatten)]
        person: Person,
        #[command(flatten)]
        fields: Fields,
    },
    /// Change fields of a user
    Update {
        id: String,
        #[command(flatten)]
        person: Person,
        #[command(flatten)]
        fields: Fields,
    },
    /// Say which channels a user may use, in order; none takes all away
    Map { id: String, channels: Vec<String> },
    /// Let a user call again
    Enable { id: String },
    /// Refuse a user's calls and cut those under way
    Disable { id: String },
    /// Disable a user, revoke the keys, and cut what is under way
    Offboard {
        id: String,
        /// For the audit
        #[arg(long)]
        reason: Option<String>,
    },
    /// Delete a user with its keys
    Delete { id: String },
    /// Make or change users from a CSV file
    Import {
        /// UTF-8 or GBK; headings in English or Chinese
        file: PathBuf,
        /// Change users that exist already
        #[arg(long)]
        upsert: bool,
        /// Say what would be done, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
}

/// Fields of a person.
#[derive(Debug, Args)]
pub(crate) struct Person {
    /// Department
    #[arg(long)]
    department: Option<String>,
    /// Mail address
    #[arg(long)]
    email: Option<String>,
    /// Telephone number
    #[arg(long)]
    phone: Option<String>,
    /// Employee number
    #[arg(long)]
    employee_number: Option<String>,
    /// Notes
    #[arg(long)]
    notes: Option<String>,
    /// Group that the user belongs to; may be repeated
    #[arg(long = "group", value_name = "ID")]
    groups: Vec<String>,
}

impl Person {
    fn into(&self, map: &mut Map<String, Value>) {
        for (name, value) in [
            ("department", &self.department),
            ("email", &self.email),
            ("phone", &self.phone),
            ("employee_number", &self.employee_number),
            ("notes", &self.notes),
        ] {
            if let Some(value) = value {
                map.insert(name.to_owned(), value.as_str().into());
            }
        }
        if !self.groups.is_empty() {
            map.insert("groups".to_owned(), json!(self.groups));
        }
    }
}

impl UserCommand {
    pub(super) async fn run(&self, client: &Client) -> Result<(), Failure> {
        let at = |id: &str| format!("/users/{}", quoted(id));
        match self {
            Self::List { which, status, department, group } => {
                let more = [
                    ("status", status.as_deref()),
                    ("department", department.as_deref()),
                    ("group", group.as_deref()),
                ];
                which.show(client, "/users", &more, &USERS).await
            }
            Self::Show { id } => {
                let user = client.get(&at(id)).await?;
                client.show(&user, || output::fields(&user))
            }
            Self::Create { id, person, fields } => {
                let mut body = fields.map()?;
                person.into(&mut body);
                if let Some(id) = id {
                    body.insert("id".to_owned(), id.as_str().into());
                }
                let user = client.post("/users", Some(&body.into())).await?;
                client.show(&user, || output::fields(&user))
            }
            Self::Update { id, person, fields } => {
                let mut body = fields.map()?;
                person.into(&mut body);
                let user = client.change(Method::PATCH, &at(id), &at(id), Some(&body.into())).await?;
                client.show(&user, || output::fields(&user))
            }
            Self::Map { id, channels } => {
                let list: Vec<Value> = channels.iter().map(|channel| json!({ "channel": channel })).collect();
                let to = format!("{}/mapping", at(id));
                let user = client.change(Method::PUT, &at(id), &to, Some(&list.into())).await?;
                client.show(&user, || output::fields(&user))
            }
            Self::Enable { id } => switched(client, &at(id), "enable").await,
            Self::Disable { id } => switched(client, &at(id), "disable").await,
            Self::Offboard { id, reason } => {
                let body = reason.as_ref().map(|reason| json!({ "reason": reason })).unwrap_or(json!({}));
                let done = client.post(&format!("{}/offboard", at(id)), Some(&body)).await?;
                client.show(&done, || {
                    let keys = done["keys_revoked"].as_array().map_or(0, Vec::len);
                    format!("{} is out: {keys} keys revoked; {}", output::plain(id), output::cut(&done))
                })
            }
            Self::Delete { id } => deleted(client, &at(id)).await,
            Self::Import { file, upsert, dry_run } => {
                let bytes = std::fs::read(file)
                    .map_err(|error| Failure::Usage(format!("cannot read {}: {error}", file.display())))?;
                let mode = if *upsert { "upsert" } else { "create" };
                let path = format!("/users/import?mode={mode}&dry_run={dry_run}");
                let done =
                    client.send(Method::POST, &path, Some((bytes.into(), "text/csv")), &[]).await?.body;
                client.show(&done, || {
                    let note = if *dry_run { "; nothing was written" } else { "" };
                    format!(
                        "{} created, {} updated, {} unchanged{note}",
                        done["created"], done["updated"], done["unchanged"]
                    )
                })
            }
        }
    }
}

/// `aiproxy group`.
#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// List groups
    List {
        #[command(flatten)]
        which: Which,
    },
    /// Show a group
    Show { id: String },
    /// Make a group
    Create {
        id: String,
        #[command(flatten)]
        fields: Fields,
    },
    /// Change fields of a group
    Update {
        id: String,
        #[command(flatten)]
        fields: Fields,
    },
    /// Delete a group that nobody belongs to
    Delete { id: String },
}

impl GroupCommand {
    pub(super) async fn run(&self, client: &Client) -> Result<(), Failure> {
        let at = |id: &str| format!("/groups/{}", quoted(id));
        let group = match self {
            Self::List { which } => return which.show(client, "/groups", &[], &GROUPS).await,
            Self::Delete { id } => return deleted(client, &at(id)).await,
            Self::Show { id } => client.get(&at(id)).await?,
            Self::Create { id, fields } => {
                let mut body = fields.map()?;
                body.insert("id".to_owned(), id.as_str().into());
                client.post("/groups", Some(&body.into())).await?
            }
            Self::Update { id, fields } => {
                client.change(Method::PATCH, &at(id), &at(id), Some(&fields.map()?.into())).await?
            }
        };
        client.show(&group, || output::fields(&group))
    }
}

/// `aiproxy key`.
#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Print a fresh Proxy-Key and its SHA-256, for a configuration file; needs no relay
    New,
    /// List keys
    List {
        #[command(flatten)]
        which: Which,
        /// Only this user's
        #[arg(long)]
        user: Option<String>,
        /// active, disabled or revoked
        #[arg(long)]
        status: Option<String>,
    },
    /// Show a key
    Show { id: String },
    /// Make a user's key, which is printed this once
    Create {
        user: String,
        #[command(flatten)]
        fields: Fields,
    },
    /// Change what a key may be used for
    Update {
        id: String,
        #[command(flatten)]
        fields: Fields,
    },
    /// Make a key in place of another, which works for a grace; the new one is printed this once
    Rotate {
        id: String,
        /// Seconds that the old key still works; 0 ends it at once
        #[arg(long)]
        grace: Option<u64>,
    },
    /// End a key for good
    Revoke { id: String },
    /// Take a key again
    Enable { id: String },
    /// Refuse a key until it is enabled
    Disable { id: String },
}

impl KeyCommand {
    pub(super) async fn run(&self, client: &Client) -> Result<(), Failure> {
        let at = |id: &str| format!("/keys/{}", quoted(id));
        let changed = async |id: &str, verb: &str| {
            let done = client.post(&format!("{}/{verb}", at(id)), None).await?;
            client.show(&done, || {
                format!("{}\n{}", output::fields(&done["key"]).trim_end(), output::cut(&done))
            })
        };
        match self {
            Self::New => crate::cli::print_new_key(),
            Self::List { which, user, status } => {
                let more = [("user", user.as_deref()), ("status", status.as_deref())];
                which.show(client, "/keys", &more, &KEYS).await
            }
            Self::Show { id } => {
                let key = client.get(&at(id)).await?;
                client.show(&key, || output::fields(&key))
            }
            Self::Create { user, fields } => {
                let path = format!("/users/{}/keys", quoted(user));
                made(client, &client.post(&path, Some(&fields.map()?.into())).await?)
            }
            Self::Update { id, fields } => {
                let body = fields.map()?.into();
                let key = client.change(Method::PATCH, &at(id), &at(id), Some(&body)).await?;
                client.show(&key, || output::fields(&key))
            }
            Self::Rotate { id, grace } => {
                let body = grace.map_or(json!({}), |grace| json!({ "grace": grace }));
                made(client, &client.post(&format!("{}/rotate", at(id)), Some(&body)).await?)
            }
            Self::Revoke { id } => changed(id, "revoke").await,
            Self::Enable { id } => changed(id, "enable").await,
            Self::Disable { id } => changed(id, "disable").await,
        }
    }
}

/// The fresh key alone on standard output, so that a script can take it; the rest beside it.
fn made(client: &Client, done: &Value) -> Result<(), Failure> {
    if client.is_json() {
        return client.show(done, String::new);
    }
    let id = output::plain(done["key"]["id"].as_str().unwrap_or_default());
    let _ = writeln!(io::stderr(), "key {id}, shown this once:");
    say(done["proxy_key"].as_str().unwrap_or_default())
}

/// `aiproxy channel`.
#[derive(Debug, Subcommand)]
pub(crate) enum ChannelCommand {
    /// List channels
    List {
        #[command(flatten)]
        which: Which,
        /// active, draining or disabled
        #[arg(long)]
        status: Option<String>,
    },
    /// Show a channel, without its key
    Show { id: String },
    /// Make a channel
    Create {
        id: String,
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        fields: Fields,
    },
    /// Change fields of a channel; where the key would go elsewhere, it has to be given again
    Update {
        id: String,
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        fields: Fields,
    },
    /// Put a channel into service
    Enable { id: String },
    /// Take a channel out of service and cut what uses it
    Disable { id: String },
    /// Begin nothing new on a channel; what is under way goes on
    Drain { id: String },
    /// Make a real call with the channel's key
    Test { id: String },
    /// How a channel is doing
    Health { id: String },
    /// Delete a channel that nobody may use
    Delete { id: String },
}

/// Where a channel is.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// Platform, such as openai; guessed from the URL unless given
    #[arg(long)]
    platform: Option<String>,
    /// Where the platform is
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
    /// File with the platform's API key (`-` is standard input); else AIPROXY_API_KEY, else it is asked for
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
}

impl Place {
    fn into(&self, map: &mut Map<String, Value>, needs_key: bool) -> Result<(), Failure> {
        for (name, value) in [("platform", &self.platform), ("base_url", &self.base_url)] {
            if let Some(value) = value {
                map.insert(name.to_owned(), value.as_str().into());
            }
        }
        if needs_key || self.api_key_file.is_some() || std::env::var_os("AIPROXY_API_KEY").is_some() {
            let key =
                secret::read(self.api_key_file.as_deref(), "AIPROXY_API_KEY", "API key of the platform")?;
            map.insert("api_key".to_owned(), key.expose().into());
        }
        Ok(())
    }
}

impl ChannelCommand {
    pub(super) async fn run(&self, client: &Client) -> Result<(), Failure> {
        let at = |id: &str| format!("/channels/{}", quoted(id));
        let answer = match self {
            Self::List { which, status } => {
                return which.show(client, "/channels", &[("status", status.as_deref())], &CHANNELS).await;
            }
            Self::Enable { id } => return switched(client, &at(id), "enable").await,
            Self::Disable { id } => return switched(client, &at(id), "disable").await,
            Self::Drain { id } => return switched(client, &at(id), "drain").await,
            Self::Delete { id } => return deleted(client, &at(id)).await,
            Self::Show { id } => client.get(&at(id)).await?,
            Self::Health { id } => client.get(&format!("{}/health", at(id))).await?,
            Self::Test { id } => {
                let done = client.post(&format!("{}/test", at(id)), None).await?;
                client.show(&done, || output::fields(&done))?;
                return match done["verdict"].as_str() {
                    Some("ok") => Ok(()),
                    _ => Err(Failure::Runtime(anyhow::anyhow!("the channel does not work"))),
                };
            }
            Self::Create { id, place, fields } => {
                let mut body = fields.map()?;
                place.into(&mut body, true)?;
                body.insert("id".to_owned(), id.as_str().into());
                client.post("/channels", Some(&body.into())).await?
            }
            Self::Update { id, place, fields } => {
                let mut body = fields.map()?;
                place.into(&mut body, false)?;
                client.change(Method::PATCH, &at(id), &at(id), Some(&body.into())).await?
            }
        };
        client.show(&answer, || output::fields(&answer))
    }
}

async fn switched(client: &Client, path: &str, verb: &str) -> Result<(), Failure> {
    let done = client.post(&format!("{path}/{verb}"), None).await?;
    client.show(&done, || {
        let text = |name: &str| output::plain(done[name].as_str().unwrap_or_default());
        format!("{} is {}", text("id"), text("status"))
    })
}

async fn deleted(client: &Client, path: &str) -> Result<(), Failure> {
    let done = client.change(Method::DELETE, path, path, None).await?;
    client.show(&done, || {
        format!(
            "{} is deleted; {}",
            output::plain(done["id"].as_str().unwrap_or_default()),
            output::cut(&done)
        )
    })
}
