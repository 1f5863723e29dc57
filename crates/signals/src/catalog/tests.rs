mod wild;

use wardroom_domain::{EntityKind, RelationKind, Severity, SignalKind, Timestamp};

use super::*;
use crate::builtin::BUILTIN;
use crate::meaning::{Part, SeriesUse};

fn meaning(pairs: &[(&str, &str)]) -> SeriesMeaning {
    Catalog::builtin().meaning(&Labels::of(pairs), None)
}

fn only_use(pairs: &[(&str, &str)]) -> SeriesUse {
    let meaning = meaning(pairs);
    assert_eq!(meaning.uses.len(), 1, "{pairs:?}: {meaning:?}");
    meaning.uses.into_iter().next().unwrap()
}

fn in_namespace(kind: EntityKind, namespace: &str, name: &str) -> Entity {
    Entity { namespace: namespace.into(), ..Entity::named(kind, name) }
}

#[test]
fn every_builtin_convention_is_read() {
    Tables::new(&[]).unwrap();
    let catalog = Catalog::builtin();
    assert_eq!(catalog.conventions().count(), BUILTIN.len());
    let ids: std::collections::BTreeSet<_> = catalog.conventions().map(|(id, _)| id).collect();
    assert_eq!(ids.len(), BUILTIN.len(), "ids are unique");
}

#[test]
fn a_users_convention_counts_before_the_built_in_ones() {
    let text = r#"
convention: mine
title: Mine
source: https://example.com
series:
  - metric: http_requests_total
    signal: other
    part: rate
    resource: mine
"#;
    let user = [UserConvention { name: "mine.yaml".into(), text: text.into() }];
    let catalog = Catalog::new(&EntityRules::default(), &user).unwrap();
    let meaning = catalog.meaning(&Labels::of(&[("__name__", "http_requests_total"), ("job", "a")]), None);
    assert_eq!((meaning.uses[0].kind, &*meaning.uses[0].resource), (SignalKind::Other, "mine"));
}

#[test]
fn an_error_names_the_file_the_series_and_the_reason() {
    let error = |series: &str| {
        let text = format!("convention: x\ntitle: x\nsource: x\nseries:\n  - {series}\n");
        let user = [UserConvention { name: "x.yaml".into(), text }];
        Catalog::new(&EntityRules::default(), &user).unwrap_err().to_string()
    };
    let missing = error("{ metric: m, part: value }");
    assert_eq!(missing, "convention x.yaml: series \"m\": field signal is missing; add one, or leave part out");
    assert!(error("{ metric: m, entity: { kind: node, name: \"{@who}\" } }").contains("known are @own"));
    assert!(error("{ metric: \"a*b*c\" }").contains("may have one `*`"));
    assert!(error("{ metric: m, colour: red }").contains("colour"));
}

#[test]
fn requests_of_one_histogram_are_one_family() {
    let of = |ending: &str, extra: (&str, &str)| {
        only_use(&[
            ("__name__", &format!("http_request_duration_seconds{ending}")),
            ("job", "cart"),
            ("instance", "a:1"),
            extra,
        ])
    };
    let parts = [of("_bucket", ("le", "0.5")), of("_sum", ("x", "")), of("_count", ("x", ""))];
    let family = "http_request_duration_seconds";
    assert!(parts.iter().all(|part| part.family == family && part.member == "a:1" && part.kind == SignalKind::Traffic));
    assert_eq!(parts[0].part, Part::Bucket(0.5, Outcome::Unknown));
    assert_eq!(parts[1].part, Part::DurationSum(Outcome::Unknown));
    let summary = only_use(&[("__name__", family), ("job", "cart"), ("quantile", "0.99")]);
    assert_eq!(summary.part, Part::Quantile(0.99));
}

#[test]
fn milliseconds_become_seconds() {
    let bucket = [("__name__", "http_server_duration_milliseconds_bucket"), ("service_name", "cart"), ("le", "250")];
    let found = only_use(&bucket);
    assert_eq!((found.part, found.scale), (Part::Bucket(0.25, Outcome::Unknown), 0.001));
    let dotted =
        only_use(&[("__name__", "http.server.duration_sum"), ("service.name", "cart"), ("http.status_code", "500")]);
    assert_eq!((dotted.part, dotted.scale), (Part::DurationSum(Outcome::Failed), 0.001));
}

