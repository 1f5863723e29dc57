//! The instrumentations that people run, each with half of its requests failing, scraped every 15 s and 60 s: there is
//! a finding at the right entity; without failures there is none.

#![allow(missing_docs, reason = "a test")]

use wardroom_detect::{Config, Engine};
use wardroom_domain::{Labels, Sample, SeriesId};
use wardroom_signals::Catalog;

/// What a series counts.
#[derive(Clone, Copy)]
enum Counts {
    /// Requests that succeed.
    Ok,
    /// Requests that fail.
    Failed,
    /// All requests.
    All,
    /// A share of the requests that succeed.
    OkShare(f64),
    /// A share of the requests that fail.
    FailedShare(f64),
    /// Requests of the last period that succeed or fail.
    AllOfPeriod,
    /// Requests of the last period that fail.
    FailedOfPeriod,
    /// 1 while requests succeed, 0 while half of them fail.
    Probe,
}

use Counts::{All, AllOfPeriod, Failed, FailedOfPeriod, FailedShare, Ok, OkShare, Probe};

type Series = (&'static str, &'static str, Counts);

/// Name, word in the name of the entity at fault or of its peer, series: metric, labels, what it counts.
const INSTRUMENTATIONS: &[(&str, &str, &[Series])] = &[
    (
        "histogram",
        "cart",
        &[
            ("http_request_duration_seconds_bucket", "job=cart,instance=cart-1:8080,code=200,le=0.1", OkShare(0.9)),
            ("http_request_duration_seconds_bucket", "job=cart,instance=cart-1:8080,code=200,le=+Inf", Ok),
            (
                "http_request_duration_seconds_bucket",
                "job=cart,instance=cart-1:8080,code=500,\
                le=0.1",
                FailedShare(0.9),
            ),
            ("http_request_duration_seconds_bucket", "job=cart,instance=cart-1:8080,code=500,le=+Inf", Failed),
        ],
    ),
    (
        "counter and summary",
        "cart",
        &[
            ("http_requests_total", "job=cart,instance=cart-1:8080,status=200", Ok),
            ("http_requests_total", "job=cart,instance=cart-1:8080,status=500", Failed),
            ("http_request_duration_seconds_count", "job=cart,instance=cart-1:8080", All),
            ("http_request_duration_seconds_sum", "job=cart,instance=cart-1:8080", OkShare(0.05)),
        ],
    ),
    (
        "OpenTelemetry before 1.0",
        "cart",
        &[
            (
                "http_server_duration_milliseconds_bucket",
                "job=cart,instance=a,http_status_code=200,le=100",
                OkShare(0.9),
            ),
            ("http_server_duration_milliseconds_bucket", "job=cart,instance=a,http_status_code=200,le=+Inf", Ok),
            ("http_server_duration_milliseconds_bucket", "job=cart,instance=a,http_status_code=500,le=+Inf", Failed),
        ],
    ),
    (
        "OpenTelemetry",
        "cart",
        &[
            (
                "http_server_request_duration_seconds_bucket",
                "job=shop/cart,instance=a,http_response_status_code=200,le=0.1",
                OkShare(0.9),
            ),
            (
                "http_server_request_duration_seconds_bucket",
                "job=shop/cart,instance=a,http_response_status_code=200,le=+Inf",
                Ok,
            ),
            (
                "http_server_request_duration_seconds_bucket",
                "job=shop/cart,instance=a,http_response_status_code=500,le=+Inf",
                Failed,
            ),
        ],
    ),
    (
        "Istio",
        "cart",
        &[
            (
                "istio_requests_total",
                "reporter=destination,destination_service_name=cart,destination_workload=cart,\
                    destination_workload_namespace=shop,response_code=200,source_workload=edge",
                Ok,
            ),
            (
                "istio_requests_total",
                "reporter=destination,destination_service_name=cart,destination_workload=cart,\
                    destination_workload_namespace=shop,response_code=503,source_workload=edge",
                Failed,
            ),
        ],
    ),
    (
        "Envoy",
        "cart",
        &[
            (
                "envoy_cluster_upstream_rq_xx",
                "job=envoy,instance=edge:9901,envoy_cluster_name=cart,envoy_response_code_class=2",
                Ok,
            ),
            (
                "envoy_cluster_upstream_rq_xx",
                "job=envoy,instance=edge:9901,envoy_cluster_name=cart,envoy_response_code_class=5",
                Failed,
            ),
        ],
    ),
    (
        "Linkerd",
        "cart",
        &[
            (
                "response_total",
                "direction=inbound,deployment=cart,namespace=shop,pod=cart-7d9c8b6f5-x2x4z,\
                    classification=success,status_code=200",
                Ok,
            ),
            (
                "response_total",
                "direction=inbound,deployment=cart,namespace=shop,pod=cart-7d9c8b6f5-x2x4z,\
                    classification=failure,status_code=500",
                Failed,
            ),
        ],
    ),
    (
        "HAProxy",
        "cart",
        &[
            ("haproxy_backend_http_responses_total", "job=haproxy,instance=lb:8404,proxy=cart,code=2xx", Ok),
            ("haproxy_backend_http_responses_total", "job=haproxy,instance=lb:8404,proxy=cart,code=5xx", Failed),
        ],
    ),
    (
        "gRPC",
        "cart",
        &[
            (
                "grpc_server_handled_total",
                "job=cart,instance=a:1,grpc_service=shop.Cart,grpc_method=Get,grpc_code=OK",
                Ok,
            ),
            (
                "grpc_server_handled_total",
                "job=cart,instance=a:1,grpc_service=shop.Cart,grpc_method=Get,grpc_code=Internal",
                Failed,
            ),
        ],
    ),
    (
        "Micrometer",
        "cart",
        &[
            ("http_server_requests_seconds_count", "job=cart,instance=a:1,uri=/x,status=200,outcome=SUCCESS", Ok),
            (
                "http_server_requests_seconds_count",
                "job=cart,instance=a:1,uri=/x,status=500,outcome=SERVER_ERROR",
                Failed,
            ),
            (
                "http_server_requests_seconds_sum",
                "job=cart,instance=a:1,uri=/x,status=200,outcome=SUCCESS",
                OkShare(0.05),
            ),
        ],
    ),
    (
        "ALB by exporter",
        "cart",
        &[
            ("aws_applicationelb_request_count_sum", "job=yace,dimension_LoadBalancer=app/cart/1a2b", AllOfPeriod),
            (
                "aws_applicationelb_httpcode_target_5_xx_count_sum",
                "job=yace,dimension_LoadBalancer=app/cart/1a2b",
                FailedOfPeriod,
            ),
        ],
    ),
    ("blackbox", "cart", &[("probe_success", "job=blackbox,instance=https://cart.example.com/health", Probe)]),
    (
        "nginx with its traffic module",
        "nginx",
        &[
            ("nginx_vts_server_requests_total", "job=nginx,instance=edge:9913,host=cart.example.com,code=2xx", Ok),
            (
                "nginx_vts_server_requests_total",
                "job=nginx,instance=edge:9913,host=cart.example.com,\
                code=5xx",
                Failed,
            ),
        ],
    ),
    (
        "Traefik",
        "cart",
        &[
            (
                "traefik_service_requests_total",
                "job=traefik,instance=edge:8082,service=cart@docker,code=200,method=GET",
                Ok,
            ),
            (
                "traefik_service_requests_total",
                "job=traefik,instance=edge:8082,service=cart@docker,code=500,method=GET",
                Failed,
            ),
        ],
    ),
    (
        "ingress-nginx",
        "cart",
        &[
            (
                "nginx_ingress_controller_requests",
                "job=ingress,instance=a:1,exported_namespace=shop,ingress=cart,exported_service=cart,status=200",
                Ok,
            ),
            (
                "nginx_ingress_controller_requests",
                "job=ingress,instance=a:1,exported_namespace=shop,ingress=cart,exported_service=cart,status=500",
                Failed,
            ),
        ],
    ),
    (
        "Node prom-client",
        "cart",
        &[
            ("http_request_duration_seconds_bucket", "job=cart,instance=a:1,status_code=200,path=/x,le=+Inf", Ok),
            ("http_request_duration_seconds_bucket", "job=cart,instance=a:1,status_code=500,path=/x,le=+Inf", Failed),
        ],
    ),
    (
        "Go client",
        "cart",
        &[
            ("http_requests_total", "job=cart,instance=a:1,code=200,method=get,handler=/x", Ok),
            ("http_requests_total", "job=cart,instance=a:1,code=500,method=get,handler=/x", Failed),
        ],
    ),
    (
        "Python client",
        "cart",
        &[
            ("flask_http_request_total", "job=cart,instance=a:1,method=GET,status=200", Ok),
            ("flask_http_request_total", "job=cart,instance=a:1,method=GET,status=500", Failed),
        ],
    ),
    (
        "statsd exporter",
        "cart",
        &[
            ("cart_http_requests_total", "job=statsd,instance=a:9102,service=cart,status=200", Ok),
            ("cart_http_requests_total", "job=statsd,instance=a:9102,service=cart,status=500", Failed),
        ],
    ),
];

