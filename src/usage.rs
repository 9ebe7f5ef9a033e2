//! What the usage journal says, for people: `aiproxy usage tail` and `aiproxy usage sum`.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use aiproxy_core::EntityKind;
use aiproxy_journal::History;
use aiproxy_meter::codec::{self, Decoded};
use aiproxy_meter::filter::moment;
use aiproxy_meter::{By, Filter, Open, Sums, line};
use anyhow::Context as _;
use jiff::tz::TimeZone;

use crate::cli::{Failure, say};
use crate::table::{self, Table};
use crate::transfer;

/// How often a followed journal is looked at.
const LOOK: Duration = Duration::from_millis(300);

/// `aiproxy usage …`
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show the last requests
    Tail {
        /// How many
        #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 20)]
        lines: usize,
        /// Go on showing requests as they end
        #[arg(short, long)]
        follow: bool,
        /// Which requests
        #[command(flatten)]
        which: Which,
    },
    /// Add requests up
    Sum {
        /// What to tell apart: user, key, channel, model, endpoint, protocol, outcome, error_class,
        /// status, hour, day; several with commas
        #[arg(short, long, value_name = "COLUMNS", default_value = "user", value_delimiter = ',', value_parser = column)]
        by: Vec<By>,
        /// Which requests
        #[command(flatten)]
        which: Which,
    },
}

/// Which journal, and which of its records.
#[derive(Debug, clap::Args)]
pub struct Which {
    /// Configuration file that says where the journal is, and the names of users
    #[arg(short, long, value_name = "FILE", env = "AIPROXY_CONFIG", default_value = "aiproxy.yaml")]
    config: PathBuf,
    /// Folder of the journal; no configuration is read then
    #[arg(short, long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Begun at or after: RFC 3339, a date, or a span before now such as 90m, 24h, 7d
    #[arg(long, value_name = "WHEN")]
    since: Option<String>,
    /// Begun before, written as for --since
    #[arg(long, value_name = "WHEN")]
    until: Option<String>,
    /// Only users with this id (`*` is any run of characters); may be repeated
    #[arg(long, value_name = "ID")]
    user: Vec<String>,
    /// Only channels with this id; may be repeated
    #[arg(long, value_name = "ID")]
    channel: Vec<String>,
    /// Only this model; may be repeated
    #[arg(long, value_name = "NAME")]
    model: Vec<String>,
    /// Only this endpoint; may be repeated
    #[arg(long, value_name = "PATH")]
    endpoint: Vec<String>,
    /// Only this outcome (complete, refused, caller_left, upstream_failed, cut, aborted; for sums, open); may be
    /// repeated
    #[arg(long, value_name = "OUTCOME")]
    outcome: Vec<String>,
    /// Time zone of dates, hours and days, such as Asia/Shanghai
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    tz: String,
    /// JSON for programs
    #[arg(long)]
    json: bool,
}

/// A journal, ready to be read.
struct Source {
    history: History,
    filter: Filter,
    zone: TimeZone,
    /// Names of users by id, where the configuration says them.
    names: HashMap<String, String>,
    json: bool,
}

fn column(name: &str) -> Result<By, String> {
    By::named(name).ok_or_else(|| {
        let known: Vec<&str> = By::ALL.iter().map(|(name, _)| *name).collect();
        format!("write one or several of {}", known.join(", "))
    })
}

/// Runs the command.
///
/// # Errors
/// [`Failure::Usage`] when it cannot be told what is asked for, [`Failure::Runtime`] when the journal
/// cannot be read.
pub fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Tail { lines, follow, which } => tail(which.source()?, *lines, *follow),
        Command::Sum { by, which } => sum(which.source()?, by.clone()),
    }
}

impl Which {
    fn source(&self) -> Result<Source, Failure> {
        let zone = TimeZone::get(&self.tz)
            .map_err(|_| Failure::Usage(format!("--tz: there is no time zone {:?}", self.tz)))?;
        let now = SystemTime::now();
        let when = |name: &str, text: Option<&String>| {
            let read = |text: &String| {
                moment(text, now, &zone).ok_or_else(|| {
                    Failure::Usage(format!(
                        "{name}: {text:?} is no moment; write RFC 3339, a date, or a span such as 24h"
                    ))
                })
            };
            text.map(read).transpose()
        };
        let filter = Filter {
            since: when("--since", self.since.as_ref())?,
            until: when("--until", self.until.as_ref())?,
            users: self.user.clone(),
            channels: self.channel.clone(),
            models: self.model.clone(),
            endpoints: self.endpoint.clone(),
            outcomes: self.outcome.clone(),
        };
        let (dir, names) = match &self.dir {
            Some(dir) => (dir.clone(), HashMap::new()),
            None => self.configured()?,
        };
        let history = History::open(&dir)
            .with_context(|| format!("cannot read the usage journal {}", dir.display()))?;
        Ok(Source { history, filter, zone, names, json: self.json })
    }