#[test]
fn an_exporter_that_is_down_is_not_its_database() {
    let up = only_use(&[("__name__", "up"), ("job", "postgres"), ("instance", "db-1.example.com:9187")]);
    assert_eq!((up.kind, &*up.resource), (SignalKind::Availability, "exporter"));
    assert_eq!(up.entity, Entity::named(EntityKind::Database, "db-1.example.com"));
    let sidecar = [
        ("__name__", "up"),
        ("job", "kubernetes-pods"),
        ("namespace", "shop"),
        ("pod", "redis-0"),
        ("container", "redis-exporter"),
        ("instance", "10.0.0.1:9121"),
    ];
    let up = only_use(&sidecar);
    assert_eq!((up.entity, &*up.resource), (in_namespace(EntityKind::Cache, "shop", "redis"), "exporter"));
    let app = [("__name__", "up"), ("job", "kubernetes-pods"), ("namespace", "shop"), ("pod", "cart-6d7f8b556-2cwmz")];
    let up = only_use(&app);
    assert_eq!((up.entity, &*up.resource), (in_namespace(EntityKind::Workload, "shop", "cart"), ""));
    let inside = [("__name__", "pg_up"), ("job", "postgres"), ("instance", "db-1.example.com:9187")];
    assert_eq!(only_use(&inside).resource, "");
}

#[test]
fn the_process_of_an_exporter_is_internal() {
    let fds = |instance: &str| meaning(&[("__name__", "process_open_fds"), ("job", "x"), ("instance", instance)]);
    assert!(fds("vm-1:9100").is_internal && fds("vm-1:9100").uses.is_empty());
    assert_eq!(fds("vm-1:8080").uses.len(), 1);
}

#[test]
fn client_and_server_sides_are_apart() {
    let server = only_use(&[
        ("__name__", "http_server_request_duration_seconds_count"),
        ("service_name", "cart"),
        ("server_address", "cart.shop.svc"),
        ("http_response_status_code", "503"),
    ]);
    assert_eq!((server.peer, server.part), (None, Part::DurationCount(Outcome::Failed)));
    let client = only_use(&[
        ("__name__", "http_client_request_duration_seconds_count"),
        ("service_name", "cart"),
        ("k8s_namespace_name", "shop"),
        ("server_address", "invoices.billing.svc"),
        ("http_response_status_code", "429"),
        ("error_type", "429"),
    ]);
    assert_eq!(client.entity, in_namespace(EntityKind::Service, "shop", "cart"));
    assert_eq!(client.peer, Some(in_namespace(EntityKind::Service, "billing", "invoices")));
    assert_eq!(client.part, Part::DurationCount(Outcome::Failed));
    let cache = [
        ("__name__", "db_client_operation_duration_seconds_count"),
        ("service_name", "cart"),
        ("server_address", "redis.shop.svc"),
        ("db_system_name", "redis"),
    ];
    let meaning = meaning(&cache);
    assert_eq!(meaning.uses[0].peer, Some(in_namespace(EntityKind::Cache, "shop", "redis")));
    assert_eq!(meaning.relations[0].kind, RelationKind::Uses);
}

#[test]
fn a_mesh_names_both_ends() {
    let labels = |reporter: &'static str| {
        [
            ("__name__", "istio_requests_total"),
            ("reporter", reporter),
            ("source_workload", "web"),
            ("source_workload_namespace", "shop"),
            ("destination_workload", "cart"),
            ("destination_workload_namespace", "shop"),
            ("response_code", "200"),
            ("grpc_response_status", "14"),
            ("pod", "web-6d7f8b556-2cwmz"),
            ("namespace", "shop"),
        ]
    };
    let (web, cart) =
        (in_namespace(EntityKind::Service, "shop", "web"), in_namespace(EntityKind::Service, "shop", "cart"));
    let destination = only_use(&labels("destination"));
    assert_eq!((destination.entity, destination.peer), (cart.clone(), None));
    assert_eq!(destination.part, Part::Requests(Outcome::Failed));
    let source = only_use(&labels("source"));
    assert_eq!((source.entity, source.peer), (web, Some(cart)));
}

