//! The usage journal, the access log's rotation, prices.

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use aiproxy_platform::price::{Price, PriceTable, millionths};

use super::Builder;
use crate::complaint::Complaint;
use crate::model::{Journal, Rotate, StreamUsage};
use crate::raw;
use crate::tree::Trail;

/// Sizes that make sense.
const SEGMENT_BYTES: RangeInclusive<u64> = 128 * 1024..=1024 * 1024 * 1024;
const MAX_BYTES: RangeInclusive<u64> = 512 * 1024..=64 << 40;
const RETENTION_BYTES: RangeInclusive<u64> = 0..=64 << 40;
const ROTATE_BYTES: RangeInclusive<u64> = 64 * 1024..=64 << 40;
const KEEP_BYTES: RangeInclusive<u64> = 0..=64 << 40;
/// Segments are mapped by the page.
const PAGE: u32 = 4096;

impl Builder<'_> {
    pub(super) fn journal(&mut self, trail: &Trail, raw: &raw::Journal, data_dir: &Path) -> Option<Journal> {
        let mut size = |name, raw, range, usual| self.size(trail, name, raw, range, usual);
        let segment_bytes = size("segment_bytes", raw.segment_bytes, SEGMENT_BYTES, 4 << 20);
        let max_bytes = size("max_bytes", raw.max_bytes, MAX_BYTES, 1 << 30) as u64;
        let retention_bytes = size("retention_bytes", raw.retention_bytes, RETENTION_BYTES, 4 << 30) as u64;
        let segment_bytes = u32::try_from(segment_bytes).unwrap_or(4 << 20);
        if !segment_bytes.is_multiple_of(PAGE) {
            let complaint =
                Complaint::new("`segment_bytes` is no multiple of 4KiB", "write a size such as `4MiB`");
            self.error(&trail.key("segment_bytes"), complaint);
        }
        if max_bytes < 4 * u64::from(segment_bytes) {
            let at = if raw.max_bytes.is_some() { "max_bytes" } else { "segment_bytes" };
            let message = "`max_bytes` is less than four times `segment_bytes`";
            self.error(&trail.key(at), Complaint::new(message, "write a larger `max_bytes`"));
        }
        self.at_least(trail, "sync_interval", raw.sync_interval, Duration::from_millis(10), "10ms");
        self.at_least(trail, "session_interval", raw.session_interval, Duration::from_secs(1), "1s");
        let dir = raw.dir.as_deref().map_or_else(|| data_dir.join("journal"), |dir| self.source.resolve(dir));
        (raw.enabled != Some(false)).then(|| Journal {
            dir,
            segment_bytes,
            max_bytes,
            retention: raw.retention.map_or(Duration::from_secs(30 * 24 * 60 * 60), |value| value.0),
            retention_bytes,
            sync_interval: raw.sync_interval.map_or(Duration::from_secs(1), |value| value.0),
            session_interval: raw.session_interval.map_or(Duration::from_secs(60), |value| value.0),
        })
    }

    pub(super) fn rotate(&mut self, trail: &Trail, raw: &raw::Rotate) -> Option<Rotate> {
        let usual = Rotate::default();
        let mut size = |name, raw, range, usual: u64| {
            self.size(trail, name, raw, range, usize::try_from(usual).unwrap_or(usize::MAX)) as u64
        };
        let bytes = size("bytes", raw.bytes, ROTATE_BYTES, usual.bytes);
        let keep_bytes = size("keep_bytes", raw.keep_bytes, KEEP_BYTES, usual.keep_bytes);
        self.at_least(trail, "age", raw.age, Duration::from_secs(60), "1m");
        (raw.enabled != Some(false)).then(|| Rotate {
            bytes,
            age: raw.age.map_or(usual.age, |value| value.0),
            keep_files: raw.keep_files,
            keep_age: raw.keep_age.map_or(usual.keep_age, |value| value.0),
            keep_bytes,
        })
    }

    fn at_least(
        &mut self,
        trail: &Trail,
        name: &str,
        value: Option<raw::Span>,
        least: Duration,
        written: &str,
    ) {
        if value.is_some_and(|value| value.0 < least) {
            let message = format!("`{name}` is shorter than {written}");
            self.error(&trail.key(name), Complaint::new(message, format!("write `{written}` or more")));
        }
    }
}

/// The table; nothing where validation has named what is wrong with it.
pub(super) fn prices(raw: &raw::Prices) -> Option<PriceTable> {
    let rows = raw.models.0.iter().filter_map(|(pattern, price)| {
        let raw::Price {
            input,
            output,
            cached,
            cache_written,
            reasoning,
            audio_input,
            audio_output,
            image_input,
            image_output,
            second,
            image,
            characters,
        } = price.as_ref()?;
        let own = |amount: &Option<f64>| amount.and_then(millionths);
        let of = |amount: &Option<f64>| own(amount).unwrap_or_default();
        let price = Price {
            input: of(input),
            output: of(output),
            cached: own(cached),
            cache_written: own(cache_written),
            reasoning: own(reasoning),
            audio_input: own(audio_input),
            audio_output: own(audio_output),
            image_input: own(image_input),
            image_output: own(image_output),
            second: of(second),
            image: of(image),
            characters: of(characters),
        };
        Some((pattern.clone(), price))
    });
    Some(PriceTable { currency: raw.currency.as_deref()?.into(), rows: rows.collect() })
}

impl From<raw::StreamUsage> for StreamUsage {
    fn from(usage: raw::StreamUsage) -> Self {
        match usage {
            raw::StreamUsage::Inject => Self::Inject,
            raw::StreamUsage::Observe => Self::Observe,
        }
    }
}