fn labels(metric: &str, text: &str) -> Labels {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    Labels::new(pairs.chain([("__name__", metric)]).collect())
}

/// Plays 20 minutes of which the last ten are faulty; returns the names in findings that open, with their times in s.
fn findings(series: &[Series], interval: i64, faulty: bool) -> Vec<(String, i64)> {
    let mut engine = Engine::new(Config::default(), Catalog::builtin());
    series.iter().for_each(|(metric, text, _)| engine.add_series(&labels(metric, text), None));
    let (mut ok, mut failed, mut found) = (1000.0, 3.0, Vec::new());
    for scrape in 0..1200 / interval {
        let at = scrape * interval + 4;
        let is_bad = faulty && at >= 600;
        let requests = 20.0 * interval as f64;
        let failing = if is_bad { requests / 2.0 } else { 0.0 };
        ok += requests - failing;
        failed += failing;
        for ((_, _, counts), id) in series.iter().zip(0..) {
            let value = match *counts {
                Ok => ok,
                Failed => failed,
                All => ok + failed,
                OkShare(share) => ok * share,
                FailedShare(share) => failed * share,
                AllOfPeriod => requests,
                FailedOfPeriod => failing,
                Probe => f64::from(u8::from(!is_bad)),
            };
            engine.observe(SeriesId(id), &[Sample { ts_ms: at * 1000, value }]);
        }
        for finding in engine.finish_batch().findings.iter().filter(|finding| finding.opens) {
            let peer = finding.signal.peer.as_ref().map(|peer| peer.name.clone()).unwrap_or_default();
            found.push((format!("{} {peer} {}", finding.signal.entity.name, finding.rule), at));
        }
    }
    found
}

#[test]
fn half_of_the_requests_failing_is_found_in_every_instrumentation() {
    let mut missed = Vec::new();
    for (name, word, series) in INSTRUMENTATIONS {
        for (interval, latest) in [(15, 690), (60, 840)] {
            let healthy = findings(series, interval, false);
            let found = findings(series, interval, true);
            let first = found.iter().find(|(names, _)| names.contains(word));
            if !healthy.is_empty() || first.is_none_or(|(_, at)| !(600..=latest).contains(at)) {
                missed.push(format!("{name} every {interval} s: healthy {healthy:?}, found {:?}", found.first()));
            }
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}
