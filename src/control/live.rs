//! `session`, `denial`, `explain`: what is under way, who is refused, and why.

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use super::client::Client;
use super::documents::{query, quoted};
use super::output;
use crate::cli::Failure;

const SESSIONS: [output::Column; 7] = [
    ("ID", "id"),
    ("KIND", "kind"),
    ("USER", "user"),
    ("CHANNEL", "channel"),
    ("MODEL", "model"),
    ("AGE", "age"),
    ("BYTES OUT", "bytes_out"),
];
const DENIALS: [output::Column; 5] =
    [("KIND", "kind"), ("SUBJECT", "subject"), ("REASON", "reason"), ("BY", "by"), ("AT", "at")];

/// `aiproxy session`.
#[derive(Debug, Subcommand)]
pub(crate) enum SessionCommand {
    /// List requests, streams, sockets and calls under way
    List {
        /// Only this user's
        #[arg(long)]
        user: Option<String>,
        /// Only on this channel
        #[arg(long)]
        channel: Option<String>,
        /// http, websocket or call
        #[arg(long)]
        kind: Option<String>,
    },
    /// Show one
    Show { id: String },
    /// Cut one by its id, or all of a user, a channel or a key
    Cut {
        #[arg(required_unless_present_any = ["user", "channel", "key"])]
        id: Option<String>,
        /// All of this user
        #[arg(long)]
        user: Option<String>,
        /// All on this channel
        #[arg(long)]
        channel: Option<String>,
        /// All with this key (id)
        #[arg(long)]
        key: Option<String>,
    },
}

impl SessionCommand {
    pub(super) async fn run(&self, client: &Client) -> Result<(), Failure> {
        match self {
            Self::List { user, channel, kind } => {
                let more =
                    [("user", user.as_deref()), ("channel", channel.as_deref()), ("kind", kind.as_deref())];
                let list = client.list("/sessions", &query(&more), None).await?;
                client.show(&list, || output::table(&list["items"], &SESSIONS))
            }
            Self::Show { id } => {
                let session = client.get(&format!("/sessions/{}", quoted(id))).await?;
                client.show(&session, || output::fields(&session))
            }
            Self::Cut { id, user, channel, key } => {
                let done = match id {
                    Some(id) => {
                        client
                            .ask(Method::DELETE, &format!("/sessions/{}", quoted(id)), None, &[])
                            .await?
                            .body
                    }
                    None => {
                        let mut body = json!({});
                        for (name, value) in [("user", user), ("channel", channel), ("key", key)] {
                            if let Some(value) = value {
                                body[name] = value.as_str().into();
                            }
                        }
                        client.post("/sessions/cut", Some(&body)).await?
                    }
                };
                client.show(&done, || output::cut(&done))
            }
        }
    }
}

/// `aiproxy denial`.
#[derive(Debug, Subcommand)]
pub(crate) enum DenialCommand {
    /// List who and what is refused, whatever file or database say
    List,
    /// Refuse a user or a key from now on
    Add {
        /// Id of the user
        #[arg(long, required_unless_present = "key", conflicts_with = "key")]
        user: Option<String>,
        /// Id of the key, or its SHA-256
        #[arg(long)]
        key: Option<String>,
        /// For the audit
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Take a denial back
    Remove {
        /// user or key
        kind: String,
        /// As the list shows it
        subject: String,
    },
}

impl DenialCommand {
    pub(super) async fn run(&self, client: &Client) -> Result<(), Failure> {
        match self {
            Self::List => {
                let list = client.list("/denials", "", None).await?;
                client.show(&list, || output::table(&list["items"], &DENIALS))
            }
            Self::Add { user, key, reason } => {
                let mut body = json!({ "reason": reason });
                for (name, value) in [("user", user), ("key", key)] {
                    if let Some(value) = value {
                        body[name] = value.as_str().into();
                    }
                }
                let done = client.post("/denials", Some(&body)).await?;
                client.show(&done, || format!("denied; {}", output::cut(&done)))
            }
            Self::Remove { kind, subject } => {
                let path = format!("/denials/{}/{}", quoted(kind), quoted(subject));
                let done = client.ask(Method::DELETE, &path, None, &[]).await?.body;
                client.show(&done, || "taken back".to_owned())
            }
        }
    }
}

/// `aiproxy explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArguments {
    /// Path, as a caller would ask for it
    path: String,
    /// Method
    #[arg(short = 'X', long, default_value = "POST")]
    method: String,
    /// The user who would call, with the key in use
    #[arg(long, required_unless_present = "key")]
    user: Option<String>,
    /// The key (id) with which the call would be made
    #[arg(long)]
    key: Option<String>,
    /// The model that would be asked for
    #[arg(long)]
    model: Option<String>,
    /// The caller's address
    #[arg(long)]
    ip: Option<String>,
}

impl ExplainArguments {
    pub(super) async fn run(&self, client: &Client) -> Result<(), Failure> {
        let mut body = json!({ "path": self.path, "method": self.method });
        for (name, value) in
            [("user", &self.user), ("key_id", &self.key), ("model", &self.model), ("ip", &self.ip)]
        {
            if let Some(value) = value {
                body[name] = Value::from(value.as_str());
            }
        }
        let said = client.post("/explain", Some(&body)).await?;
        client.show(&said, || {
            let verdict = match said["allowed"] == true {
                true => "allowed".to_owned(),
                false => format!(
                    "refused: {} {}",
                    said["status"],
                    output::plain(said["code"].as_str().unwrap_or("-"))
                ),
            };
            let steps =
                output::table(&said["steps"], &[("STEP", "step"), ("OUTCOME", "outcome"), ("WHY", "detail")]);
            let channels = output::table(
                &said["channels"],
                &[("CHANNEL", "id"), ("TRIED", "would_be_tried"), ("WHY", "why")],
            );
            format!("{verdict}\n\n{steps}\n{channels}")
        })
    }
}
