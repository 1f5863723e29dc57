//! `wardroom samples dump`: every retained sample, once, as promtool writes them or as JSON.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use serde_json::{Value, json};
use wardroom_domain::{Labels, Matcher, TenantId, Timestamp, query::SeriesQuery};

use super::{Done, block};
use crate::client::Client;
use crate::configuration;
use crate::options::{DumpFormat, SamplesCommand};

/// Series → time → (value as text, bits): a request that was sent twice counts once.
type Samples = BTreeMap<Labels, Points>;

#[derive(Default)]
struct Points {
    samples: BTreeMap<i64, (String, String)>,
    histograms: BTreeMap<i64, Value>,
}

pub(crate) fn samples(command: &SamplesCommand) -> Done {
    // What cannot be read is told beside what can.
    let warnings = tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_writer(std::io::stderr);
    warnings.try_init().map_err(|error| anyhow::anyhow!(error))?;
    let SamplesCommand::Dump { url, data, token, tenant, matchers, start, end, format } = command;
    let mut samples = Samples::new();
    if let Some(data) = data {
        let tenant = TenantId::new(tenant.as_str()).map_err(|error| anyhow::anyhow!("--tenant: {error}"))?;
        let query = query(matchers, start.as_deref(), end.as_deref())?;
        let config = configuration::load(None)?;
        let found = block(async { Ok(wardroom_roles::dump(&config.pipeline(), data, &tenant, &query).await?) })?;
        for series in found {
            let points = samples.entry(series.labels).or_default();
            points.samples.extend(series.samples.into_iter().map(|(at, text, bits)| (at, (text, bits))));
            for histogram in series.histograms {
                points.histograms.insert(histogram.ts_ms, serde_json::to_value(histogram)?);
            }
        }
    } else {
        let url = url.as_deref().unwrap_or_default();
        fetch(&Client::new(url, token.clone()), matchers, start.as_deref(), end.as_deref(), &mut samples)?;
    }
    let mut out = std::io::BufWriter::new(std::io::stdout());
    for (labels, points) in &samples {
        for (at_ms, (text, bits)) in &points.samples {
            match format {
                DumpFormat::Promtool => writeln!(out, "{labels} {text} {at_ms}")?,
                DumpFormat::Json => {
                    writeln!(out, "{}", json!({ "labels": labels, "ts_ms": at_ms, "value": text, "bits": bits }))?;
                }
            }
        }
        // promtool leaves native histograms out.
        for (at_ms, histogram) in points.histograms.iter().filter(|_| matches!(format, DumpFormat::Json)) {
            writeln!(out, "{}", json!({ "labels": labels, "ts_ms": at_ms, "histogram": histogram }))?;
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn fetch(
    client: &Client,
    matchers: &[String],
    start: Option<&str>,
    end: Option<&str>,
    samples: &mut Samples,
) -> anyhow::Result<()> {
    let mut fixed = String::new();
    for matcher in matchers {
        fixed.push_str(&format!("&match[]={}", encode(matcher)));
    }
    for (name, value) in [("start", start), ("end", end)] {
        fixed.push_str(&value.map(|value| format!("&{name}={}", encode(value))).unwrap_or_default());
    }
    let mut cursor = "0".to_owned();
    loop {
        let page = client.get(&format!("/api/v1/samples?cursor={cursor}{fixed}"))?;
        for series in page["series"].as_array().context("the server sent no series")? {
            let labels: Labels = serde_json::from_value(series["labels"].clone())?;
            let points = samples.entry(labels).or_default();
            for sample in series["samples"].as_array().into_iter().flatten() {
                let text = |at: usize| sample[at].as_str().unwrap_or_default().to_owned();
                points.samples.insert(sample[0].as_i64().context("a sample without a time")?, (text(1), text(2)));
            }
            for histogram in series["histograms"].as_array().into_iter().flatten() {
                let at = histogram["ts_ms"].as_i64().context("a histogram without a time")?;
                points.histograms.insert(at, histogram.clone());
            }
        }
        match &page["next"] {
            Value::String(next) => cursor.clone_from(next),
            _ => return Ok(()),
        }
    }
}

fn query(matchers: &[String], start: Option<&str>, end: Option<&str>) -> anyhow::Result<SeriesQuery> {
    let mut selectors = Vec::new();
    for matcher in matchers {
        selectors.push(Matcher::parse_selector(matcher).map_err(|error| anyhow::anyhow!("--match: {error}"))?);
    }
    let moment = |name: &str, text: Option<&str>, otherwise: i64| match text {
        None => Ok(Timestamp::from_nanos(otherwise)),
        Some(text) => match text.parse::<f64>() {
            Ok(seconds) => Ok(Timestamp::from_millis((seconds * 1000.0) as i64)),
            Err(_) => Timestamp::parse(text).map_err(|error| anyhow::anyhow!("--{name}: {error}")),
        },
    };
    let (start, end) = (moment("start", start, i64::MIN)?, moment("end", end, i64::MAX)?);
    Ok(SeriesQuery { selectors, start, end, step_ms: None })
}

fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
