//! The names and their exposition.

use std::fmt;
use std::sync::atomic::Ordering::Relaxed;
use std::time::UNIX_EPOCH;

use aiproxy_core::{ErrorKind, Outcome, Protocol, Tokens};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet, NoLabelSet,
};
use prometheus_client::metrics::MetricType;

use super::cells::{CLASSES, ChannelCells, ProcessCells, Tried};
use super::histogram::{ADDED_BOUNDS, REQUEST_BOUNDS, Totals};
use super::process::Process;
use super::shards::Shards;
use super::{Breaker, Calls, Channels, Counts, Mirror, NONE, OTHER, Records, shown};

/// No label.
const BARE: [(&str, &str); 0] = [];

/// A metric of these samples.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    /// `name` is without `_total`.
    fn counter<L: EncodeLabelSet, V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (L, V)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in samples {
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, V, f64>(&value, None)?;
        }
        Ok(())
    }

    fn gauge<L: EncodeLabelSet, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (L, V)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in samples {
            metric.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    fn histogram<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (L, Totals)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (labels, Totals { sum, count, buckets }) in samples {
            metric.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }
}

impl Collector for Counts {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mirror = self.look();
        let mut page = Page(encoder);
        by_channel(&mut page, &self.channels.load())?;
        process_wide(&mut page, &self.process)?;
        mirrored(&mut page, &mirror)?;
        let started = self.started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        operating_system(&mut page, &Process::now(), started)
    }
}

fn by_channel(page: &mut Page<'_>, channels: &Channels) -> fmt::Result {
    // In one order each time: pages are compared by eye and compressed by Prometheus.
    let mut labelled: Vec<(&str, &Shards<ChannelCells>)> =
        channels.by_id.iter().map(|(id, cells)| (&**id, &**cells)).collect();
    for (id, cells) in [(NONE, &channels.none), (OTHER, &channels.other)] {
        if !channels.by_id.contains_key(id) {
            labelled.push((id, cells));
        }
    }
    labelled.sort_unstable_by_key(|(id, _)| *id);

    let requests = labelled.iter().flat_map(|(id, cells)| requests(id, cells));
    page.counter("aiproxy_requests", "Requests and sessions that have ended.", requests)?;
    page.histogram(
        "aiproxy_request_duration_seconds",
        "From the request head read to the end of the answer.",
        labelled.iter().map(|(id, cells)| {
            ([("channel", *id)], Totals::of(cells, &REQUEST_BOUNDS, |cells| &cells.duration))
        }),
    )?;
    page.histogram(
        "aiproxy_first_byte_seconds",
        "From the request head read to the head of the platform's answer.",
        labelled.iter().map(|(id, cells)| {
            ([("channel", *id)], Totals::of(cells, &REQUEST_BOUNDS, |cells| &cells.first_byte))
        }),
    )?;
    let tokens = labelled.iter().flat_map(|(id, cells)| {
        Tokens::KINDS.iter().enumerate().filter_map(move |(index, kind)| {
            let count = cells.sum(|cells| cells.tokens(index).load(Relaxed));
            (count > 0).then_some(([("channel", *id), ("kind", *kind)], count))
        })
    });
    page.counter("aiproxy_tokens", "Tokens of requests and sessions that have ended.", tokens)?;
    page.counter(
        "aiproxy_usage_estimated",
        "Requests and sessions whose usage is, in part or whole, an estimate.",
        labelled
            .iter()
            .map(|(id, cells)| ([("channel", *id)], cells.sum(|cells| cells.estimated.load(Relaxed)))),
    )?;
    let tries = labelled.iter().filter(|(id, _)| *id != NONE || channels.by_id.contains_key(NONE)).flat_map(
        |(id, cells)| {
            Tried::ALL.map(|tried| {
                let count = cells.sum(|cells| cells.tried[tried as usize].load(Relaxed));
                ([("channel", *id), ("result", tried.as_str())], count)
            })
        },
    );
    page.counter(
        "aiproxy_upstream_attempts",
        "Tries of a channel, several for one request that fails over.",
        tries,
    )
}

/// The requests of one channel, without the label sets that never occurred.
fn requests<'a>(
    id: &'a str,
    cells: &'a Shards<ChannelCells>,
) -> impl Iterator<Item = ([(&'static str, &'a str); 4], u64)> {
    let protocols = Protocol::ALL.iter().enumerate();
    let sets = protocols.flat_map(|protocol| {
        let outcomes = Outcome::ALL.iter().enumerate();
        outcomes
            .flat_map(move |outcome| CLASSES.iter().enumerate().map(move |class| (protocol, outcome, class)))
    });
    sets.filter_map(move |((p, protocol), (o, outcome), (c, class))| {
        let count = cells.sum(|cells| cells.at(p, o, c).load(Relaxed));
        let labels = [
            ("channel", id),
            ("protocol", protocol.as_str()),
            ("outcome", outcome.as_str()),
            ("status_class", *class),
        ];
        (count > 0).then_some((labels, count))
    })
}

fn process_wide(page: &mut Page<'_>, process: &Shards<ProcessCells>) -> fmt::Result {
    page.counter(
        "aiproxy_refusals",
        "Requests that AIProxy answered by itself.",
        ErrorKind::ALL
            .iter()
            .map(|kind| ([("code", kind.code())], process.sum(|cells| cells.refusal(*kind).load(Relaxed)))),
    )?;
    page.histogram(
        "aiproxy_added_latency_seconds",
        "What AIProxy itself adds before an answer begins.",
        [(BARE, Totals::of(process, &ADDED_BOUNDS, |cells| &cells.added))],
    )?;
    page.counter(
        "aiproxy_bytes",
        "Body bytes of requests and sessions that have ended, as the caller saw them.",
        [
            ([("direction", "in")], process.sum(|cells| cells.bytes_in.load(Relaxed))),
            ([("direction", "out")], process.sum(|cells| cells.bytes_out.load(Relaxed))),
        ],
    )
}

