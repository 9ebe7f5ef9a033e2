//! `audit`: who did what.

use clap::Args;

use super::client::Client;
use super::documents::query;
use super::output;
use crate::cli::Failure;

const COLUMNS: [output::Column; 7] = [
    ("AT", "at"),
    ("WHO", "actor.name"),
    ("FROM", "from"),
    ("ACTION", "action"),
    ("OBJECT", "object_kind"),
    ("ID", "object_id"),
    ("OUTCOME", "outcome"),
];

/// `aiproxy audit`.
#[derive(Debug, Args)]
pub(crate) struct AuditArguments {
    /// Only what this one did
    #[arg(long)]
    actor: Option<String>,
    /// Only this action, such as `key.create`, or all that begin with `key.`
    #[arg(long)]
    action: Option<String>,
    /// Only what was done to this kind of thing
    #[arg(long)]
    object_kind: Option<String>,
    /// Only what was done to this
    #[arg(long)]
    object_id: Option<String>,
    /// Only what ended so: `ok`, or the code of a refusal
    #[arg(long)]
    outcome: Option<String>,
    /// From this moment
    #[arg(long)]
    from: Option<String>,
    /// Until this moment
    #[arg(long)]
    until: Option<String>,
    /// Only what has this text
    #[arg(short, long)]
    q: Option<String>,
    /// The youngest so many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
    limit: u32,
}

impl AuditArguments {
    pub(super) async fn run(&self, client: &Client) -> Result<(), Failure> {
        let limit = self.limit.to_string();
        let pairs = [
            ("actor", self.actor.as_deref()),
            ("action", self.action.as_deref()),
            ("object_kind", self.object_kind.as_deref()),
            ("object_id", self.object_id.as_deref()),
            ("outcome", self.outcome.as_deref()),
            ("from", self.from.as_deref()),
            ("until", self.until.as_deref()),
            ("q", self.q.as_deref()),
            ("limit", Some(limit.as_str())),
        ];
        let page = client.get(&format!("/audit{}", query(&pairs))).await?;
        client.show(&page, || output::table(&page["items"], &COLUMNS))
    }
}