#[test]
fn a_proxys_backend_is_the_called_service() {
    let labels = [
        ("__name__", "haproxy_backend_http_responses_total"),
        ("job", "haproxy"),
        ("instance", "lb-1:8405"),
        ("proxy", "cart"),
        ("code", "5xx"),
    ];
    let meaning = meaning(&labels);
    assert_eq!(meaning.entity, Some(Entity::service("cart")));
    assert_eq!(meaning.uses[0].part, Part::Requests(Outcome::Failed));
    assert_eq!(meaning.relations[0].from, Entity::service("haproxy"));
    assert!(meaning.aliases.is_empty(), "the proxy's address is not the service's");
}

#[test]
fn the_processors_of_a_machine_are_one_ratio() {
    let cpu = |mode: &'static str| {
        meaning(&[
            ("__name__", "node_cpu_seconds_total"),
            ("job", "node"),
            ("instance", "vm-1:9100"),
            ("cpu", "0"),
            ("mode", mode),
        ])
    };
    let user = cpu("user").uses;
    assert_eq!(user.len(), 2);
    assert_eq!((user[0].part, user[0].scale, user[0].offset), (Part::Limit, 0.0, 1.0));
    assert_eq!((user[1].part, &user[1].family), (Part::Rate, &user[0].family));
    assert_eq!(cpu("system").uses.len(), 1);
    assert!(cpu("idle").uses.is_empty());
}

#[test]
fn names_that_no_convention_knows_are_read_by_their_shape() {
    let of = |name: &'static str, extra: (&'static str, &'static str)| {
        meaning(&[("__name__", name), ("job", "ledger"), ("instance", "a:1"), extra]).uses.into_iter().next()
    };
    let kind = |name, extra| of(name, extra).map(|found| (found.kind, found.part, found.family));
    let traffic = |part, family: &str| Some((SignalKind::Traffic, part, family.to_owned()));
    assert_eq!(
        kind("ledger_postings_requests_total", ("x", "y")),
        traffic(Part::Requests(Outcome::Unknown), "ledger_postings_requests")
    );
    assert_eq!(kind("ledger_jobs_total", ("result", "error")), traffic(Part::Requests(Outcome::Failed), "ledger_jobs"));
    assert_eq!(kind("ledger_requests_failed_total", ("x", "y")), traffic(Part::Failures, "ledger_requests"));
    assert_eq!(
        kind("ledger_call_latency_ms_bucket", ("le", "100")),
        traffic(Part::Bucket(0.1, Outcome::Unknown), "ledger_call_latency_ms")
    );
    assert_eq!(
        kind("ledger_job_duration_seconds_sum", ("x", "y")),
        traffic(Part::DurationSum(Outcome::Unknown), "ledger_job_duration_seconds")
    );
    assert_eq!(of("ledger_last_posting_timestamp_seconds", ("x", "y")).unwrap().kind, SignalKind::Freshness);
    assert_eq!(of("ledger_posting_queue_length", ("x", "y")).unwrap().kind, SignalKind::Queue);
    let errors = of("web_upstream_errors_total", ("upstream", "cart")).unwrap();
    assert_eq!((errors.peer, errors.part), (Some(Entity::service("cart")), Part::Failures));
    for name in
        ["ledger_cache_hits_total", "ledger_temperature", "ledger_jobs_created", "ledger_gc_duration_seconds_sum"]
    {
        assert_eq!(of(name, ("x", "y")), None, "{name}");
    }
}

#[test]
fn internal_histograms_are_no_services_latency() {
    for name in [
        "go_gc_duration_seconds_sum",
        "prometheus_tsdb_compaction_duration_seconds_bucket",
        "workqueue_queue_duration_seconds_sum",
    ] {
        let meaning = meaning(&[("__name__", name), ("job", "x"), ("instance", "a:1"), ("le", "1")]);
        assert!(meaning.uses.is_empty() && meaning.is_internal, "{name}");
    }
    let watch = [
        ("__name__", "apiserver_request_duration_seconds_bucket"),
        ("job", "apiserver"),
        ("verb", "WATCH"),
        ("le", "1"),
    ];
    assert!(meaning(&watch).uses.is_empty());
}

#[test]
fn a_version_is_of_what_announces_it() {
    let version = |pairs: &[(&str, &str)]| Catalog::builtin().version_of(&Labels::of(pairs));
    let app = [("__name__", "app_build_info"), ("job", "cart"), ("version", "1.2"), ("commit", "abc")];
    assert_eq!(version(&app), Some((Entity::service("cart"), "1.2+abc".into())));
    let target = [("__name__", "target_info"), ("job", "shop/cart"), ("service_version", "3")];
    assert_eq!(version(&target), Some((in_namespace(EntityKind::Service, "shop", "cart"), "3".into())));
    for name in ["redis_exporter_build_info", "python_info", "go_info", "cart_requests_total"] {
        assert_eq!(version(&[("__name__", name), ("job", "cart"), ("version", "1")]), None, "{name}");
    }
}

