//! `admin`, `token`: who may administer.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use aiproxy_core::Secret;
use anyhow::{Context as _, anyhow};
use clap::Subcommand;
use http::Method;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::client::{Client, credentials};
use super::documents::quoted;
use super::{output, secret};
use crate::cli::{Failure, say};

const ADMINS: [output::Column; 6] = [
    ("ID", "id"),
    ("NAME", "name"),
    ("ROLE", "role"),
    ("STATUS", "status"),
    ("LAST LOGIN", "last_login_at"),
    ("DISPLAY NAME", "display_name"),
];
const TOKENS: [output::Column; 7] = [
    ("ID", "id"),
    ("NAME", "name"),
    ("TOKEN", "prefix"),
    ("ROLE", "role"),
    ("SCOPES", "scopes"),
    ("EXPIRES", "expires_at"),
    ("LAST USED", "last_used_at"),
];
/// How long a login on the command line lasts.
const LOGIN_HOURS: i64 = 12;
/// Where passwords come from when they stand in no file.
const PASSWORD: &str = "AIPROXY_PASSWORD";

/// `aiproxy admin`.
#[derive(Debug, Subcommand)]
pub(crate) enum AdminCommand {
    /// Sign in: a token for twelve hours is kept in a file that only you may read
    Login {
        /// Name
        #[arg(default_value = "admin")]
        name: String,
        /// File with the password (`-` is standard input); else AIPROXY_PASSWORD, else it is asked for
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        /// File with a new password, for one that has to be changed first
        #[arg(long, value_name = "FILE")]
        new_password_file: Option<PathBuf>,
    },
    /// End the login
    Logout,
    /// Who is signed in
    Whoami,
    /// List administrators
    List,
    /// Make an administrator, with a one-time password that is printed this once
    Create {
        name: String,
        /// administrator or auditor
        #[arg(long, default_value = "administrator")]
        role: String,
        /// Name for people
        #[arg(long)]
        display_name: Option<String>,
    },
    /// Change an administrator
    Update {
        /// Id, as the list shows it
        id: String,
        /// administrator or auditor
        #[arg(long)]
        role: Option<String>,
        /// active or disabled
        #[arg(long)]
        status: Option<String>,
        /// Name for people
        #[arg(long)]
        display_name: Option<String>,
    },
    /// Delete an administrator
    Delete { id: String },
}

impl AdminCommand {
    pub(super) async fn run(&self, client: &Client) -> Result<(), Failure> {
        let at = |id: &str| format!("/administrators/{}", quoted(id));
        match self {
            Self::Login { name, password_file, new_password_file } => {
                let password = secret::read(password_file.as_deref(), PASSWORD, "Password")?;
                let new = new_password_file
                    .as_deref()
                    .map(|path| secret::read(Some(path), PASSWORD, "New password"))
                    .transpose()?;
                login(client, name, &password, new).await
            }
            Self::Logout => logout(client).await,
            Self::Whoami => {
                let me = client.get("/me").await?;
                client.show(&me, || {
                    format!(
                        "{} ({})",
                        output::plain(me["administrator"]["name"].as_str().unwrap_or_default()),
                        me["role"].as_str().unwrap_or_default()
                    )
                })
            }
            Self::List => {
                let list = client.get("/administrators").await?;
                client.show(&list, || output::table(&list["items"], &ADMINS))
            }
            Self::Create { name, role, display_name } => {
                let mut body = json!({ "name": name, "role": role });
                if let Some(display_name) = display_name {
                    body["display_name"] = display_name.as_str().into();
                }
                let done = client.post("/administrators", Some(&body)).await?;
                client.show(&done, || {
                    let password = done["one_time_password"].as_str().unwrap_or_default();
                    format!(
                        "{}\none-time password, shown this once: {password}",
                        output::fields(&done["administrator"]).trim_end()
                    )
                })
            }
            Self::Update { id, role, status, display_name } => {
                let mut body = json!({});
                for (field, value) in [("role", role), ("status", status), ("display_name", display_name)] {
                    if let Some(value) = value {
                        body[field] = value.as_str().into();
                    }
                }
                let done = client.change(Method::PATCH, &at(id), &at(id), Some(&body)).await?;
                client.show(&done, || output::fields(&done))
            }
            Self::Delete { id } => {
                client.change(Method::DELETE, &at(id), &at(id), None).await?;
                say("deleted")
            }
        }
    }
}

