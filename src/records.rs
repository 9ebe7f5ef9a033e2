//! Where records of requests go: the journal and the access log behind it, or the access log alone.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aiproxy_config::model::{AccessLog as Configured, Journal as Kept, Rotate, System};
use aiproxy_core::ports::UsageSink;
use aiproxy_journal::{Journal, Options};
use aiproxy_meter::{AccessLog, Consumer, JournalSink, Rotation, Target, aborted};
use aiproxy_telemetry::metrics;
use anyhow::Context as _;

/// The journal and who reads it, or the access log alone.
#[derive(Debug, Clone)]
pub struct Records(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Journal { journal: Arc<Journal>, consumer: Arc<Consumer> },
    Log(Arc<AccessLog>),
    Nowhere,
}

impl Records {
    /// Opens what the configuration says.
    ///
    /// # Errors
    /// When the journal's folder cannot be used or the access log not opened.
    pub fn open(system: &System) -> anyhow::Result<Self> {
        let target = match &system.log.access {
            Configured::Stdout => Target::Stdout,
            Configured::File(path) => Target::File(path.clone()),
            Configured::Off => Target::Nowhere,
        };
        if let Target::File(path) = &target
            && let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty())
        {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        }
        let Some(kept) = &system.journal else {
            return Ok(Self(match target {
                Target::Nowhere => Kind::Nowhere,
                target => {
                    Kind::Log(Arc::new(AccessLog::open(&target).with_context(|| cannot_open(&target))?))
                }
            }));
        };
        let before = aborted::last_recorded(&kept.dir);
        let options = options(kept, system.workers);
        let journal = Journal::open(options).map(Arc::new).with_context(|| {
            format!(
                "cannot use the usage journal {}; write another folder as system.journal.dir, or `enabled: false` under system.journal",
                kept.dir.display()
            )
        })?;
        let closed =
            before.map_or(Ok(0), |before| aborted::close(&kept.dir, &journal, before, kept.session_interval));
        match closed {
            Ok(0) => {}
            Ok(sessions) => tracing::warn!(sessions, "sessions were open when the process ended before"),
            // Requests go on, as they do where the journal cannot be written.
            Err(error) => {
                tracing::error!(%error, "it cannot be told which sessions the process before left open");
            }
        }
        let rotation = system.log.rotate.as_ref().map_or_else(Rotation::off, rotation);
        let consumer = Consumer::start(Arc::clone(&journal), &kept.dir, &target, rotation)
            .with_context(|| cannot_open(&target))?;
        Ok(Self(Kind::Journal { journal, consumer: Arc::new(consumer) }))
    }

    /// Where events go; none where nobody keeps them.
    #[must_use]
    pub fn sink(&self) -> Option<Arc<dyn UsageSink>> {
        match &self.0 {
            Kind::Journal { journal, .. } => Some(Arc::new(JournalSink::new(Arc::clone(journal)))),
            Kind::Log(log) => Some(Arc::clone(log) as _),
            Kind::Nowhere => None,
        }
    }

    /// What has become of them, for the metrics.
    #[must_use]
    pub fn counts(&self) -> metrics::Records {
        match &self.0 {
            Kind::Journal { journal, consumer } => {
                let counters = journal.counters();
                metrics::Records {
                    lines: consumer.lines(),
                    lines_dropped: consumer.skipped(),
                    log_failures: consumer.failures(),
                    journal_written: counters.written,
                    journal_dropped: counters.dropped + counters.refused,
                    journal_torn: counters.torn,
                    journal_lag_bytes: counters.lag_bytes,
                    journal_disk_bytes: counters.disk_bytes,
                }
            }
            Kind::Log(log) => {
                metrics::Records { lines: log.lines(), lines_dropped: log.dropped(), ..Default::default() }
            }
            Kind::Nowhere => metrics::Records::default(),
        }
    }

    /// Opens the access log's path again: after it has been moved away, a new file is made.
    pub fn reopen(&self) {
        match &self.0 {
            Kind::Journal { consumer, .. } => consumer.reopen(),
            Kind::Log(log) => log.reopen(),
            Kind::Nowhere => {}
        }
    }

    /// Writes what waits. Blocks; to be called when nobody records any more.
    pub fn close(&self) {
        match &self.0 {
            Kind::Journal { consumer, .. } => consumer.close(),
            Kind::Log(log) => log.close(),
            Kind::Nowhere => {}
        }
    }
}

fn options(kept: &Kept, workers: Option<usize>) -> Options {
    let Kept {
        dir,
        segment_bytes,
        max_bytes,
        retention,
        retention_bytes,
        sync_interval,
        session_interval: _,
    } = kept.clone();
    let usual = Options::new(dir);
    Options {
        segment_bytes,
        max_bytes,
        // One for each thread that serves, and one more.
        spares: workers.map_or(usual.spares, |workers| workers.min(15) + 1),
        keep_bytes: if retention == Duration::ZERO { 0 } else { retention_bytes },
        keep_age: retention,
        sync_interval,
        ..usual
    }
}

fn rotation(rotate: &Rotate) -> Rotation {
    let Rotate { bytes, age, keep_files, keep_age, keep_bytes } = *rotate;
    Rotation {
        bytes: Some(bytes),
        age: Some(age),
        keep_files,
        keep_age: Some(keep_age),
        keep_bytes: Some(keep_bytes),
    }
}

fn cannot_open(target: &Target) -> String {
    let path = match target {
        Target::Stdout => return "cannot write the access log to standard output".to_owned(),
        Target::Nowhere => PathBuf::from("off"),
        Target::File(path) => path.clone(),
    };
    format!("cannot open the access log {}", path.display())
}
