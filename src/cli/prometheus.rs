//! Metrics in Prometheus' text format: base units, counters that end in `_total`, all of them ours
//! by the prefix `zferry_`.

use std::fmt;
use std::sync::atomic::AtomicU64;

use jiff::Timestamp;
use prometheus_client::encoding::prometheus_text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The labels of a sample, each with its value.
pub(super) type Labels = Vec<(&'static str, String)>;

/// What the text is called in HTTP.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Metrics that are put together for one answer.
pub(super) struct Metrics(Registry);

impl Metrics {
    pub fn new() -> Metrics {
        Metrics(Registry::with_prefix("zferry"))
    }

    /// A figure that goes up and down.
    pub fn gauge(&mut self, name: &str, help: &str, of: impl IntoIterator<Item = (Labels, f64)>) {
        let family = Family::<Labels, Gauge<f64, AtomicU64>>::default();
        for (labels, value) in of {
            family.get_or_create(&labels).set(value);
        }
        self.0.register(name, help, family);
    }

    /// One that only grows.
    pub fn counter(&mut self, name: &str, help: &str, of: impl IntoIterator<Item = (Labels, u64)>) {
        let family = Family::<Labels, Counter>::default();
        for (labels, value) in of {
            family.get_or_create(&labels).inc_by(value);
        }
        self.0.register(name, help, family);
    }

    /// Which zferry it is.
    pub fn version(&mut self, version: Option<String>) {
        let version = version.map(|version| (vec![("version", version)], 1.));
        self.gauge("build_info", "Which zferry it is", version);
    }

    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_text::encode(&mut text, &self.0)?;
        Ok(text)
    }
}

/// A moment, in seconds since 1970.
pub(super) fn seconds(at: Timestamp) -> f64 {
    wide(u64::try_from(at.as_millisecond()).unwrap_or(0)) / 1000.
}

#[expect(clippy::cast_precision_loss, reason = "a figure in a plot")]
pub(super) fn wide(number: u64) -> f64 {
    number as f64
}
