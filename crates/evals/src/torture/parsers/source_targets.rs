//! Fuzz targets: the decoders of all sources.

use std::path::Path;

use base64::Engine as _;
use wardroom_domain::Envelope;
use wardroom_edge::InflateBudget;

use super::fuzz_target::{FuzzTarget, discard, envelope, inflate_budget, read_files};

/// Decodes as intake and replay do, including every label set.
fn decode(envelope: &Envelope, body: &[u8], budget: &InflateBudget) {
    if let Ok(decoded) = wardroom_sources::replay(envelope, body, budget) {
        for (index, _) in decoded.metrics.iter() {
            discard(decoded.metrics.labels(index).is_ok());
        }
        discard(decoded.into_batch(body, envelope.received_at));
    }
}

/// Returns a target for each source, and for each compression.
pub(super) fn targets() -> anyhow::Result<Vec<FuzzTarget>> {
    let captures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sources/tests/it/captures");
    let cases: Vec<serde_json::Value> = serde_json::from_str(include_str!("../../../fixtures/receiver/cases.json"))?;
    let v2: Vec<Vec<u8>> = cases
        .iter()
        .filter(|case| case["headers"]["content-type"].as_str().is_some_and(|content_type| content_type.contains("v2")))
        .filter_map(|case| base64::engine::general_purpose::STANDARD.decode(case["body"].as_str()?).ok())
        .filter(|body| decompress_snappy(body).is_some())
        .collect();
    let mut all = Vec::new();
    let rw1 = read_files(&captures, |name| name.ends_with(".snappy.pb"))?;
    for (name, content_type, seeds) in [
        ("remote_write 1.0", "application/x-protobuf", rw1),
        ("remote_write 2.0", "application/x-protobuf;proto=io.prometheus.write.v2.request", v2),
    ] {
        let (envelope, budget) = (envelope("prometheus_remote_write", content_type, "snappy"), inflate_budget());
        let (plain_envelope, plain_budget) = (envelope.clone(), budget.clone());
        let plain: Vec<Vec<u8>> = seeds.iter().filter_map(|seed| decompress_snappy(seed)).collect();
        let parse = Box::new(move |bytes: &[u8]| decode(&envelope, bytes, &budget));
        all.push(FuzzTarget { name: "snappy", seeds, parse });
        let parse = Box::new(move |bytes: &[u8]| {
            let body = snap::raw::Encoder::new().compress_vec(bytes).unwrap_or_default();
            decode(&plain_envelope, &body, &plain_budget);
        });
        all.push(FuzzTarget { name, seeds: plain, parse });
    }
    let otlp = captures.join("otlp");
    for (name, protocol, signal) in [
        ("OTLP metrics", "otlp_metrics", "metrics"),
        ("OTLP logs", "otlp_logs", "logs"),
        ("OTLP traces", "otlp_traces", "traces"),
    ] {
        let packed = read_files(&otlp, |file| file.contains(signal) && file.ends_with(".pb.gz"))?;
        let mut plain = read_files(&otlp, |file| file.contains(signal) && file.ends_with(".pb"))?;
        plain.extend(packed.iter().filter_map(|seed| decompress_gzip(seed)));
        all.push(source_target(name, protocol, "application/x-protobuf", "", plain));
        if !packed.is_empty() {
            all.push(source_target("gzip", protocol, "application/x-protobuf", "gzip", packed));
        }
        let mut json = read_files(&otlp, |file| file.contains(signal) && file.ends_with(".json"))?;
        json.push(br#"{"resourceMetrics":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"a"}}]},"scopeMetrics":[{"metrics":[{"name":"d","unit":"s","histogram":{"aggregationTemporality":1,"dataPoints":[{"timeUnixNano":"1795255200000000000","count":"5","sum":2.5,"bucketCounts":["2","3"],"explicitBounds":[0.1]}]}},{"name":"g","gauge":{"dataPoints":[{"asDouble":1e308,"timeUnixNano":"1"}]}}]}]}]}"#.to_vec());
        all.push(source_target(
            match signal {
                "metrics" => "OTLP/JSON metrics",
                "logs" => "OTLP/JSON logs",
                _ => "OTLP/JSON traces",
            },
            protocol,
            "application/json",
            "",
            json,
        ));
    }
    for (name, protocol, seed) in [
        (
            "/ingest/metrics",
            "json_metrics",
            r#"[{"timestamp":"2026-11-21T10:00:00Z","metric_name":"cpu","value":1.5e3,"labels":{"a":"\u00fc"}}]"#,
        ),
        (
            "/ingest/logs",
            "json_logs",
            r#"{"timestamp":"2026-11-21T10:00:00.123+01:00","level":"ERROR","message":"no \"space\"","service":"a","metadata":{"x":[1,{"y":null}]}}"#,
        ),
        (
            "/ingest/deployment",
            "json_deployment",
            r#"{"timestamp":"2026-11-21T10:00:00Z","service":"a","version":"1.2","status":"success","metadata":{"commit":"abc"}}"#,
        ),
    ] {
        all.push(source_target(name, protocol, "application/json", "", vec![seed.into()]));
    }
    Ok(all)
}

fn source_target(
    name: &'static str,
    protocol: &str,
    content_type: &str,
    encoding: &str,
    seeds: Vec<Vec<u8>>,
) -> FuzzTarget {
    let (envelope, budget) = (envelope(protocol, content_type, encoding), inflate_budget());
    FuzzTarget { name, seeds, parse: Box::new(move |bytes| decode(&envelope, bytes, &budget)) }
}

fn decompress_snappy(body: &[u8]) -> Option<Vec<u8>> {
    let size = snap::raw::decompress_len(body).ok().filter(|size| *size < 32 << 20)?;
    let mut plain = vec![0; size];
    snap::raw::Decoder::new().decompress(body, &mut plain).ok().map(|_| plain)
}

fn decompress_gzip(body: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(body), &mut plain).ok().map(|_| plain)
}