fn mirrored(page: &mut Page<'_>, mirror: &Mirror) -> fmt::Result {
    page.gauge("aiproxy_connections", "Caller connections open.", [(BARE, mirror.connections)])?;
    page.gauge("aiproxy_live_requests", "Requests and sessions under way.", [(BARE, mirror.live_requests)])?;
    page.gauge(
        "aiproxy_breaker_state",
        "1 for the state in which a channel's breaker is.",
        shown(mirror).flat_map(|channel| {
            Breaker::ALL.map(|state| {
                let labels = [("channel", &*channel.id), ("state", state.as_str())];
                (labels, i64::from(channel.breaker == state))
            })
        }),
    )?;
    page.gauge(
        "aiproxy_channel_rejected",
        "1 while the platform refuses the channel's key or account.",
        shown(mirror).map(|channel| ([("channel", &*channel.id)], i64::from(channel.rejected))),
    )?;
    page.gauge(
        "aiproxy_channel_unhealthy",
        "1 while the channel's health check fails.",
        shown(mirror).map(|channel| ([("channel", &*channel.id)], i64::from(channel.unhealthy))),
    )?;
    page.counter(
        "aiproxy_reloads",
        "Changed configurations, by what became of them.",
        [
            ([("result", "applied")], mirror.reloads_applied),
            ([("result", "refused")], mirror.reloads_refused),
        ],
    )?;
    page.counter(
        "aiproxy_connections_turned_away",
        "Connections ended before a request, or in spite of one, by reason.",
        mirror.turned_away.iter().map(|(reason, count)| ([("reason", *reason)], *count)),
    )?;
    page.counter(
        "aiproxy_tls_loads",
        "Looks at the certificates' files, by what became of them.",
        [([("result", "applied")], mirror.tls_loaded), ([("result", "refused")], mirror.tls_refused)],
    )?;
    page.gauge(
        "aiproxy_tls_certificate_expiry_timestamp_seconds",
        "Until when a certificate is valid, as Unix time.",
        mirror.certificates.iter().map(|certificate| {
            let labels = [("name", &*certificate.name), ("fingerprint", &*certificate.fingerprint)];
            (labels, certificate.expires)
        }),
    )?;
    calls(page, &mirror.calls)?;
    records(page, &mirror.records)
}

fn calls(page: &mut Page<'_>, calls: &Calls) -> fmt::Result {
    for (name, help, count) in [
        ("aiproxy_calls", "WebRTC calls under way, those being set up among them.", calls.open),
        ("aiproxy_call_setups", "WebRTC calls being set up.", calls.setups),
        ("aiproxy_calls_relayed", "WebRTC calls whose media passes through AIProxy.", calls.relayed),
        (
            "aiproxy_media_addresses",
            "Addresses of callers from which the media port takes packets.",
            calls.addresses,
        ),
    ] {
        page.gauge(name, help, [(BARE, count)])?;
    }
    page.counter(
        "aiproxy_media_dropped",
        "Packets at the media port that were thrown away, by reason.",
        [
            ([("reason", "unknown")], calls.unknown_packets),
            ([("reason", "queue_full")], calls.dropped_packets),
        ],
    )
}

fn records(page: &mut Page<'_>, records: &Records) -> fmt::Result {
    for (name, help, count) in [
        ("aiproxy_access_log_lines", "Access log lines that were written.", records.lines),
        (
            "aiproxy_access_log_dropped",
            "Access log lines that were dropped because the target could not follow.",
            records.lines_dropped,
        ),
        (
            "aiproxy_access_log_failures",
            "How often the access log could not be written.",
            records.log_failures,
        ),
        ("aiproxy_journal_records", "Records that the usage journal took.", records.journal_written),
        (
            "aiproxy_journal_dropped",
            "Records that the usage journal could not keep: use that nobody counts.",
            records.journal_dropped,
        ),
        (
            "aiproxy_journal_torn",
            "Records of earlier processes that could not be read.",
            records.journal_torn,
        ),
    ] {
        page.counter(name, help, [(BARE, count)])?;
    }
    page.gauge(
        "aiproxy_journal_lag_bytes",
        "Bytes of the usage journal that the access log does not have yet.",
        [(BARE, records.journal_lag_bytes)],
    )?;
    page.gauge(
        "aiproxy_journal_disk_bytes",
        "Bytes that the usage journal takes on disk, without what it keeps for its retention.",
        [(BARE, records.journal_disk_bytes)],
    )
}

fn operating_system(page: &mut Page<'_>, process: &Process, started: f64) -> fmt::Result {
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    page.gauge("aiproxy_build_info", "Always 1; the label says which version runs.", [(version, 1_i64)])?;
    page.gauge("process_start_time_seconds", "When the process started, as Unix time.", [(BARE, started)])?;
    page.counter(
        "process_cpu_seconds",
        "User and system time used.",
        process.cpu_seconds.map(|value| (BARE, value)),
    )?;
    page.gauge(
        "process_resident_memory_bytes",
        "Resident memory.",
        process.memory_bytes.map(|value| (BARE, value)),
    )?;
    page.gauge("process_open_fds", "Open file descriptors.", process.open_fds.map(|value| (BARE, value)))?;
    page.gauge(
        "process_max_fds",
        "Open file descriptors allowed.",
        process.max_fds.map(|value| (BARE, value)),
    )
}