async fn login(client: &Client, name: &str, password: &Secret, new: Option<Secret>) -> Result<(), Failure> {
    let client = client.with(None);
    let body = json!({ "name": name, "password": password.expose() });
    let answer = client.ask(Method::POST, "/login", Some(&body), &[]).await?;
    let cookie =
        answer.cookie.as_deref().and_then(|cookie| cookie.split(';').next()).unwrap_or_default().to_owned();
    let csrf = answer.body["csrf_token"].as_str().unwrap_or_default().to_owned();
    let headers = [("cookie", cookie.as_str()), ("x-csrf-token", csrf.as_str())];
    if answer.body["must_change_password"] == true {
        let new = match new {
            Some(new) => new,
            None => secret::read(
                None,
                "AIPROXY_NEW_PASSWORD",
                "New password (the one-time password has to be changed)",
            )?,
        };
        let body = json!({ "current": password.expose(), "new": new.expose() });
        client.ask(Method::POST, "/password", Some(&body), &headers).await?;
    }
    let expires = Timestamp::now() + SignedDuration::from_hours(LOGIN_HOURS);
    let wanted = json!({
        "name": "aiproxy command line", "role": answer.body["role"], "scopes": ["*"], "expires_at": expires.to_string(),
    });
    let made = client.ask(Method::POST, "/tokens", Some(&wanted), &headers).await?.body;
    client.ask(Method::POST, "/logout", None, &headers).await?;
    let path = credentials().ok_or_else(|| anyhow!("HOME is not set: give the token in AIPROXY_TOKEN"))?;
    let kept = json!({ "url": client.url(), "id": made["details"]["id"], "token": made["token"] });
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let _ = fs::remove_file(&path);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(kept.to_string().as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))?;
    say(&format!("signed in as {} until {}", output::plain(name), expires.strftime("%Y-%m-%d %H:%M UTC")))
}

/// Ends the token at the relay, then here: one that is kept nowhere still works until it expires.
async fn logout(client: &Client) -> Result<(), Failure> {
    let path = credentials().filter(|path| path.exists());
    let Some(path) = path else { return say("nobody was signed in") };
    let kept: Value =
        fs::read_to_string(&path).ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    let ended = match kept["id"].as_str() {
        Some(id) => client.ask(Method::DELETE, &format!("/tokens/{}", quoted(id)), None, &[]).await.map(drop),
        None => Ok(()),
    };
    fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    ended?;
    say("signed out")
}

/// `aiproxy token`.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// List admin tokens
    List,
    /// Make an admin token for a program, which is printed this once
    Create {
        name: String,
        /// administrator or auditor
        #[arg(long, default_value = "administrator")]
        role: String,
        /// What it may do, such as `users:read`; may be repeated. Everything unless given
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<String>,
        /// Moment from which it is refused
        #[arg(long)]
        expires_at: Option<String>,
    },
    /// End a token
    Delete { id: String },
}

impl TokenCommand {
    pub(super) async fn run(&self, client: &Client) -> Result<(), Failure> {
        match self {
            Self::List => {
                let list = client.get("/tokens").await?;
                client.show(&list, || output::table(&list["items"], &TOKENS))
            }
            Self::Create { name, role, scopes, expires_at } => {
                let scopes = if scopes.is_empty() { vec!["*".to_owned()] } else { scopes.clone() };
                let mut body = json!({ "name": name, "role": role, "scopes": scopes });
                if let Some(moment) = expires_at {
                    body["expires_at"] = moment.as_str().into();
                }
                let made = client.post("/tokens", Some(&body)).await?;
                client.show(&made, || made["token"].as_str().unwrap_or_default().to_owned())
            }
            Self::Delete { id } => {
                client.ask(Method::DELETE, &format!("/tokens/{}", quoted(id)), None, &[]).await?;
                say("deleted")
            }
        }
    }
}