    /// The journal's folder and the names of users.
    fn configured(&self) -> Result<(PathBuf, HashMap<String, String>), Failure> {
        let loaded = aiproxy_config::load_file(&self.config).map_err(|problems| {
            Failure::Usage(format!("{problems}\nWith --dir DIR the journal is read without a configuration."))
        })?;
        let snapshot = loaded.snapshot;
        let journal = snapshot.system.journal.as_ref().ok_or_else(|| {
            Failure::Usage(format!("{}: system.journal is not enabled", self.config.display()))
        })?;
        // A database that cannot be read takes no more than the names.
        let documents = match loaded.manages {
            true => loaded.documents,
            false => transfer::of_database(&snapshot.system.data_dir).unwrap_or_default(),
        };
        let users = documents.iter().filter(|document| document.kind == EntityKind::User);
        let names = users.map(|user| {
            let name = user.fields.text("name").unwrap_or(&user.id);
            (user.id.clone(), name.to_owned())
        });
        Ok((journal.dir.clone(), names.collect()))
    }
}

impl Source {
    /// Hands out the records that are meant and have not been handed out yet.
    fn read(&mut self, mut take: impl FnMut(&[u8], &Decoded<'_>)) -> Result<(), Failure> {
        let filter = &self.filter;
        self.history.read(filter.since, |record| {
            if let Some(event) = codec::decode(record).filter(|event| filter.admits(event)) {
                take(record, &event);
            }
        })?;
        Ok(())
    }
}

fn tail(mut source: Source, lines: usize, follow: bool) -> Result<(), Failure> {
    let mut last: Vec<(SystemTime, Vec<u8>)> = Vec::new();
    source.read(|record, event| {
        if event.is_open() {
            return;
        }
        last.push((event.started, record.to_vec()));
        if last.len() >= 2 * lines.max(500) {
            keep(&mut last, lines);
        }
    })?;
    keep(&mut last, lines);
    let mut out = io::stdout().lock();
    if !source.json {
        writeln!(out, "{}", table::heading())?;
    }
    loop {
        let mut text = Vec::new();
        for (_, record) in last.drain(..) {
            let Some(event) = codec::decode(&record) else { continue };
            if source.json {
                line::append_decoded(&mut text, &event);
            } else {
                writeln!(text, "{}", table::event(&event, &source.zone))?;
            }
        }
        match out.write_all(&text).and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            other => other?,
        }
        if !follow {
            return Ok(());
        }
        pause();
        source.read(|record, event| {
            if !event.is_open() {
                last.push((event.started, record.to_vec()));
            }
        })?;
        last.sort_by_key(|(started, _)| *started);
    }
}

#[expect(clippy::disallowed_methods, reason = "nobody is served here")]
fn pause() {
    std::thread::sleep(LOOK);
}

/// Keeps the youngest, in order.
fn keep(last: &mut Vec<(SystemTime, Vec<u8>)>, lines: usize) {
    last.sort_by_key(|(started, _)| *started);
    last.drain(..last.len().saturating_sub(lines));
}

fn sum(mut source: Source, by: Vec<By>) -> Result<(), Failure> {
    let mut sums = Sums::new(by, source.zone.clone());
    let outcomes = std::mem::take(&mut source.filter.outcomes);
    let meant = |event: &Decoded<'_>| outcomes.is_empty() || outcomes.iter().any(|one| one == event.outcome);
    let mut open = Open::default();
    source.read(|record, event| {
        if open.stands(record, event) && meant(event) {
            sums.add(event);
        }
    })?;
    // Sessions that go on count with what they have used so far.
    open.records().filter_map(codec::decode).filter(meant).for_each(|event| sums.add(&event));
    if source.history.torn() > 0 {
        tell(&format!("{} records of the journal could not be read", source.history.torn()));
    }
    if source.json {
        return say(&json(&sums, &source.names).to_string());
    }
    say(&Table::of(&sums, &source.names).to_string())
}

fn tell(text: &str) {
    let _ = writeln!(io::stderr(), "aiproxy: {text}");
}

fn json(sums: &Sums, names: &HashMap<String, String>) -> serde_json::Value {
    let rows = sums.rows().into_iter().map(|(name, row)| {
        let mut object = serde_json::json!(row);
        for (by, value) in sums.by().iter().zip(name) {
            object[by.as_str()] = value.as_str().into();
            if let (By::User, Some(name)) = (by, names.get(value)) {
                object["name"] = name.as_str().into();
            }
        }
        object
    });
    let by: Vec<&str> = sums.by().iter().map(|by| by.as_str()).collect();
    serde_json::json!({ "by": by, "rows": rows.collect::<Vec<_>>(), "total": sums.total() })
}
