//! Fuzz targets: what is parsed around a body (gRPC framing, credentials), PromQL expressions and the configuration.

use std::sync::Arc;

use anyhow::Context;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Request, header};
use tower::ServiceExt;
use wardroom_domain::{AccessRole, Identity, Principal, SeriesId, TenantId, Timestamp};
use wardroom_edge::{AuthMode, Callers, Config as EdgeConfig, KnownToken, Port, TokenTable, generate_token};
use wardroom_sources::{ByteRateLimiter, Intake, ResolvedSeries};

use super::fuzz_target::{FuzzTarget, NOW_MS, discard, inflate_budget};

/// Returns the targets. `messages` are OTLP metrics as protobuf.
pub(super) fn targets(messages: &[Vec<u8>]) -> anyhow::Result<Vec<FuzzTarget>> {
    let configuration = serde_json::to_vec(&wardroom_roles::Config::default())?;
    let yaml =
        b"edge:\n  max-body-bytes: 1000000\nbus: {durability: os}\nheartbeat:\n  url: \"http://[::1]:1/\" # here\n";
    let expressions = [
        r#"histogram_quantile(0.9, sum by (le) (rate(a_bucket{job=~"x|y"}[5m] offset 1h))) / on (a) group_left b > 0.5"#,
        r#"max_over_time(up{a!="\u00fc"}[1h:5m] @ 1795255200) or vector(1)"#,
    ];
    Ok(vec![
        grpc_target(messages)?,
        credentials_target(),
        FuzzTarget {
            name: "expression",
            seeds: expressions.map(|text| text.as_bytes().to_vec()).into(),
            parse: Box::new(|bytes| discard(wardroom_api::extract_selectors(&String::from_utf8_lossy(bytes)).is_ok())),
        },
        FuzzTarget {
            name: "configuration",
            seeds: vec![configuration, yaml.to_vec()],
            parse: Box::new(|bytes| {
                if let Ok(value) = serde_saphyr::from_str::<serde_json::Value>(&String::from_utf8_lossy(bytes)) {
                    discard(serde_json::from_value::<wardroom_roles::Config>(value).is_ok());
                }
            }),
        },
    ])
}

/// Whole gRPC calls: framing, decompression, decoding, the response with its trailers.
fn grpc_target(messages: &[Vec<u8>]) -> anyhow::Result<FuzzTarget> {
    let intake = Intake {
        config: wardroom_sources::Config::default(),
        edge: EdgeConfig::default(),
        budget: inflate_budget(),
        bodies: wardroom_edge::BodyBudget::new(64 << 20),
        rate_limiter: Arc::new(ByteRateLimiter::new(0)),
        resolve: Arc::new(|_, keys, labels| {
            let denied = (0..keys.len()).filter_map(|index| labels(index).err().map(|denial| (index, denial)));
            let ids = (0..keys.len() as u32).map(SeriesId).collect();
            ResolvedSeries { ids, generation: 0, refused: denied.collect() }
        }),
        admit: Arc::new(|_, _| Vec::new()),
        append: Arc::new(|accepted| {
            discard(accepted);
            Box::pin(std::future::ready(Ok(0)))
        }),
        now: Arc::new(|| Timestamp::from_millis(NOW_MS)),
    };
    let port = Port {
        config: Arc::default(),
        tokens: TokenTable::new(AuthMode::Off),
        callers: Callers::default(),
        on_rejection: Arc::new(|_| ()),
        now: Arc::new(|| Timestamp::from_millis(NOW_MS)),
    };
    let path = wardroom_sources::SOURCES.iter().find_map(|source| source.grpc_path()).context("no source has gRPC")?;
    let router = port.router(wardroom_sources::routes(&intake));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let framed = |flag: u8, message: &[u8]| {
        let mut frame = vec![flag];
        frame.extend((message.len() as u32).to_be_bytes());
        frame.extend(message);
        frame
    };
    let mut seeds = Vec::new();
    for message in messages {
        let mut compressed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut compressed, message)?;
        seeds.extend([framed(0, message), framed(1, &compressed.finish()?)]);
    }
    let parse = Box::new(move |bytes: &[u8]| {
        let request = Request::post(path)
            .header(header::CONTENT_TYPE, "application/grpc")
            .header("grpc-encoding", "gzip")
            .body(Body::from(bytes.to_vec()));
        if let Ok(request) = request {
            runtime.block_on(async {
                let Ok(response) = router.clone().oneshot(request).await;
                discard(axum::body::to_bytes(response.into_body(), 1 << 20).await.is_ok());
            });
        }
    });
    Ok(FuzzTarget { name: "gRPC", seeds, parse })
}

/// The `Authorization` header. Only the exact token may be accepted.
fn credentials_target() -> FuzzTarget {
    let (token, sha256) = generate_token();
    let identity = Identity { tenant: TenantId::main(), principal: Principal::wardroom(), role: AccessRole::Viewer };
    let table = TokenTable::new(AuthMode::On);
    table.replace(Some(vec![KnownToken { sha256, identity, expires_at: None }]));
    let basic = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("me:{token}"));
    let seeds = vec![format!("Bearer {token}").into_bytes(), format!("Basic {basic}").into_bytes()];
    let parse = Box::new(move |bytes: &[u8]| {
        let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
        let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value)]);
        let accepted = table.authenticate(&headers, Timestamp::from_millis(NOW_MS)).is_ok();
        let is_token = wardroom_edge::extract_secret(&headers).is_some_and(|secret| secret == token);
        assert_eq!(accepted, is_token, "accepted without the token, or refused with it");
    });
    FuzzTarget { name: "credentials", seeds, parse }
}