#[test]
fn what_logs_and_spans_are_about() {
    let catalog = Catalog::builtin();
    let resource = catalog.entity_of_resource(&Labels::of(&[
        ("service.name", "cart"),
        ("k8s.namespace.name", "shop"),
        ("k8s.pod.name", "cart-6d7f8b556-2cwmz"),
        ("host.name", "cart-6d7f8b556-2cwmz"),
        ("k8s.node.name", "n1"),
        ("service.instance.id", "i"),
    ]));
    let cart = in_namespace(EntityKind::Service, "shop", "cart");
    assert_eq!(resource.entity, Some(cart.clone()));
    assert_eq!((&*resource.instance, resource.aliases.as_slice()), ("i", &["cart-6d7f8b556-2cwmz".to_owned()][..]));
    assert_eq!(resource.relations.len(), 1);
    assert_eq!(resource.relations[0].to, Entity::named(EntityKind::Node, "n1"));
    let host = catalog.entity_of_resource(&Labels::of(&[("host.name", "db-1")]));
    assert_eq!(host.entity, Some(Entity::named(EntityKind::Node, "db-1")));
    let peer = |pairs: &[(&str, &str)]| catalog.peer_of_span(&Labels::of(pairs));
    assert_eq!(peer(&[("server.address", "10.0.0.1")]), Some(Entity::named(EntityKind::External, "10.0.0.1")));
    let queue = [("messaging.system", "kafka"), ("messaging.destination.name", "orders")];
    assert_eq!(peer(&queue), Some(Entity::named(EntityKind::Queue, "orders")));
    assert_eq!(peer(&[("http.route", "/")]), None);
}

#[test]
fn what_is_scraped_locally_has_entities_too() {
    let at = |name: &'static str, job: &'static str, port: &'static str| {
        only_use(&[("__name__", name), ("job", job), ("instance", port), ("mountpoint", "/")]).entity
    };
    let node = Entity::named(EntityKind::Node, "localhost");
    assert_eq!(at("node_memory_MemTotal_bytes", "node", "localhost:9100"), node);
    let disk = Entity::named(EntityKind::Filesystem, "localhost:root");
    assert_eq!(at("node_filesystem_avail_bytes", "node", "localhost:9100"), disk);
    assert_eq!(at("pg_up", "postgres", "localhost:9187"), Entity::named(EntityKind::Database, "postgres"));
    assert_eq!(at("up", "postgres", "localhost:9187").name, "postgres");
    assert_eq!(at("redis_up", "integrations/redis", "127.0.0.1:9121").name, "127.0.0.1:9121");
    let labels = [("__name__", "pg_up"), ("job", "postgres"), ("instance", "localhost:9187")];
    assert!(meaning(&labels).aliases.is_empty(), "no loopback address is another name");
}

#[test]
fn a_log_line_is_about_the_service_of_its_protocol_then_of_its_attributes() {
    let catalog = Catalog::builtin();
    let log = |service: &str, labels: &[(&str, &str)]| LogEntry {
        at: Timestamp::from_millis(0),
        severity: Severity::Info,
        message: String::new(),
        service: service.into(),
        labels: Labels::of(labels),
    };
    let shop = [("k8s.namespace.name", "shop"), ("service.name", "cart")];
    for (log, expected) in [
        (log("web", &[]), Entity::service("web")),
        (log("", &[]), Entity::service("")),
        (log("", &shop), Entity { namespace: "shop".into(), ..Entity::service("cart") }),
        (log("web", &shop), Entity { namespace: "shop".into(), ..Entity::service("web") }),
        (log("web", &[("zone", "a")]), Entity::service("web")),
        (log("", &[("zone", "a")]), Entity::service("")),
        (log("", &[("host.name", "db-1")]), Entity::named(EntityKind::Node, "db-1")),
    ] {
        assert_eq!(catalog.entity_of_log(&log), expected, "{log:?}");
        assert_eq!(catalog.resource_of_log(&log).entity, Some(expected), "{log:?}");
    }
}
