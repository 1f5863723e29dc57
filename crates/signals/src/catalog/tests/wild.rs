//! One failed request as each public instrumentation reports it: who failed, and who says so.

use wardroom_domain::Labels;

use crate::meaning::{Outcome, Part};
use crate::{Catalog, SeriesUse};

const COUNTED: Part = Part::Requests(Outcome::Failed);
const TIMED: Part = Part::DurationCount(Outcome::Failed);

/// Series, entity, what it calls, part.
const FAILED_REQUESTS: &[(&str, &str, &str, Part)] = &[
    ("http_requests_total{job=web,instance=a:1,code=503}", "web", "", COUNTED),
    ("http_requests_total{job=web,instance=a:1,status=5xx}", "web", "", COUNTED),
    ("web_http_requests_total{job=kubernetes-pods,pod=web-6d7f8b556-2cwmz,status_class=5xx}", "web", "", COUNTED),
    ("http_request_duration_seconds_count{job=web,instance=a:1,status_code=500}", "web", "", TIMED),
    ("http_requests_received_total{job=web,instance=a:1,code=500}", "web", "", COUNTED),
    ("http_server_requests_seconds_count{application=web,outcome=SERVER_ERROR,status=500}", "web", "", TIMED),
    ("http_server_request_duration_seconds_count{service_name=web,http_response_status_code=500}", "web", "", TIMED),
    ("http_server_duration_milliseconds_count{job=shop/web,http_status_code=500}", "web", "", TIMED),
    ("http.server.duration_count{service.name=web,http.status_code=500}", "web", "", TIMED),
    ("rpc_server_duration_milliseconds_count{service_name=web,rpc_grpc_status_code=14}", "web", "", TIMED),
    (
        "rpc_client_duration_milliseconds_count{service_name=web,server_address=cart,rpc_grpc_status_code=14}",
        "web",
        "cart",
        TIMED,
    ),
    ("grpc_server_handled_total{job=web,grpc_service=s,grpc_code=Unavailable}", "web", "", COUNTED),
    ("istio_requests_total{reporter=destination,destination_workload=web,response_code=503}", "web", "", COUNTED),
    (
        "istio_requests_total{reporter=source,source_workload=web,destination_workload=cart,response_code=503}",
        "web",
        "cart",
        COUNTED,
    ),
    (
        "envoy_cluster_upstream_rq_xx{job=envoy,instance=e:1,envoy_cluster_name=web,envoy_response_code_class=5}",
        "web",
        "",
        COUNTED,
    ),
    (
        "envoy_cluster_upstream_rq_xx{pod=web-6d7f8b556-2cwmz,envoy_cluster_name=cart,envoy_response_code_class=5}",
        "web",
        "cart",
        COUNTED,
    ),
    (
        "envoy_http_downstream_rq_xx{pod=web-6d7f8b556-2cwmz,envoy_http_conn_manager_prefix=in,envoy_response_code_class=5}",
        "web",
        "",
        COUNTED,
    ),
    ("response_total{deployment=web,direction=inbound,status_code=200,classification=failure}", "web", "", COUNTED),
    (
        "response_total{deployment=web,direction=outbound,dst_deployment=cart,classification=failure}",
        "web",
        "cart",
        COUNTED,
    ),
    ("haproxy_backend_http_responses_total{job=haproxy,proxy=web,code=5xx}", "web", "", COUNTED),
    ("haproxy_backend_http_responses_total{job=haproxy,backend=web,code=5xx}", "web", "", COUNTED),
    ("traefik_service_requests_total{job=traefik,service=web@docker,code=500}", "web", "", COUNTED),
    ("nginx_ingress_controller_requests{job=ingress,exported_service=web,ingress=i,status=500}", "web", "", COUNTED),
    ("nginx_http_response_count_total{job=nginxlog-exporter,instance=a:4040,app=web,status=500}", "web", "", COUNTED),
    ("nginx_vts_upstream_requests_total{job=nginx,upstream=web,code=5xx}", "web", "", COUNTED),
    ("kong_http_requests_total{job=kong,service=web,code=500}", "web", "", COUNTED),
    (
        "aws_applicationelb_httpcode_target_5_xx_count_sum{target_group=targetgroup/web/73e2,load_balancer=app/lb/50dc}",
        "web",
        "",
        Part::Failures,
    ),
    (
        "aws_applicationelb_httpcode_target_5_xx_count_sum{dimension_LoadBalancer=app/web/50dc}",
        "web",
        "",
        Part::Failures,
    ),
    ("web_requests_total{job=statsd-exporter,instance=s:9102,status=500}", "web", "", COUNTED),
    ("web_response_5xx_total{job=statsd-exporter,instance=s:9102}", "web", "", COUNTED),
    ("django_http_responses_total_by_status_total{job=web,status=500}", "web", "", COUNTED),
    ("flask_http_request_duration_seconds_count{job=web,status=500}", "web", "", TIMED),
    ("celery_tasks_total{job=web,state=FAILURE}", "web", "", COUNTED),
    ("apiserver_request_total{job=apiserver,verb=GET,code=500}", "kube-apiserver", "", COUNTED),
    ("prometheus_http_requests_total{job=prometheus,handler=x,code=500}", "prometheus", "", COUNTED),
];

/// The labels of one series, in the form of the text exposition.
fn labels(series: &str) -> Labels {
    let (name, rest) = series.split_once('{').unwrap();
    let pairs = rest.trim_end_matches('}').split(',').map(|pair| pair.split_once('=').unwrap());
    Labels::new(pairs.chain([("__name__", name)]).collect())
}

fn uses(series: &str) -> Vec<SeriesUse> {
    Catalog::builtin().meaning(&labels(series), None).uses
}

#[test]
fn failed_requests_of_every_instrumentation_have_the_right_entity() {
    for (series, entity, peer, part) in FAILED_REQUESTS {
        let found = uses(series);
        assert_eq!(found.len(), 1, "{series}: {found:?}");
        let name = found[0].peer.as_ref().map_or("", |peer| &peer.name);
        assert_eq!((&*found[0].entity.name, name, found[0].part), (*entity, *peer, *part), "{series}");
    }
}

#[test]
fn what_is_no_request_of_a_service_has_none() {
    for series in [
        "envoy_cluster_upstream_rq_xx{pod=web-6d7f8b556-2cwmz,envoy_cluster_name=inbound|80||,envoy_response_code_class=5}",
        "apiserver_request_duration_seconds_count{job=apiserver,verb=WATCH}",
        "container_cpu_usage_seconds_total{pod=web-6d7f8b556-2cwmz,namespace=shop}",
        "redis_commands_duration_seconds_total{job=redis,cmd=blpop}",
        "promhttp_metric_handler_requests_total{job=web,code=500}",
    ] {
        assert_eq!(uses(series), [], "{series}");
    }
}
